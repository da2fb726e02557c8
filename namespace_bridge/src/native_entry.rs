//! References to native functions: an address with a type id before it, made when somebody first needs one.
//!
//! A native function has no type id before its code, so a function reference to it needs a stub: `[type id] mov r11,
//! function; jmp r11` in a page of its own.

use crate::entries::stub_to;
use crate::types_registry::TypeShares;
use alloc::sync::Arc;
use runtime_port::memory::{AllocatedPages, MappedPages, MemoryError, PteFlags, SharedFrames};
use spin::Mutex;
use wasm_cell::types::{FuncType, TypeId};

/// A native function whose arguments travel in registers (docs/CELL_ABI.md).
#[derive(Debug)]
pub struct NativeFunction {
    ty: FuncType,
    address: usize,
    reference: Mutex<Option<Arc<MappedPages>>>,
    /// The id of its type, registered by `types`.
    type_id: TypeId,
    types: TypeShares,
}

impl NativeFunction {
    /// Describes the function at this address.
    ///
    /// # Safety
    /// `address` must be a function of type `ty` by the C convention that stays where it is for ever, `type_id` what
    /// `types` registered for `ty`.
    pub(crate) unsafe fn new(ty: FuncType, address: usize, type_id: TypeId, types: TypeShares) -> NativeFunction {
        NativeFunction { ty, address, reference: Mutex::new(None), type_id, types }
    }

    /// Its type.
    pub fn ty(&self) -> &FuncType {
        &self.ty
    }

    /// Its address.
    pub fn address(&self) -> usize {
        self.address
    }

    /// What a function reference to it holds. The same address every time.
    pub(crate) fn reference(&self) -> Result<usize, MemoryError> {
        let mut reference = self.reference.lock();
        if let Some(pages) = &*reference {
            return Ok(pages.start_address().value() + kernel_config::cell::ENTRY_CODE_OFFSET);
        }
        let code = stub_to(self.address, self.type_id);
        let frames = SharedFrames::new(&[&code], code.len())?;
        let flags = PteFlags::VALID | PteFlags::EXECUTABLE;
        let pages = MappedPages::from_frames(AllocatedPages::reserve_for_code(code.len())?, &frames, 0, flags)?;
        let address = pages.start_address().value() + kernel_config::cell::ENTRY_CODE_OFFSET;
        // References may be held anywhere, so the stub stays as long as the definition, which is for ever once it was
        // referred to: `NativeFunction`s with a reference are never freed (see `Drop` of the definition).
        *reference = Some(Arc::new(pages));
        Ok(address)
    }
}

impl Drop for NativeFunction {
    fn drop(&mut self) {
        // Function references to it may stand in tables nobody can search; the page is a few bytes of code that must
        // stay valid. Native definitions are few and outlive their users, so this is bounded by the definitions made.
        if let Some(pages) = self.reference.get_mut().take() {
            core::mem::forget(pages);
            // The type id in it must not come to stand for another type.
            core::mem::forget(core::mem::take(&mut self.types));
        }
    }
}
