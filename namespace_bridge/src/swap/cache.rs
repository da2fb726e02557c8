//! The cache of unloaded cells: versions that were replaced and can come back (Theseus: `UNLOADED_CRATE_CACHE`).
//!
//! A name has one previous version here. It is complete: instance, tables, edges to what it imports; nothing is left to do for a rollback but
//! to validate, to quiesce, and to give back the state.
#![deny(unsafe_code)]

use super::request::{DEADLINE, FromInside, StatePlan};
use super::transaction::{Change, Lists, Plan, Settings, Transaction};
use super::transfer::Transferred;
use super::{SwapError, prepare::OnDemand};
use crate::cell::StrongCrateRef;
use crate::namespace::CrateNamespace;
use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::ops::Range;
use spin::Mutex;

/// What one swap replaced.
pub(super) struct Previous {
    cells: Vec<PreviousCell>,
}

struct PreviousCell {
    /// The version that serves now, if one does.
    now: Option<(Arc<str>, Weak<crate::cell::LoadedCrate>)>,
    /// The version before it, if there was one.
    before: Option<StrongCrateRef>,
    /// How state goes back.
    back: Plan,
    reexport: bool,
}

/// Previous versions by the names that serve now, and those that would come back.
#[derive(Default)]
pub(crate) struct Cache(Mutex<BTreeMap<Arc<str>, Arc<Previous>>>);

/// Namespaces that have ever had something in their cache.
static NAMESPACES: Mutex<Vec<Weak<CrateNamespace>>> = Mutex::new(Vec::new());

impl Cache {
    pub(super) fn put(&self, namespace: &Arc<CrateNamespace>, previous: Previous) {
        let mut all = NAMESPACES.lock();
        all.retain(|n| n.strong_count() > 0);
        if !all.iter().any(|n| core::ptr::eq(n.as_ptr(), Arc::as_ptr(namespace))) {
            all.push(Arc::downgrade(namespace));
        }
        drop(all);
        self.put_back(Arc::new(previous));
    }

    pub(super) fn put_back(&self, previous: Arc<Previous>) {
        let mut cache = self.0.lock();
        previous.names().for_each(|name| drop(cache.insert(name, previous.clone())));
    }

    /// What comes back with this name.
    fn get(&self, name: &str) -> Option<Arc<Previous>> {
        self.0.lock().get(name).cloned()
    }

    /// The version of this name that was removed, and would come back as such.
    pub(super) fn removed(&self, name: &str) -> Option<StrongCrateRef> {
        let previous = self.get(name)?;
        let is_it = |c: &&PreviousCell| c.now.is_none() && c.before.as_ref().is_some_and(|b| *b.crate_name == *name);
        previous.cells.iter().find(is_it)?.before.clone()
    }

    /// Takes out what comes back with this name, under all its names.
    pub(super) fn take(&self, name: &str) -> Option<Arc<Previous>> {
        let mut cache = self.0.lock();
        let found = cache.get(name)?.clone();
        cache.retain(|_, p| !Arc::ptr_eq(p, &found));
        Some(found)
    }

    fn take_all(&self) -> Vec<Arc<Previous>> {
        let all = core::mem::take(&mut *self.0.lock());
        let mut found: Vec<Arc<Previous>> = Vec::new();
        for previous in all.into_values() {
            if !found.iter().any(|p| Arc::ptr_eq(p, &previous)) {
                found.push(previous);
            }
        }
        found
    }

    fn versions(&self) -> Vec<StrongCrateRef> {
        let cache = self.0.lock();
        let mut found: Vec<StrongCrateRef> = Vec::new();
        for cell in cache.values().flat_map(|p| &p.cells).filter_map(|c| c.before.as_ref()) {
            if !found.iter().any(|f| Arc::ptr_eq(f, cell)) {
                found.push(cell.clone());
            }
        }
        found
    }
}

impl Previous {
    /// What these changes, which were committed, replaced.
    pub(super) fn of(changes: &[Change]) -> Previous {
        let cell = |change: &Change| PreviousCell {
            now: change.new.as_ref().map(|new| (new.crate_name.clone(), Arc::downgrade(new))),
            before: change.old.clone(),
            back: match &change.plan {
                Plan::State(plan @ (StatePlan::Adopt | StatePlan::Export)) => Plan::State(plan.clone()),
                _ => Plan::Keep,
            },
            reexport: change.reexport,
        };
        Previous { cells: changes.iter().map(cell).collect() }
    }

    fn names(&self) -> impl Iterator<Item = Arc<str>> {
        let names = |c: &PreviousCell| {
            [c.now.as_ref().map(|(name, _)| name.clone()), c.before.as_ref().map(|b| b.crate_name.clone())]
        };
        self.cells.iter().flat_map(names).flatten()
    }

    /// Lets the versions go that are in it, as soon as no task can be inside, but for these, which serve.
    pub(super) fn let_go(&self, namespace: &CrateNamespace, serving: &[StrongCrateRef]) {
        for cell in self.cells.iter().filter_map(|c| c.before.as_ref()) {
            if serving.iter().any(|s| Arc::ptr_eq(s, cell)) || !cell.is_superseded() {
                continue;
            }
            namespace.forget_addresses(cell);
            let kept = crate::retire::on_clear_stack(|| cell.shut_down());
            namespace.keep_entries(&cell.crate_name, cell.version(), kept);
        }
    }
}

impl Transaction {
    /// One that undoes the last swap of a name.
    pub(super) fn back(namespace: &CrateNamespace, name: &str) -> Result<Transaction, SwapError> {
        let none = || SwapError::NoPrevious { cell: name.into() };
        let previous = namespace.swaps.cache.get(name).ok_or_else(none)?;
        let mut names: Vec<Arc<str>> = previous.names().collect();
        names.sort();
        names.dedup();
        let settings = Settings {
            deadline: DEADLINE,
            from_inside: FromInside::Defer,
            force: false,
            keep_old: true,
            explain: false,
            fail_at: None,
        };
        let mut transaction = Transaction::new(namespace, names, settings)?;
        // From now on nobody else changes the names, and the transaction puts it back when it fails.
        transaction.previous = namespace.swaps.cache.take(name);
        if !transaction.previous.as_ref().is_some_and(|p| Arc::ptr_eq(p, &previous)) {
            return Err(SwapError::Changed { cell: name.into() });
        }
        transaction.on_demand = OnDemand::none();
        for cell in &previous.cells {
            let now = cell.now.as_ref().map(|(name, weak)| (name.clone(), weak.upgrade()));
            if let Some((name, None)) = &now {
                return Err(SwapError::Changed { cell: name.clone() });
            }
            let old = now.and_then(|(_, cell)| cell);
            let new = cell.before.clone();
            let mut change = Change {
                old_name: old.as_ref().map(|c| c.crate_name.clone()),
                new_name: new.as_ref().map(|c| c.crate_name.clone()),
                options: new.as_ref().and_then(|n| n.body()).map(|b| b.options.clone()).unwrap_or_default(),
                old,
                new,
                plan: cell.back.clone(),
                reexport: false,
                imports: Vec::new(),
                rank: 0,
                remains: None,
                fresh: false,
                native: None,
                lists: Lists::default(),
                reuse: None,
                diff: None,
                bytes_adopted: 0,
                bytes_copied: 0,
                transferred: Transferred::default(),
            };
            super::validate::compare(&mut change, None);
            // A version that only had a second name loses it again.
            let _ = cell.reexport;
            transaction.changes.push(change);
        }
        Ok(transaction)
    }
}

/// A version that does not serve.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OldVersion {
    /// `name@version`.
    pub name: Arc<str>,
    /// Addresses of its code.
    pub text: Range<usize>,
    /// Bytes of its memories that it shares with nobody.
    pub memory_bytes: u64,
}

impl CrateNamespace {
    /// Versions in the cache of unloaded cells.
    pub fn old_versions(&self) -> Vec<OldVersion> {
        let describe = |cell: &StrongCrateRef| OldVersion {
            name: cell.display_name(),
            text: cell.code().map_or(0..0, |c| c.text()),
            memory_bytes: cell
                .instance()
                .map_or(0, |i| i.memories().iter().filter(|m| Arc::strong_count(m) == 1).map(|m| m.bytes()).sum()),
        };
        self.swaps.cache.versions().iter().map(describe).collect()
    }

    /// Lets go of all versions in the cache of unloaded cells. Returns how many swaps cannot be undone any more.
    pub fn clear_unloaded_crate_cache(&self) -> usize {
        let all = self.swaps.cache.take_all();
        all.iter().for_each(|previous| previous.let_go(self, &[]));
        crate::retire::look_again();
        all.len()
    }

    /// Lets go of the previous version of a name.
    pub(crate) fn forget_previous(&self, name: &str) {
        if let Some(previous) = self.swaps.cache.take(name) {
            previous.let_go(self, &[]);
        }
    }
}

/// Lets go of what is in the caches of all namespaces (Theseus: `crate_swap::clear_unloaded_crate_cache`).
pub fn clear_unloaded_crate_cache() {
    let namespaces = NAMESPACES.lock().clone();
    for namespace in namespaces.iter().filter_map(Weak::upgrade) {
        namespace.clear_unloaded_crate_cache();
    }
}
