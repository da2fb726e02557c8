//! Walking the frame pointers from a trap to the catch.

use super::enter::is_enter;
use super::{Catch, LOOK, Raised};
use crate::code::LoadedCode;
use crate::gate::is_gate;
use crate::text_index::Reader;
use alloc::sync::Arc;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr::null;
use runtime_port::unwind::{Asker, Context};

/// How to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Only wasm and glue up to the catch: jump.
    Jump,
    /// Native frames are in between: unwind.
    Unwind,
}

/// What code on the stack belongs to.
#[derive(Debug, Clone)]
pub(crate) struct Owner {
    /// Addresses of the text.
    pub(crate) range: Range<usize>,
    /// The cell's code, which lives while it runs; null for glue.
    pub(crate) code: *const LoadedCode,
}

impl Owner {
    /// What is registered at this address.
    #[inline]
    pub(crate) fn find(reader: &Reader<'_>, pc: usize) -> Option<Owner> {
        let text = reader.find(pc)?;
        Some(Owner { range: text.range(), code: text.code().map_or(null(), Arc::as_ptr) })
    }
}

/// Where the walk starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Start {
    /// Innermost program counter.
    pub(crate) pc: usize,
    /// It is the faulting instruction's, and not a return address.
    pub(crate) exact: bool,
    /// Return address of a frame that is not built yet, or taken down already.
    pub(crate) pending_return: Option<usize>,
    /// Stack pointer that it returns with.
    pub(crate) pending_stack: usize,
    /// Innermost complete frame: value of `rbp`.
    pub(crate) frame: usize,
    /// Lowest address of the stack that may be read.
    pub(crate) low: usize,
}

/// A caller whose code is not yet known.
struct Caller {
    /// Where it goes on.
    pc: usize,
    /// Its frame.
    frame: usize,
    /// Its stack pointer, if the code below has no stack arguments.
    stack: usize,
    /// The code that it has called.
    callee: Callee,
}

/// A frame of wasm code or a gate.
#[derive(Debug, Clone, Copy)]
struct Callee {
    pc: usize,
    /// `pc` is the faulting instruction's, and not a return address.
    exact: bool,
    /// Value of `rbp`; 0 when there is no frame.
    frame: usize,
}

/// What is known of the code on the stack.
struct Known<F> {
    /// Where the code lies that was found last; empty when nothing was found.
    last: Range<usize>,
    /// Whose it is; null for glue.
    code: *const LoadedCode,
    /// Whether any other code than the first was met.
    mixed: bool,
    find: F,
}

impl<F: FnMut(usize) -> Option<Owner>> Known<F> {
    /// Whether an address lies in the code that was found last.
    #[inline(always)]
    fn is_last(&self, pc: usize) -> bool {
        pc.wrapping_sub(self.last.start) < self.last.end - self.last.start
    }

    /// Whether it is wasm code or glue.
    fn has(&mut self, pc: usize) -> bool {
        if self.is_last(pc) {
            return true;
        }
        self.mixed = true;
        (self.last, self.code) = (self.find)(pc).map_or((0..0, null()), |owner| (owner.range, owner.code));
        !self.last.is_empty()
    }

    /// Functions, 0 or 1, whose code stands in place of a call at a return address in the code that was found last.
    #[cold]
    fn inlined(&self, pc: usize) -> usize {
        // SAFETY: cells whose code is on the stack live; their metadata never changes.
        let Some(code) = (unsafe { self.code.as_ref() }) else { return 0 };
        usize::from(self.is_last(pc) && code.metadata().returns_to_inlined((pc - self.last.start) as u32))
    }
}

impl Raised {
    /// Counts the function whose code stands in place of a call at `pc`, if the return address that was pushed last is not kept: of those that
    /// are kept it is found out when somebody asks.
    #[inline(always)]
    fn count_inlined<F: FnMut(usize) -> Option<Owner>>(&mut self, pc: usize, known: &Known<F>) {
        if self.frames > self.pcs.len() {
            self.inlined += known.inlined(pc);
        }
    }

    #[inline(always)]
    fn push(&mut self, pc: usize) {
        if let Some(p) = self.pcs.get_mut(self.frames) {
            *p = MaybeUninit::new(pc);
        }
        self.frames += 1;
    }

    /// Pushes return addresses from `frame` on as long as they lie in the text found last; gives the first that does not. `None` when a frame lies
    /// below the last one or beyond `top`. Most of a deep walk is here: callers in the same cell are neither glue nor native.
    ///
    /// # Safety
    /// The stack is mapped from `low` to `top`, which is no less than 16.
    #[inline(always)]
    unsafe fn push_callers<F: FnMut(usize) -> Option<Owner>>(
        &mut self,
        known: &Known<F>,
        frame: usize,
        low: usize,
        top: usize,
        callee: Callee,
    ) -> Option<Caller> {
        let (start, length, highest) = (known.last.start, known.last.end - known.last.start, top - 16);
        // The stack that is read could be this very record, as far as the compiler knows: what counts stays in a register.
        let (mut frame, mut low, mut frames) = (frame, low, self.frames);
        let (mut inner, mut exact) = (callee.pc, callee.exact);
        // Deep walks meet the same return address over and over.
        let (mut same, mut inlined, mut more) = (0, 0, 0);
        let caller = loop {
            if frame < low || frame > highest || !frame.is_multiple_of(8) {
                break None;
            }
            // SAFETY: within the mapped part of the stack by the check and the caller's promise; a wild value is only looked up or
            // compared.
            let [next, pc] = unsafe { *(frame as *const [usize; 2]) };
            low = frame + 16;
            frame = next;
            if pc.wrapping_sub(start) >= length {
                let callee = Callee { pc: inner, exact, frame: low - 16 };
                break Some(Caller { pc, frame, stack: low, callee });
            }
            match self.pcs.get_mut(frames) {
                Some(p) => *p = MaybeUninit::new(pc),
                None => {
                    if pc != same {
                        (same, inlined) = (pc, known.inlined(pc));
                    }
                    more += inlined;
                }
            }
            (inner, exact) = (pc, false);
            frames += 1;
        };
        self.frames = frames;
        self.inlined += more;
        caller
    }

    /// The innermost program counter; 0 if there is none.
    pub(crate) fn pc(&self) -> usize {
        match self.pcs.first() {
            // SAFETY: initialised up to `frames`.
            Some(pc) if self.frames > 0 => unsafe { pc.assume_init() },
            _ => 0,
        }
    }
}

/// Fills the catch's backtrace and decides. No allocation, no lock. `innermost` finds what owns `start.pc`, `find` what owns other
/// code.
///
/// # Safety
/// `catch` is the task's innermost catch; the stack from `start.low` up to it is mapped; the code that `innermost` finds lives.
#[inline(always)]
pub(crate) unsafe fn walk(
    innermost: impl FnOnce() -> Option<Owner>,
    find: impl FnMut(usize) -> Option<Owner>,
    catch: *mut Catch,
    code: u32,
    start: Start,
) -> Way {
    // SAFETY: invariant 3 of `call`: nobody else refers to these fields now.
    let (raised, rsp) = unsafe { (&mut (*catch).raised, (*catch).rsp) };
    raised.look = raised.code == LOOK;
    // A fault on the way out of another one: nobody has taken the share of the code yet.
    let held = if matches!(raised.code, 0 | LOOK) { core::ptr::null() } else { raised.first };
    raised.code = code;
    raised.exact = start.exact;
    raised.mixed = false;
    raised.first = core::ptr::null();
    raised.frames = 0;
    raised.inlined = 0;
    let jump = if rsp == 0 { Way::Unwind } else { Way::Jump };
    // The entry itself trapped: a host function, or one that is gone, called from native code.
    if is_enter(start.pc) && !start.exact {
        return jump;
    }
    // What a gate's routine met is its caller's matter.
    let in_gate = is_gate(start.pc);
    if in_gate {
        raised.exact = false;
    } else {
        raised.push(start.pc);
    }
    let top = if rsp == 0 { catch as usize } else { rsp };
    let mut known = Known { last: 0..0, code: null(), mixed: in_gate, find };
    if let Some(Owner { range, code }) = innermost() {
        (known.last, known.code) = (range, code);
        if !code.is_null() && code != held {
            // SAFETY: the caller's promise; cells hold their code as an `Arc`. Only counts up: no allocation.
            unsafe { Arc::increment_strong_count(code) };
        }
        raised.first = code;
    }
    let (mut frame, mut low, mut pending) = (start.frame, start.low, start.pending_return);
    let mut stack = start.pending_stack;
    // What waits to return to the pending address has no frame.
    let mut callee = Callee { pc: start.pc, exact: start.exact, frame: 0 };
    let mut way = jump;
    let way = loop {
        if let Some(pc) = pending.take() {
            if is_enter(pc) {
                break way;
            }
            let below = core::mem::replace(&mut callee, Callee { pc, exact: false, frame: 0 });
            // The catch leaves the gates.
            if !is_gate(pc) {
                raised.push(pc);
                if !known.has(pc) {
                    // Native code. What has no unwind info is no return address: the chain is broken.
                    way = Way::Unwind;
                    match native_frames(raised, native_caller(pc, stack, frame, below), top, &mut known) {
                        Native::Wasm { pc, frame: next, low: above } => {
                            (frame, low) = (next, above);
                            callee = Callee { pc, exact: false, frame: 0 };
                        }
                        Native::Catch => break way,
                        Native::Lost => break jump,
                    }
                } else {
                    raised.count_inlined(pc, &known);
                }
            }
        }
        // SAFETY: the stack up to `top` is mapped, says the caller.
        let Some(caller) = (unsafe { raised.push_callers(&known, frame, low, top, callee) }) else {
            // The chain is broken (invariant 4), so the stack is damaged: nothing could unwind it either.
            break jump;
        };
        pending = Some(caller.pc);
        (frame, low, stack, callee) = (caller.frame, caller.stack, caller.stack, caller.callee);
    };
    raised.mixed = known.mixed;
    way
}

/// What native frames lead to.
enum Native {
    /// Wasm code or glue again, with this frame pointer; the stack is in use up to `low`.
    Wasm { pc: usize, frame: usize, low: usize },
    /// The catch.
    Catch,
    /// Nowhere: without unwind info, or damaged.
    Lost,
}

/// The native frame that `pc` returns to. Its stack pointer depends on how many stack arguments the code that it has called pops:
/// more than it was called with, if it was reached by a tail call. Its unwind info says so.
#[cold]
fn native_caller(pc: usize, stack: usize, frame: usize, callee: Callee) -> Context {
    if callee.frame != 0 {
        let mut below = Context::at(callee.pc, callee.frame, callee.frame, callee.exact, Asker::Exception);
        if below.step_out().is_ok() && below.pc() == pc && below.frame_pointer() == frame {
            return below;
        }
    }
    Context::at(pc, stack, frame, false, Asker::Exception)
}

/// Goes through native frames by their unwind info, from this one on.
#[cold]
fn native_frames(
    raised: &mut Raised,
    mut native: Context,
    top: usize,
    known: &mut Known<impl FnMut(usize) -> Option<Owner>>,
) -> Native {
    loop {
        if native.step_out().is_err() {
            return Native::Lost;
        }
        if native.stack_pointer() > top || is_enter(native.pc()) {
            return Native::Catch;
        }
        let in_gate = is_gate(native.pc());
        if !in_gate {
            raised.push(native.pc());
        }
        if in_gate || known.has(native.pc()) {
            raised.count_inlined(native.pc(), known);
            return Native::Wasm { pc: native.pc(), frame: native.frame_pointer(), low: native.stack_pointer() };
        }
    }
}
