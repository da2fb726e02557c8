//! The checks that the kernel carries: what only ring 0 can show.
//!
//! Each is a function that returns an error or panics when the behaviour in its name does not hold. Results go to the
//! console in the form of Rust's test runner.

mod cells;
mod code_region;
mod compiling;
mod components;
mod exceptions;
#[cfg(feature = "inject")]
mod mapped_pages;
mod memory;
#[cfg(feature = "inject")]
mod native;
mod native_faults;
mod platform;
#[cfg(feature = "inject")]
mod reclaim;
mod tasks;
mod tasks_in_cells;
mod unwinding;

use crate::exit::Status;
use alloc::{format, string::String};
use core::fmt::Write;
use runtime_port::{
    bare_metal::console::Console,
    unwind::{KillReason, catch_unwind_with_arg},
};

/// What a check yields; the text says what was wrong.
type Outcome = Result<(), String>;

/// A named check.
type Check = (&'static str, fn() -> Outcome);

/// Runs the checks whose name contains `part`.
pub fn run_all(part: &str) -> Status {
    let all = [
        // First: how much memory it takes is seen on a heap that has not grown yet.
        compiling::CHECKS,
        memory::CHECKS,
        exceptions::CHECKS,
        platform::CHECKS,
        unwinding::CHECKS,
        native_faults::CHECKS,
        cells::CHECKS,
        code_region::CHECKS,
        #[cfg(feature = "inject")]
        mapped_pages::CHECKS,
        #[cfg(feature = "inject")]
        native::CHECKS,
        #[cfg(feature = "inject")]
        reclaim::CHECKS,
        tasks::CHECKS,
        tasks_in_cells::CHECKS,
        components::CHECKS,
    ];
    let (mut passed, mut failed) = (0, 0);
    // Output that fails is dropped: the status counts.
    for (name, check) in all.into_iter().flatten().filter(|(name, _)| name.contains(part)) {
        let outcome = catch(check)
            .unwrap_or_else(|reason| Err(format!("panicked: {}", reason.message().unwrap_or("(no message)"))));
        match outcome {
            Ok(()) => {
                passed += 1;
                let _ = writeln!(Console, "test {name} ... ok");
            }
            Err(why) => {
                failed += 1;
                let _ = writeln!(Console, "test {name} ... FAILED: {why}");
            }
        }
    }
    let _ = writeln!(Console, "{passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { Status::Success } else { Status::Failure }
}

/// Calls `f` and returns why it did not return.
fn catch<R>(f: impl FnOnce() -> R) -> Result<R, KillReason> {
    catch_unwind_with_arg(|()| f(), ())
}

/// An error unless `left == right`.
fn expect_eq<T: PartialEq + core::fmt::Debug>(what: &str, left: T, right: T) -> Outcome {
    if left == right { Ok(()) } else { Err(format!("{what}: {left:?} instead of {right:?}")) }
}

/// An error unless the condition holds.
fn expect(what: &str, condition: bool) -> Outcome {
    if condition { Ok(()) } else { Err(String::from(what)) }
}
