//! Building nano_core and starting it in an emulator.
//!
//! [`kernel::build`] makes the image, [`archive::Builder`] packs the files it finds at boot, and a [`machine::Machine`] runs
//! both in QEMU and tells how the run ended. The `xtask` binary and `planks boot` share this. [`packages`] fetches the modules of
//! other people that tests run, [`third_party`] packs those for the kernel.
#![deny(unsafe_code)]

pub mod apt;
pub mod archive;
pub mod compilers;
pub mod kernel;
pub mod library;
pub mod machine;
pub mod native;
pub mod packages;
pub mod qemu;
pub mod symbols;
pub mod third_party;
pub mod ymodem;
