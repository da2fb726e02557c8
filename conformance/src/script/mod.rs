//! Spec scripts in binary form, and the runner that counts honestly what they find.
//!
//! Each script gets a namespace of its own with the cell `spectest` in it. Every directive has an [`Outcome`]; an
//! assertion and a command (a module, an invocation, a registration that must succeed) fail alike, only the former are
//! counted as passed. What a script does with a refused feature is counted apart, by the feature's name.
//!
//! | file | noun |
//! | --- | --- |
//! | `directive` | a script: what it says, modules assembled |
//! | `encoding` | a script as bytes and back |
//! | `value` | arguments, and patterns that results must match |
//! | `world` | what a script acts on: namespace, modules, instances |
//! | `runner` | from a script to a report |
//! | `message` | whether a trap is the one that is expected |
//! | `report` | counts, and their line on a console |

pub mod directive;
pub mod encoding;
mod message;
mod report;
mod runner;
pub mod value;
mod world;

pub use directive::{Action, Directive, Execute, Invoke, Module, Script};
pub use report::{Failure, FileReport, Totals};
pub use runner::run_script;

use alloc::string::String;

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
