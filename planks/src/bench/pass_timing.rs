//! The code generator's own clock, stopped.
//!
//! `wasmtime` switches on a feature of the code generator that takes the time of each of its passes. Features are a program's, not a crate's, so in
//! this program, and in no other, this system's compilations would pay for it too. For both sides alike nobody takes it.

use cranelift_codegen::timing::{Pass, Profiler, set_thread_profiler};
use std::any::Any;

/// Takes no time.
struct Stopped;

impl Profiler for Stopped {
    fn start_pass(&self, _: Pass) -> Box<dyn Any> {
        Box::new(())
    }
}

/// Stops the clock for what the calling thread compiles from now on.
pub fn stop() {
    set_thread_profiler(Box::new(Stopped));
}
