//! The supervision of one cell: its policy, its failures, and the steps from failure to recovery.
#![deny(unsafe_code)]

use super::closed::{ClosedCell, ClosedTable, is_outside};
use super::policy::{Policy, PolicyError, RecoveryState, Strategy};
use crate::cell::{LoadedCrate, StrongCrateRef};
use crate::code::LoadedCode;
use crate::domain::GateGuard;
use crate::entries::EntryBlock;
use crate::fault_log::{self, FaultId, FaultType, RecoveryAction};
use crate::function::Function;
use crate::namespace::CrateNamespace;
use crate::retire::{Retirement, retire, tasks_inside};
use crate::section::SectionItem;
use crate::swap::SwapError;
use crate::version_table::VersionTables;
use alloc::{
    collections::VecDeque,
    format,
    string::String,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::time::Duration;
use runtime_port::heap::{guarded, without_failing};
use runtime_port::{platform, task, time::Instant};
use spin::Mutex;
use wasm_cell::metadata::ExportItem;
use wasm_cell::trap::TrapCode;

/// Supervises the cells that have one name, one after the other.
#[derive(Debug)]
pub(crate) struct Supervision {
    namespace: Weak<CrateNamespace>,
    name: Arc<str>,
    policy: Policy,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    cell: Weak<LoadedCrate>,
    /// Serial number of its code.
    serial: u64,
    /// The entries of the cell.
    blocks: Vec<Arc<EntryBlock>>,
    table: ClosedTable,
    phase: Phase,
    /// Times of the failures that count for the quarantine.
    failures: VecDeque<u64>,
    in_a_row: u32,
    /// When it was last put back into service.
    recovered: u64,
    last: Option<FaultId>,
}

#[derive(Debug)]
enum Phase {
    Serving,
    Poisoned {
        due: u64,
        /// Tasks that may be inside; `None` if the port cannot tell.
        inside: Option<Vec<u64>>,
    },
    Replaced {
        fallback: Fallback,
    },
    Quarantined,
}

/// What serves in the place of a cell.
#[derive(Debug)]
struct Fallback {
    by: StrongCrateRef,
    tables: Arc<VersionTables>,
}

impl Drop for Fallback {
    fn drop(&mut self) {
        // A task that has read where an entry leads may not have jumped yet.
        without_failing(|| {
            let ranges: Vec<_> = self.tables.ranges().collect();
            let (name, bytes) = (self.by.crate_name.clone(), ranges.iter().map(|r| r.len()).sum());
            let what = Arc::new((self.tables.clone(), self.by.clone()));
            retire(Retirement { name, version: 0, bytes, ranges, shows_in_frames: true, what });
        });
    }
}

fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Supervision {
    pub(super) fn new(namespace: Weak<CrateNamespace>, cell: &StrongCrateRef, policy: Policy) -> Arc<Supervision> {
        let inner = Inner {
            cell: Weak::new(),
            serial: 0,
            blocks: Vec::new(),
            table: ClosedTable::new(0),
            phase: Phase::Serving,
            failures: VecDeque::new(),
            in_a_row: 0,
            recovered: 0,
            last: None,
        };
        Arc::new(Supervision { namespace, name: cell.crate_name.clone(), policy, inner: Mutex::new(inner) })
    }

    pub(super) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(super) fn state(&self) -> RecoveryState {
        match &self.inner.lock().phase {
            Phase::Serving => RecoveryState::Serving,
            Phase::Poisoned { .. } => RecoveryState::Poisoned,
            Phase::Replaced { fallback } => RecoveryState::Replaced { by: fallback.by.crate_name.clone() },
            Phase::Quarantined => RecoveryState::Quarantined,
        }
    }

    /// Supervises this cell from now on. It is in service.
    pub(crate) fn attach(self: &Arc<Self>, cell: &StrongCrateRef) {
        let Some(body) = cell.body() else { return };
        let blocks = body.entries.in_use();
        let entries = blocks.iter().map(|b| b.count()).max().unwrap_or(0);
        // Made now, so that poisoning allocates nothing.
        let table = ClosedTable::new(entries);
        let mut inner = self.inner.lock();
        let old_cell = core::mem::replace(&mut inner.cell, Arc::downgrade(cell));
        inner.serial = body.code.serial();
        let old_blocks = core::mem::replace(&mut inner.blocks, blocks);
        let old_table = if inner.table.len() < entries { core::mem::replace(&mut inner.table, table) } else { table };
        let old_phase = core::mem::replace(&mut inner.phase, Phase::Serving);
        inner.recovered = Instant::now().as_nanos();
        if !matches!(old_phase, Phase::Serving) {
            // The version before may have failed, and closed the entries, after this one was put behind them.
            body.entries.open();
        }
        drop(inner);
        body.code.supervise(Some(self.clone()));
        drop((old_cell, old_blocks, old_phase, old_table));
    }

    /// The cell has been unloaded.
    pub(crate) fn detach(&self, code: &LoadedCode) {
        let mut inner = self.inner.lock();
        if inner.serial != code.serial() {
            return;
        }
        let cell = core::mem::take(&mut inner.cell);
        let blocks = core::mem::take(&mut inner.blocks);
        let phase = core::mem::replace(&mut inner.phase, Phase::Serving);
        drop(inner);
        drop((cell, blocks, phase));
    }

    /// A call in the cell's code failed.
    pub(super) fn failed(self: &Arc<Self>, code: &LoadedCode, fault: FaultType, record: FaultId) {
        if matches!(fault, FaultType::Trap(c) if self.policy.ignored.contains(&c)) {
            return;
        }
        let now = Instant::now().as_nanos();
        let mut inner = self.inner.lock();
        // A call that was inside an instance that is replaced already.
        if inner.serial != code.serial() || !matches!(inner.phase, Phase::Serving) {
            return;
        }
        inner.last = Some(record);
        let most = self.policy.back_off.map_or(0, |(_, most)| nanos(most));
        inner.in_a_row = if now.saturating_sub(inner.recovered) > most { 1 } else { inner.in_a_row + 1 };
        let what = ClosedCell { cell: self.name.clone(), cause: fault, failures: inner.in_a_row };
        if inner.is_one_too_many(self.policy.quarantine, now) {
            inner.close(TrapCode::Quarantined, what);
            inner.phase = Phase::Quarantined;
            fault_log::set_action(record, RecoveryAction::Quarantined);
            return;
        }
        if self.policy.strategy == Strategy::Propagate {
            return;
        }
        inner.close(TrapCode::Poisoned, what);
        let doubled = |first: u64| first.saturating_mul(1 << (inner.in_a_row - 1).min(40)).min(most);
        let pause = self.policy.back_off.map_or(0, |(first, _)| doubled(nanos(first)));
        // This task looks after recovery before it calls wasm again.
        crate::call::stop_before_wasm(task::current());
        // As when code is retired: after the barrier a task has met a closed entry, or is seen inside.
        platform().tasks().barrier();
        inner.phase = Phase::Poisoned { due: now.saturating_add(pause), inside: tasks_inside() };
        drop(inner);
        fault_log::set_action(record, RecoveryAction::Poisoned);
        super::enqueue(self.clone());
    }

    /// Recovers if it is time and nobody is inside. Returns whether nothing is left to do.
    pub(super) fn recover(self: &Arc<Self>, now: u64) -> bool {
        if !is_outside(task::current()) {
            return false;
        }
        let (Some(namespace), Some(cell)) = (self.namespace.upgrade(), self.cell_to_recover(now)) else {
            return !matches!(self.inner.lock().phase, Phase::Poisoned { .. }) || self.namespace.strong_count() == 0;
        };
        // Another task may be inside of a cell that shares the state: it is waited for in turns, not here.
        let outcome = guarded(|| match &self.policy.strategy {
            Strategy::Propagate => Ok(Some(RecoveryAction::None)),
            Strategy::Reset => match namespace.renew(&cell, Duration::ZERO) {
                Err(PolicyError::Swap { source, .. }) if is_for_now(&source) => Ok(None),
                renewed => renewed.map(|_| Some(RecoveryAction::Reset)),
            },
            Strategy::Swap(fallback) => {
                let Some(_gate) = quiet(&cell) else { return Ok(None) };
                fallback_of(&namespace, &cell, fallback).map(|by| {
                    self.replace(&cell, by);
                    Some(RecoveryAction::Swapped)
                })
            }
        });
        let outcome = match outcome.unwrap_or_else(|exhausted| Err(exhausted.into())) {
            Ok(None) => return false,
            Ok(Some(action)) => Ok(action),
            Err(e) => Err(e),
        };
        let action = outcome.unwrap_or_else(|e| {
            log::error!("{e}; the cell is out of service");
            let mut inner = self.inner.lock();
            inner.phase = Phase::Quarantined;
            let (cause, failures) = (inner.cause(), inner.in_a_row);
            inner.close(TrapCode::Quarantined, ClosedCell { cell: self.name.clone(), cause, failures });
            RecoveryAction::Failed
        });
        if let Some(record) = self.inner.lock().last {
            fault_log::set_action(record, action);
        }
        true
    }

    /// The cell, if it is poisoned, its time has come and nobody can be inside.
    fn cell_to_recover(&self, now: u64) -> Option<StrongCrateRef> {
        // Cells are dropped only while nothing is locked: dropping one comes back here.
        let cell = self.inner.lock().cell.clone().upgrade();
        let mut inner = self.inner.lock();
        let Phase::Poisoned { due, inside } = &mut inner.phase else { return None };
        // If the port cannot tell, the old instance is never freed, so nobody who is inside comes to harm.
        if let (Some(inside), Some(still)) = (inside.as_mut(), tasks_inside()) {
            inside.retain(|id| still.contains(id));
        }
        let ready = *due <= now && inside.as_ref().is_none_or(|i| i.is_empty());
        drop(inner);
        cell.filter(|c| ready && !c.is_unloaded())
    }

    /// Lets the entries of the cell lead to the functions of the fallback.
    fn replace(&self, cell: &StrongCrateRef, by: StrongCrateRef) {
        let (Some(body), Some(code)) = (cell.body(), cell.code()) else { return };
        let m = code.metadata();
        let imported = m.imported_funcs.len() as u32;
        let target = |k: usize| {
            let func = *m.escaped_funcs.get(k)?;
            if func < imported {
                return None;
            }
            let exports = m.exports.iter().filter(|e| e.item == ExportItem::Func(func));
            // What is not exported was reachable by references only, to functions that serve no more.
            exports.filter_map(|e| function_address(&by, &e.name)).next()
        };
        let tables = Arc::new(body.entries.tables_to(target));
        let fallback = Fallback { by: by.clone(), tables: tables.clone() };
        let mut inner = self.inner.lock();
        let old = without_failing(|| {
            body.entries.show(&tables);
            // Who waits at the gate goes by the entry again.
            if let Some(instance) = cell.instance() {
                instance.set_superseded(true);
            }
            core::mem::replace(&mut inner.phase, Phase::Replaced { fallback })
        });
        drop(inner);
        drop(old);
    }

    /// Puts the cell back into service as it is. Returns whether it was out of service.
    pub(super) fn serve_again(&self) -> bool {
        let mut inner = self.inner.lock();
        if matches!(inner.phase, Phase::Serving) {
            return false;
        }
        let cell = inner.cell.upgrade();
        if let Some(body) = cell.as_ref().and_then(|c| c.body()) {
            if let Some(instance) = cell.as_ref().and_then(|c| c.instance()) {
                instance.set_superseded(false);
            }
            body.entries.open();
        }
        let old = core::mem::replace(&mut inner.phase, Phase::Serving);
        inner.failures.clear();
        inner.in_a_row = 0;
        drop(inner);
        drop((old, cell));
        true
    }
}

impl Inner {
    /// Notes a failure, and says whether it takes the cell out of service.
    fn is_one_too_many(&mut self, quarantine: Option<(usize, Duration)>, now: u64) -> bool {
        let Some((most, window)) = quarantine else { return false };
        while self.failures.front().is_some_and(|t| now.saturating_sub(*t) > nanos(window)) {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        self.failures.len() >= most
    }

    /// Lets every entry lead to the trap that says why.
    fn close(&self, code: TrapCode, what: ClosedCell) {
        self.table.says(code, what);
        self.blocks.iter().for_each(|b| b.redirect(self.table.address()));
    }

    fn cause(&self) -> FaultType {
        self.last.and_then(fault_log::fault_of).unwrap_or(FaultType::Panic)
    }
}

/// Whether what is in the way of a swap goes by itself.
fn is_for_now(error: &SwapError) -> bool {
    matches!(
        error,
        SwapError::Quiesce { .. } | SwapError::Busy { .. } | SwapError::Changed { .. } | SwapError::Inside { .. }
    )
}

/// Keeps others out of the cell's state, if it has a gate. `None` when somebody is in, this task included.
fn quiet(cell: &LoadedCrate) -> Option<Option<GateGuard>> {
    let Some(domain) = cell.instance().and_then(|i| i.domain()).map(|d| d.root()) else { return Some(None) };
    if domain.is_held_by_current() {
        return None;
    }
    domain.acquire(Some(Duration::ZERO)).ok().map(Some)
}

/// The fallback cell, if it has every function that the cell exports.
pub(super) fn fallback_of(
    namespace: &CrateNamespace,
    cell: &StrongCrateRef,
    fallback: &Arc<str>,
) -> Result<StrongCrateRef, PolicyError> {
    // A fallback that is replaced itself could lead back here.
    let serves = |f: &StrongCrateRef| {
        let supervision = f.namespace().and_then(|n| n.supervision(&f.crate_name));
        !Arc::ptr_eq(f, cell) && !f.is_unloaded() && supervision.is_none_or(|s| s.state() == RecoveryState::Serving)
    };
    let found = namespace.get_crate(fallback).filter(serves);
    let name = || cell.crate_name.clone();
    let by = found.ok_or_else(|| PolicyError::NoFallback { cell: name(), fallback: fallback.clone() })?;
    let own = cell.body().map(|b| b.entries.in_use()).unwrap_or_default();
    let is_own = |f: &Function| matches!(f, Function::Wasm(f) if own.iter().any(|b| Arc::ptr_eq(b, &f.block)));
    let mut missing: Vec<String> = Vec::new();
    for section in cell.global_sections() {
        let SectionItem::Func(function) = &section.item else { continue };
        let same = by.export(section.export_name()).and_then(|s| match &s.item {
            SectionItem::Func(f) => Some(f.ty().hash == function.ty().hash && f.entry().is_some() && !is_own(f)),
            _ => None,
        });
        if same != Some(true) {
            missing.push(format!("`{}` of type {}", section.export_name(), function.ty()));
        }
    }
    match missing.is_empty() {
        true => Ok(by),
        false => {
            Err(PolicyError::FallbackLacks { cell: name(), fallback: fallback.clone(), missing: missing.join(", ") })
        }
    }
}

fn function_address(cell: &LoadedCrate, export: &str) -> Option<usize> {
    match &cell.export(export)?.item {
        // A closure has no address of its own.
        SectionItem::Func(f) => f.entry(),
        _ => None,
    }
}
