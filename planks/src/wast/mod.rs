//! Spec scripts: runs `.wast` files as the WebAssembly testsuite defines them and counts honestly.
//!
//! Each file gets a namespace of its own with the cell `spectest` in it. Every directive has an [`Outcome`]; an
//! assertion and a command (a module, an invocation, a registration that must succeed) fail alike, only the former are
//! counted as passed. What a file does with a refused feature is counted apart, by the feature's name.

mod exclusions;
mod message;
mod report;
mod run;
mod script;
mod suite;
mod value;
mod world;

pub use exclusions::Exclusions;
pub use report::{Failure, FileReport, Totals};
pub use run::{Options, run};
pub use script::run_script;
pub use suite::{ScriptFile, builtin_suite, collect};

/// What became of a directive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As the script says.
    Passed,
    /// Not as the script says.
    Failed(String),
    /// Needs a feature, of this name, that the compiler refuses.
    Refused(String),
}
