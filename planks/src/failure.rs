//! Why a command failed, and the exit code that says so to scripts.

use alloc::format;
use alloc::string::{String, ToString};
use namespace_bridge::error::{LoadError, UnloadError};
use namespace_bridge::trap::Trap;
use serde_json::{Value, json};
use wasm_cell::CompileError;

/// Kind of a failure. The numbers are the exit codes of `planks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The module trapped, or an assertion of a script failed.
    Failed = 1,
    /// The command was not understood.
    Usage = 2,
    /// The bytes are no module that can be compiled.
    Invalid = 3,
    /// Imports cannot be linked, or a name is taken or unknown.
    Link = 4,
    /// A file cannot be read or written.
    File = 5,
    /// The system lacks something: memory, an emulator.
    System = 6,
}

impl Kind {
    /// The exit code.
    pub fn exit_code(self) -> u8 {
        self as u8
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Failed => "failed",
            Kind::Usage => "usage",
            Kind::Invalid => "invalid",
            Kind::Link => "link",
            Kind::File => "file",
            Kind::System => "system",
        }
    }
}

/// Why a command failed: what, where, what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind it is.
    pub kind: Kind,
    /// The words.
    pub message: String,
}

impl Failure {
    /// A failure of some kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }

    /// A command that was not understood.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Kind::Usage, message)
    }

    /// A file that cannot be used.
    pub fn file(path: &str, why: impl core::fmt::Display) -> Failure {
        Failure::new(Kind::File, format!("{path}: {why}"))
    }

    /// A module that was refused.
    pub fn compile(path: &str, e: &CompileError) -> Failure {
        Failure::new(Kind::Invalid, format!("{path}: {e}"))
    }

    /// A trap, with its backtrace.
    pub fn trap(trap: &Trap) -> Failure {
        Failure::new(Kind::Failed, format!("trap: {trap:#}"))
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        json!({ "error": { "kind": self.kind.name(), "exit_code": self.kind.exit_code(), "message": self.message } })
    }
}

impl From<LoadError> for Failure {
    fn from(e: LoadError) -> Failure {
        let kind = match &e {
            LoadError::Trap { trap, .. } => return Failure::trap(trap),
            LoadError::Compile { .. } | LoadError::Object { .. } => Kind::Invalid,
            LoadError::Link(_) | LoadError::NameTaken { .. } | LoadError::Replace { .. } | LoadError::Cycle(_) => {
                Kind::Link
            }
            _ => Kind::System,
        };
        Failure::new(kind, e.to_string())
    }
}

impl From<UnloadError> for Failure {
    fn from(e: UnloadError) -> Failure {
        Failure::new(Kind::Link, e.to_string())
    }
}
