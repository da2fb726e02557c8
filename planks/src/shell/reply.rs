//! What a command answers.

use crate::printable::Printable;
use alloc::string::String;
use core::fmt;
use serde_json::Value;

/// An answer, for people and for scripts.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    text: String,
    json: Value,
    as_json: bool,
}

impl Reply {
    /// An answer in both forms. The text ends with a newline unless it is empty.
    pub fn new(text: impl Into<String>, json: Value) -> Reply {
        Reply { text: text.into(), json, as_json: false }
    }

    /// The same answer, shown as JSON.
    pub fn as_json(mut self) -> Reply {
        self.as_json = true;
        self
    }

    /// The form for scripts.
    pub fn json(&self) -> &Value {
        &self.json
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.as_json { writeln!(f, "{}", self.json) } else { Printable(&self.text).fmt(f) }
    }
}
