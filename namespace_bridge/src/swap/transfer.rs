//! Transfer: the state of the old versions becomes that of the new ones. The old ones stay able to go on until the commit.
#![deny(unsafe_code)]

use super::error::{SwapError, TransferError};
use super::homes::Homes;
use super::request::{StatePlan, StateTransfer};
use super::step::SwapStep;
use super::transaction::{Change, Plan, Transaction, timed};
use super::{adopt, export};
use crate::call::catch_trap;
use crate::cell::StrongCrateRef;
use crate::error::{FuncError, LoadError};
use crate::global::Global;
use crate::instance::InstanceRecord;
use crate::instantiate;
use crate::linear_memory::LinearMemory;
use crate::section::SectionItem;
use crate::table::Table;
use crate::typed::{Func, TypedFunc, WasmParams, WasmResults};
use alloc::sync::Arc;
use wasm_cell::metadata::ExportItem;

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
        if let Some(homes) = &homes {
            homes.make_private();
        }
        self.exposed |= runs_code;
        let result = self.changes.iter_mut().try_for_each(transfer);
        // Taken-over tables are the old version's, too: in either case they get back what everybody sees.
        if let Some(homes) = &homes {
            homes.make_public();
        }
        let escapes = |c: &&Change| c.new.as_ref().and_then(|n| n.module()).is_some_and(|m| m.funcrefs_can_escape());
        for change in self.changes.iter().filter(|c| c.fresh && runs_code).filter(escapes) {
            if let Some(body) = change.new.as_ref().and_then(|n| n.body()) {
                body.entries.expose_own();
            }
        }
        result
    }
}

/// Whether code of the new version runs before it is in service.
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

fn transfer(change: &mut Change) -> Result<(), SwapError> {
    let Some(new) = change.new_instance() else { return Ok(()) };
    let old = change.old_instance();
    let cell = change.name();
    let failed = |by, source| SwapError::Transfer { cell: cell.clone(), by, source };
    let plan = change.plan.clone();
    let begins = matches!(&plan, Plan::State(p) if !matches!(p, StatePlan::Adopt));
    if change.fresh && begins {
        start(&new, change).map_err(|e| match e {
            LoadError::Trap { trap, .. } => failed("start", trap.into()),
            other => other.into(),
        })?;
    }
    match (plan, old) {
        (Plan::Keep, _) | (Plan::State(StatePlan::Fresh), _) | (_, None) => Ok(()),
        (Plan::State(StatePlan::Adopt), Some(old)) => {
            change.bytes_adopted = adopt::adopt(&old, &new).map_err(|e| failed(adopt::ADOPT, e))?;
            Ok(())
        }
        (Plan::State(StatePlan::Export), Some(old)) => {
            let bytes = export::save(&old).map_err(|e| failed(export::SAVE, e))?;
            change.bytes_copied = bytes.len() as u64;
            export::restore(&new, &bytes).map_err(|e| failed(export::RESTORE, e))
        }
        (Plan::State(StatePlan::Custom(f)), Some(_)) => {
            custom(&f, change).map_err(|e| failed("the transfer function", e))
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
