//! Walks frame pointers.

use alloc::vec::Vec;
use core::ops::Range;

/// One activation on a stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The instruction: where the frame was interrupted, or the return address into it.
    pub pc: usize,
    /// Its frame pointer.
    pub frame_pointer: usize,
    /// Whether `pc` is a return address: the call is the instruction before it.
    pub is_return_address: bool,
}

impl Frame {
    /// An address inside the instruction that is being executed, to be looked up.
    pub fn lookup_pc(&self) -> usize {
        self.pc.wrapping_sub(usize::from(self.is_return_address))
    }
}

/// Iterates over the frames of a stack whose code keeps frame pointers (`push rbp; mov rbp, rsp`). Ends at the first
/// frame pointer that is misaligned, outside the stack or not above the one before: code without frame pointers ends
/// the walk, it does not lead it astray.
#[derive(Debug, Clone)]
pub struct FramePointers {
    next: Option<Frame>,
    stack: Range<usize>,
}

impl FramePointers {
    /// Starts at a known frame: instruction pointer and frame pointer of interrupted or called code.
    ///
    /// # Safety
    /// All of `stack` must be readable while the iterator is used.
    pub unsafe fn new(pc: usize, frame_pointer: usize, stack: Range<usize>) -> FramePointers {
        FramePointers { next: Some(Frame { pc, frame_pointer, is_return_address: false }), stack }
    }

    /// The caller of a frame.
    fn caller(&self, frame: &Frame) -> Option<Frame> {
        let at = frame.frame_pointer;
        let fits = at.is_multiple_of(8) && at >= self.stack.start && at.checked_add(16)? <= self.stack.end;
        if !fits {
            return None;
        }
        // SAFETY: aligned and inside the readable stack, says the check above.
        let (frame_pointer, pc) = unsafe { (*(at as *const usize), *((at + 8) as *const usize)) };
        // The outermost frame has a frame pointer of 0 or garbage; its return address still counts.
        (pc != 0 && (frame_pointer > at || frame_pointer == 0)).then_some(Frame {
            pc,
            frame_pointer,
            is_return_address: true,
        })
    }
}

impl Iterator for FramePointers {
    type Item = Frame;
    fn next(&mut self) -> Option<Frame> {
        let frame = self.next.take()?;
        self.next = self.caller(&frame);
        Some(frame)
    }
}

/// Up to `limit` frames of the current task, from the caller of this function outwards. Empty if the task has not
/// attached: the bounds of its stack are unknown then.
#[inline(never)]
pub fn capture(limit: usize) -> Vec<Frame> {
    let frame_pointer: usize;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rbp", out(reg) frame_pointer, options(nomem, nostack, preserves_flags)) };
    let here = crate::task::stack_pointer();
    let top = crate::task::current().stack_top.get();
    // SAFETY: everything between the stack pointer and the top of the current task's stack is readable.
    let frames = unsafe { FramePointers::new(0, frame_pointer, here..top) };
    frames.skip(1).take(limit).collect()
}
