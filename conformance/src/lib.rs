//! What runs the same in a process and in the kernel: spec scripts, third-party modules with known answers.
//!
//! [`script`] runs the WebAssembly testsuite from a binary form that `planks wast` makes of the text.
//! [`third_party`] puts modules of other people, which whoever runs it brings, to questions whose answers are known.
//! All of it uses only the interface of `namespace_bridge` and the port, so a result that holds in one place and not in the
//! other is a defect of a port. A crate of its own above them, so that no kernel carries it that does not want it.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod script;
pub mod third_party;
