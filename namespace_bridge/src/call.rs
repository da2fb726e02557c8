//! Calls from native code into wasm, and the ways back: results, traps, panics.
//!
//! [`Activation::enter`] runs wasm code inside a *catch*. The [`Catch`] record lies in the caller's frame and is linked from the
//! task's local slot 0: the innermost catch first, 0 outside of any. A trap walks the frame pointers from the wasm code up
//! to the catch. If all it meets is wasm text or glue it jumps there; otherwise it unwinds, with the [`Trap`] as panic payload,
//! so that every native destructor runs, and the platform's `catch` under the same catch ends it. A panic
//! of a host function crosses the wasm frames and goes on past the catch.
//!
//! ```text
//! invoke ── port.catch ── planks_enter ── wasm ── wasm ── trap stub ─┐
//!    ▲                        ▲ rsp saved in the record              │ jmp
//!    │                        └──────── planks_land ◄── planks_raise ┘   only wasm in between
//!    └────────────────────────────────────── unwinding ◄──────┘          native frames in between
//! ```
//!
//! Invariants, cited by the `SAFETY` comments:
//! 1. A `Catch` is linked exactly while `invoke` that owns it has not returned; the list is in stack order, innermost first.
//! 2. `rsp` of a linked `Catch` is valid from the moment `planks_enter` stored it; wasm code runs only below that frame. `entered`
//!    says so (`rsp` is 0 before).
//! 3. Only the task itself, and exception handlers that interrupted it, touch its slots and its catches.
//! 4. Wasm code, stubs and glue keep `rbp` chains intact: `[rbp]` is the caller's `rbp`, `[rbp + 8]` the return address.

mod convention;
mod dynamic;
mod enter;
pub(crate) mod raise;
mod recent;
mod walk;

pub use convention::{Cursor, Place, Registers, read, return_area, stack_arguments, write};
pub use dynamic::{CallError, call_values};
pub(crate) use enter::{is_call_routine, is_enter, planks_land, planks_raise, planks_raise_unwinding};
pub use raise::{gone_routine, raise_routine};
pub(crate) use walk::{Owner, Start, Way, walk};

use crate::code::LoadedCode;
use crate::trap::{HostError, Trap};
use alloc::{boxed::Box, sync::Arc};
use core::any::Any;
use core::cell::Cell;
use core::mem::{MaybeUninit, offset_of};
use core::ptr::{null_mut, with_exposed_provenance_mut};
use core::sync::atomic::{AtomicBool, Ordering, compiler_fence};
use runtime_port::{
    backtrace::{SourceRegistration, add_symbol_source},
    heap::is_exhaustion,
    platform,
    task::{CurrentTask, LOCAL_SLOTS, TaskLocals, TaskPort},
    unwind::Catcher,
};
use wasm_cell::trap::TrapCode;

/// Frames of a backtrace that are kept, innermost first.
pub const BACKTRACE_FRAMES: usize = 64;

/// The task's local slot that holds the innermost [`Catch`].
const CATCH_SLOT: usize = 0;

/// The task's local slot that holds its stack limit, or 0 when the next call has to prepare the stack: before the
/// first one, and after native code went into the yellow zone.
const LIMIT_SLOT: usize = 1;

/// The task's local slot that holds the floating-point control state of its first call into wasm: MXCSR in the lower
/// half, the x87 control word above. Reading MXCSR at every call would cost more than the call (4 ns).
const CONTROL_SLOT: usize = 2;

/// No stack is as large as this: distinguishes "attached, with room" from everything else in one comparison.
const STACK_MAX: usize = 1 << 40;

/// What a trap leaves behind for the catch: filled in exception context, so of fixed size. When `code` is that of a trap, all of it
/// is initialised.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Raised {
    /// Number of the trap code; 0 while nothing was raised, or [`LOOK`].
    pub(crate) code: u32,
    /// Whether it was [`LOOK`] before the trap.
    pub(crate) look: bool,
    /// Whether the first PC is that of the faulting instruction, and not a return address.
    pub(crate) exact: bool,
    /// Whether frames of other code than `first` were met.
    pub(crate) mixed: bool,
    /// A share of the code of the innermost wasm frame, from [`Arc::into_raw`]; null if there is none.
    pub(crate) first: *const LoadedCode,
    /// Frames that were walked, of which `pcs` holds the first [`BACKTRACE_FRAMES`].
    pub(crate) frames: usize,
    /// Functions whose code stands in place of calls, at return addresses that `pcs` does not hold.
    pub(crate) inlined: usize,
    /// Initialised up to `frames`.
    pub(crate) pcs: [MaybeUninit<usize>; BACKTRACE_FRAMES],
}

/// Stands for a trap code: nothing was raised, but when the call is left the task is to look whether it was the last to use
/// something that was retired. It costs a call that is not marked nothing.
pub(crate) const LOOK: u32 = u32::MAX;

/// A place that traps return to. Fields up to `registers` are known to the assembly in `call/enter.rs`.
#[repr(C)]
pub(crate) struct Catch {
    /// Stack pointer of the `planks_enter` frame; 0 before it.
    pub(crate) rsp: usize,
    /// MXCSR and, above it, the x87 control word that landing restores.
    control: usize,
    /// What was called; initialised when `rsp` is.
    pub(crate) entry: usize,
    stack: *const u8,
    stack_bytes: usize,
    prev: usize,
    registers: Registers,
    /// The error of a host function that returned one, until the trap is made.
    pub(crate) error: Option<HostError>,
    pub(crate) raised: Raised,
}

/// The port's objects, fetched once.
struct Port {
    tasks: &'static dyn TaskPort,
    current: CurrentTask,
    catcher: Catcher,
    _names: SourceRegistration,
}

static PORT: spin::Once<Port> = spin::Once::new();

#[inline(always)]
fn port() -> &'static Port {
    match PORT.get() {
        Some(p) => p,
        None => first_port(),
    }
}

#[cold]
fn first_port() -> &'static Port {
    PORT.call_once(|| {
        let p = platform();
        crate::fault::install();
        let names = add_symbol_source(Arc::new(crate::trap::WasmSymbols));
        Port { tasks: p.tasks(), current: CurrentTask::of(p), catcher: Catcher::of(p), _names: names }
    })
}

/// The task port, if a call was ever made. For exception handlers.
pub(crate) fn tasks_if_ready() -> Option<&'static dyn TaskPort> {
    PORT.get().map(|p| p.tasks)
}

/// Locals of the current task.
#[inline(always)]
pub(crate) fn current_task() -> &'static TaskLocals {
    port().current.get()
}

/// Continues unwinding with this payload.
pub(crate) fn resume(payload: Box<dyn Any + Send>) -> ! {
    port().catcher.resume(payload)
}

/// The innermost catch of the task, null outside of any.
#[inline]
pub(crate) fn innermost(task: &TaskLocals) -> *mut Catch {
    task.slots.get(CATCH_SLOT).map_or(null_mut(), |s| with_exposed_provenance_mut(s.get()))
}

/// How a call loads and stores registers. What a signature does not use costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Up to two integer arguments and no others, at most one result.
    Pair,
    /// Integer arguments in registers, at most one result.
    Integers,
    /// Arguments in registers, at most one result.
    Registers,
    /// Anything.
    Full,
}

/// One call into wasm, with a catch of its own. Lives in the caller's frame, from before the arguments are written until
/// the results are read.
pub(crate) struct Activation(MaybeUninit<Catch>);

impl Activation {
    /// Without arguments.
    #[inline(always)]
    pub(crate) fn new() -> Activation {
        Activation(MaybeUninit::uninit())
    }

    /// The registers: arguments before [`enter`](Activation::enter), results after it.
    #[inline(always)]
    pub(crate) fn registers(&mut self) -> &mut Registers {
        // SAFETY: registers need no value.
        unsafe { &mut (*self.0.as_mut_ptr()).registers }
    }

    /// Calls wasm code at `entry`.
    ///
    /// # Safety
    /// `entry` must be code that follows the wasm convention (docs/CELL_ABI.md) and stays mapped during the call; registers
    /// and `stack` must be laid out for its signature, `stack_bytes` be a multiple of 16, and `shape` must cover it.
    #[inline(always)]
    pub(crate) unsafe fn enter(
        &mut self,
        shape: Shape,
        entry: usize,
        stack: *const u64,
        stack_bytes: usize,
    ) -> Result<(), Trap> {
        let port = port();
        let task = port.current.get();
        let c = self.0.as_mut_ptr();
        // The catch is in the caller's frame: near enough to the stack pointer.
        if (c as usize).wrapping_sub(ready_limit(task).get()) >= STACK_MAX {
            prepare(task)?;
        }
        // SAFETY: the fields of `catch`, written through its own pointer. `raised` but for its code, and registers need no value.
        unsafe {
            (&raw mut (*c).rsp).write(0);
            (&raw mut (*c).control).write(control_word(task).get());
            (&raw mut (*c).entry).write(entry);
            if matches!(shape, Shape::Full) {
                (&raw mut (*c).stack).write(stack.cast());
                (&raw mut (*c).stack_bytes).write(stack_bytes);
            }
            (&raw mut (*c).error).write(None);
            (&raw mut (*c).raised.code).write(0);
        }
        let routine = match shape {
            Shape::Pair => enter::planks_enter_pair,
            Shape::Integers => enter::planks_enter_integers,
            Shape::Registers => enter::planks_enter_registers,
            Shape::Full => enter::planks_enter_full,
        };
        // SAFETY: `c` is initialised as the routine needs it.
        unsafe { invoke(port, task, c, || routine(c.cast())) }
    }
}

/// Calls `f` in a catch: a trap in wasm code that it calls, by whatever pointer, becomes an `Err`, after the destructors
/// of all native frames in between have run.
///
/// A panic of `f` passes through.
#[inline]
pub fn catch_trap<R>(f: impl FnOnce() -> R) -> Result<R, Trap> {
    let port = port();
    let task = port.current.get();
    let here = &raw const task as usize;
    if here.wrapping_sub(ready_limit(task).get()) >= STACK_MAX {
        prepare(task)?;
    }
    let mut catch = MaybeUninit::<Catch>::uninit();
    let c = catch.as_mut_ptr();
    // SAFETY: as in `Activation::enter`. `rsp` stays 0: a native frame is always in between, so nobody jumps here.
    unsafe {
        (&raw mut (*c).rsp).write(0);
        (&raw mut (*c).error).write(None);
        (&raw mut (*c).raised.code).write(0);
    }
    // SAFETY: `c` is initialised.
    unsafe { invoke(port, task, c, f) }
}

/// Links the catch, calls `f` under the platform's `catch`, unlinks, and makes a [`Trap`] of what came.
///
/// # Safety
/// `c` is initialised but for `prev` and what `planks_enter` writes.
#[inline(always)]
unsafe fn invoke<R>(port: &Port, task: &TaskLocals, c: *mut Catch, f: impl FnOnce() -> R) -> Result<R, Trap> {
    let [slot, ..] = &task.slots;
    let prev = slot.get();
    // SAFETY: the caller's promise.
    unsafe { (&raw mut (*c).prev).write(prev) };
    // Exception handlers follow the list.
    compiler_fence(Ordering::Release);
    slot.set(c.expose_provenance());
    let outcome = port.catcher.catch(f);
    slot.set(prev);
    // SAFETY: `c` is no longer linked; `raised.code` is initialised, and with the code of a trap so is the rest.
    let (raised, look) = unsafe {
        let raised = &(*c).raised;
        (raised.code != 0, raised.code == LOOK || raised.code != 0 && raised.look)
    };
    match outcome {
        Ok(result) if !raised => Ok(result),
        // SAFETY: as above.
        Ok(_) if !look => Err(unsafe { trapped(task, c) }),
        // SAFETY: as above.
        Ok(result) => unsafe { leave(task, c, Ok(())) }.map(|()| result),
        Err(payload) => {
            // SAFETY: as above.
            let trap = unsafe { leave(task, c, Err(payload)) };
            Err(trap.expect_err("a call that is unwound ends by a trap, or the panic goes on"))
        }
    }
}

/// The trap of a call that it ended by landing at the catch, in a task that need not look: the way of nearly all traps.
///
/// # Safety
/// As for `leave`; `raised` has the code of a trap.
#[cold]
#[inline(never)]
unsafe fn trapped(task: &TaskLocals, c: *mut Catch) -> Trap {
    // SAFETY: the caller's promise. `error` is initialised and taken once.
    let trap = unsafe { Trap::raised(&mut (*c).raised, (*c).error.take()) };
    ended(task, &trap);
    trap
}

/// What became of a call that did not return, or is to look when it is left. The frame of this function lies where those of the call
/// were: it is kept small, so that nothing of them is left in it.
///
/// # Safety
/// `c` is unlinked and initialised as for `invoke`.
#[cold]
#[inline(never)]
unsafe fn leave(task: &TaskLocals, c: *mut Catch, outcome: Result<(), Box<dyn Any + Send>>) -> Result<(), Trap> {
    // SAFETY: the caller's promise.
    let (result, look) = unsafe { (trap_of(task, c, outcome), (*c).raised.code == LOOK) };
    if look {
        crate::retire::left(c as usize..c as usize + size_of::<Catch>());
    }
    result.unwrap_or_else(|panic| resume(panic))
}

/// The trap that ended a call, if one did; or the panic. Leaves [`LOOK`] in the catch if the task is to look.
///
/// # Safety
/// As for `leave`.
#[inline(never)]
unsafe fn trap_of(
    task: &TaskLocals,
    c: *mut Catch,
    outcome: Result<(), Box<dyn Any + Send>>,
) -> Result<Result<(), Trap>, Box<dyn Any + Send>> {
    // SAFETY: the caller's promise. With the code of a trap, all fields are initialised.
    let look = unsafe {
        let raised = &mut (*c).raised;
        let look = raised.code == LOOK || raised.code != 0 && raised.look;
        if raised.code == LOOK {
            raised.code = 0;
        }
        look
    };
    // SAFETY: as above.
    let result = unsafe { outcome_of(task, c, outcome) };
    if look {
        // Nobody reads the backtrace any more, and its program counters are not to be taken for something in use.
        // SAFETY: the caller's promise; any bytes are valid there.
        unsafe {
            (&raw mut (*c).raised.pcs).write_bytes(0, 1);
            (*c).raised.code = LOOK;
        }
    }
    result
}

/// The trap or panic that ended a call.
///
/// # Safety
/// As for `leave`.
unsafe fn outcome_of(
    task: &TaskLocals,
    c: *mut Catch,
    outcome: Result<(), Box<dyn Any + Send>>,
) -> Result<Result<(), Trap>, Box<dyn Any + Send>> {
    let trap = match outcome {
        // SAFETY: the caller's promise; `raised.code` is initialised.
        Ok(()) if unsafe { (*c).raised.code } == 0 => return Ok(Ok(())),
        // SAFETY: the caller's promise. `error` is initialised and taken once.
        Ok(()) => unsafe { Trap::raised(&mut (*c).raised, (*c).error.take()) },
        Err(payload) => match payload.downcast::<Trap>() {
            Ok(trap) => *trap,
            Err(panic) if is_exhaustion(&*panic) => Trap::new(TrapCode::OutOfMemory),
            Err(panic) => {
                // SAFETY: the caller's promise; `entry` is initialised when `planks_enter` ran.
                let entry = unsafe { if (*c).rsp == 0 { 0 } else { (*c).entry } };
                crate::recovery::panicked(entry);
                return Err(panic);
            }
        },
    };
    ended(task, &trap);
    Ok(Err(trap))
}

/// A trap has ended a call. If that was the outermost one, what waited for it is done.
#[inline]
fn ended(task: &TaskLocals, trap: &Trap) {
    // The calls further out are to end too: a kill stays requested for them.
    if innermost(task).is_null() {
        if trap.code() == TrapCode::Killed {
            crate::kill::done(task);
        }
        if !crate::recovery::after_failure() {
            stop_before_wasm(task);
        }
    }
}

/// The catches of a task that stands still, innermost first.
fn catches(task: &TaskLocals) -> impl Iterator<Item = *mut Catch> + '_ {
    let stack = task.stack_limit.get()..task.stack_top.get();
    let known = move |below: usize, c: *mut Catch| {
        let at = c as usize;
        (at > below && stack.contains(&at) && at.is_multiple_of(align_of::<Catch>())).then_some(c)
    };
    let first = known(0, innermost(task));
    // SAFETY: invariants 1 and 3: a linked catch lives, and nobody else changes it while its task stands still.
    core::iter::successors(first, move |c| known(*c as usize, with_exposed_provenance_mut(unsafe { (**c).prev })))
}

/// Where the outermost catch of a task that stands still ends; 0 outside of any. All calls by handles are below.
pub(crate) fn outermost_catch(task: &TaskLocals) -> usize {
    catches(task).last().map_or(0, |c| c as usize + size_of::<Catch>())
}

/// Whether an address of the stack lies where a linked catch has argument registers and backtrace: what is there is not in use any more,
/// or not yet written. The task stands still.
pub(crate) fn is_in_catch(task: &TaskLocals, at: usize) -> bool {
    let inside =
        |c: *mut Catch| (c as usize + offset_of!(Catch, registers)..c as usize + size_of::<Catch>()).contains(&at);
    catches(task).take_while(|c| *c as usize <= at).any(inside)
}

/// Has a task that stands still look when it leaves the innermost call that was entered above this address of its stack.
pub(crate) fn look_when_left(task: &TaskLocals, at: usize) {
    if let Some(c) = catches(task).find(|c| *c as usize > at) {
        // SAFETY: invariants 1 and 3, as in `catches`.
        let code = unsafe { &mut (*c).raised.code };
        if *code == 0 {
            *code = LOOK;
        }
    }
}

/// The limit of a stack that is ready for wasm; 0 when it must be prepared.
#[inline(always)]
pub(crate) fn ready_limit(task: &TaskLocals) -> &Cell<usize> {
    const { assert!(LIMIT_SLOT < LOCAL_SLOTS) };
    let [_, limit, ..] = &task.slots;
    limit
}

/// The floating-point control state of the task's first call.
#[inline(always)]
fn control_word(task: &TaskLocals) -> &Cell<usize> {
    const { assert!(CONTROL_SLOT < LOCAL_SLOTS) };
    let [_, _, control, ..] = &task.slots;
    control
}

/// Whether [`stop_before_wasm`] was ever called: until then no return to wasm has to look.
static STOPS: AtomicBool = AtomicBool::new(false);

/// Makes the task look after its stack and its kill request before it runs wasm code again. Called in exception context: when
/// the port opens the yellow zone for native code, and when a request to kill cannot act at once.
pub(crate) fn stop_before_wasm(task: &TaskLocals) {
    ready_limit(task).set(0);
    STOPS.store(true, Ordering::Relaxed);
}

/// Whether the task may have been asked to stop while it was in native code. Costs one load while no task ever was.
#[inline(always)]
pub(crate) fn may_have_to_stop() -> bool {
    STOPS.load(Ordering::Relaxed) && crate::kill::is_pending()
}

/// To be called before native code returns to wasm: closes the yellow zone if it was opened. `Err` when the stack is too
/// short for that, or the task is to stop; wasm must not run then.
#[inline(always)]
pub(crate) fn ready_to_return() -> Result<(), Trap> {
    if STOPS.load(Ordering::Relaxed) { prepare_return() } else { Ok(()) }
}

#[cold]
fn prepare_return() -> Result<(), Trap> {
    let task = current_task();
    match ready_limit(task).get() {
        0 => prepare(task),
        _ => Ok(()),
    }
}

/// The first call of a task, one after native code opened the yellow zone, one with too little stack left, or one of a task
/// that is to stop.
#[cold]
fn prepare(task: &TaskLocals) -> Result<(), Trap> {
    if crate::kill::requested(task) {
        return Err(crate::kill::refuse(task));
    }
    let recovering = !crate::recovery::after_failure();
    let first = task.stack_limit.get() == 0;
    match port().tasks.attach() {
        Ok(_) if runtime_port::task::stack_pointer() >= task.stack_limit.get() => {
            // Until every failed cell has recovered, the task comes by here before each call.
            ready_limit(task).set(if recovering { 0 } else { task.stack_limit.get() });
            // Somebody else may have attached it. A state is never 0.
            if control_word(task).get() == 0 {
                control_word(task).set(enter::control_state());
            }
            Ok(())
        }
        // A host function called from wasm close to the limit calls wasm again.
        Ok(_) => Err(Trap::new(TrapCode::StackOverflow)),
        Err(_) if !first => Err(Trap::new(TrapCode::StackOverflow)),
        Err(e) => Err(Trap::host(Box::new(e))),
    }
}

const _: () = {
    assert!(offset_of!(Catch, rsp) == 0);
    assert!(offset_of!(Catch, control) == 8);
    assert!(offset_of!(Catch, entry) == 16);
    assert!(offset_of!(Catch, stack) == 24);
    assert!(offset_of!(Catch, stack_bytes) == 32);
    assert!(offset_of!(Catch, registers) == 48);
    assert!(offset_of!(Catch, registers) + offset_of!(Registers, floats) == 112);
};

#[cfg(test)]
pub(crate) mod tests;
