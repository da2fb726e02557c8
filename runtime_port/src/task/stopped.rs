//! A task that stands still, and every word that it may still use.
//!
//! Who wants to free memory that tasks may be running in, or hold addresses of, has each of them looked at: its registers
//! and its stack, word by word, by a routine that runs in the task's own exception context (or while the task does not
//! run). What it finds is conservative: a word is taken for an address whether it is one or not.

use super::{TaskLocals, current, stack_pointer};
use crate::unwind::{Context, INTEGER_REGISTERS};
use core::marker::PhantomData;
use core::ops::Range;
use kernel_config::task::{RED_RESERVE, YELLOW_ZONE};

/// Bytes below the stack pointer that code may use without moving it (System V psABI, 3.2.2).
pub const RED_ZONE: usize = 128;

/// Places that words of a task can be in: registers, vector registers, the stack, a second stack.
pub const PARTS: usize = 4;

/// Which of them is the task's own stack.
const OWN_STACK: usize = PARTS - 2;

/// Looks at tasks.
pub trait Inspect: Send + Sync {
    /// Whether the task is to be looked at. Asked once for every task that is attached, under the port's lock: calls of the
    /// port are not allowed.
    fn wants(&self, id: u64) -> bool;

    /// Looks at a task, at most once, and perhaps at several tasks at the same time. Runs in exception context: neither allocates nor
    /// locks nor panics.
    fn inspect(&self, task: &StoppedTask<'_>);

    /// Called after [`inspect`](Inspect::inspect) by the task that looked, if it is not the one that asked: where the one that
    /// asked may be waiting. May wake tasks; otherwise as `inspect`.
    fn inspected(&self) {}
}

/// A task that stands still while somebody looks at it.
#[derive(Debug)]
pub struct StoppedTask<'a> {
    locals: &'a TaskLocals,
    pc: Option<usize>,
    complete: bool,
    frame: Option<Context>,
    parts: [Range<usize>; PARTS],
    _words: PhantomData<&'a [usize]>,
}

impl<'a> StoppedTask<'a> {
    /// A task with its words: those of `parts`, the last but one of which is its own stack. `complete` is `false` when it may
    /// use words that are in none of them.
    ///
    /// # Safety
    /// Every range is readable and its words do not change for as long as `'a`.
    pub unsafe fn new(locals: &'a TaskLocals, pc: Option<usize>, complete: bool, parts: [Range<usize>; PARTS]) -> Self {
        let aligned = parts.map(|p| p.start.next_multiple_of(size_of::<usize>())..p.end);
        StoppedTask { locals, pc, complete, frame: None, parts: aligned, _words: PhantomData }
    }

    /// Says where the walk of its frames starts. Only for a task that was found on its own stack.
    pub fn with_frame(self, frame: Context) -> Self {
        StoppedTask { frame: Some(frame), ..self }
    }

    /// Its innermost frame; `None` if the port does not know it.
    pub fn frame(&self) -> Option<&Context> {
        self.frame.as_ref()
    }

    /// The task's record.
    pub fn locals(&self) -> &TaskLocals {
        self.locals
    }

    /// Address of its next instruction; `None` when it is the one that looks.
    pub fn pc(&self) -> Option<usize> {
        self.pc
    }

    /// Whether its words are all that it may use: `false` when it was found on a stack that the port does not know.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Number of words.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|p| p.len() / size_of::<usize>()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `f` with the address and value of each word that is `wanted`, in ascending order within registers, stack and second stack; of
    /// its own stack only with words below `end`.
    ///
    /// `wanted` is to be cheap: it may be asked twice about a word.
    #[inline(always)]
    pub fn find_words_below(&self, end: usize, wanted: impl Fn(usize) -> bool, mut f: impl FnMut(usize, usize)) {
        const WORD: usize = size_of::<usize>();
        /// Words that are looked at in one go, so that nothing jumps on the way.
        const GROUP: usize = 8;
        // SAFETY: only ever of whole words of a part: readable by the promise of `new`, and 8-aligned. Volatile, because the words
        // belong to frames that the compiler knows nothing of here.
        let word = |at: usize| unsafe { (at as *const usize).read_volatile() };
        for (i, part) in self.parts.iter().enumerate() {
            let last = if i == OWN_STACK { part.end.min(end) } else { part.end };
            let mut at = part.start;
            while at < last && last - at >= WORD {
                let group = if last - at >= GROUP * WORD { GROUP } else { 1 };
                if group == 1 || (0..GROUP).any(|i| wanted(word(at + i * WORD))) {
                    for at in (0..group).map(|i| at + i * WORD) {
                        let word = word(at);
                        if wanted(word) {
                            f(at, word);
                        }
                    }
                }
                at += group * WORD;
            }
        }
    }
}

/// Whether a stack pointer is on the task's own stack.
pub(crate) fn is_on_own_stack(locals: &TaskLocals, sp: usize) -> bool {
    let bottom = locals.stack_limit.get().saturating_sub(YELLOW_ZONE + RED_RESERVE);
    (bottom..locals.stack_top.get()).contains(&sp)
}

/// Lets the current task look at itself, whether it is wanted or not: its callee-saved registers, and its stack from this frame up.
#[inline(never)]
pub fn inspect_current(with: &dyn Inspect) {
    let locals = current();
    // In the order of their DWARF numbers; those that are the caller's to save stay 0.
    let mut registers = [0usize; INTEGER_REGISTERS];
    let pc: usize;
    // SAFETY: stores seven registers to words of the array.
    unsafe {
        core::arch::asm!(
            "mov [{0} + 8 * 3], rbx", "mov [{0} + 8 * 6], rbp", "mov [{0} + 8 * 7], rsp", "mov [{0} + 8 * 12], r12",
            "mov [{0} + 8 * 13], r13", "mov [{0} + 8 * 14], r14", "mov [{0} + 8 * 15], r15", "lea {1}, [rip]",
            in(reg) registers.as_mut_ptr(), out(reg) pc, options(nostack, preserves_flags)
        );
    }
    let (sp, top) = (stack_pointer(), locals.stack_top.get());
    let complete = is_on_own_stack(locals, sp);
    let words = registers.as_ptr_range();
    let parts = [words.start as usize..words.end as usize, 0..0, if complete { sp..top } else { 0..0 }, 0..0];
    // SAFETY: `registers` lives, and what is above this frame up to the stack's top belongs to our callers, who wait for us.
    let mut stopped = unsafe { StoppedTask::new(locals, None, complete, parts) };
    if complete {
        stopped = stopped.with_frame(Context::interrupted(pc, &registers, top));
    }
    with.inspect(&stopped);
}
