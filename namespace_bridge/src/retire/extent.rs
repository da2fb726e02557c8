//! How much of a task's stack calls of cells take.
//!
//! Native frames outside of all such calls hold nothing that counts: native code gets the addresses of stable entries only, and what it
//! has besides keeps alive what it refers to. What looks like an address in them is left from calls that are over, in a place that
//! the compiler has not used since. So a walk by unwind info tells how far up words are to be taken seriously, and need be looked at. Of a
//! task that was interrupted the registers and the innermost frame always are.

use crate::{call, glue::is_glue};
use runtime_port::task::StoppedTask;
use runtime_port::unwind::is_registered;

/// Frames that are walked at most.
const MOST_FRAMES: usize = 1 << 16;
/// Words that are looked at in the time in which one frame is walked, about.
const WORDS_PER_FRAME: usize = 64;
/// Words so few that they are looked at rather than walked over.
const FEW_WORDS: usize = 2048;

/// Which of a task's words may be in use by calls of cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// Any: its stack cannot be walked to the end.
    Unknown,
    /// None: it is outside of all calls, and looks itself.
    Nothing,
    /// Its registers, and its stack below this address.
    Below(usize),
}

impl Extent {
    /// Walks the stack of a task that stands still. Neither allocates nor locks.
    #[cold]
    pub(super) fn of(task: &StoppedTask<'_>) -> Extent {
        Extent::within(task, MOST_FRAMES)
    }

    /// The same if that takes no longer than to look at all words of the stack; otherwise unknown.
    pub(super) fn if_cheap(task: &StoppedTask<'_>) -> Extent {
        match task.len() {
            0..FEW_WORDS => Extent::Unknown,
            words => Extent::within(task, (words / WORDS_PER_FRAME).min(MOST_FRAMES)),
        }
    }

    #[cold]
    fn within(task: &StoppedTask<'_>, frames: usize) -> Extent {
        let Some(innermost) = task.frame() else { return Extent::Unknown };
        let mut frame = innermost.clone();
        let mut end = call::outermost_catch(task.locals());
        for walked in 0..frames {
            let pc = frame.lookup_pc();
            let counts = is_glue(pc) || is_registered(pc);
            let stepped = frame.step_out();
            if counts || walked == 0 && task.pc().is_some() {
                end = end.max(frame.stack_pointer());
            }
            if stepped.is_err() {
                // The outermost function of a stack says that it returns nowhere; so do routines that are about to leave it by a jump, but
                // then a frame of theirs is the innermost, or one that counts.
                let is_whole = frame.is_behind_outermost() && walked > 0 && !counts;
                return match end {
                    _ if !is_whole => Extent::Unknown,
                    0 => Extent::Nothing,
                    end => Extent::Below(end),
                };
            }
        }
        Extent::Unknown
    }
}
