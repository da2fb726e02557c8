//! Canonical form of types, and its hash: equal hashes mean equal types, across modules (D4).
//!
//! Types are equal when their recursion groups have the same structure and they have the same place in them
//! (core spec, 3.1 "Recursive Types"). A group is written down as bytes – references inside the group by position,
//! references outside by the hash of their target – and hashed; a member's hash is over the group's hash and its place.

use crate::types::{FuncType, HeapType, RefType, TypeHash, ValType};
use alloc::boxed::Box;
use alloc::vec::Vec;
use wasmparser::{AbstractHeapType, CompositeInnerType, RecGroup, UnpackedIndex};

/// The module has something that is refused by name; what it is.
#[derive(Debug)]
pub(crate) struct Excluded(pub &'static str);

impl Excluded {
    /// Cannot come from a validated module.
    pub const UNKNOWN_TYPE: Excluded = Excluded("an unknown type");
    const HEAP_TYPE: Excluded = Excluded("a reference to a heap object");
}

const FUNC: u8 = 0x60;
const END: u8 = 0xff;
const RELATIVE: u8 = 1;
const ABSOLUTE: u8 = 2;

impl FuncType {
    /// A function type that stands alone, as almost all do: its own recursion group, which does not refer to itself.
    pub fn new(params: impl Into<Box<[ValType]>>, results: impl Into<Box<[ValType]>>) -> FuncType {
        let (params, results) = (params.into(), results.into());
        let mut bytes = Vec::with_capacity(8 + params.len() + results.len());
        bytes.push(FUNC);
        write_values(&mut bytes, &params);
        write_values(&mut bytes, &results);
        FuncType { params, results, hash: member_hash(&bytes, 1, 0) }
    }
}

fn write_values(bytes: &mut Vec<u8>, types: &[ValType]) {
    for ty in types {
        match ty {
            ValType::Ref(r) => {
                bytes.push(ref_code(r.nullable));
                write_heap(bytes, r.heap);
            }
            other => bytes.push(scalar_code(other)),
        }
    }
    bytes.push(END);
}

fn scalar_code(ty: &ValType) -> u8 {
    match ty {
        ValType::I32 => 0x7f,
        ValType::I64 => 0x7e,
        ValType::F32 => 0x7d,
        ValType::F64 => 0x7c,
        ValType::V128 => 0x7b,
        ValType::Ref(r) => ref_code(r.nullable),
    }
}

fn ref_code(nullable: bool) -> u8 {
    if nullable { 0x63 } else { 0x64 }
}

fn write_heap(bytes: &mut Vec<u8>, heap: HeapType) {
    match heap {
        HeapType::Func => bytes.push(0x70),
        HeapType::Extern => bytes.push(0x6f),
        HeapType::NoFunc => bytes.push(0x73),
        HeapType::NoExtern => bytes.push(0x72),
        HeapType::Concrete(hash) => {
            bytes.push(ABSOLUTE);
            bytes.extend_from_slice(&hash.0);
        }
    }
}

/// Hash of the member at `position` of a group of `len` types. `group` is the group written down, or, so that a large
/// group is gone through only once, the hash of that.
fn member_hash(group: &[u8], len: u32, position: u32) -> TypeHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(&position.to_le_bytes());
    hasher.update(group);
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    TypeHash(hash)
}

/// Adds the types of a recursion group, which starts at index `types.len()`.
pub(crate) fn add_group(types: &mut Vec<FuncType>, group: &RecGroup) -> Result<(), Excluded> {
    let start = types.len() as u32;
    let members = group.types();
    let len = members.len() as u32;
    let mut bytes = Vec::with_capacity(64);
    for member in group.types() {
        if !member.is_final || !member.supertype_idxs.is_empty() {
            return Err(Excluded("a type with subtypes"));
        }
        let CompositeInnerType::Func(func) = &member.composite_type.inner else {
            return Err(Excluded("a struct or array type"));
        };
        bytes.push(FUNC);
        for list in [func.params(), func.results()] {
            for ty in list {
                write_parsed(&mut bytes, types, start, *ty)?;
            }
            bytes.push(END);
        }
    }
    // A large group is hashed once; its members' hashes are over that hash.
    let digest;
    let body: &[u8] = if len > 1 {
        digest = *blake3::hash(&bytes).as_bytes();
        &digest
    } else {
        &bytes
    };
    let hashes: Vec<TypeHash> = (0..len).map(|i| member_hash(body, len, i)).collect();
    let resolve = |types: &[FuncType], index: u32| match index.checked_sub(start) {
        Some(i) => hashes.get(i as usize).copied().ok_or(Excluded::UNKNOWN_TYPE),
        None => types.get(index as usize).map(|t| t.hash).ok_or(Excluded::UNKNOWN_TYPE),
    };
    for (member, hash) in members.zip(&hashes) {
        let CompositeInnerType::Func(func) = &member.composite_type.inner else { continue };
        let convert = |list: &[wasmparser::ValType]| {
            // Knows its size, which a `Result` that is collected does not.
            let mut converted = Vec::with_capacity(list.len());
            for ty in list {
                converted.push(val_type(*ty, |i| resolve(types, i))?);
            }
            Ok::<Box<[ValType]>, Excluded>(converted.into())
        };
        let (params, results) = (convert(func.params())?, convert(func.results())?);
        types.push(FuncType { params, results, hash: *hash });
    }
    Ok(())
}

fn write_parsed(bytes: &mut Vec<u8>, types: &[FuncType], start: u32, ty: wasmparser::ValType) -> Result<(), Excluded> {
    if let wasmparser::ValType::Ref(r) = ty
        && let Some(index) = r.type_index()
    {
        let index = module_index(index.unpack(), start)?;
        bytes.push(ref_code(r.is_nullable()));
        match index.checked_sub(start) {
            Some(relative) => {
                bytes.push(RELATIVE);
                bytes.extend_from_slice(&relative.to_le_bytes());
            }
            None => {
                write_heap(bytes, HeapType::Concrete(types.get(index as usize).ok_or(Excluded::UNKNOWN_TYPE)?.hash))
            }
        }
        return Ok(());
    }
    match val_type(ty, |_| Err(Excluded::UNKNOWN_TYPE))? {
        ValType::Ref(r) => {
            bytes.push(ref_code(r.nullable));
            write_heap(bytes, r.heap);
        }
        other => bytes.push(scalar_code(&other)),
    }
    Ok(())
}

fn module_index(index: UnpackedIndex, start: u32) -> Result<u32, Excluded> {
    match index {
        UnpackedIndex::Module(i) => Ok(i),
        UnpackedIndex::RecGroup(i) => Ok(start + i),
        _ => Err(Excluded::UNKNOWN_TYPE),
    }
}

/// A value type in canonical form; `resolve` gives the hash for a type index.
pub(crate) fn val_type(
    ty: wasmparser::ValType,
    resolve: impl FnOnce(u32) -> Result<TypeHash, Excluded>,
) -> Result<ValType, Excluded> {
    Ok(match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        wasmparser::ValType::Ref(r) => ValType::Ref(ref_type(r, resolve)?),
    })
}

/// A reference type in canonical form; `resolve` gives the hash for a type index.
pub(crate) fn ref_type(
    ty: wasmparser::RefType,
    resolve: impl FnOnce(u32) -> Result<TypeHash, Excluded>,
) -> Result<RefType, Excluded> {
    let heap = match ty.heap_type() {
        wasmparser::HeapType::Abstract { shared: false, ty } => match ty {
            AbstractHeapType::Func => HeapType::Func,
            AbstractHeapType::Extern => HeapType::Extern,
            AbstractHeapType::NoFunc => HeapType::NoFunc,
            AbstractHeapType::NoExtern => HeapType::NoExtern,
            _ => return Err(Excluded::HEAP_TYPE),
        },
        wasmparser::HeapType::Concrete(UnpackedIndex::Module(i)) => HeapType::Concrete(resolve(i)?),
        _ => return Err(Excluded::HEAP_TYPE),
    };
    Ok(RefType { nullable: ty.is_nullable(), heap })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn equal_structures_have_equal_hashes() {
        let a = FuncType::new(vec![ValType::I32], vec![ValType::I64]);
        let b = FuncType::new(vec![ValType::I32], vec![ValType::I64]);
        assert_eq!(a.hash, b.hash);
    }

    #[test]
    fn params_and_results_are_told_apart() {
        let a = FuncType::new(vec![ValType::I32, ValType::I32], vec![]);
        let b = FuncType::new(vec![ValType::I32], vec![ValType::I32]);
        let c = FuncType::new(vec![], vec![ValType::I32, ValType::I32]);
        assert_ne!(a.hash, b.hash);
        assert_ne!(b.hash, c.hash);
        assert_ne!(a.hash, c.hash);
    }

    #[test]
    fn nullability_matters() {
        let a = FuncType::new(vec![ValType::Ref(RefType::FUNCREF)], vec![]);
        let b = FuncType::new(vec![ValType::Ref(RefType { nullable: false, heap: HeapType::Func })], vec![]);
        assert_ne!(a.hash, b.hash);
    }
}
