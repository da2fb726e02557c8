//! Quiesce: nobody inside of cells whose state is concerned. Stateless and concurrent cells need nothing: calls in flight end in the old version.
#![deny(unsafe_code)]

use super::SwapError;
use super::step::SwapStep;
use super::transaction::{Transaction, timed};
use crate::domain::{Domain, GateGuard};
use alloc::{sync::Arc, vec::Vec};
use core::time::Duration;
use runtime_port::time::Instant;

/// Others stay out of the domains while this lives.
#[must_use]
pub(super) struct Quiet {
    /// Dropped in the order opposite to that in which they were taken.
    guards: Vec<GateGuard>,
}

impl Drop for Quiet {
    fn drop(&mut self) {
        while let Some(guard) = self.guards.pop() {
            drop(guard);
        }
    }
}

impl Transaction {
    /// The domains of the cells that are replaced, each once, in the order in which everybody takes them.
    pub(super) fn domains(&self) -> Vec<Arc<Domain>> {
        let instances = self.changes.iter().flat_map(|c| [c.old_instance(), c.new_instance()]);
        let mut domains: Vec<_> = instances.flatten().filter_map(|i| i.domain()).map(|d| d.root()).collect();
        domains.sort_by_key(|d| d.serial());
        domains.dedup_by(|a, b| a.is_same(b));
        domains
    }

    /// A cell that the current task is inside of, if there is one, and its domain.
    pub(super) fn inside(&self) -> Option<(Arc<str>, Arc<Domain>)> {
        self.changes.iter().find_map(|c| {
            let domain = c.old_instance()?.domain().filter(|d| d.is_held_by_current())?;
            Some((c.name(), domain))
        })
    }

    /// Waits until nobody else is inside.
    pub(super) fn quiesce(&mut self) -> Result<Quiet, SwapError> {
        let mut phases = self.phases;
        let result = timed(&mut phases.quiesce, || self.take_gates());
        self.phases = phases;
        result
    }

    fn take_gates(&self) -> Result<Quiet, SwapError> {
        self.step(SwapStep::Quiesce)?;
        let start = Instant::now().as_nanos();
        let mut quiet = Quiet { guards: Vec::new() };
        for domain in self.domains() {
            let passed = Duration::from_nanos(Instant::now().as_nanos().saturating_sub(start));
            let guard = domain.acquire(Some(self.settings.deadline.saturating_sub(passed)));
            quiet.guards.push(guard.map_err(|source| {
                let is_of = |c: &&super::transaction::Change| {
                    c.old_instance().and_then(|i| i.domain()).is_some_and(|d| d.is_same(&domain))
                };
                let cell = self.changes.iter().find(is_of).map_or_else(|| "".into(), |c| c.name());
                SwapError::Quiesce { cell, source }
            })?);
        }
        Ok(quiet)
    }
}
