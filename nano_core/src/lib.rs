//! Plain data that the kernel reads at boot: the boot archive and the command line.
//!
//! The kernel image is the binary target (feature `bare_metal`). What stands here needs no processor, so it is tested
//! on the host, and the tools that write it can read it back.
#![no_std]
#![deny(unsafe_code)] // but for `linkable`

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod archive;
pub mod command_line;
pub mod disks;
pub mod injection_line;
#[cfg(feature = "bare_metal")]
mod linkable;
pub mod storm_line;
pub mod suites_line;
pub mod ymodem;
