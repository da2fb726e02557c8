//! The stack of a task: pages of its own above one that is never mapped.

use super::super::{
    context::Registers,
    memory::{BareMemory, commit},
};
use crate::memory::{MemoryError, MemoryPort, PteFlags};
use core::ops::Range;
use kernel_config::memory::PAGE_SIZE;
use x86_64::{
    instructions::segmentation::{CS, SS, Segment},
    registers::rflags::RFlags,
};

/// Owner of a stack.
#[derive(Debug)]
pub(super) struct TaskStack {
    /// Addresses that can be used.
    addresses: Range<usize>,
}

impl TaskStack {
    /// A stack of at least `size` bytes. All of it has frames from the start: a fault for one could come while their
    /// allocator is locked.
    pub(super) fn new(size: usize) -> Result<Self, MemoryError> {
        let error = MemoryError::OutOfFrames(size);
        let size = size.checked_next_multiple_of(PAGE_SIZE).ok_or(error)?;
        let bottom = BareMemory.reserve(size.checked_add(PAGE_SIZE).ok_or(error)?)? + PAGE_SIZE;
        let this = Self { addresses: bottom..bottom + size };
        // SAFETY: reserved just now; the page below stays unmapped.
        unsafe { commit(bottom..bottom + size, PteFlags::VALID | PteFlags::WRITABLE)? };
        Ok(this)
    }

    /// The stack that was given up by `forget`, to be freed.
    ///
    /// # Safety
    /// The addresses are those of a forgotten stack, once, and nobody uses it any more.
    pub(super) unsafe fn of(addresses: Range<usize>) -> Self {
        Self { addresses }
    }

    pub(super) fn addresses(&self) -> Range<usize> {
        self.addresses.clone()
    }

    /// Registers with which a function starts on it that never returns; interrupts are on.
    pub(super) fn first_registers(&self, function: usize) -> Registers {
        Registers {
            rip: function,
            // Fresh pages read zero: a return address of 0 ends the stack for the unwinder.
            rsp: self.addresses.end - size_of::<usize>(),
            cs: usize::from(CS::get_reg().0),
            ss: usize::from(SS::get_reg().0),
            rflags: RFlags::INTERRUPT_FLAG.bits() as usize | 1 << 1, // bit 1 is always set
            ..Registers::default()
        }
    }
}

impl Drop for TaskStack {
    fn drop(&mut self) {
        // SAFETY: reserved in `new`, with the page below; nobody uses it any more.
        unsafe { BareMemory.release(self.addresses.start - PAGE_SIZE, self.addresses.len() + PAGE_SIZE) };
    }
}
