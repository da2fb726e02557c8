//! The text section: functions in index order, then the trap stubs; references are resolved when all is in place.

use crate::abi;
use crate::eh_frame::EhFrame;
use crate::error::CompileError;
use crate::function::{FunctionCode, Reference, Target};
use crate::metadata::{AddressMapping, DefinedFunc, ImageLayout};
use crate::module::check_limit;
use crate::object::DataReference;
use crate::trap::{TrapCode, TrapSite};
use crate::types::TypeId;
use alloc::vec::Vec;
use kernel_config::cell::{FUNCTION_ALIGN, TYPE_ID_OFFSET};
use kernel_config::limits::CELL_BYTES;

/// Between functions: `int3`.
const PADDING: u8 = 0xcc;

/// Bytes of a trap stub.
const STUB_SIZE: usize = 11;

/// A text section under construction.
pub(crate) struct Text {
    /// Machine code.
    pub bytes: Vec<u8>,
    /// Trap sites.
    pub traps: Vec<TrapSite>,
    /// Address map.
    pub addresses: Vec<AddressMapping>,
    /// Calls in whose place code stands.
    pub inlined: Vec<AddressMapping>,
    /// Unwind info.
    pub eh_frame: EhFrame,
    references: Vec<Reference>,
    /// By trap code: offset of its stub, once it has one; `Some(0)` until it is placed.
    stubs: [Option<u32>; TrapCode::ALL.len() + 1],
}

impl Text {
    /// An empty section; `capacity` bytes of code are expected.
    pub fn new(capacity: usize) -> Text {
        Text {
            bytes: Vec::with_capacity(capacity),
            traps: Vec::new(),
            addresses: Vec::new(),
            inlined: Vec::new(),
            eh_frame: EhFrame::new(),
            references: Vec::new(),
            stubs: [None; TrapCode::ALL.len() + 1],
        }
    }

    /// Adds the next function, with its type id in front. Gives offset and size of its code.
    pub fn append(&mut self, id: TypeId, function: &FunctionCode) -> Result<(u32, u32), CompileError> {
        let id_bytes = TYPE_ID_OFFSET.unsigned_abs() as usize;
        let offset = function.placement.first_from(self.bytes.len() + id_bytes);
        check_limit("bytes of machine code", offset + function.code.len(), CELL_BYTES)?;
        self.bytes.resize(offset - id_bytes, PADDING);
        self.bytes.extend_from_slice(&id.0.to_le_bytes());
        self.bytes.extend_from_slice(&function.code);

        let base = offset as u32;
        let size = function.code.len() as u32;
        match function.rows.is_empty() {
            true => self.eh_frame.add_function(base, size, function.popped, &function.unwind),
            false => self.eh_frame.add_rows(base, size, &function.rows),
        }
        for r in &function.references {
            if let Target::TrapStub(code) = r.target {
                self.stubs[code as usize].get_or_insert(0);
            }
            self.references.push(Reference { offset: base + r.offset, ..*r });
        }
        self.traps.extend(function.traps.iter().map(|t| TrapSite { code_offset: base + t.code_offset, ..*t }));
        let placed = |a: &AddressMapping| AddressMapping { code_offset: base + a.code_offset, ..*a };
        self.addresses.extend(function.addresses.iter().map(placed));
        self.inlined.extend(function.inlined.iter().map(placed));
        Ok((base, size))
    }

    /// Adds the stubs of all trap codes in use: `mov eax, code; jmp [data block + raise]`.
    pub fn append_stubs(&mut self) {
        let first = self.bytes.len().next_multiple_of(FUNCTION_ALIGN);
        for code in TrapCode::ALL {
            if self.stubs[code as usize].is_none() {
                continue;
            }
            let offset = self.bytes.len().next_multiple_of(FUNCTION_ALIGN);
            self.bytes.resize(offset, PADDING);
            self.stubs[code as usize] = Some(offset as u32);
            self.bytes.push(0xb8);
            self.bytes.extend_from_slice(&(code as u32).to_le_bytes());
            self.bytes.extend_from_slice(&[0xff, 0x25]);
            self.references.push(Reference {
                offset: self.bytes.len() as u32,
                addend: abi::HEADER_RAISE - 4,
                target: Target::Data,
            });
            self.bytes.extend_from_slice(&[0; 4]);
            debug_assert_eq!(self.bytes.len(), offset + STUB_SIZE);
        }
        if self.bytes.len() > first {
            self.eh_frame.add_frameless(first as u32, (self.bytes.len() - first) as u32);
        }
    }

    /// The stubs: code, offset and size, by offset.
    pub fn stubs(&self) -> impl Iterator<Item = (TrapCode, u32, u32)> {
        TrapCode::ALL.into_iter().filter_map(|c| self.stubs[c as usize].map(|offset| (c, offset, STUB_SIZE as u32)))
    }

    /// Writes every reference, for the distances in `image`. Gives those to the data block.
    pub fn resolve(&mut self, imported: u32, funcs: &[DefinedFunc], image: &ImageLayout) -> Vec<DataReference> {
        let mut data_references = Vec::new();
        for r in &self.references {
            let target = match r.target {
                Target::Func(index) => funcs.get((index - imported) as usize).map_or(0, |f| f.offset),
                Target::Data => {
                    data_references.push(DataReference { text_offset: r.offset, addend: r.addend });
                    image.data_offset
                }
                Target::TrapStub(code) => self.stubs[code as usize].unwrap_or(0),
            };
            let value = (target as i32).wrapping_add(r.addend).wrapping_sub(r.offset as i32);
            let at = r.offset as usize;
            self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        data_references
    }
}
