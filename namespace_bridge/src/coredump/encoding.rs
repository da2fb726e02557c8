//! Pieces of wasm's binary format (core spec, 5) that a dump consists of.

use alloc::vec::Vec;
use wasm_cell::types::{HeapType, MemoryType, ValType};

/// Section ids.
pub(super) const MEMORY: u8 = 5;
pub(super) const GLOBAL: u8 = 6;
pub(super) const DATA: u8 = 11;
const CUSTOM: u8 = 0;

/// A value that is not known (Coredump.md).
pub(super) const MISSING: u8 = 1;

/// Instructions.
pub(super) const I32_CONST: u8 = 0x41;
pub(super) const I64_CONST: u8 = 0x42;
const F32_CONST: u8 = 0x43;
const F64_CONST: u8 = 0x44;
const REF_NULL: u8 = 0xd0;
const V128_CONST: [u8; 2] = [0xfd, 0x0c];
pub(super) const END: u8 = 0x0b;

/// LEB128, unsigned.
pub(super) fn uint(mut n: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5);
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

/// LEB128, signed.
pub(super) fn int64(mut n: i64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5);
    while !(-0x40..0x40).contains(&n) {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8 & 0x7f);
    bytes
}

pub(super) fn int32(n: i32) -> Vec<u8> {
    int64(n.into())
}

/// Id and size of a section.
pub(super) fn section_head(id: u8, size: u64) -> Vec<u8> {
    let mut head = Vec::from([id]);
    head.extend(uint(size));
    head
}

/// Contents of a section under construction.
#[derive(Default)]
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    /// A whole section.
    pub(super) fn section(id: u8, contents: impl FnOnce(&mut Encoder)) -> Vec<u8> {
        let mut e = Encoder::default();
        contents(&mut e);
        let mut section = section_head(id, e.0.len() as u64);
        section.extend(e.0);
        section
    }

    /// A whole custom section.
    pub(super) fn custom_section(name: &str, contents: &dyn Fn(&mut Encoder)) -> Vec<u8> {
        Encoder::section(CUSTOM, |e| {
            e.name(name);
            contents(e);
        })
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    pub(super) fn uint(&mut self, n: u64) {
        self.0.extend(uint(n));
    }

    pub(super) fn name(&mut self, name: &str) {
        self.uint(name.len() as u64);
        self.0.extend(name.as_bytes());
    }

    pub(super) fn vec<T>(&mut self, items: &[T], encode: impl Fn(&mut Encoder, &T)) {
        self.uint(items.len() as u64);
        items.iter().for_each(|item| encode(self, item));
    }

    /// A memory type (core spec, 5.3.11, with the proposals on page sizes and threads).
    pub(super) fn memory_type(&mut self, ty: &MemoryType) {
        let custom_page = ty.page_size_log2 != 16;
        let flag = |set: bool, bit: u8| u8::from(set) << bit;
        self.byte(flag(ty.max.is_some(), 0) | flag(ty.shared, 1) | flag(ty.is64, 2) | flag(custom_page, 3));
        self.uint(ty.min);
        if let Some(max) = ty.max {
            self.uint(max);
        }
        if custom_page {
            self.uint(u64::from(ty.page_size_log2));
        }
    }

    /// An immutable global with these bits.
    pub(super) fn constant_global(&mut self, ty: ValType, bits: u128) {
        let code = value_type(ty);
        self.0.extend([code, 0]);
        match ty {
            ValType::I32 => {
                self.byte(I32_CONST);
                self.0.extend(int32(bits as u32 as i32));
            }
            ValType::I64 => {
                self.byte(I64_CONST);
                self.0.extend(int64(bits as u64 as i64));
            }
            ValType::F32 => {
                self.byte(F32_CONST);
                self.0.extend((bits as u32).to_le_bytes());
            }
            ValType::F64 => {
                self.byte(F64_CONST);
                self.0.extend((bits as u64).to_le_bytes());
            }
            ValType::V128 => {
                self.0.extend(V128_CONST);
                self.0.extend(bits.to_le_bytes());
            }
            ValType::Ref(_) => self.0.extend([REF_NULL, code]),
        }
        self.byte(END);
    }
}

/// Code of a value type. References are of two kinds in a dump, which has no types to refer to.
fn value_type(ty: ValType) -> u8 {
    match ty {
        ValType::I32 => 0x7f,
        ValType::I64 => 0x7e,
        ValType::F32 => 0x7d,
        ValType::F64 => 0x7c,
        ValType::V128 => 0x7b,
        ValType::Ref(r) if matches!(r.heap, HeapType::Func | HeapType::Concrete(_)) => 0x70,
        ValType::Ref(_) => 0x6f,
    }
}
