//! Typed descriptions of exports: section `.planks.exports`, written by crate `cell_export` and `cell_export.h`.
//!
//! A record is `{ u32 magic, u32 bytes, u64 function, u16 name, u16 signature, text }`, little-endian, 8-aligned: `bytes` is the
//! size of the record, `function` a relocation to the function, `name` and `signature` the lengths of the two texts that
//! follow each other, each with a terminating zero or none. Signatures read like C: `i32(i32,i64)`, `void()`,
//! `i32,f64(f32)`.
#![deny(unsafe_code)]

use super::error::NativeError;
use super::object::{Kind, NativeObject, Relocation};
use alloc::{format, string::String, string::ToString, vec::Vec};
use goblin::elf::reloc::R_X86_64_64;
use hashbrown::HashSet;
use kernel_config::limits;
use wasm_cell::types::{FuncType, RefType, ValType};

/// "PKX1"
const MAGIC: u32 = u32::from_le_bytes(*b"PKX1");
/// Bytes before the texts.
const HEAD: usize = 20;
/// Offset of the function's address in a record.
const FUNCTION: usize = 8;

/// A described export.
#[derive(Debug)]
pub(super) struct Description {
    pub name: String,
    pub ty: FuncType,
    /// What gives its address.
    pub function: Relocation,
}

/// Every description of an object.
pub(super) fn descriptions(object: &NativeObject) -> Result<Vec<Description>, NativeError> {
    let mut found = Vec::new();
    let mut names = HashSet::new();
    for (index, section) in object.sections.iter().enumerate().filter(|(_, s)| s.kind == Kind::Exports) {
        let bytes = object.section_bytes(index);
        let mut at = 0;
        while at < bytes.len() {
            // Assemblers pad between records.
            if bytes.get(at..at + 4).is_none_or(|w| w == [0; 4]) && bytes[at..].iter().take(4).all(|b| *b == 0) {
                at += 4;
                continue;
            }
            let bad = |reason: &str| NativeError::Export { index: found.len(), reason: reason.into() };
            let (size, name, signature) = record(&bytes[at..]).ok_or_else(|| bad("the record is malformed"))?;
            let ty = parse_signature(signature).map_err(|why| bad(&why))?;
            let function = section.relocations.iter().find(|r| r.offset == at + FUNCTION && r.typ == R_X86_64_64);
            let function = *function.ok_or_else(|| bad("it names no function"))?;
            if name.is_empty() || name.len() > limits::NAME_BYTES || !names.insert(name) {
                return Err(bad(&format!("`{name}` is no name, or is described twice")));
            }
            found.push(Description { name: name.to_string(), ty, function });
            at += size;
        }
    }
    Ok(found)
}

/// Size, name and signature of the record at the start of some bytes.
fn record(bytes: &[u8]) -> Option<(usize, &str, &str)> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk::<4>()?));
    let half = |at: usize| Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk::<2>()?)));
    let size = word(4)? as usize;
    if word(0)? != MAGIC || size < HEAD || !size.is_multiple_of(4) {
        return None;
    }
    let text = bytes.get(HEAD..size)?;
    let (name, signature) = (half(16)?, half(18)?);
    let name_text = core::str::from_utf8(text.get(..name)?).ok()?;
    let signature_text = core::str::from_utf8(text.get(name..name.checked_add(signature)?)?).ok()?;
    Some((size, name_text.trim_end_matches('\0'), signature_text.trim_end_matches('\0')))
}

/// `result(parameters)`.
pub(super) fn parse_signature(text: &str) -> Result<FuncType, String> {
    let wrong = || format!("`{text}` is no signature: write `i32(i32,i64)`, `void()` or `i32,f64(f32)`");
    let (results, rest) = text.split_once('(').ok_or_else(wrong)?;
    let params = rest.trim_end().strip_suffix(')').ok_or_else(wrong)?;
    let list = |text: &str| -> Result<Vec<ValType>, String> {
        match text.trim() {
            "" | "void" => Ok(Vec::new()),
            types => types.split(',').map(|t| value_type(t.trim()).ok_or_else(wrong)).collect(),
        }
    };
    let (params, results) = (list(params)?, list(results)?);
    if params.len() > limits::PARAMS || results.len() > limits::RESULTS {
        return Err(format!("more parameters or results than a wasm function may have: {}", params.len()));
    }
    Ok(FuncType::new(params, results))
}

fn value_type(text: &str) -> Option<ValType> {
    Some(match text {
        "i32" => ValType::I32,
        "i64" => ValType::I64,
        "f32" => ValType::F32,
        "f64" => ValType::F64,
        "v128" => ValType::V128,
        "funcref" => ValType::Ref(RefType::FUNCREF),
        "externref" => ValType::Ref(RefType::EXTERNREF),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_read_like_c() {
        assert_eq!(
            parse_signature("i32(i32, i64)").unwrap(),
            FuncType::new([ValType::I32, ValType::I64], [ValType::I32])
        );
        assert_eq!(parse_signature("void(void)").unwrap(), FuncType::new([], []));
        assert_eq!(parse_signature("i32,f64()").unwrap(), FuncType::new([], [ValType::I32, ValType::F64]));
        for wrong in ["", "i32", "i32(", "(i33)", "i32(i32))", "i32(,)"] {
            assert!(parse_signature(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn records_that_leave_their_section_are_refused() {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC.to_le_bytes());
        bytes.extend(32u32.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend([3u8, 0, 6, 0]);
        bytes.extend(b"addi32()\0\0\0\0");
        assert_eq!(record(&bytes), Some((32, "add", "i32()")));
        for cut in 0..bytes.len() {
            assert_eq!(record(&bytes[..cut]), None);
        }
        bytes[18] = 200;
        assert_eq!(record(&bytes), None);
    }
}
