//! What a runtime needs from the platform under it.
//!
//! One noun a file. The types a runtime uses ([`memory::MappedPages`], [`unwind::UnwindRegistration`],
//! …) are written once, here, over the small traits that a port implements ([`Platform`] and the
//! traits it gives out). Two ports are included: `hosted` (a Linux process) and `bare_metal` (x86-64 ring 0).
//! A kernel outside this repository implements [`Platform`] itself and calls [`install`] once.
//!
//! | a runtime needs | it is in |
//! | --- | --- |
//! | heap | the program's global allocator; [`heap`] for fallible allocation, failure without a way to say so, statistics |
//! | unwinding: catch, resume, registration | [`unwind`] |
//! | backtraces, file and line | [`backtrace`] |
//! | address space, mappings, shared frames | [`memory`] |
//! | mutual exclusion, waiting | [`sync`] |
//! | trap signals | [`trap`] |
//! | tasks, task-local slots, stack pointer | [`task`] |
//! | files, paths | [`fs`], [`path`] |
//! | I/O traits | [`io`] |
//! | clock, randomness | [`time`], [`random`] |
//! | standard output, log | [`console`] |
//! | processor features | [`cpu`] |
//! | errors | `core::error::Error`, implemented by every error type here |
//! | object files, serialisation | not the platform's: crate `wasm_cell` writes and reads cell objects and metadata |
//!
//! This crate knows nothing of WebAssembly.
#![no_std]

extern crate alloc;
#[cfg(feature = "hosted")]
extern crate std;

pub mod backtrace;
#[cfg(feature = "bare_metal")]
pub mod bare_metal;
pub mod console;
pub mod cpu;
pub mod fs;
pub mod heap;
#[cfg(feature = "hosted")]
pub mod hosted;
pub mod io;
pub mod memory;
pub mod path;
pub mod platform;
pub mod random;
pub mod range_index;
pub mod sync;
pub mod task;
pub mod time;
pub mod together;
pub mod trap;
pub mod unwind;

pub use platform::{Platform, install, platform};
