//! Catching and resuming.

use super::KillReason;
use crate::platform::platform;
use alloc::boxed::Box;

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
