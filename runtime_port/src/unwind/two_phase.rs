//! The two-phase protocol of the Itanium C++ ABI (part "Exception Handling", level I; System V psABI, 6.2).
//!
//! Phase 1 walks outwards and asks each personality routine whether its frame handles the exception; nothing has happened yet
//! when nobody does. Phase 2 walks again and lets each frame up to the handler clean up: the personality routine says
//! where, the frame's code runs and ends in `_Unwind_Resume`, which goes on. What phase 2 needs to know stands in the
//! exception's two private words with the meaning that libgcc gives them, so that an exception may pass from one unwinder
//! to the other between two frames.
//!
//! Nothing here allocates or locks.

use super::context::{Context, Facts, Saved, Stop};
use super::finder::Asker;
use core::ffi::c_void;

/// Head of every exception object (psABI, 6.2.1).
#[repr(C, align(16))]
#[derive(Debug)]
pub struct UnwindException {
    /// Whose exception it is.
    pub class: u64,
    /// Called when somebody else than the thrower destroys it.
    pub cleanup: Option<unsafe extern "C" fn(ReasonCode, *mut UnwindException)>,
    /// 0, or the address of the stop function of a forced unwinding.
    stop: usize,
    /// Identity of the handler's frame, or argument of the stop function.
    private: usize,
}

impl UnwindException {
    /// An exception that was not raised yet.
    pub const fn new(class: u64) -> UnwindException {
        UnwindException { class, cleanup: None, stop: 0, private: 0 }
    }
}

/// `_Unwind_Reason_Code`.
pub type ReasonCode = i32;

/// Reason codes (psABI, 6.2.1).
pub mod reason {
    use super::ReasonCode;
    /// Fine; of a callback: go on.
    pub const NO_REASON: ReasonCode = 0;
    /// Phase 2 cannot go on.
    pub const FATAL_PHASE2_ERROR: ReasonCode = 2;
    /// Phase 1 cannot go on.
    pub const FATAL_PHASE1_ERROR: ReasonCode = 3;
    /// Nobody handles it.
    pub const END_OF_STACK: ReasonCode = 5;
    /// Phase 1: this frame handles it.
    pub const HANDLER_FOUND: ReasonCode = 6;
    /// Phase 2: go on in this frame, where the context was set to.
    pub const INSTALL_CONTEXT: ReasonCode = 7;
    /// Nothing to do in this frame.
    pub const CONTINUE_UNWIND: ReasonCode = 8;
}

/// What a personality routine is asked for (psABI, 6.2.1).
pub mod action {
    /// Phase 1.
    pub const SEARCH_PHASE: i32 = 1;
    /// Phase 2.
    pub const CLEANUP_PHASE: i32 = 2;
    /// Phase 2, in the frame that said it handles the exception.
    pub const HANDLER_FRAME: i32 = 4;
    /// A forced unwinding: no handler, only cleanup.
    pub const FORCE_UNWIND: i32 = 8;
    /// The end of the stack, for the stop function.
    pub const END_OF_STACK: i32 = 16;
}

/// A personality routine.
pub type Personality =
    unsafe extern "C" fn(version: i32, actions: i32, class: u64, *mut UnwindException, *mut Context) -> ReasonCode;

/// A stop function of a forced unwinding.
pub type StopFunction = unsafe extern "C" fn(
    version: i32,
    actions: i32,
    class: u64,
    *mut UnwindException,
    *mut Context,
    *mut c_void,
) -> ReasonCode;

/// What `_Unwind_Backtrace` calls for each frame.
pub type TraceFunction = unsafe extern "C" fn(*mut Context, *mut c_void) -> ReasonCode;

impl Context {
    /// Tells the accessors about this frame's code.
    #[inline]
    fn enter(&mut self, facts: &Facts) {
        self.function = facts.function;
        self.lsda = facts.lsda;
        self.args_size = facts.args_size;
    }

    /// Asks the frame's personality routine.
    ///
    /// # Safety
    /// `exception` is an exception object.
    #[inline]
    unsafe fn ask(&mut self, facts: &Facts, actions: i32, exception: *mut UnwindException) -> ReasonCode {
        if facts.personality == 0 {
            return reason::CONTINUE_UNWIND;
        }
        if !self.is_whole() {
            // Behind a frame whose unwind info is damaged nobody can clean up; nothing at all is done then.
            return reason::FATAL_PHASE1_ERROR;
        }
        // SAFETY: the unwind info of the code says that this is its personality routine.
        unsafe {
            let routine = core::mem::transmute::<usize, Personality>(facts.personality);
            routine(1, actions, (*exception).class, exception, self)
        }
    }
}

/// `_Unwind_RaiseException`. Returns only when the exception was not raised.
///
/// # Safety
/// `exception` is an exception object that lives until it is caught, `saved` are the registers of the caller.
pub(super) unsafe extern "C-unwind" fn raise(exception: *mut UnwindException, saved: &Saved) -> ReasonCode {
    let mut context = Context::new(saved, Asker::Task);
    loop {
        let facts = match context.facts() {
            Ok(facts) => facts,
            Err(Stop::End) => return reason::END_OF_STACK,
            Err(Stop::Damaged) => return reason::FATAL_PHASE1_ERROR,
        };
        context.enter(&facts);
        // SAFETY: by the caller.
        match unsafe { context.ask(&facts, action::SEARCH_PHASE, exception) } {
            reason::HANDLER_FOUND => break,
            reason::CONTINUE_UNWIND => {}
            _ => return reason::FATAL_PHASE1_ERROR,
        }
        match context.step(&facts) {
            Ok(()) => {}
            Err(Stop::End) => return reason::END_OF_STACK,
            Err(Stop::Damaged) => return reason::FATAL_PHASE1_ERROR,
        }
    }
    // SAFETY: by the caller.
    unsafe {
        (*exception).stop = 0;
        (*exception).private = context.identity();
        context = Context::new(saved, Asker::Task);
        clean_up(exception, &mut context)
    }
}

/// Whether an exception raised in this frame would find a handler: phase 1. `exception` need not live longer.
#[cfg(feature = "bare_metal")]
pub(crate) fn finds_handler(mut context: Context, exception: &mut UnwindException) -> bool {
    loop {
        let Ok(facts) = context.facts() else { return false };
        context.enter(&facts);
        // SAFETY: an exception object; in phase 1 personality routines only look at its class.
        match unsafe { context.ask(&facts, action::SEARCH_PHASE, exception) } {
            reason::HANDLER_FOUND => return true,
            reason::CONTINUE_UNWIND if context.step(&facts).is_ok() => {}
            _ => return false,
        }
    }
}

/// Phase 2, up to the first frame that has something to do. Returns only when that fails.
///
/// # Safety
/// As for [`raise`]; phase 1 has found a handler.
#[inline(always)]
unsafe fn clean_up(exception: *mut UnwindException, context: &mut Context) -> ReasonCode {
    // SAFETY: by the caller.
    let handler = unsafe { (*exception).private };
    loop {
        let Ok(facts) = context.facts() else { return reason::FATAL_PHASE2_ERROR };
        context.enter(&facts);
        let in_handler = context.identity() == handler;
        let actions = action::CLEANUP_PHASE | if in_handler { action::HANDLER_FRAME } else { 0 };
        // SAFETY: by the caller; after `INSTALL_CONTEXT` the context says where the frame goes on.
        match unsafe { context.ask(&facts, actions, exception) } {
            // SAFETY: the frame's own personality has said where it goes on.
            reason::INSTALL_CONTEXT => unsafe { super::abi::install(context) },
            reason::CONTINUE_UNWIND if !in_handler => {}
            _ => return reason::FATAL_PHASE2_ERROR,
        }
        if context.step(&facts).is_err() {
            return reason::FATAL_PHASE2_ERROR;
        }
    }
}

/// `_Unwind_ForcedUnwind`.
///
/// # Safety
/// As for [`raise`]; `argument` is what the stop function expects.
pub(super) unsafe extern "C-unwind" fn force(
    exception: *mut UnwindException,
    stop: StopFunction,
    argument: *mut c_void,
    saved: &Saved,
) -> ReasonCode {
    // SAFETY: by the caller.
    unsafe {
        (*exception).stop = stop as usize;
        (*exception).private = argument as usize;
        clean_up_by_force(exception, &mut Context::new(saved, Asker::Task))
    }
}

/// Phase 2 of a forced unwinding, up to the first frame that has something to do. Returns only when that fails or the
/// stop function wants no more.
///
/// # Safety
/// As for [`force`], whose arguments the exception holds.
unsafe fn clean_up_by_force(exception: *mut UnwindException, context: &mut Context) -> ReasonCode {
    const ACTIONS: i32 = action::FORCE_UNWIND | action::CLEANUP_PHASE;
    let mut at_end = false;
    loop {
        let facts = match context.facts() {
            Ok(facts) => Some(facts),
            Err(Stop::End) => None,
            Err(Stop::Damaged) => return reason::FATAL_PHASE2_ERROR,
        };
        at_end |= facts.is_none();
        if let Some(facts) = &facts {
            context.enter(facts);
        }
        let actions = ACTIONS | if at_end { action::END_OF_STACK } else { 0 };
        // SAFETY: `force` put both there.
        let answer = unsafe {
            let (stop, argument) = ((*exception).stop, (*exception).private as *mut c_void);
            let stop = core::mem::transmute::<usize, StopFunction>(stop);
            stop(1, actions, (*exception).class, exception, context, argument)
        };
        let Some(facts) = facts.filter(|_| answer == reason::NO_REASON && !at_end) else {
            return if answer == reason::NO_REASON && at_end {
                reason::END_OF_STACK
            } else {
                reason::FATAL_PHASE2_ERROR
            };
        };
        // SAFETY: as in `clean_up`.
        match unsafe { context.ask(&facts, ACTIONS, exception) } {
            // SAFETY: the frame's own personality has said where it goes on.
            reason::INSTALL_CONTEXT => unsafe { super::abi::install(context) },
            reason::CONTINUE_UNWIND => {}
            _ => return reason::FATAL_PHASE2_ERROR,
        }
        match context.step(&facts) {
            Ok(()) => {}
            Err(Stop::End) => at_end = true,
            Err(Stop::Damaged) => return reason::FATAL_PHASE2_ERROR,
        }
    }
}

/// `_Unwind_Resume`: a frame has cleaned up.
///
/// # Safety
/// `exception` is in phase 2; `saved` are the registers of the caller, a landing pad's code.
pub(super) unsafe extern "C-unwind" fn resume(exception: *mut UnwindException, saved: &Saved) -> ! {
    let mut context = Context::new(saved, Asker::Task);
    // SAFETY: by the caller.
    let code = unsafe {
        match (*exception).stop {
            0 => clean_up(exception, &mut context),
            _ => clean_up_by_force(exception, &mut context),
        }
    };
    super::abi::lost(code)
}

/// `_Unwind_Resume_or_Rethrow`: as [`raise`], or goes on with a forced unwinding.
///
/// # Safety
/// As for [`raise`] or [`resume`].
pub(super) unsafe extern "C-unwind" fn resume_or_rethrow(exception: *mut UnwindException, saved: &Saved) -> ReasonCode {
    // SAFETY: by the caller.
    unsafe {
        match (*exception).stop {
            0 => raise(exception, saved),
            _ => clean_up_by_force(exception, &mut Context::new(saved, Asker::Task)),
        }
    }
}

/// `_Unwind_Backtrace`.
///
/// # Safety
/// `trace` may be called with `argument`; `saved` are the registers of the caller.
pub(super) unsafe extern "C-unwind" fn backtrace(
    trace: TraceFunction,
    argument: *mut c_void,
    saved: &Saved,
) -> ReasonCode {
    let mut context = Context::new(saved, Asker::Task);
    loop {
        let facts = context.facts();
        if let Ok(facts) = &facts {
            context.enter(facts);
        }
        // SAFETY: by the caller. Damaged info ends the trace behind the frame it belongs to.
        if unsafe { trace(&mut context, argument) } != reason::NO_REASON {
            return reason::FATAL_PHASE1_ERROR;
        }
        let Ok(facts) = facts else { return reason::END_OF_STACK };
        if context.step(&facts).is_err() {
            return reason::END_OF_STACK;
        }
    }
}

/// Whether an exception raised by the caller would get as far as the stack address `up_to`, as far as unwind info goes.
pub(super) extern "C" fn is_clear(up_to: usize, saved: &Saved) -> bool {
    let mut context = Context::new(saved, Asker::Task);
    while context.stack_pointer() <= up_to {
        let Ok(facts) = context.facts() else { return false };
        if facts.personality != 0 && !context.is_whole() || context.step(&facts).is_err() {
            return false;
        }
    }
    true
}

/// `_Unwind_FindEnclosingFunction`: start of the function that contains the address, or null.
pub(super) extern "C" fn enclosing_function(pc: usize) -> usize {
    // As libgcc: the address is a return address.
    super::finder::with_record(pc.wrapping_sub(1), Asker::Task, |r, _| r.start).unwrap_or(0)
}
