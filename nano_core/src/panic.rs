//! Panics: a line on the console, then unwinding with the message as payload.
//!
//! And the name of the personality routine, which the compiler wants from whoever is at the bottom.

use crate::exit::fatal;
use alloc::{boxed::Box, string::String};
use core::{
    any::Any,
    fmt::{self, Write},
    panic::PanicInfo,
    sync::atomic::{AtomicU64, Ordering},
};
use runtime_port::{
    bare_metal::{console::Console, task},
    platform,
    unwind::{Context, ReasonCode, UnwindException, rust_personality},
};

/// Payload of a panic for whose message there was no memory.
struct MessageLost;

/// The task that builds a message, 0 for none: a panic in there (a `Display` that panics) must not come back. Another task
/// that panics meanwhile waits its turn.
static BUILDING: AtomicU64 = AtomicU64::new(0);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let (task, id) = task::current_name();
    // Output that fails is dropped: the panic itself goes on.
    let _ = match info.location() {
        Some(place) => writeln!(Console, "panic in task `{task}` at {place}: {}", info.message()),
        None => writeln!(Console, "panic in task `{task}`: {}", info.message()),
    };
    if !info.can_unwind() {
        fatal(format_args!("a panic where unwinding is not allowed"));
    }
    while let Err(builder) = BUILDING.compare_exchange(0, id, Ordering::Acquire, Ordering::Relaxed) {
        if builder == id {
            fatal(format_args!("a panic while the message of another one was built"));
        }
        platform().tasks().yield_now();
    }
    let payload = payload(info);
    BUILDING.store(0, Ordering::Release);
    platform().unwinder().resume(payload)
}

fn payload(info: &PanicInfo<'_>) -> Box<dyn Any + Send> {
    let mut text = Text(String::new());
    match write!(text, "{}", info.message()) {
        Ok(()) => Box::new(text.0),
        Err(_) => Box::new(MessageLost), // of size 0, so nothing is allocated
    }
}

/// Text that may fail to grow.
struct Text(String);

impl Write for Text {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.0.try_reserve(part.len()).map_err(|_| fmt::Error)?;
        self.0.push_str(part);
        Ok(())
    }
}

/// What the unwind info of all Rust code names as its personality routine.
///
/// # Safety
/// Called by the unwinder.
#[lang = "eh_personality"]
unsafe extern "C" fn rust_eh_personality(
    version: i32,
    actions: i32,
    class: u64,
    exception: *mut UnwindException,
    context: &mut Context,
) -> ReasonCode {
    // SAFETY: by the caller.
    unsafe { rust_personality(version, actions, class, exception, context) }
}
