//! Catching and resuming.

use super::{KillReason, UnwindPort};
use crate::platform::{Platform, platform};
use alloc::boxed::Box;
use core::any::Any;

/// The way to the port's `catch`, found once: a call of the port, or, with the hosted port, std's inlined one, which saves two
/// indirect calls.
#[derive(Clone, Copy)]
pub struct Catcher {
    unwinder: &'static dyn UnwindPort,
    #[cfg(feature = "hosted")]
    hosted: bool,
}

impl Catcher {
    /// The way for the port in use.
    pub fn of(platform: &'static dyn Platform) -> Catcher {
        Catcher {
            unwinder: platform.unwinder(),
            #[cfg(feature = "hosted")]
            hosted: core::ptr::addr_eq(platform, &crate::hosted::HOSTED),
        }
    }

    /// Calls `f`; the payload of a panic that leaves it is the error.
    #[inline(always)]
    pub fn catch<R>(&self, f: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
        #[cfg(feature = "hosted")]
        if self.hosted {
            return crate::hosted::unwind::catch(f);
        }
        self.catch_by_port(f)
    }

    #[inline]
    fn catch_by_port<R>(&self, f: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
        let mut call = Call { input: Some((|()| f(), ())), output: None };
        let routine = routine_of(&call);
        // SAFETY: `routine` is `run` for exactly this type, and `call` is valid meanwhile.
        unsafe { self.unwinder.catch(routine, (&raw mut call).cast()) }?;
        Ok(call.output.unwrap_or_else(|| unreachable!("`run` stores a result unless it unwinds")))
    }

    /// Continues unwinding with this payload.
    pub fn resume(&self, payload: Box<dyn Any + Send>) -> ! {
        self.unwinder.resume(payload)
    }
}

impl core::fmt::Debug for Catcher {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Catcher")
    }
}

/// [`run`] for this call.
fn routine_of<F: FnOnce(A) -> R, A, R>(_: &Call<F, A, R>) -> unsafe extern "C-unwind" fn(*mut u8) {
    run::<F, A, R>
}

/// What the port calls back with.
struct Call<F, A, R> {
    input: Option<(F, A)>,
    output: Option<R>,
}

/// Calls `f(arg)`; a panic or a [`resume_unwind`] that leaves it becomes the error (Theseus: crate `catch_unwind`).
pub fn catch_unwind_with_arg<F, A, R>(f: F, arg: A) -> Result<R, KillReason>
where
    F: FnOnce(A) -> R,
{
    let mut call = Call { input: Some((f, arg)), output: None };
    // SAFETY: `run` with these type parameters takes a pointer to exactly this type, valid for the call.
    let result = unsafe { platform().unwinder().catch(run::<F, A, R>, (&raw mut call).cast()) };
    match (result, call.output) {
        (Ok(()), Some(output)) => Ok(output),
        (Ok(()), None) => unreachable!("`run` stores a result unless it unwinds"),
        (Err(payload), _) => Err(match payload.downcast::<KillReason>() {
            Ok(reason) => *reason,
            Err(payload) => KillReason::Panic(payload),
        }),
    }
}

/// # Safety
/// `data` must point to a `Call<F, A, R>` that nobody else uses.
unsafe extern "C-unwind" fn run<F: FnOnce(A) -> R, A, R>(data: *mut u8) {
    // SAFETY: the caller's promise.
    let call = unsafe { &mut *data.cast::<Call<F, A, R>>() };
    if let Some((f, arg)) = call.input.take() {
        call.output = Some(f(arg));
    }
}

/// Unwinds the current task's stack up to the nearest catch, which gets `reason`. Destructors run, the panic hook does
/// not (Theseus: `catch_unwind::resume_unwind`).
pub fn resume_unwind(reason: KillReason) -> ! {
    platform().unwinder().resume(match reason {
        KillReason::Panic(payload) => payload,
        other => Box::new(other),
    })
}
