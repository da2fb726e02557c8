//! Panics: a line on the console, then unwinding with the message as payload.

use crate::exit::fatal;
use alloc::{boxed::Box, string::String};
use core::{
    any::Any,
    fmt::{self, Write},
    panic::PanicInfo,
    sync::atomic::{AtomicBool, Ordering},
};
use runtime_port::{bare_metal::console::Console, platform};

/// Payload of a panic for whose message there was no memory.
struct MessageLost;

/// Set while the message is built: a panic in there (a `Display` that panics) must not come back.
static BUILDING: AtomicBool = AtomicBool::new(false);

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Output that fails is dropped: the panic itself goes on.
    let _ = match info.location() {
        Some(place) => writeln!(Console, "panic at {place}: {}", info.message()),
        None => writeln!(Console, "panic: {}", info.message()),
    };
    if !info.can_unwind() {
        fatal(format_args!("a panic where unwinding is not allowed"));
    }
    if BUILDING.swap(true, Ordering::Relaxed) {
        fatal(format_args!("a panic while the message of another one was built"));
    }
    let payload = payload(info);
    BUILDING.store(false, Ordering::Relaxed);
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
