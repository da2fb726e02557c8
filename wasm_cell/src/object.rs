//! The compiler's product: machine code, read-only data, unwind info, symbols and metadata of one module (D2).
//!
//! [`CellObject`] is the model; [`Loadable`] is the part of it that a loader needs. The JIT path hands it to the loader as it is; `CellObject::to_elf` and
//! `CellObject::from_elf` turn it into a relocatable ELF64 object and back.

use crate::header::ObjectHeader;
use crate::metadata::Metadata;
use crate::reuse::ReuseTable;
use alloc::{borrow::Cow, string::String, vec::Vec};

/// A symbol of the text section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbol {
    /// Name: from the name section, else the export name, else `wasm[N]`; unique in the object.
    pub name: String,
    /// Offset in the text section.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Visible to other objects (exported).
    pub global: bool,
}

/// A RIP-relative reference of the text section to the data block or rodata, already resolved in `text` for the
/// distances of [`crate::metadata::ImageLayout`]; kept so that other linkers may lay the sections out differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataReference {
    /// Offset of the 4-byte field in the text section.
    pub text_offset: u32,
    /// Offset in the data block that it refers to, minus 4 for the end of the field (the ELF addend of `R_X86_64_PC32`).
    pub addend: i32,
}

/// A compiled module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CellObject {
    /// What it was compiled for.
    pub header: ObjectHeader,
    /// Machine code: position-independent, no relocation left, no byte specific to an instance.
    pub text: Vec<u8>,
    /// Read-only data: segment bytes, then `.eh_frame` at `metadata.image.eh_frame_offset`.
    pub rodata: Vec<u8>,
    /// Symbols of `text`, by offset.
    pub symbols: Vec<Symbol>,
    /// References from text to data.
    pub data_references: Vec<DataReference>,
    /// Everything else.
    pub metadata: Metadata,
    /// What a later version of the module needs to take over the code of functions that did not change; empty when it is
    /// not to.
    pub reuse: ReuseTable,
}

/// What a loader needs of an object. Code and read-only data may still lie in the object's file, so loading copies them once.
#[derive(Clone, Debug)]
pub struct Loadable<'a> {
    /// As [`CellObject::header`].
    pub header: ObjectHeader,
    /// As [`CellObject::text`].
    pub text: Cow<'a, [u8]>,
    /// As [`CellObject::rodata`].
    pub rodata: Cow<'a, [u8]>,
    /// As [`CellObject::metadata`].
    pub metadata: Metadata,
    /// As [`CellObject::reuse`].
    pub reuse: ReuseTable,
}

impl From<CellObject> for Loadable<'static> {
    fn from(object: CellObject) -> Self {
        let CellObject { header, text, rodata, metadata, reuse, .. } = object;
        Loadable { header, text: text.into(), rodata: rodata.into(), metadata, reuse }
    }
}
