//! Spec scripts: runs `.wast` files as the WebAssembly testsuite defines them and counts honestly.
//!
//! The text becomes the binary form of crate `conformance` here ([`convert()`]); the runner is that crate's, and the same
//! in the kernel.

mod convert;
mod exclusions;
pub mod json;
mod kernel;
mod run;
mod suite;

pub use conformance::script::{Failure, FileReport, Outcome, Totals};
pub use convert::{Unreadable, convert};
pub use exclusions::Exclusions;
pub use kernel::{Kernel, differences};
pub use run::{Options, run, run_script};
pub use suite::{ScriptFile, builtin_suite, collect};
