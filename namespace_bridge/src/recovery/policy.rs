//! Policies: what to do about a cell that fails, and what can be wrong with one.
#![deny(unsafe_code)]

use super::Supervision;
use crate::cell::StrongCrateRef;
use crate::error::LoadError;
use crate::namespace::CrateNamespace;
use crate::swap::{DEADLINE, SwapError};
use alloc::{string::String, sync::Arc, vec::Vec};
use core::time::Duration;
use runtime_port::heap::{HeapExhausted, guarded, without_failing};
use wasm_cell::trap::TrapCode;

/// What to do about a cell that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(super) strategy: Strategy,
    /// Pause before the first restart, doubled with every failure in a row up to the second.
    pub(super) back_off: Option<(Duration, Duration)>,
    /// Failures in a window that take the cell out of service.
    pub(super) quarantine: Option<(usize, Duration)>,
    pub(super) ignored: Vec<TrapCode>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Strategy {
    Propagate,
    Reset,
    Swap(Arc<str>),
}

impl Policy {
    /// The caller gets its `Err`; the cell stays in service with the state it has.
    pub fn propagate() -> Policy {
        Policy { strategy: Strategy::Propagate, back_off: None, quarantine: None, ignored: Vec::new() }
    }

    /// The cell gets a fresh instance, under the same name and entries.
    pub fn reset() -> Policy {
        Policy { strategy: Strategy::Reset, ..Policy::propagate() }
    }

    /// As [`reset`](Policy::reset), but after a pause: `first`, doubled up to `most` with every failure that follows within `most` of the
    /// recovery before. Calls during the pause fail.
    pub fn restart(first: Duration, most: Duration) -> Policy {
        Policy { back_off: Some((first, most.max(first))), ..Policy::reset() }
    }

    /// The entries go to another cell of the namespace, which must export functions of the same names and types.
    pub fn swap_to(fallback: &str) -> Policy {
        Policy { strategy: Strategy::Swap(fallback.into()), ..Policy::propagate() }
    }

    /// In addition: `failures` failures within `window` take the cell out of service, until
    /// [`CrateNamespace::clear_poison`] or [`CrateNamespace::reset`].
    pub fn quarantine_after(self, failures: usize, window: Duration) -> Policy {
        Policy { quarantine: Some((failures.max(1), window)), ..self }
    }

    /// Traps with this code are no failures of the cell; say [`TrapCode::HostError`] for a program that ends itself by an
    /// error of a host function.
    pub fn ignoring(mut self, code: TrapCode) -> Policy {
        self.ignored.push(code);
        self
    }
}

/// Where a cell stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecoveryState {
    /// In service.
    Serving,
    /// It failed; recovery waits until nobody is inside, or for its time.
    Poisoned,
    /// A fallback serves in its place.
    Replaced {
        /// Its name.
        by: Arc<str>,
    },
    /// Out of service.
    Quarantined,
}

/// Why a policy or a recovery is not possible.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Load it first.
    #[error("namespace `{namespace}` has no wasm cell `{cell}`")]
    NotFound {
        /// The namespace.
        namespace: Arc<str>,
        /// The name.
        cell: Arc<str>,
    },
    /// Load the fallback first.
    #[error("cell `{cell}`: there is no cell `{fallback}` to fall back to")]
    NoFallback {
        /// The cell with the policy.
        cell: Arc<str>,
        /// The name in the policy.
        fallback: Arc<str>,
    },
    /// Give the fallback what it lacks.
    #[error("cell `{cell}`: fallback `{fallback}` lacks {missing}")]
    FallbackLacks {
        /// The cell with the policy.
        cell: Arc<str>,
        /// The fallback.
        fallback: Arc<str>,
        /// Names and types of the functions.
        missing: String,
    },
    /// Others use the state itself, which a fresh instance would not share. Unload them first, or let them import functions
    /// only.
    #[error("cell `{cell}` cannot be reset: {users}")]
    StateShared {
        /// The cell.
        cell: Arc<str>,
        /// Who uses what.
        users: String,
    },
    /// An allocation failed. Free something, and try again.
    #[error("out of memory")]
    Heap,
    /// The fresh instance could not take the old one's place: a task did not leave, a start function trapped, a swap is under way.
    #[error("cell `{cell}` cannot be reset: {source}")]
    Swap {
        /// The cell.
        cell: Arc<str>,
        /// Why.
        source: SwapError,
    },
    /// The fresh instance could not be made.
    #[error("cell `{cell}` cannot be reset: {source}")]
    Load {
        /// The cell.
        cell: Arc<str>,
        /// Why.
        source: LoadError,
    },
}

impl From<HeapExhausted> for PolicyError {
    fn from(_: HeapExhausted) -> PolicyError {
        PolicyError::Heap
    }
}

impl CrateNamespace {
    /// Says what to do about a wasm cell of this very namespace when it fails. It belongs to the name: it stays through resets and
    /// reloads, until another policy is set.
    pub fn set_policy(&self, cell: &str, policy: Policy) -> Result<(), PolicyError> {
        guarded(|| {
            let krate = self.wasm_cell(cell)?;
            if let Strategy::Swap(fallback) = &policy.strategy {
                super::supervision::fallback_of(self, &krate, fallback)?;
            }
            let supervision = Supervision::new(self.shared(), &krate, policy);
            without_failing(|| {
                let old = self.policies.lock().remove(&krate.crate_name);
                if let Some(old) = old {
                    old.serve_again();
                }
                self.policies.lock().insert(krate.crate_name.clone(), supervision.clone());
                supervision.attach(&krate);
            });
            Ok(())
        })?
    }

    /// The policy of a cell; [`Policy::propagate`] if none was set.
    pub fn policy(&self, cell: &str) -> Policy {
        self.supervision(cell).map_or_else(Policy::propagate, |s| s.policy().clone())
    }

    /// Where a cell stands.
    pub fn recovery_state(&self, cell: &str) -> RecoveryState {
        self.supervision(cell).map_or(RecoveryState::Serving, |s| s.state())
    }

    /// Puts a poisoned, replaced or quarantined cell back into service with the state it has. Returns whether it was out
    /// of service.
    pub fn clear_poison(&self, cell: &str) -> Result<bool, PolicyError> {
        guarded(|| {
            self.wasm_cell(cell)?;
            Ok(self.supervision(cell).is_some_and(|s| without_failing(|| s.serve_again())))
        })?
    }

    /// Gives a cell a fresh instance under the same name and entries; it is in service again if it was not. It is a swap to the same module: a task
    /// inside of a cell with state is waited for ([`DEADLINE`]), callers wait meanwhile, a failure leaves the old instance. There is no rollback.
    ///
    /// # Errors
    /// [`PolicyError`]; [`SwapError::Inside`] when the task itself is inside of the cell.
    pub fn reset(&self, cell: &str) -> Result<StrongCrateRef, PolicyError> {
        guarded(|| self.renew(&self.wasm_cell(cell)?, DEADLINE))?
    }

    pub(crate) fn supervision(&self, cell: &str) -> Option<Arc<Supervision>> {
        self.policies.lock().get(cell).cloned()
    }

    pub(super) fn wasm_cell(&self, cell: &str) -> Result<StrongCrateRef, PolicyError> {
        let found = self.own_crate(cell).filter(|c| c.is_wasm());
        found.ok_or_else(|| PolicyError::NotFound { namespace: self.name().into(), cell: cell.into() })
    }
}
