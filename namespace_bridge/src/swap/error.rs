//! Why a swap was refused or undone. In every case the old versions are in service.
#![deny(unsafe_code)]

use super::step::SwapStep;
use crate::error::{LinkError, LoadError};
use crate::gate::GateError;
use crate::trap::{HostError, Trap};
use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt;
use runtime_port::heap::HeapExhausted;

/// Why a swap did not happen. Nothing of it remains.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwapError {
    /// The new version cannot be read, compiled or allocated.
    #[error("cannot prepare the new version: {0}")]
    Load(#[from] LoadError),
    /// An allocation failed. Free something, and try again.
    #[error("out of memory")]
    Heap,
    /// Reasons against the swap: all of them at once.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Another swap, load or reset of the name is under way. Try again.
    #[error("cell `{cell}` is being changed by somebody else: try again")]
    Busy {
        /// The name.
        cell: Arc<str>,
    },
    /// Somebody else changed the namespace while the swap was prepared. Try again.
    #[error("cell `{cell}` was changed while the swap was prepared: try again")]
    Changed {
        /// The name.
        cell: Arc<str>,
    },
    /// The task that asks is inside of the cell, and asked for a refusal then.
    #[error("the task that asks is inside of cell `{cell}`: ask from outside, or let the swap be deferred")]
    Inside {
        /// The cell.
        cell: Arc<str>,
    },
    /// A task inside of the cell did not leave in time. Wait longer, or ask that task to stop (`kill_task`).
    #[error("cell `{cell}` could not be quiesced: {source}")]
    Quiesce {
        /// The cell.
        cell: Arc<str>,
        /// Who is inside.
        source: GateError,
    },
    /// The transfer of state failed.
    #[error("cell `{cell}`: transfer of state by {by} failed: {source}")]
    Transfer {
        /// The cell.
        cell: Arc<str>,
        /// `start`, `plank_save`, `plank_restore`, `plank_adopt`, or the request's own function.
        by: &'static str,
        /// Why.
        source: TransferError,
    },
    /// There is no previous version in the cache.
    #[error("cell `{cell}` has no previous version in the cache of unloaded cells")]
    NoPrevious {
        /// The name.
        cell: Arc<str>,
    },
    /// [`SwapRequest::fail_at`](super::SwapRequest::fail_at).
    #[error("failed on request at step {step}")]
    Injected {
        /// The step.
        step: SwapStep,
    },
}

impl From<HeapExhausted> for SwapError {
    fn from(_: HeapExhausted) -> SwapError {
        SwapError::Heap
    }
}

/// Why a transfer of state failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// Code of a version trapped.
    #[error("{0}")]
    Trap(Trap),
    /// A version said no, with a number of its own.
    #[error("it refused with code {0}")]
    Code(i64),
    /// A version gave bytes that are not in its memory.
    #[error("it gave {len} bytes at {at:#x}, but its memory has {size}")]
    Range {
        /// Address.
        at: u64,
        /// Length.
        len: u64,
        /// Size of the memory.
        size: u64,
    },
    /// No memory for the bytes in between, or no room in the new version's memory. The new version can export `plank_alloc` to find room itself.
    #[error("no room for {0} bytes")]
    NoRoom(u64),
    /// The request's own function failed.
    #[error("{0}")]
    Custom(HostError),
}

impl From<Trap> for TransferError {
    fn from(trap: Trap) -> TransferError {
        TransferError::Trap(trap)
    }
}

/// Reasons against a swap.
#[derive(Debug)]
pub struct Refusal {
    /// All that were found, by cell.
    pub problems: Vec<SwapProblem>,
}

impl core::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.problems.len();
        write!(f, "the swap is refused for {n} reason{}", if n == 1 { "" } else { "s" })?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// One reason against a swap.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwapProblem {
    /// There is no cell to replace or remove. Load it, or use [`SwapRequest::add`](super::SwapRequest::add).
    #[error("namespace `{namespace}` has no cell `{cell}`{}", crate::error::hint(.nearest))]
    NotFound {
        /// The namespace.
        namespace: Arc<str>,
        /// The name.
        cell: Arc<str>,
        /// Cells with a similar name.
        nearest: Vec<String>,
    },
    /// Definitions by the embedder cannot be swapped. Define them anew.
    #[error("cell `{cell}` is a set of native definitions, which has no versions")]
    NotSwappable {
        /// The name.
        cell: Arc<str>,
    },
    /// The request names a cell twice.
    #[error("cell `{cell}` is named twice in the request")]
    Twice {
        /// The name.
        cell: Arc<str>,
    },
    /// The request has no new version for the cell.
    #[error("no new version of cell `{cell}` is given: with_wasm, with_object, with_module or with_source")]
    NoSource {
        /// The name.
        cell: Arc<str>,
    },
    /// Another cell has the name of the new one.
    #[error("namespace `{namespace}` has a cell `{cell}` already")]
    NameTaken {
        /// The namespace.
        namespace: Arc<str>,
        /// The name.
        cell: Arc<str>,
    },
    /// Cells of several namespaces. Swap those of each in a step of its own.
    #[error("one step is of one namespace, and the request is about `{one}` and `{other}`")]
    Namespaces {
        /// One namespace.
        one: Arc<str>,
        /// Another one.
        other: Arc<str>,
    },
    /// Imports of the new version cannot be satisfied.
    #[error("{0}")]
    Link(LinkError),
    /// New cells of the request pass exports on to each other in a circle, so that nobody defines them.
    #[error("nobody defines {exports}: each is an import that is exported again, in a circle")]
    Cycle {
        /// Their names.
        exports: String,
    },
    /// An export that others use is missing. Give the new version the export, swap its users too, or force the swap.
    #[error("cell `{cell}` lacks export `{export}`, which {users} use{}", if .users.contains(',') { "" } else { "s" })]
    MissingExport {
        /// The cell.
        cell: Arc<str>,
        /// The export.
        export: String,
        /// Who uses it.
        users: String,
    },
    /// An export that others use has another type.
    #[error("export `{export}` of cell `{cell}` was {old} and is {new}, but {users} use it")]
    Retyped {
        /// The cell.
        cell: Arc<str>,
        /// The export.
        export: String,
        /// Its type in the old version.
        old: String,
        /// Its type in the new version.
        new: String,
        /// Who uses it.
        users: String,
    },
    /// An export that others use is another object than before: they would go on with the old one.
    #[error("export `{export}` of cell `{cell}` would be another {what} than the one that {users} use: {hint}")]
    Split {
        /// The cell.
        cell: Arc<str>,
        /// The export.
        export: String,
        /// `memory`, `table`, `global` or `function`.
        what: &'static str,
        /// Who uses it.
        users: String,
        /// What to do.
        hint: &'static str,
    },
    /// A cell to be removed is in use. Remove or swap its users too, or force.
    #[error("cell `{cell}` cannot be removed: {users} use it")]
    InUse {
        /// The cell.
        cell: Arc<str>,
        /// Who uses which export.
        users: String,
    },
    /// The state cannot be adopted.
    #[error("cell `{cell}`: the new version cannot adopt the state of the old one: {}", .differences.join("; "))]
    CannotAdopt {
        /// The cell.
        cell: Arc<str>,
        /// All differences.
        differences: Vec<String>,
    },
    /// The state cannot be exported.
    #[error("cell `{cell}`: the state cannot be exported: {}", .lacks.join("; "))]
    CannotExport {
        /// The cell.
        cell: Arc<str>,
        /// What the versions lack.
        lacks: Vec<String>,
    },
    /// A version that was to come back imports something that is gone.
    #[error("cell `{cell}` imports `{symbol}`, which is gone")]
    LostImport {
        /// The cell.
        cell: Arc<str>,
        /// The symbol.
        symbol: Arc<str>,
    },
    /// The data of a native cell cannot be adopted, by it or from it, and not exported from it while others may be inside. Use
    /// [`StatePlan::Custom`](super::StatePlan::Custom).
    #[error("cell `{cell}` is or was a native cell, so there is no way to {plan} its state: transfer it by a function")]
    NativeState {
        /// The cell.
        cell: Arc<str>,
        /// The plan.
        plan: &'static str,
    },
    /// A plan about old state, but no old version.
    #[error("cell `{cell}` is new: there is no state to {plan}")]
    NoState {
        /// The cell.
        cell: Arc<str>,
        /// The plan.
        plan: &'static str,
    },
}
