//! What became of one fault.

use alloc::string::String;

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The fault met nothing: the result is right.
    Quiet,
    /// Its effect stayed where it belongs, was seen, and everything works again.
    Recovered,
    /// Something that must hold does not, in words.
    Lost(String),
}

/// One fault and its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The fault, within its kind.
    pub fault: &'static str,
    /// Where it was injected, in words: enough to find it again in a debugger.
    pub place: String,
    /// Whether the system noticed: an error for the caller, or a checksum that does not fit.
    pub detected: bool,
    /// How it ended.
    pub outcome: Outcome,
}
