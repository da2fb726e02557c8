//! The phases of a swap, in order. Dropping a transaction that was not committed undoes it.
#![deny(unsafe_code)]

use super::cache::Previous;
use super::prepare::OnDemand;
use super::report::{CellReport, DeferredSwap, Fate, Phases, SwapReport};
use super::request::{FromInside, StatePlan, SwapRequest};
use super::step::SwapStep;
use super::transfer::Transferred;
use super::{Busy, SwapError};
use crate::cell::StrongCrateRef;
use crate::domain::Domain;
use crate::entries::EntryBlock;
use crate::instance::InstanceRecord;
use crate::module_diff::ModuleDiff;
use crate::namespace::CrateNamespace;
use crate::native::Successor;
use crate::options::LoadOptions;
use crate::section::StrongSectionRef;
use alloc::{boxed::Box, string::String, sync::Arc, vec::Vec};
use core::time::Duration;
use runtime_port::heap::{guarded, without_failing};
use runtime_port::time::Instant;
use wasm_cell::reuse::ReuseReport;

/// What becomes of the state, in this very swap.
#[derive(Debug, Clone)]
pub(super) enum Plan {
    /// As the request says.
    State(StatePlan),
    /// A version comes back with the state that it had.
    Keep,
}

impl Plan {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Plan::State(plan) => plan.name(),
            Plan::Keep => "keep",
        }
    }

    pub(super) fn adopts(&self) -> bool {
        matches!(self, Plan::State(StatePlan::Adopt))
    }
}

/// One cell of a transaction.
pub(super) struct Change {
    pub(super) old_name: Option<Arc<str>>,
    pub(super) old: Option<StrongCrateRef>,
    pub(super) new_name: Option<Arc<str>>,
    pub(super) new: Option<StrongCrateRef>,
    pub(super) plan: Plan,
    pub(super) reexport: bool,
    pub(super) options: LoadOptions,
    /// What the imports of a fresh version resolved to.
    pub(super) imports: Vec<StrongSectionRef>,
    /// Those of lower rank start first.
    pub(super) rank: usize,
    /// What the new name had kept of earlier cells: the last version and entries.
    pub(super) remains: Option<(u32, Vec<Arc<EntryBlock>>)>,
    /// The new version, if it is a native cell that this transaction made.
    pub(super) native: Option<Successor>,
    /// The new version was made by this transaction.
    pub(super) fresh: bool,
    pub(super) lists: Lists,
    pub(super) reuse: Option<ReuseReport>,
    pub(super) diff: Option<Box<ModuleDiff>>,
    pub(super) bytes_adopted: u64,
    pub(super) bytes_copied: u64,
    /// What taking back the transfer of its state takes.
    pub(super) transferred: Transferred,
}

/// Differences between the exports of two versions, and who depends on them.
#[derive(Debug, Default, Clone)]
pub(super) struct Lists {
    pub(super) added: Vec<String>,
    pub(super) removed: Vec<String>,
    pub(super) retyped: Vec<String>,
    pub(super) dependents: Vec<Arc<str>>,
}

impl Change {
    pub(super) fn old_instance(&self) -> Option<Arc<InstanceRecord>> {
        self.old.as_ref()?.instance()
    }

    pub(super) fn new_instance(&self) -> Option<Arc<InstanceRecord>> {
        self.new.as_ref()?.instance()
    }

    /// The name that errors use.
    pub(super) fn name(&self) -> Arc<str> {
        self.new_name.as_ref().or(self.old_name.as_ref()).cloned().unwrap_or_else(|| "".into())
    }
}

/// What the request says of all its cells.
pub(super) struct Settings {
    pub(super) deadline: Duration,
    pub(super) from_inside: FromInside,
    pub(super) force: bool,
    pub(super) keep_old: bool,
    pub(super) explain: bool,
    pub(super) fail_at: Option<SwapStep>,
}

/// A swap under way.
pub(super) struct Transaction {
    pub(super) namespace: Arc<CrateNamespace>,
    pub(super) changes: Vec<Change>,
    pub(super) settings: Settings,
    pub(super) phases: Phases,
    pub(super) stores: usize,
    pub(super) committed: bool,
    /// Code of fresh versions may have run, and given away addresses of their own entries.
    pub(super) transferring: bool,
    /// What this transaction took out of the cache.
    pub(super) previous: Option<Arc<Previous>>,
    pub(super) on_demand: OnDemand,
    _busy: Busy,
}

/// Runs a phase and notes its time.
pub(super) fn timed<R>(time: &mut Duration, phase: impl FnOnce() -> R) -> R {
    let start = Instant::now().as_nanos();
    let result = phase();
    *time += Duration::from_nanos(Instant::now().as_nanos().saturating_sub(start));
    result
}

impl Transaction {
    pub(super) fn new(
        namespace: &CrateNamespace,
        names: Vec<Arc<str>>,
        settings: Settings,
    ) -> Result<Transaction, SwapError> {
        let gone = || SwapError::Changed { cell: names.first().cloned().unwrap_or_else(|| "".into()) };
        let namespace = namespace.shared().upgrade().ok_or_else(gone)?;
        let busy = Busy::new(namespace.clone(), names)?;
        Ok(Transaction {
            on_demand: OnDemand::none(),
            namespace,
            changes: Vec::new(),
            settings,
            phases: Phases::default(),
            stores: 0,
            committed: false,
            transferring: false,
            previous: None,
            _busy: busy,
        })
    }

    /// Starts one for a request.
    pub(super) fn begin(namespace: &CrateNamespace, request: &SwapRequest) -> Result<Transaction, SwapError> {
        let mut names: Vec<Arc<str>> = request.old_names().chain(request.new_names()).cloned().collect();
        names.sort();
        names.dedup();
        let settings = Settings {
            deadline: request.deadline,
            from_inside: request.from_inside,
            force: request.force,
            keep_old: request.keep_old,
            explain: request.explain,
            fail_at: request.fail_at,
        };
        Transaction::new(namespace, names, settings)
    }

    /// Fails on request.
    pub(super) fn step(&self, step: SwapStep) -> Result<(), SwapError> {
        step.check(self.settings.fail_at)
    }

    /// Goes on to the end, or leaves that for when the task leaves the cells that it is inside of.
    pub(super) fn finish_or_defer(self) -> Result<SwapReport, SwapError> {
        let Some((cell, domain)) = self.inside() else { return self.finish() };
        if self.settings.from_inside == FromInside::Refuse {
            return Err(SwapError::Inside { cell });
        }
        let deferred = DeferredSwap::new();
        let report = SwapReport { deferred: Some(deferred.clone()), ..self.report() };
        // The task may be inside of others of the cells, too, and leave them later.
        self.finish_when_left(domain, deferred);
        Ok(report)
    }

    /// Finishes when the task has left all of the cells.
    fn finish_when_left(self, domain: Arc<Domain>, deferred: DeferredSwap) {
        let rest: Box<dyn FnOnce() + Send> = Box::new(move || {
            let held: Vec<_> = self.domains().into_iter().filter(|d| d.is_held_by_current()).collect();
            // What runs now is the last thing that the task does inside of one of them.
            match held.into_iter().nth(1) {
                Some(other) => self.finish_when_left(other, deferred),
                None => deferred.finish(guarded(|| self.finish()).unwrap_or_else(|exhausted| Err(exhausted.into()))),
            }
        });
        // Not inside any more.
        if let Err(rest) = domain.when_left(rest) {
            rest();
        }
    }

    /// Quiesces, transfers, commits, retires.
    pub(super) fn finish(mut self) -> Result<SwapReport, SwapError> {
        let quiet = self.quiesce()?;
        let committed = guarded(|| {
            self.transfer()?;
            self.commit()
        });
        let retired = match committed.unwrap_or_else(|exhausted| Err(exhausted.into())) {
            Ok(retired) => retired,
            Err(error) => {
                // While nobody is inside.
                without_failing(|| self.changes.iter_mut().for_each(Change::take_back));
                return Err(error);
            }
        };
        drop(quiet);
        // The new versions serve: whatever it takes to get rid of the old ones, and to say so.
        without_failing(|| {
            self.retire(retired);
            Ok(self.report())
        })
    }

    /// What has happened so far.
    pub(super) fn report(&self) -> SwapReport {
        let fate = |change: &Change| match &change.old {
            None => Fate::None,
            Some(_) if self.settings.keep_old => Fate::Cached,
            Some(_) => Fate::Retired,
        };
        let cell = |change: &Change| CellReport {
            cell: change.name(),
            renamed_from: change.old_name.clone().filter(|old| change.new_name.as_ref().is_some_and(|new| new != old)),
            old_version: change.old.as_ref().map(|c| c.version()),
            new_version: change.new.as_ref().map(|c| c.version()),
            plan: change.plan.name(),
            added: change.lists.added.clone(),
            removed: change.lists.removed.clone(),
            retyped: change.lists.retyped.clone(),
            dependents: change.lists.dependents.clone(),
            reuse: change.reuse,
            diff: change.diff.clone(),
            bytes_adopted: change.bytes_adopted,
            bytes_copied: change.bytes_copied,
            fate: fate(change),
        };
        SwapReport {
            cells: self.changes.iter().map(cell).collect(),
            phases: self.phases,
            stores: self.stores,
            deferred: None,
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.committed {
            without_failing(|| self.undo());
        }
    }
}

impl Transaction {
    /// Takes back what was made.
    fn undo(&mut self) {
        for change in &mut self.changes {
            let exposed = self.transferring && super::transfer::gives_away(change);
            if change.fresh
                && let Some(new) = change.new.take()
            {
                new.give_up(exposed);
                let ran = change.native.as_ref().is_some_and(|native| native.has_initialisers())
                    || matches!(&change.plan, Plan::State(StatePlan::Custom(_)));
                new.object_body().into_iter().for_each(|body| body.give_up(self.transferring && ran));
            }
            if let (Some(name), Some((version, blocks))) = (&change.new_name, change.remains.take()) {
                self.namespace.keep_entries(name, version, blocks);
            }
        }
        if let Some(previous) = self.previous.take() {
            self.namespace.swaps.cache.put_back(previous);
        }
        self.on_demand.undo(&self.namespace);
        crate::retire::look_again();
    }
}
