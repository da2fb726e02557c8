//! Who called a host function.
//!
//! A host function copies from and to its caller's memory; it cannot borrow the bytes. A `&mut [u8]` would have to be the only
//! way to them while it lives, and nothing sees to that: the closure may hold handles of functions of the cell and call them, hold
//! the memory itself (`Arc<LinearMemory>`), and another task may be inside the cell, for handles are `Sync`. The first two could
//! be refused while a borrow lasts; the third needs the gate of a state domain.

use crate::function::Function;
use crate::instance::InstanceRecord;
use crate::linear_memory::LinearMemory;
use crate::typed::{EntryOwner, Func};
use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU8, Ordering};
use wasm_cell::metadata::ExportItem;

/// The cell that called a host function: its name, its memories, what it exports. Valid during the call.
#[derive(Debug)]
pub struct Caller {
    importer: *const InstanceRecord,
}

/// An access of a host function to its caller's memory failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuestMemoryError {
    /// The caller has no memory of this index, or is no cell.
    #[error("the caller has no memory {0}")]
    NoMemory(u32),
    /// The bytes leave the memory: the guest gave a bad pointer or length.
    #[error("{len} bytes at {address:#x} leave the caller's memory of {size} bytes")]
    OutOfBounds {
        /// First byte.
        address: u64,
        /// Number of bytes.
        len: u64,
        /// Size of the memory in bytes.
        size: u64,
    },
    /// No memory on the host's side for a copy of this many bytes.
    #[error("out of memory for a copy of {0} bytes")]
    OutOfMemory(u64),
}

impl Caller {
    /// The caller with this record; null for a caller that is no cell.
    pub(crate) fn new(importer: *const InstanceRecord) -> Caller {
        Caller { importer }
    }

    /// The calling instance; `None` when native code called the function by a thunk without an importer.
    pub fn instance(&self) -> Option<&InstanceRecord> {
        // SAFETY: the thunk's maker promised that the record is valid while the thunk may be called, and this value
        // only exists during such a call.
        unsafe { self.importer.as_ref() }
    }

    /// Name of the calling cell.
    pub fn cell(&self) -> Option<&str> {
        self.instance().map(|i| i.cell())
    }

    /// A memory of the caller by index; 0 is the one most modules have.
    pub fn memory(&self, index: u32) -> Option<&Arc<LinearMemory>> {
        self.instance()?.memory(index)
    }

    /// Copies bytes out of the caller's memory 0.
    pub fn read(&self, address: u64, to: &mut [u8]) -> Result<(), GuestMemoryError> {
        let (memory, from) = self.range(address, to.len() as u64)?;
        if memory.is_shared() {
            for (i, byte) in to.iter_mut().enumerate() {
                // SAFETY: within the memory (checked); other tasks may write it, so it is read as atomics.
                *byte = unsafe { AtomicU8::from_ptr(from.add(i)) }.load(Ordering::Relaxed);
            }
        } else {
            // SAFETY: within the memory (checked), which never unmaps while it lives; only its own task uses a memory that
            // is not shared. A linear memory does not overlap native objects.
            unsafe { core::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        }
        Ok(())
    }

    /// Copies bytes into the caller's memory 0. Nothing is written when they do not fit.
    pub fn write(&self, address: u64, from: &[u8]) -> Result<(), GuestMemoryError> {
        let (memory, to) = self.range(address, from.len() as u64)?;
        if memory.is_shared() {
            for (i, byte) in from.iter().enumerate() {
                // SAFETY: as in `read`.
                unsafe { AtomicU8::from_ptr(to.add(i)) }.store(*byte, Ordering::Relaxed);
            }
        } else {
            // SAFETY: as in `read`.
            unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        }
        Ok(())
    }

    /// A copy of `len` bytes of the caller's memory 0.
    pub fn read_vec(&self, address: u64, len: u64) -> Result<Vec<u8>, GuestMemoryError> {
        // The length is the guest's word: check it before anything is allocated.
        self.range(address, len)?;
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(len as usize).map_err(|_| GuestMemoryError::OutOfMemory(len))?;
        bytes.resize(len as usize, 0);
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads bytes of a fixed number, for `u32::from_le_bytes` and the like.
    pub fn read_array<const N: usize>(&self, address: u64) -> Result<[u8; N], GuestMemoryError> {
        let mut bytes = [0; N];
        self.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// A function that the caller exports, to call back. `None` when it exports none of this name.
    pub fn func(&self, name: &str) -> Option<Func> {
        let instance = self.instance()?;
        let metadata = instance.metadata();
        let index = metadata.exports.iter().find_map(|e| match e.item {
            ExportItem::Func(f) if e.name == name => Some(f),
            _ => None,
        })?;
        let (entry, owner): (usize, EntryOwner) = match instance.imported_func(index) {
            None => (instance.func_address(index)?, instance.image().clone()),
            Some(Function::Wasm(f)) => (f.entry, f.block.clone()),
            Some(Function::Native(f)) => (f.address(), f.clone()),
            Some(Function::Host(f)) => {
                let thunk = f.thunk().ok()?;
                (thunk.address(), thunk)
            }
        };
        // SAFETY: the function's address and type; the image, entries, definition or thunk keep it mapped.
        Some(unsafe { Func::new(entry, Arc::new(metadata.func_type(index)?.clone()), owner) })
    }

    /// Address of `len` bytes of memory 0.
    fn range(&self, address: u64, len: u64) -> Result<(&LinearMemory, *mut u8), GuestMemoryError> {
        let memory = self.memory(0).ok_or(GuestMemoryError::NoMemory(0))?;
        let out = || GuestMemoryError::OutOfBounds { address, len, size: memory.bytes() };
        memory.range(address, len).map(|p| (&**memory, p)).ok_or_else(out)
    }
}
