//! One differential case: a module, what satisfies its imports, and what is done with it.

use super::provider::Provider;
use super::transcript::{Kind, Value};
use std::fmt;

/// Cell name of the module under test. No generated import can be called this.
pub const SUBJECT: &str = "subject of the comparison";

/// A call of an export.
#[derive(Clone, Debug)]
pub struct Call {
    /// Name of the export.
    pub export: String,
    /// Arguments.
    pub args: Vec<Value>,
    /// Kinds of the results.
    pub results: Vec<Kind>,
}

/// State that is compared in the end.
#[derive(Clone, Debug)]
pub struct Observed {
    /// [`SUBJECT`], or the name of a provider.
    pub cell: String,
    /// Name of the export.
    pub export: String,
    /// What it is.
    pub kind: ObservedKind,
}

/// What kind of export is observed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObservedKind {
    /// Size and contents.
    Memory,
    /// Length, and which elements are null.
    Table,
    /// The value.
    Global(Kind),
}

/// A module with all that is needed to run it.
#[derive(Clone, Debug)]
pub struct Case {
    /// The module.
    pub module: Vec<u8>,
    /// One per distinct module name among the imports.
    pub providers: Vec<Provider>,
    /// Calls, in order.
    pub calls: Vec<Call>,
    /// State to compare afterwards.
    pub observed: Vec<Observed>,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for p in &self.providers {
            writeln!(f, ";; provider {:?}\n{}", p.name, p.text)?;
        }
        for c in &self.calls {
            writeln!(f, ";; call {:?} {:?}", c.export, c.args)?;
        }
        write!(f, ";; module, {} bytes:\n;; ", self.module.len())?;
        self.module.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
