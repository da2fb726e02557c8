//! What a runtime needs from the platform under it.
//!
//! One noun a file. The types a runtime uses ([`memory::MappedPages`], [`unwind::UnwindRegistration`],
//! …) are written once, here, over the small traits that a port implements ([`Platform`] and the
//! traits it gives out). Two ports are included: `hosted` (a Linux process) and `bare_metal` (x86-64 ring 0).
//! A kernel outside this repository implements [`Platform`] itself and calls [`install`] once.
//!
//! This crate knows nothing of WebAssembly.
#![no_std]

extern crate alloc;
#[cfg(feature = "hosted")]
extern crate std;

#[cfg(feature = "hosted")]
pub mod hosted;
pub mod memory;
pub mod platform;
pub mod task;
pub mod trap;
pub mod unwind;

pub use platform::{Platform, install, platform};
