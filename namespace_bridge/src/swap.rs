//! Live swap: new versions of cells take the place of old ones while tasks call them (docs/SWAPPING.md).
//!
//! A swap is a transaction: any failure before its commit leaves the old versions in service.
//!
//! ```text
//! prepare ── validate ── quiesce ── transfer ── commit ── retire
//! nothing visible        nobody inside of       one       the old version goes,
//! all reasons at once    cells with state       step      or waits for a rollback
//! ```
//!
//! | file | |
//! | --- | --- |
//! | `request`, `report`, `error`, `step` | what people say and hear |
//! | `transaction` | the phases in order |
//! | `prepare`, `together` | new versions beside the old ones |
//! | `validate` | reasons against it |
//! | `quiesce` | nobody inside |
//! | `transfer`, `adopt`, `export`, `homes` | state |
//! | `commit` | the step, and what follows |
//! | `cache` | versions that can come back |
//! | `theseus` | the names that Theseus has for this |
#![deny(unsafe_code)]

mod adopt;
mod cache;
mod commit;
mod error;
mod export;
mod homes;
mod prepare;
mod quiesce;
mod report;
mod request;
mod step;
pub mod theseus;
mod together;
mod transaction;
mod transfer;
mod validate;

pub use cache::{OldVersion, clear_unloaded_crate_cache};
pub use error::{Refusal, SwapError, SwapProblem, TransferError};
pub use report::{CellReport, DeferredSwap, Fate, Phases, SwapReport};
pub use request::{DEADLINE, FromInside, StatePlan, StateTransfer, SwapRequest};
pub use step::SwapStep;
pub use transfer::{TransferContext, Version};

use crate::cell::{LostExport, StrongCrateRef};
use crate::namespace::CrateNamespace;
use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec::Vec,
};
use runtime_port::heap::guarded;
use spin::Mutex;
use transaction::Transaction;

/// What a namespace knows about its swaps.
#[derive(Default)]
pub(crate) struct Swaps {
    /// Names that are being changed.
    busy: Mutex<BTreeSet<Arc<str>>>,
    cache: cache::Cache,
    /// What others use of cells that were removed, by their names.
    lost: Mutex<BTreeMap<Arc<str>, Vec<LostExport>>>,
}

/// Keeps others from swapping some names.
pub(crate) struct Busy {
    namespace: Arc<CrateNamespace>,
    names: Vec<Arc<str>>,
}

impl Busy {
    fn new(namespace: Arc<CrateNamespace>, names: Vec<Arc<str>>) -> Result<Busy, SwapError> {
        let mut busy = namespace.swaps.busy.lock();
        if let Some(cell) = names.iter().find(|n| busy.contains(*n)) {
            return Err(SwapError::Busy { cell: cell.clone() });
        }
        busy.extend(names.iter().cloned());
        drop(busy);
        Ok(Busy { namespace, names })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut busy = self.namespace.swaps.busy.lock();
        busy.retain(|name| !self.names.contains(name));
    }
}

impl CrateNamespace {
    /// Replaces, adds and removes cells in one step, as the request says. Callers notice nothing: every address stays, calls in flight
    /// end in the version they began in.
    ///
    /// # Errors
    /// [`SwapError`]; the old versions are in service then, and nothing of the new ones remains.
    pub fn swap(&self, request: SwapRequest) -> Result<SwapReport, SwapError> {
        guarded(|| {
            let mut transaction = Transaction::begin(self, &request)?;
            transaction.prepare(&request)?;
            transaction.validate()?;
            transaction.finish_or_defer()
        })?
    }

    /// As [`swap`](CrateNamespace::swap) of one cell, if this is the version that serves.
    pub(crate) fn swap_if_serving(
        &self,
        request: SwapRequest,
        serving: &StrongCrateRef,
    ) -> Result<SwapReport, SwapError> {
        let mut transaction = Transaction::begin(self, &request)?;
        transaction.prepare(&request)?;
        if !transaction.changes.iter().all(|c| c.old.as_ref().is_some_and(|old| Arc::ptr_eq(old, serving))) {
            return Err(SwapError::Changed { cell: serving.crate_name.clone() });
        }
        transaction.validate()?;
        transaction.finish_or_defer()
    }

    /// What [`swap`](CrateNamespace::swap) would do: prepares and validates, and goes no further.
    ///
    /// # Errors
    /// As `swap`, as far as it comes.
    pub fn swap_dry_run(&self, request: SwapRequest) -> Result<SwapReport, SwapError> {
        guarded(|| {
            let mut transaction = Transaction::begin(self, &request)?;
            transaction.prepare(&request)?;
            transaction.validate()?;
            Ok(transaction.report())
        })?
    }

    /// Brings back the version that the last swap of this name replaced, from the cache of unloaded cells; what was swapped in one step comes
    /// back in one step. The version that is replaced now goes to the cache: a second rollback undoes the first.
    ///
    /// State goes back as it came: adopted state is adopted by the old version; state that was exported is exported the other way; otherwise the
    /// old version has the state that it had.
    ///
    /// # Errors
    /// [`SwapError::NoPrevious`], or as for [`swap`](CrateNamespace::swap).
    pub fn rollback(&self, name: &str) -> Result<SwapReport, SwapError> {
        guarded(|| {
            let mut transaction = Transaction::back(self, name)?;
            transaction.validate()?;
            transaction.finish_or_defer()
        })?
    }
}
