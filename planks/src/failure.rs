//! Why a command failed, and the exit code that says so to scripts.

use crate::printable::Printable;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use namespace_bridge::error::{LoadError, UnloadError};
use namespace_bridge::native::NativeError;
use namespace_bridge::swap::SwapError;
use namespace_bridge::trap::{Frame, Trap};
use runtime_port::backtrace::Location;
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
#[error("{}", Printable(message))]
pub struct Failure {
    /// What kind it is.
    pub kind: Kind,
    /// The words.
    pub message: String,
    /// The trap, as JSON, if that is why.
    trap: Option<Box<Value>>,
    /// Whether the same may succeed later.
    passing: bool,
}

impl Failure {
    /// A failure of some kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), trap: None, passing: false }
    }

    /// Whether the same may succeed later: somebody was in the way.
    pub fn is_passing(&self) -> bool {
        self.passing
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
        let mut failure = Failure::new(Kind::Failed, format!("trap: {trap:#}"));
        failure.trap = Some(Box::new(trap_to_json(trap)));
        failure
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let (kind, code) = (self.kind.name(), self.kind.exit_code());
        let mut error = json!({ "kind": kind, "exit_code": code, "message": self.message });
        if let Some(trap) = &self.trap {
            error["trap"] = (**trap).clone();
        }
        json!({ "error": error })
    }
}

/// Code and frames of a trap, innermost first.
fn trap_to_json(trap: &Trap) -> Value {
    let frames: Vec<Value> = trap.frames().map(|f| frame_to_json(&f)).collect();
    json!({ "code": trap.code().message(), "depth": trap.depth(), "frames": frames })
}

/// A frame: of native code only its text; of wasm code what is known, with the functions inlined there, innermost first.
fn frame_to_json(frame: &Frame<'_>) -> Value {
    let Some(wasm) = &frame.wasm else { return json!({ "native": format!("{frame}") }) };
    let source = wasm.source();
    let (own, inlined) = match source.split_last() {
        Some((own, inlined)) => (own.location.as_ref(), inlined),
        None => (None, &[][..]),
    };
    let inlined: Vec<Value> = inlined
        .iter()
        .map(|f| json!({ "name": f.function, "location": f.location.as_ref().map(location_to_json) }))
        .collect();
    json!({
        "cell": wasm.cell,
        "version": wasm.version,
        "function": wasm.function,
        "name": wasm.name,
        "wasm_offset": wasm.wasm_offset,
        "location": own.map(location_to_json),
        "inlined": inlined,
    })
}

fn location_to_json(at: &Location) -> Value {
    json!({ "file": at.file, "line": at.line, "column": at.column })
}

impl From<LoadError> for Failure {
    fn from(e: LoadError) -> Failure {
        let kind = match &e {
            LoadError::Trap { trap, .. } => return Failure::trap(trap),
            LoadError::Compile { .. } | LoadError::Object { .. } => Kind::Invalid,
            LoadError::Native { source, .. } => match source {
                NativeError::Missing(_) | NativeError::Duplicate { .. } | NativeError::Relocations(_) => Kind::Link,
                NativeError::Memory { .. } => Kind::System,
                NativeError::Init { .. } => Kind::Failed,
                _ => Kind::Invalid,
            },
            LoadError::Link(_)
            | LoadError::NameTaken { .. }
            | LoadError::Replace { .. }
            | LoadError::Cycle(_)
            | LoadError::ChainTooLong { .. } => Kind::Link,
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

impl From<SwapError> for Failure {
    fn from(e: SwapError) -> Failure {
        match e {
            SwapError::Load(e) => e.into(),
            other => {
                let passing = matches!(
                    other,
                    SwapError::Busy { .. } | SwapError::Changed { .. } | SwapError::Quiesce { .. } | SwapError::Heap
                );
                Failure { passing, ..Failure::new(Kind::Link, other.to_string()) }
            }
        }
    }
}
