//! Walks stacks: by frame pointers alone, or by unwind info.

use crate::unwind::{Asker, Context};
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

/// The frames of a stack, native ones without frame pointers included: by unwind info. Allocates nothing; with [`Asker::Exception`] it may be used by exception handlers.
#[derive(Debug, Clone)]
pub struct Frames {
    next: Option<Context>,
}

impl Frames {
    /// Starts at a known frame.
    pub fn new(context: Context) -> Frames {
        Frames { next: Some(context) }
    }
}

impl Iterator for Frames {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let context = self.next.as_mut()?;
        let frame = Frame {
            pc: context.pc(),
            frame_pointer: context.frame_pointer(),
            is_return_address: !context.is_interrupted(),
        };
        if context.step_out().is_err() {
            self.next = None;
        }
        Some(frame)
    }
}

/// Up to `limit` frames of the current task, from the caller of this function outwards.
#[inline(never)]
pub fn capture(limit: usize) -> Vec<Frame> {
    let (pc, stack, frame): (usize, usize, usize);
    // SAFETY: reads registers.
    unsafe {
        core::arch::asm!(
            "lea {}, [rip]", "mov {}, rsp", "mov {}, rbp",
            out(reg) pc, out(reg) stack, out(reg) frame,
            options(nomem, nostack, preserves_flags),
        );
    }
    let frames = Frames::new(Context::at(pc, stack, frame, true, Asker::Task));
    frames.skip(1).take(limit).collect()
}
