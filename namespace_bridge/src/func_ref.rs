//! References to functions, as the embedder holds them.
//!
//! A [`FuncRef`] is a plain address, and wasm code jumps to it. So it can only come from where its address is good for ever:
//! from wasm code whose references can escape, or from a handle, which marks the entry as escaped. When the function goes,
//! what stands there traps.

use core::num::NonZeroU64;
use kernel_config::cell::TYPE_ID_OFFSET;
use wasm_cell::types::TypeId;

/// A reference to a function: the code address of its stable entry, whose type id stands 4 bytes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FuncRef(NonZeroU64);

impl FuncRef {
    /// The reference with this code address; `None` for 0, which is null.
    ///
    /// # Safety
    /// `address` must be 0 or the address of a function with the wasm convention and its type id before it
    /// (docs/CELL_ABI.md), mapped for ever.
    pub unsafe fn from_address(address: usize) -> Option<FuncRef> {
        NonZeroU64::new(address as u64).map(FuncRef)
    }

    /// The code address.
    pub fn address(self) -> usize {
        self.0.get() as usize
    }

    /// Id of the function's type.
    pub fn type_id(self) -> TypeId {
        let at = self.address().wrapping_add_signed(TYPE_ID_OFFSET as isize) as *const u32;
        // SAFETY: the promise of `from_address`. Entries are aligned to 16.
        TypeId(unsafe { at.read() })
    }
}
