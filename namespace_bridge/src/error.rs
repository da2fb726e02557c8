//! What can go wrong: loading, linking, unloading, defining. Every variant says what, where, and what to do.
#![deny(unsafe_code)]

use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;
use runtime_port::{heap::HeapExhausted, memory::MemoryError, task::TaskError, unwind::UnwindError};
use thiserror::Error;
use wasm_cell::{
    CompileError,
    types::{ExternType, MemoryStyle, TypeHash, TypeId},
};

use crate::gate::GateError;
use crate::native::NativeError;
use crate::trap::Trap;
use crate::typed::TypeMismatch;

/// Why a cell could not be loaded. Nothing of it remains in the namespace (for [`LoadError::Trap`] see there).
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The compiler or the object reader refused the bytes.
    #[error("cell `{cell}`: {source}")]
    Compile {
        /// The cell.
        cell: Arc<str>,
        /// What the compiler says.
        source: CompileError,
    },
    /// The namespace has a cell of this name. Choose another name, unload it, or load with another `AddPolicy`.
    #[error("namespace `{namespace}` has a cell `{cell}` already: unload it, or load with AddPolicy::Replace")]
    NameTaken {
        /// The namespace.
        namespace: Arc<str>,
        /// The name.
        cell: Arc<str>,
    },
    /// The cell it was to replace is in use. Unload its dependents first, or swap instead.
    #[error("cell `{cell}` cannot be replaced: {source}")]
    Replace {
        /// The cell.
        cell: Arc<str>,
        /// Who uses it.
        source: UnloadError,
    },
    /// Imports cannot be satisfied: all of them at once.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The object was compiled with type ids that other types have here. Load the wasm module, or recompile it with
    /// the salts that the error gives.
    #[error(transparent)]
    TypeCollision(#[from] TypeCollision),
    /// The heap has no memory left. Nothing was loaded: free some and try again.
    #[error("no memory on the heap to load a cell: free some and try again")]
    Heap,
    /// No address space or frames for the cell's image, memories or tables.
    #[error("cell `{cell}`: no memory for its {what}: {source}. Free memory, or lower the declared sizes")]
    Memory {
        /// The cell.
        cell: Arc<str>,
        /// For what.
        what: &'static str,
        /// The port's reason.
        source: MemoryError,
    },
    /// A declared minimum is beyond what this port or the load options allow.
    #[error(
        "cell `{cell}`: {what} {index} starts with {min}, but at most {limit} are allowed here (LoadOptions, kernel_config::memory)"
    )]
    Limit {
        /// The cell.
        cell: Arc<str>,
        /// `memory` or `table`.
        what: &'static str,
        /// Its index.
        index: u32,
        /// What it asks for, in bytes or elements.
        min: u64,
        /// The limit.
        limit: u64,
    },
    /// The code was compiled for guard-page memories, which the load options or the port forbid. Recompile it with
    /// checked memories.
    #[error(
        "cell `{cell}`: memory {index} needs style {style:?}, which is not available here: recompile for another style"
    )]
    MemoryStyle {
        /// The cell.
        cell: Arc<str>,
        /// The memory.
        index: u32,
        /// What the code needs.
        style: MemoryStyle,
    },
    /// The compiled module has changed in memory. Load the cell again from its source.
    #[error("cell `{cell}`: {source}")]
    Damaged {
        /// The cell.
        cell: Arc<str>,
        /// What has changed.
        source: crate::integrity::Damage,
    },
    /// The unwinder refused the cell's unwind info.
    #[error("cell `{cell}`: cannot register its unwind info: {source}")]
    Unwind {
        /// The cell.
        cell: Arc<str>,
        /// The port's reason.
        source: UnwindError,
    },
    /// The object's metadata contradicts itself: it was not made by this compiler. Recompile the module.
    #[error("cell `{cell}`: inconsistent cell object: {reason}. Recompile the module")]
    Object {
        /// The cell.
        cell: Arc<str>,
        /// What does not fit.
        reason: &'static str,
    },
    /// A native object cannot become a cell.
    #[error("cell `{cell}`: {source}")]
    Native {
        /// The cell.
        cell: Arc<str>,
        /// What is wrong with it.
        source: NativeError,
    },
    /// The current task cannot run cells.
    #[error("cell `{cell}`: {source}")]
    Task {
        /// The cell.
        cell: Arc<str>,
        /// The port's reason.
        source: TaskError,
    },
    /// The runtime's tables for code or thunks are exhausted.
    #[error("cell `{cell}`: {reason}")]
    Runtime {
        /// The cell.
        cell: Arc<str>,
        /// What is exhausted.
        reason: String,
    },
    /// An active segment or the start function trapped. What it wrote to imported memories and tables before stays
    /// written, as the core spec says (4.5.4); the cell itself is not in the namespace.
    #[error("cell `{cell}` trapped during instantiation: {trap}")]
    Trap {
        /// The cell.
        cell: Arc<str>,
        /// The trap.
        trap: Trap,
    },
    /// It imports state of cells that another task is inside of, which did not leave in time (`LoadOptions::gate_timeout`).
    #[error("cell `{cell}` shares state with cells in use: {source}")]
    Gate {
        /// The cell.
        cell: Arc<str>,
        /// Who is inside.
        source: GateError,
    },
    /// A provider was asked for a cell that is being loaded already: the imports form a cycle, which cannot be
    /// instantiated. Break it, for example by importing a table.
    #[error("cells import each other in a circle: {0}")]
    Cycle(String),
    /// Too many cells wait for each other to be loaded by providers. Load some of them first.
    #[error("cell `{cell}` is the end of a chain of more than {limit} cells loaded on demand: load some of them first")]
    ChainTooLong {
        /// The cell that was not loaded any more.
        cell: Arc<str>,
        /// `kernel_config::limits::LOAD_CHAIN`.
        limit: usize,
    },
}

/// An id that was compiled in cannot stand for its function type in this system.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TypeCollision {
    /// Another type has the id. Recompile with the salts given here, or load the wasm module.
    #[error(
        "cell `{cell}` was compiled with type id {id:#x} for {ty}, but here that is the id of another function type, \
         first seen in `{holder}`. {}", recompile(.salts), id = .id.0
    )]
    Taken {
        /// The cell.
        cell: Arc<str>,
        /// The type.
        ty: String,
        /// The id that the code has for it.
        id: TypeId,
        /// Who brought the other type.
        holder: Arc<str>,
        /// What `CompileOptions::type_salts` has to be.
        salts: Vec<(TypeHash, u8)>,
    },
    /// The type has another id here already. Recompile with the salts given here, or load the wasm module.
    #[error(
        "cell `{cell}` was compiled with type id {id:#x} for {ty}, but here the id of that type is {here:#x}, since \
         `{holder}` was loaded. {}", recompile(.salts), id = .id.0, here = .here.0
    )]
    Renamed {
        /// The cell.
        cell: Arc<str>,
        /// The type.
        ty: String,
        /// The id that the code has for it.
        id: TypeId,
        /// The id that it has here.
        here: TypeId,
        /// Who brought it.
        holder: Arc<str>,
        /// What `CompileOptions::type_salts` has to be.
        salts: Vec<(TypeHash, u8)>,
    },
    /// Each id that the type could have belongs to another type. Unload cells that use those.
    #[error("`{cell}`: all 256 ids that {ty} could have belong to other function types: unload cells that use them")]
    Exhausted {
        /// The cell or symbol.
        cell: Arc<str>,
        /// The type.
        ty: String,
    },
}

fn recompile(salts: &[(TypeHash, u8)]) -> String {
    let mut text = String::from(
        "Load its wasm module, which picks ids that are free, or recompile it with CompileOptions::type_salts:",
    );
    if salts.is_empty() {
        text.push_str(" none");
    }
    for (hash, salt) in salts {
        text.push_str(&alloc::format!(" {:032x}={salt}", u128::from_be_bytes(hash.0)));
    }
    text
}

/// Imports that cannot be satisfied.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkError {
    /// The importing cell.
    pub cell: Arc<str>,
    /// Every import that fails, in the module's order.
    pub problems: Vec<ImportProblem>,
}

impl core::error::Error for LinkError {}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        write!(f, "cell `{}`: {n} import{} cannot be linked", self.cell, if n == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl LinkError {
    /// Whether some import was not found at all.
    pub fn has_missing(&self) -> bool {
        self.problems.iter().any(|p| matches!(p, ImportProblem::Missing { .. }))
    }
}

/// One import that cannot be satisfied.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ImportProblem {
    /// Nothing has this name.
    Missing {
        /// `module::name`
        module: String,
        /// second part of the name
        name: String,
        /// What is expected.
        expected: ExternType,
        /// Names that exist and are spelled alike, nearest first.
        nearest: Vec<String>,
    },
    /// The name exists but is something else.
    Mismatch {
        /// `module::name`
        module: String,
        /// second part of the name
        name: String,
        /// What the importer expects.
        expected: ExternType,
        /// What the exporter has.
        found: ExternType,
        /// Why the two do not fit, where the types alone do not show it.
        reason: &'static str,
    },
    /// A native cell has a symbol of this name, but nothing says what type it has. Describe it with `cell_export!` or
    /// `PLANKS_EXPORT`, or load with `LoadOptions::assume_native_types`.
    Undescribed {
        /// The module.
        module: String,
        /// second part of the name
        name: String,
        /// What the importer expects.
        expected: ExternType,
    },
    /// A cell that could satisfy it was found by a provider but failed to load.
    Provider {
        /// The module.
        module: String,
        /// Why it failed.
        error: String,
    },
}

impl fmt::Display for ImportProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImportProblem::Missing { module, name, expected, nearest } => {
                write!(f, "unknown import `{module}::{name}`: expected {expected}; ")?;
                match nearest.as_slice() {
                    [] => f.write_str("nothing of a similar name exists"),
                    [one] => write!(f, "did you mean `{one}`?"),
                    many => {
                        f.write_str("similar names:")?;
                        for (i, n) in many.iter().enumerate() {
                            write!(f, "{} `{n}`", if i == 0 { "" } else { "," })?;
                        }
                        Ok(())
                    }
                }
            }
            ImportProblem::Mismatch { module, name, expected, found, reason } => {
                write!(f, "incompatible import type for `{module}::{name}`: expected {expected}, found {found}")?;
                if !reason.is_empty() {
                    write!(f, " ({reason})")?;
                }
                Ok(())
            }
            ImportProblem::Undescribed { module, name, expected } => write!(
                f,
                "`{module}::{name}`: expected {expected}, but native cell `{module}` has `{name}` without a type: describe \
                 it with cell_export! or PLANKS_EXPORT, or load with LoadOptions::assume_native_types (unsafe)"
            ),
            ImportProblem::Provider { module, error } => {
                write!(f, "`{module}` was found by a provider but could not be loaded: {error}")
            }
        }
    }
}

/// Why a cell could not be unloaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UnloadError {
    /// The heap has no memory left for what unloading needs. Free some and try again.
    #[error("no memory on the heap to unload a cell: free some and try again")]
    Heap,
    /// No such cell in this namespace.
    #[error("namespace `{namespace}` has no cell `{cell}`{}", hint(.nearest))]
    NotFound {
        /// The namespace.
        namespace: Arc<str>,
        /// The name.
        cell: String,
        /// Cells with a similar name.
        nearest: Vec<String>,
    },
    /// Others use it. Unload them first, swap it, or unload by force.
    #[error("cell `{cell}` is in use by {}: unload them first, or unload it by force", list(.dependents))]
    InUse {
        /// The name.
        cell: Arc<str>,
        /// Who uses it and through which symbol: `dependent (symbol)`.
        dependents: Vec<String>,
    },
}

fn list(names: &[String]) -> String {
    names.join(", ")
}

pub(crate) fn hint(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        names => alloc::format!("; similar names: {}", names.join(", ")),
    }
}

/// Why something could not be defined by the embedder.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DefineError {
    /// The symbol exists. Choose another name or define it with another `AddPolicy`.
    #[error("symbol `{0}` exists already: choose another name, or replace it explicitly")]
    Exists(String),
    /// Definitions by name go to native cells; this name belongs to a wasm cell.
    #[error("cell `{0}` is a wasm cell: define the symbol under another module name")]
    WasmCell(Arc<str>),
    /// No memory for it.
    #[error("no memory for `{symbol}`: {source}")]
    Memory {
        /// The symbol.
        symbol: String,
        /// The port's reason.
        source: MemoryError,
    },
    /// The size asked for is beyond the limits.
    #[error("`{symbol}` asks for {min}, more than the limit of {limit}")]
    Limit {
        /// The symbol.
        symbol: String,
        /// What it asks for, in bytes or elements.
        min: u64,
        /// The limit.
        limit: u64,
    },
    /// Only signatures whose arguments travel in registers bind to a plain address; use a closure.
    #[error("`{symbol}`: {ty} is not register-only; define it as a closure instead")]
    NotRegisterOnly {
        /// The symbol.
        symbol: String,
        /// The type.
        ty: String,
    },
    /// The value is not of the global's type.
    #[error("`{symbol}`: {value} is no {ty}")]
    Value {
        /// The symbol.
        symbol: String,
        /// The global's type.
        ty: String,
        /// The value.
        value: String,
    },
    /// The type cannot get an id.
    #[error(transparent)]
    TypeCollision(#[from] TypeCollision),
}

/// Why there is no handle of a function.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FuncError {
    /// The heap has no memory left for a handle. Free some and try again.
    #[error("no memory on the heap for a handle of a function: free some and try again")]
    Heap,
    /// The cell exports nothing of this name.
    #[error("cell `{cell}` has no export `{name}`{}", hint(.nearest))]
    NotFound {
        /// The cell.
        cell: Arc<str>,
        /// The name.
        name: String,
        /// Functions with a similar name.
        nearest: Vec<String>,
    },
    /// The export is something else.
    #[error("export `{name}` of cell `{cell}` is no function{}", .found.as_ref().map_or_else(String::new, |t| alloc::format!(" but {t}")))]
    NotAFunction {
        /// The cell.
        cell: Arc<str>,
        /// The name.
        name: String,
        /// What it is.
        found: Option<ExternType>,
    },
    /// The cell has been unloaded. Load it again.
    #[error("cell `{cell}` has been unloaded")]
    Unloaded {
        /// The cell.
        cell: Arc<str>,
    },
    /// Its type is not what the Rust types say.
    #[error("`{cell}::{name}`: {source}")]
    Type {
        /// The cell.
        cell: Arc<str>,
        /// The name.
        name: String,
        /// Both types.
        source: TypeMismatch,
    },
    /// No memory for the handle's thunk.
    #[error("no memory for a handle of `{symbol}`: {source}")]
    Memory {
        /// The symbol.
        symbol: Arc<str>,
        /// The port's reason.
        source: MemoryError,
    },
}

impl From<HeapExhausted> for LoadError {
    fn from(_: HeapExhausted) -> LoadError {
        LoadError::Heap
    }
}

impl From<HeapExhausted> for UnloadError {
    fn from(_: HeapExhausted) -> UnloadError {
        UnloadError::Heap
    }
}

impl From<HeapExhausted> for FuncError {
    fn from(_: HeapExhausted) -> FuncError {
        FuncError::Heap
    }
}
