//! Commit: the step in which everybody comes to the new versions; and what follows it.
#![deny(unsafe_code)]

use super::SwapError;
use super::cache::Previous;
use super::step::SwapStep;
use super::transaction::{Change, Transaction, timed};
use crate::cell::{LostExport, StrongCrateRef};
use crate::entries::EntryBlock;
use crate::namespace::{CrateNamespace, Exchange, add_dependencies};
use crate::retire;
use crate::section::{SectionItem, StrongSectionRef};
use crate::version_table::{Commit, VersionTables, Waiting};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::mem::discriminant;
use runtime_port::heap::without_failing;
use wasm_cell::types::ExternType;

/// What is to go after a commit.
pub(super) struct Retired {
    waiting: Option<Waiting>,
    tables: Vec<Option<Arc<VersionTables>>>,
}

impl Transaction {
    /// Puts the new versions in the place of the old ones, in one step.
    pub(super) fn commit(&mut self) -> Result<Retired, SwapError> {
        self.step(SwapStep::Commit)?;
        for change in self.changes.iter().filter(|c| c.fresh) {
            record_imports(change)?;
        }
        self.changes.iter().filter(|c| c.new.is_none()).for_each(keep_for_users);
        let blocks: Vec<Vec<Arc<EntryBlock>>> = self.changes.iter().map(visible_blocks).collect();
        let tables: Vec<Option<Arc<VersionTables>>> = self.changes.iter().map(new_tables).collect();
        let commit = Commit::new(blocks.iter().zip(&tables).map(|(b, t)| (&b[..], t.as_deref())));
        self.stores = commit.stores();
        let exchanges: Vec<_> = self.changes.iter().map(exchange).collect();
        let changed = |cell| SwapError::Changed { cell };
        let mut prepared = self.namespace.prepare_exchange(&exchanges).map_err(changed)?;
        let mut phases = self.phases;
        // It is seen half done from here on.
        let waiting = without_failing(|| {
            let exchange = || self.namespace.exchange(&mut prepared, &exchanges, || show(commit, &exchanges));
            let shown = timed(&mut phases.commit, exchange);
            self.namespace.finish_exchange(prepared, shown.is_ok());
            self.phases = phases;
            let waiting = shown.map_err(changed)?;
            self.committed = true;
            for (change, blocks) in self.changes.iter().zip(&blocks) {
                if let Some(entries) = change.new.as_ref().filter(|_| !change.fresh).and_then(|n| n.entries()) {
                    entries.stand_behind(blocks);
                }
            }
            Ok::<_, SwapError>(waiting)
        })?;
        Ok(Retired { waiting, tables })
    }

    /// Moves edges and policies to the new versions, and lets go of the old ones.
    pub(super) fn retire(&mut self, retired: Retired) {
        let mut phases = self.phases;
        timed(&mut phases.retire, || self.retire_all(retired));
        self.phases = phases;
    }

    fn retire_all(&mut self, retired: Retired) {
        for change in &self.changes {
            hand_over_edges(&self.namespace, change);
            if let Some(old) = &change.old {
                let code = old.code();
                if let (Some(code), Some(supervision)) = (code, code.and_then(|c| c.supervision())) {
                    code.supervise(None);
                    match change.new.as_ref().filter(|new| new.crate_name == old.crate_name) {
                        Some(_) => {}
                        None => supervision.detach(code),
                    }
                }
            }
            if let Some(new) = &change.new
                && let Some(supervision) = self.namespace.supervision(&new.crate_name)
            {
                supervision.attach(new);
            }
        }
        if let Some(waiting) = retired.waiting {
            retire::retire(waiting.retirement());
        }
        drop(retired.tables);
        let names = self.changes.iter().flat_map(|c| [c.old_name.clone(), c.new_name.clone()]).flatten();
        let stale = names.filter_map(|name| self.namespace.swaps.cache.take(&name)).collect::<Vec<_>>();
        // What comes back is not let go of with the rest.
        let back: Vec<StrongCrateRef> = self.changes.iter().filter_map(|c| c.new.clone()).collect();
        stale.iter().for_each(|previous| previous.let_go(&self.namespace, &back));
        if let Some(previous) = self.previous.take() {
            previous.let_go(&self.namespace, &back);
        }
        let previous = Previous::of(&self.changes);
        match self.settings.keep_old {
            true => self.namespace.swaps.cache.put(&self.namespace, previous),
            false => previous.let_go(&self.namespace, &back),
        }
        retire::look_again();
    }
}

/// A version that was put behind the entries before its commit.
pub(super) struct Early(());

/// Puts a version behind the entries before its commit. Nobody else may be inside.
pub(super) fn show_early(change: &Change) -> Early {
    let [old, new] = [&change.old, &change.new];
    put_behind(change, new, old);
    Early(())
}

impl Early {
    /// Puts the old version back.
    pub(super) fn undo(self, change: &Change) {
        let [old, new] = [&change.old, &change.new];
        put_behind(change, old, new);
    }
}

fn put_behind(change: &Change, coming: &Option<StrongCrateRef>, going: &Option<StrongCrateRef>) {
    let blocks = visible_blocks(change);
    let tables = coming.as_ref().and_then(|c| c.entries()).and_then(|e| e.tables());
    let commit = Commit::new([(&blocks[..], tables.as_deref())]);
    let exchange = Exchange { old: going.as_ref(), new: coming.as_ref(), reexport: false };
    if let Some(waiting) = show(commit, &[exchange]) {
        retire::retire(waiting.retirement());
    }
}

/// Notes on both sides what a fresh version depends on. Fails when something of it has gone since it was linked.
fn record_imports(change: &Change) -> Result<(), SwapError> {
    let (Some(new), Some(module)) = (&change.new, change.new.as_ref().and_then(|n| n.module())) else { return Ok(()) };
    for section in &change.imports {
        let parent = section.parent_crate.upgrade();
        if parent.as_ref().is_none_or(|p| p.is_unloaded()) {
            return Err(SwapError::Changed {
                cell: parent.map_or_else(|| section.name.clone(), |p| p.crate_name.clone()),
            });
        }
    }
    add_dependencies(new, module.metadata(), &change.imports);
    Ok(())
}

/// Users of a cell that is removed by force have its entries, which a later cell of the name takes over.
fn keep_for_users(change: &Change) {
    let Some(old) = &change.old else { return };
    if let Some(entries) = old.entries()
        && old.global_sections().iter().any(|section| !section.dependents().is_empty())
    {
        entries.own().mark_escaped();
    }
}

/// The blocks of entries that others can have addresses of.
fn visible_blocks(change: &Change) -> Vec<Arc<EntryBlock>> {
    let of =
        |cell: &Option<StrongCrateRef>| cell.as_ref().and_then(|c| c.entries()).map(|e| e.in_use()).unwrap_or_default();
    let mut blocks = of(&change.old);
    // Those of earlier cells of the name, and those of a version that comes back.
    let own = change.new.as_ref().and_then(|n| n.entries()).map(|e| e.own().clone()).filter(|_| change.fresh);
    for block in of(&change.new) {
        let is_spare = own.as_ref().is_some_and(|own| Arc::ptr_eq(own, &block));
        if !is_spare && !blocks.iter().any(|b| Arc::ptr_eq(b, &block)) {
            blocks.push(block);
        }
    }
    blocks
}

fn new_tables(change: &Change) -> Option<Arc<VersionTables>> {
    change.new.as_ref()?.entries()?.tables()
}

fn exchange(change: &Change) -> Exchange<'_> {
    Exchange { old: change.old.as_ref(), new: change.new.as_ref(), reexport: change.reexport }
}

/// The step itself. Nothing in it can fail.
fn show(commit: Commit<'_>, exchanges: &[Exchange<'_>]) -> Option<Waiting> {
    for new in exchanges.iter().filter_map(|e| e.new) {
        new.set_superseded(false);
    }
    let waiting = commit.show();
    for old in exchanges.iter().filter_map(|e| e.old) {
        old.set_superseded(true);
    }
    waiting
}

/// Who depends on the old version depends on the new one. What the new one does not have, or not of its users' type, they depend on still: a later version,
/// one that comes back, or a later cell of the name may have it.
fn hand_over_edges(namespace: &CrateNamespace, change: &Change) {
    let named = |section: StrongSectionRef| (Box::from(section.export_name()), section);
    let mut used: Vec<LostExport> = match (&change.old, &change.new_name) {
        (Some(old), _) => {
            let before = core::mem::take(&mut *old.lost_exports().lock());
            old.global_sections().into_iter().map(named).chain(before).collect()
        }
        (None, Some(name)) => namespace.swaps.lost.lock().remove(name).unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    used.retain(|(name, section)| match change.new.as_ref().and_then(|new| new.export(name)) {
        // It is the one that comes back.
        Some(successor) if Arc::ptr_eq(&successor, section) => false,
        Some(successor) if is_like(&section.item, &successor.item) => {
            section.hand_dependents_to(&successor);
            false
        }
        _ => !section.dependents().is_empty(),
    });
    match (&change.new, &change.old_name) {
        (Some(new), _) => *new.lost_exports().lock() = used,
        (None, Some(name)) if !used.is_empty() => drop(namespace.swaps.lost.lock().insert(name.clone(), used)),
        _ => {}
    }
}

/// Whether users of one can use the other.
fn is_like(one: &SectionItem, other: &SectionItem) -> bool {
    match (one.ty(), other.ty()) {
        (Some(ExternType::Func(a)), Some(ExternType::Func(b))) => a.hash == b.hash,
        (a, b) => a.as_ref().map(discriminant) == b.as_ref().map(discriminant),
    }
}
