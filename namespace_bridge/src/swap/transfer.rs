//! Transfer: the state of the old versions becomes that of the new ones. The old ones stay able to go on until the commit.
#![deny(unsafe_code)]

use super::error::{SwapError, TransferError};
use super::homes::Homes;
use super::request::{StatePlan, StateTransfer};
use super::step::SwapStep;
use super::transaction::{Change, Plan, Transaction, timed};
use super::{adopt, commit, export};
use crate::call::catch_trap;
use crate::cell::StrongCrateRef;
use crate::code::{any_func, may_hold_func};
use crate::error::{FuncError, LoadError};
use crate::function::{Function, WasmFunction};
use crate::global::Global;
use crate::instance::InstanceRecord;
use crate::instantiate;
use crate::linear_memory::LinearMemory;
use crate::native::Successor;
use crate::section::{SectionItem, StrongSectionRef};
use crate::table::Table;
use crate::typed::{Func, TypedFunc, WasmParams, WasmResults};
use alloc::{sync::Arc, vec::Vec};
use runtime_port::heap::without_failing;
use wasm_cell::metadata::ExportItem;
use wasm_cell::types::ExternType;

impl Transaction {
    /// Runs every cell's plan.
    pub(super) fn transfer(&mut self) -> Result<(), SwapError> {
        self.step(SwapStep::Transfer)?;
        let mut phases = self.phases;
        let result = timed(&mut phases.transfer, || self.transfer_all());
        self.phases = phases;
        result?;
        self.step(SwapStep::Transferred)
    }

    fn transfer_all(&mut self) -> Result<(), SwapError> {
        let runs_code = self.changes.iter().any(runs_code);
        let fresh = self.changes.iter().filter(|c| c.fresh).filter_map(|c| c.new.as_ref());
        let homes = runs_code.then(|| Homes::of(fresh));
        self.transferring = true;
        // Taken-over tables are the old version's, too: in any case they get back what everybody sees.
        let private = homes.as_ref().map(Homes::make_private);
        let mut natives: Vec<&Successor> = self.changes.iter().filter_map(|c| c.native.as_ref()).collect();
        natives.sort_by_key(|native| native.rank);
        let initialised = natives.into_iter().try_for_each(Successor::initialise).map_err(SwapError::from);
        let result = initialised.and_then(|()| {
            // Cells that others import from start first.
            let mut changes: Vec<&mut Change> = self.changes.iter_mut().collect();
            changes.sort_by_key(|change| change.rank);
            changes.into_iter().try_for_each(transfer)
        });
        drop(private);
        for change in self.changes.iter().filter(|c| gives_away(c)) {
            if let Some(body) = change.new.as_ref().and_then(|n| n.body()) {
                body.entries.expose_own();
            }
        }
        result
    }
}

/// Whether code of the new version, or its active segments, can store references to its functions before it is in service.
fn runs_code(change: &Change) -> bool {
    let Some(m) = change.new.as_ref().filter(|_| change.fresh).and_then(|c| c.module()).map(|m| m.metadata()) else {
        return false;
    };
    match &change.plan {
        Plan::State(StatePlan::Adopt) => adopt::adopter(m).is_some(),
        Plan::State(StatePlan::Fresh) => m.start.is_some() || !m.elements.is_empty(),
        Plan::State(_) => true,
        Plan::Keep => false,
    }
}

/// Whether code of the new version can have given references to its functions to somebody who keeps them where they are not found again: tables and
/// globals that it shares are looked through.
pub(super) fn gives_away(change: &Change) -> bool {
    let Some(m) = change.new.as_ref().filter(|_| change.fresh).and_then(|c| c.module()).map(|m| m.metadata()) else {
        return false;
    };
    let only_segments = matches!(&change.plan, Plan::State(StatePlan::Fresh)) && m.start.is_none();
    if only_segments || !runs_code(change) {
        return false;
    }
    let mut funcs = m.imports.iter().filter_map(|i| match &i.ty {
        ExternType::Func(ty) => Some(ty),
        _ => None,
    });
    // A host function can look into what its caller exports.
    let shows = m.exports.iter().any(|e| match e.item {
        ExportItem::Table(i) => m.tables.get(i as usize).is_some_and(|t| may_hold_func(&t.ty.element)),
        ExportItem::Global(i) => m.globals.get(i as usize).is_some_and(|g| any_func(&[g.ty.content])),
        _ => false,
    });
    funcs.any(|ty| shows || any_func(&ty.params))
}

fn transfer(change: &mut Change) -> Result<(), SwapError> {
    let cell = change.name();
    let failed = |by, source| SwapError::Transfer { cell: cell.clone(), by, source };
    let plan = change.plan.clone();
    let Some(new) = change.new_instance() else {
        return match (plan, &change.old, &change.new) {
            (Plan::State(StatePlan::Custom(f)), Some(_), _) => {
                custom(&f, change).map_err(|e| failed("the transfer function", e))
            }
            (Plan::State(StatePlan::Export), Some(old), Some(new)) => {
                let Some(old) = old.instance() else { return Ok(()) };
                let bytes = export::save(&old).map_err(|e| failed(export::SAVE, e))?;
                change.bytes_copied = bytes.len() as u64;
                export::restore_native(new, &bytes).map_err(|e| failed(export::RESTORE, e))
            }
            _ => Ok(()),
        };
    };
    let old = change.old_instance();
    let begins = matches!(&plan, Plan::State(p) if !matches!(p, StatePlan::Adopt));
    if change.fresh && begins {
        start(&new, change).map_err(|e| match e {
            LoadError::Trap { trap, .. } => failed("start", trap.into()),
            other => other.into(),
        })?;
    }
    match (plan, old) {
        (Plan::State(StatePlan::Custom(f)), _) if change.old.is_some() => {
            custom(&f, change).map_err(|e| failed("the transfer function", e))
        }
        (Plan::Keep, _) | (Plan::State(StatePlan::Fresh | StatePlan::Custom(_)), _) | (_, None) => Ok(()),
        (Plan::State(StatePlan::Adopt), Some(old)) => {
            let (bytes, changed) = adopt::adopt(&old, &new).map_err(|e| failed(adopt::ADOPT, e))?;
            change.bytes_adopted = bytes;
            change.transferred.changed = changed;
            Ok(())
        }
        (Plan::State(StatePlan::Export), Some(old)) => {
            let bytes = export::save(&old).map_err(|e| failed(export::SAVE, e))?;
            change.bytes_copied = bytes.len() as u64;
            // A version that comes back has no entries but those that everybody has. They lead to it while it restores: callers
            // are kept out by the gate.
            if !change.fresh {
                change.transferred.early = Some(without_failing(|| commit::show_early(change)));
            }
            export::restore(&new, &bytes).map_err(|e| failed(export::RESTORE, e))
        }
    }
}

/// What a transfer did to what everybody sees, to be taken back if the swap fails later.
#[derive(Default)]
pub(super) struct Transferred {
    /// State that both versions share, as it was.
    changed: Option<adopt::Snapshot>,
    /// The version that comes back is behind the entries already.
    early: Option<commit::Early>,
}

impl Change {
    /// Takes back what the transfer did. Nobody else may be inside.
    pub(super) fn take_back(&mut self) {
        if let Some(early) = self.transferred.early.take() {
            early.undo(self);
        }
        if let Some(changed) = self.transferred.changed.take() {
            changed.restore();
        }
    }
}

fn start(new: &Arc<InstanceRecord>, change: &Change) -> Result<(), LoadError> {
    instantiate::start(new, &change.options)
}

fn custom(f: &StateTransfer, change: &Change) -> Result<(), TransferError> {
    let (Some(old), Some(new)) = (&change.old, &change.new) else { return Ok(()) };
    let context = TransferContext { old: Version(old), new: Version(new) };
    match catch_trap(|| f(&context)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(TransferError::Custom(error)),
        Err(trap) => Err(TransferError::Trap(trap)),
    }
}

/// What a transfer function works on. Nobody else is inside of either version.
#[derive(Debug)]
pub struct TransferContext<'a> {
    /// The version in service. It stays as it is unless the function changes it.
    pub old: Version<'a>,
    /// The version that takes its place. It has started.
    pub new: Version<'a>,
}

/// One version of a cell, by itself: its functions are those of this very version, whichever is in service.
#[derive(Debug)]
pub struct Version<'a>(&'a StrongCrateRef);

impl<'a> Version<'a> {
    pub(super) fn of(cell: &'a StrongCrateRef) -> Version<'a> {
        Version(cell)
    }
}

impl Version<'_> {
    /// The cell.
    pub fn cell(&self) -> &StrongCrateRef {
        self.0
    }

    /// A handle of an exported function of this version. It is good while the function that transfers runs.
    pub fn func(&self, name: &str) -> Result<Func, FuncError> {
        let missing = || {
            let sections = self.0.global_sections();
            let nearest = crate::linker::nearest(name, sections.iter().map(|s| s.export_name()));
            FuncError::NotFound { cell: self.0.crate_name.clone(), name: name.into(), nearest }
        };
        if self.0.is_object() {
            return self.native_func(&self.0.export(name).ok_or_else(missing)?);
        }
        let instance = self.0.instance().ok_or_else(|| FuncError::Unloaded { cell: self.0.crate_name.clone() })?;
        let m = instance.metadata();
        let export = m.exports.iter().find(|e| e.name == name).ok_or_else(missing)?;
        let ExportItem::Func(index) = export.item else {
            let found = self.0.export(name).and_then(|s| s.item.ty());
            return Err(FuncError::NotAFunction { cell: self.0.crate_name.clone(), name: name.into(), found });
        };
        match instance.func_of_this_version(index) {
            Some(func) => Ok(func),
            // Imported and exported again: there is only one.
            None => self.0.func(name),
        }
    }

    /// A function of a native cell, by its own entry.
    fn native_func(&self, section: &StrongSectionRef) -> Result<Func, FuncError> {
        let (cell, name) = (self.0.crate_name.clone(), section.export_name());
        let SectionItem::Func(Function::Wasm(function)) = &section.item else {
            return Err(FuncError::NotAFunction { cell, name: name.into(), found: section.item.ty() });
        };
        let entries = self.0.entries().ok_or(FuncError::Unloaded { cell })?;
        let is_it = |k: &usize| entries.of(*k).is_some_and(|(_, entry)| entry == function.entry);
        let own = (0..entries.own().count()).find(is_it).and_then(|k| entries.own().entry(k));
        let own = own.map(|entry| WasmFunction { block: entries.own().clone(), entry, ..function.clone() });
        crate::handle::of(section, &Function::Wasm(own.unwrap_or_else(|| function.clone())))
    }

    /// The same with Rust types.
    pub fn typed_func<P: WasmParams, R: WasmResults>(&self, name: &str) -> Result<TypedFunc<P, R>, FuncError> {
        let func = self.func(name)?;
        func.typed().map_err(|source| FuncError::Type { cell: self.0.crate_name.clone(), name: name.into(), source })
    }

    /// A memory by index, exported or not.
    pub fn memory(&self, index: u32) -> Option<Arc<LinearMemory>> {
        self.0.instance()?.memory(index).cloned()
    }

    /// A table by index, exported or not.
    pub fn table(&self, index: u32) -> Option<Arc<Table>> {
        self.0.instance()?.table(index).cloned()
    }

    /// An exported global.
    pub fn global(&self, name: &str) -> Option<Arc<Global>> {
        match &self.0.export(name)?.item {
            SectionItem::Global(global) => Some(global.clone()),
            _ => None,
        }
    }
}
