//! Globals that cells share: a type and the address of 16 bytes.
//!
//! A global a module defines lies in its data block; one the embedder defines has storage of its own. Whoever holds a
//! [`Global`] holds a share of that storage.

use crate::domain::StateDomain;
use crate::image::CellImage;
use crate::val::Val;
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::any::Any;
use core::cell::UnsafeCell;
use spin::Mutex;
use wasm_cell::types::{GlobalType, ValType};

/// The storage of one global.
#[repr(C, align(16))]
struct Cell(UnsafeCell<u128>);

// SAFETY: access goes through raw addresses; wasm code of one state domain runs one task at a time (D7), and the
// embedder's accessors read and write words only.
unsafe impl Sync for Cell {}

/// What keeps the value's place.
#[expect(dead_code, reason = "held, not read")]
enum Storage {
    /// In the data block of a cell.
    Image(Arc<CellImage>),
    /// Its own.
    Own(Box<Cell>),
}

/// A global.
pub struct Global {
    ty: GlobalType,
    address: usize,
    storage: Storage,
    /// Things that must live as long as the global.
    keep: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
    domain: StateDomain,
}

impl Global {
    /// A global of the embedder with this value (the bits of the type, zero-extended).
    pub(crate) fn new(ty: GlobalType, bits: u128) -> Arc<Global> {
        let cell = Box::new(Cell(UnsafeCell::new(bits)));
        let address = cell.0.get() as usize;
        let (keep, domain) = (Mutex::new(Vec::new()), StateDomain::new());
        Arc::new(Global { ty, address, storage: Storage::Own(cell), keep, domain })
    }

    /// A global at an address in a cell's data block.
    pub(crate) fn in_image(ty: GlobalType, address: usize, image: Arc<CellImage>) -> Arc<Global> {
        let (keep, domain) = (Mutex::new(Vec::new()), StateDomain::new());
        Arc::new(Global { ty, address, storage: Storage::Image(image), keep, domain })
    }

    /// Its type.
    pub fn ty(&self) -> GlobalType {
        self.ty
    }

    /// Address of the value. Constant while the global lives.
    pub fn address(&self) -> usize {
        self.address
    }

    /// Whether the value lies in a cell's data block.
    pub fn is_in_cell(&self) -> bool {
        matches!(self.storage, Storage::Image(_))
    }

    /// The value's bits, zero-extended to 128.
    pub fn bits(&self) -> u128 {
        // SAFETY: `address` is 16 aligned bytes of storage that this object holds a share of.
        unsafe { read_bits(self.address, self.ty.content) }
    }

    /// The value.
    pub fn value(&self) -> Val {
        // SAFETY: the bits are a value of the type; a function that a global of the embedder's or an exported one holds
        // has escaped.
        unsafe { Val::from_raw(self.bits(), &self.ty.content) }
    }

    /// Writes the value's bits; `false` when the global is immutable.
    ///
    /// # Safety
    /// `bits` must be a value of the type; a reference must live as long as it stands here.
    pub unsafe fn set_bits(&self, bits: u128) -> bool {
        if self.ty.mutable {
            // SAFETY: as in `bits`; the storage is writable.
            unsafe { write_bits(self.address, self.ty.content, bits) };
        }
        self.ty.mutable
    }

    /// The state domain that it belongs to.
    pub(crate) fn domain(&self) -> &StateDomain {
        &self.domain
    }

    /// Keeps something alive as long as the global.
    pub(crate) fn keep(&self, what: Arc<dyn Any + Send + Sync>) {
        self.keep.lock().push(what);
    }

    /// Lets go of what [`Global::keep`] collected.
    pub(crate) fn release_kept(&self) {
        let kept = core::mem::take(&mut *self.keep.lock());
        drop(kept);
    }
}

/// Reads the bits of a value of this type.
///
/// # Safety
/// `address` must be readable for the type's size and aligned to 16.
pub(crate) unsafe fn read_bits(address: usize, ty: ValType) -> u128 {
    // SAFETY: the caller's promise; volatile because compiled code writes it behind the compiler's back.
    unsafe {
        match ty {
            ValType::I32 | ValType::F32 => (address as *const u32).read_volatile().into(),
            ValType::V128 => (address as *const u128).read_volatile(),
            _ => (address as *const u64).read_volatile().into(),
        }
    }
}

/// Writes the bits of a value of this type.
///
/// # Safety
/// `address` must be writable for the type's size and aligned to 16.
pub(crate) unsafe fn write_bits(address: usize, ty: ValType, bits: u128) {
    // SAFETY: the caller's promise.
    unsafe {
        match ty {
            ValType::I32 | ValType::F32 => (address as *mut u32).write_volatile(bits as u32),
            ValType::V128 => (address as *mut u128).write_volatile(bits),
            _ => (address as *mut u64).write_volatile(bits as u64),
        }
    }
}

impl core::fmt::Debug for Global {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Global").field("ty", &self.ty).field("address", &self.address).finish_non_exhaustive()
    }
}
