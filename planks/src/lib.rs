//! The command line of Planks: runs, compiles, tests and inspects wasm cells.
//!
//! The shell's commands ([`shell`]) need only `alloc` and a namespace; the kernel's serial console runs the same ones.
//! Everything else is for a process with files and a terminal and lives behind feature `std`.
#![cfg_attr(not(feature = "std"), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

#[cfg(feature = "std")]
mod atomic_file;
#[cfg(feature = "bench")]
pub mod bench;
#[cfg(feature = "std")]
pub mod cache;
#[cfg(feature = "std")]
pub mod command;
#[cfg(feature = "std")]
mod disassembly;
#[cfg(feature = "std")]
mod environment;
pub mod failure;
#[cfg(feature = "std")]
mod input;
#[cfg(feature = "std")]
mod native_listing;
#[cfg(feature = "std")]
mod open_files;
pub mod printable;
#[cfg(feature = "std")]
mod progress;
#[cfg(feature = "std")]
pub mod seal_key;
pub mod shell;
pub mod value;
#[cfg(feature = "std")]
pub mod wasi;
#[cfg(feature = "std")]
pub mod wast;
