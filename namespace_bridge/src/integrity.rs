//! Whether what must not change has changed: code, read-only data, metadata, and the linker's words in the data block.
//!
//! A [`Fingerprint`] (two 64-bit hashes) is taken when a module is made. [`InstanceRecord::verify`] compares it with what is mapped now, and the
//! linker's words with what the linker would write again; it may be called at any time, for a cell or, as
//! [`CrateNamespace::verify`], for all. A module in whose code an exception happened that nothing explains is *suspect*: its
//! images are not used again, the cache of compiled modules forgets it, and its next instance is verified before it
//! runs. A damaged cell is unloaded, and loaded again from its source.
//!
//! Not covered: what the cell itself may change (memories, tables, mutable globals), and the runtime's own structures.

use crate::builtins;
use crate::code::{CellModule, LoadedCode};
use crate::error::LoadError;
use crate::function::Function;
use crate::image::CellImage;
use crate::instance::InstanceRecord;
use crate::namespace::CrateNamespace;
use alloc::{sync::Arc, vec::Vec};
use core::hash::BuildHasher;
use core::sync::atomic::Ordering;
use hashbrown::DefaultHashBuilder;
use wasm_cell::{Loadable, abi, metadata::Metadata};

/// What has changed. Unload the cell, and load it again from its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// Text, entries, gate stubs or read-only data.
    #[error("its code or read-only data have changed since it was loaded: load it again from its source")]
    Code,
    /// Metadata, or the table of its unwind info.
    #[error("its metadata have changed since it was loaded: load it again from its source")]
    Metadata,
    /// A word of the data block that only the linker writes.
    #[error("the linker's word at offset {0:#x} of its data block has changed: load it again")]
    DataBlock(u32),
}

/// What a module's bytes were when it was made. Hashes of 64 bits: they find damage, not deceit. Who can write to code has no need
/// to deceive.
#[derive(Debug, Clone)]
pub(crate) struct Fingerprint {
    hasher: DefaultHashBuilder,
    code: u64,
    metadata: u64,
}

impl Fingerprint {
    pub(crate) fn new(object: &Loadable<'_>, entries: &[u8]) -> Fingerprint {
        let hasher = DefaultHashBuilder::default();
        let code = hasher.hash_one((&*object.text, entries, &*object.rodata));
        Fingerprint { code, metadata: hasher.hash_one(&object.metadata), hasher }
    }

    /// Compares with the metadata as they are.
    pub(crate) fn check_metadata(&self, metadata: &Metadata) -> Result<(), Damage> {
        if self.hasher.hash_one(metadata) == self.metadata { Ok(()) } else { Err(Damage::Metadata) }
    }

    fn check_code(&self, text: &[u8], entries: &[u8], rodata: &[u8]) -> Result<(), Damage> {
        if self.hasher.hash_one((text, entries, rodata)) == self.code { Ok(()) } else { Err(Damage::Code) }
    }
}

/// Verifies a suspect module and a fresh image of it, before anything runs in that.
pub(crate) fn before_use(cell: &Arc<str>, module: &CellModule, image: &CellImage) -> Result<(), LoadError> {
    if !module.is_suspect() {
        return Ok(());
    }
    let intact = module.fingerprint().check_metadata(module.metadata()).and_then(|()| image.check_code(module));
    intact.map_err(|source| LoadError::Damaged { cell: cell.clone(), source })
}

impl CellImage {
    /// Compares code and read-only data with the module's.
    pub(crate) fn check_code(&self, module: &CellModule) -> Result<(), Damage> {
        let (text, entries, rodata) = (self.text(), self.entry_code(), self.rodata());
        // SAFETY: parts of the image, mapped readable while it lives, written by nobody.
        let slice = |r: core::ops::Range<usize>| unsafe { core::slice::from_raw_parts(r.start as *const u8, r.len()) };
        module.fingerprint().check_code(slice(text), slice(entries), slice(rodata))
    }
}

impl LoadedCode {
    /// Whether the mapped code differs from the module's, or the linker's words from what it wrote. Neither allocates nor
    /// locks: for exception handlers.
    pub(crate) fn is_damaged(&self) -> bool {
        let instance = self.instance.load(Ordering::Acquire);
        // SAFETY: the record clears the pointer before it goes, and its end waits until no task is inside. A word that an
        // earlier call left on the stack may name a cell that another task ends right now; the exception this is about is
        // fatal unless some cell explains it, so that is the lesser risk.
        let linked = unsafe { instance.as_ref() }.is_none_or(|i| i.check_linkage().is_ok());
        !linked || self.text_is_damaged()
    }

    fn text_is_damaged(&self) -> bool {
        let layout = self.module().layout();
        let start = self.text().start - layout.text;
        let image = &self.metadata().image;
        let part = |offset: usize, size: usize| {
            // SAFETY: the code is registered, so its image is mapped, and these are the parts that `CellImage` says.
            unsafe { core::slice::from_raw_parts((start + offset) as *const u8, size) }
        };
        let entries = part(layout.first_entry, layout.entry_code().len());
        let rodata = part(layout.text + image.rodata_offset as usize, image.rodata_size as usize);
        self.module().fingerprint().check_code(part(layout.text, self.text().len()), entries, rodata).is_err()
    }
}

impl InstanceRecord {
    /// Whether code, read-only data, metadata and linkage are what they were when the cell was loaded. Reads all of them.
    pub fn verify(&self) -> Result<(), Damage> {
        let module = self.code().module();
        let result = (|| {
            module.fingerprint().check_metadata(self.metadata())?;
            self.image().check_code(module)?;
            if module.unwind_table().is_some_and(|t| !t.is_intact()) {
                return Err(Damage::Metadata);
            }
            self.check_linkage()
        })();
        if result.is_err() {
            module.suspect();
        }
        result
    }

    /// Compares the linker's words with what it would write.
    fn check_linkage(&self) -> Result<(), Damage> {
        let (m, image) = (self.metadata(), self.image());
        let layout = &m.layout;
        let check = |offset: u32, right: usize| match image.read_word(offset) {
            word if word == right => Ok(()),
            _ => Err(Damage::DataBlock(offset)),
        };
        check(abi::HEADER_INSTANCE as u32, core::ptr::from_ref(self) as usize)?;
        check(abi::HEADER_RAISE as u32, crate::call::raise_routine())?;
        for (offset, memory) in layout.memories.iter().zip(self.memories()) {
            check(offset + abi::RECORD_BASE as u32, memory.base())?;
            check(offset + abi::RECORD_DESCRIPTOR as u32, memory.descriptor_address())?;
        }
        for (offset, table) in layout.tables.iter().zip(self.tables()) {
            check(offset + abi::RECORD_BASE as u32, table.base())?;
            check(offset + abi::RECORD_DESCRIPTOR as u32, table.descriptor_address())?;
        }
        for (k, builtin) in m.builtins.iter().enumerate() {
            check(layout.builtin_slots + 8 * k as u32, builtins::address_of(*builtin))?;
        }
        let mut thunks = self.thunks.get().into_iter().flat_map(|t| &t.calls);
        for (i, slot) in (0..).zip(&layout.func_import_slots) {
            let right = match self.imported_func(i) {
                Some(Function::Host(_)) => thunks.next().map(|t| t.address()),
                Some(function) => function.entry(),
                None => None,
            };
            check(*slot, right.unwrap_or(0))?;
        }
        for (i, (global, offset)) in m.globals.iter().zip(&layout.globals).enumerate() {
            if i < m.imported_globals as usize
                && global.ty.mutable
                && let Some(imported) = self.global(i as u32)
            {
                check(*offset, imported.address())?;
            }
        }
        let escaped = self.escaped_entries.get().into_iter().flatten();
        layout.escaped_slots.iter().zip(escaped).try_for_each(|(slot, entry)| check(*slot, *entry))
    }
}

impl CrateNamespace {
    /// Verifies every wasm cell of this namespace, without its parents; returns those that are damaged.
    pub fn verify(&self) -> Vec<(Arc<str>, Damage)> {
        let mut damaged = Vec::new();
        let mut instances = Vec::new();
        self.for_each_crate(false, |name, cell| {
            instances.extend(cell.instance().map(|i| (name.clone(), i)));
            true
        });
        for (name, instance) in instances {
            damaged.extend(instance.verify().err().map(|damage| (name, damage)));
        }
        damaged
    }
}
