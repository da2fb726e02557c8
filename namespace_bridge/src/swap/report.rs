//! What a swap did.
#![deny(unsafe_code)]

use super::SwapError;
use crate::module_diff::ModuleDiff;
use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::fmt;
use core::time::Duration;
use spin::Mutex;
use wasm_cell::reuse::ReuseReport;

/// A swap that happened, or that will (`deferred`), or that would (dry run).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SwapReport {
    /// Per cell of the request, in its order.
    pub cells: Vec<CellReport>,
    /// Time per phase.
    pub phases: Phases,
    /// Version words that were stored to make the new versions visible.
    pub stores: usize,
    /// The task was inside: the swap happens when it leaves, and this tells about it.
    pub deferred: Option<DeferredSwap>,
}

/// What happened to one cell.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CellReport {
    /// Its name; the new one if it was renamed.
    pub cell: Arc<str>,
    /// Its name before, if it had another one.
    pub renamed_from: Option<Arc<str>>,
    /// Version that was replaced or removed; `None` if the cell was added.
    pub old_version: Option<u32>,
    /// Version that serves; `None` if the cell was removed.
    pub new_version: Option<u32>,
    /// Name of the state plan.
    pub plan: &'static str,
    /// Exports that the new version has and the old one had not.
    pub added: Vec<String>,
    /// Exports that the old version had and the new one has not.
    pub removed: Vec<String>,
    /// Exports with another type.
    pub retyped: Vec<String>,
    /// Cells outside of the request that depend on it. None of their slots changes: dependency edges move, addresses stay.
    pub dependents: Vec<Arc<str>>,
    /// What was compiled and what was taken over from the old version; `None` when the swap was given something compiled.
    pub reuse: Option<ReuseReport>,
    /// What differs between the modules; `None` for native cells, and unless it was asked for ([`SwapRequest::explain`](super::SwapRequest::explain)).
    pub diff: Option<Box<ModuleDiff>>,
    /// Bytes of state that the new version took over in place.
    pub bytes_adopted: u64,
    /// Bytes of state that were copied.
    pub bytes_copied: u64,
    /// What became of the old version.
    pub fate: Fate,
}

/// What becomes of an old version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// There was none.
    None,
    /// It waits in the cache of unloaded cells for a rollback.
    Cached,
    /// It goes as soon as no task can be inside any more.
    Retired,
}

/// Time per phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Phases {
    /// Reading and compiling the new versions, as far as that was not done before.
    pub compile: Duration,
    /// Linking and allocating.
    pub prepare: Duration,
    /// Looking for reasons against it.
    pub validate: Duration,
    /// Waiting for tasks inside.
    pub quiesce: Duration,
    /// Transferring state. Callers of cells with state wait from the end of `quiesce` to the end of `commit`.
    pub transfer: Duration,
    /// The step itself: version words, symbols, crate tree.
    pub commit: Duration,
    /// Moving edges, retiring the old versions.
    pub retire: Duration,
}

impl Phases {
    /// All of it.
    pub fn total(&self) -> Duration {
        self.compile + self.prepare + self.validate + self.quiesce + self.transfer + self.commit + self.retire
    }
}

/// How a swap ended.
type Outcome = Arc<Result<SwapReport, SwapError>>;

/// A swap that happens when the task that asked leaves the cell.
#[derive(Clone)]
pub struct DeferredSwap {
    outcome: Arc<Mutex<Option<Outcome>>>,
}

impl DeferredSwap {
    pub(super) fn new() -> DeferredSwap {
        DeferredSwap { outcome: Arc::new(Mutex::new(None)) }
    }

    pub(super) fn finish(&self, outcome: Result<SwapReport, SwapError>) {
        *self.outcome.lock() = Some(Arc::new(outcome));
    }

    /// How it ended; `None` while it has not happened.
    pub fn outcome(&self) -> Option<Arc<Result<SwapReport, SwapError>>> {
        self.outcome.lock().clone()
    }
}

impl fmt::Debug for DeferredSwap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeferredSwap").field(&self.outcome().map(|o| o.is_ok())).finish()
    }
}
