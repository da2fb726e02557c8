//! Crate namespaces: cells by name, symbols by name, both by address; a parent to look further in (Theseus: `mod_mgmt`).
//!
//! Lock order: a namespace before its parent; no lock is held while a cell is compiled, linked or run. What a look-up
//! returns is shared: unloading a cell leaves sections that others hold valid, and their functions trap.

mod define;
mod directory;
mod exchange;
mod inspect;
mod load;
mod lookup;
mod names;
mod native;
mod provider;
mod renew;
mod unload;

pub use directory::CrateDirectory;
pub(crate) use exchange::Exchange;
pub use inspect::{CellInfo, DependencyInfo};
pub(crate) use load::add_dependencies;
pub use provider::{CellSource, CrateProvider};

use crate::cell::{LoadedCrate, StrongCrateRef};
use crate::entries::EntryBlock;
use crate::recovery::Supervision;
use crate::section::WeakSectionRef;
use crate::swap::Swaps;
use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};
use names::Names;
use spin::{Mutex, RwLock};

/// A namespace.
pub struct CrateNamespace {
    name: Arc<str>,
    recursive_namespace: Option<Arc<CrateNamespace>>,
    me: Weak<CrateNamespace>,
    tables: RwLock<Tables>,
    providers: RwLock<Vec<Arc<dyn CrateProvider>>>,
    /// Cells that failed to load after others may have got hold of their functions.
    orphans: Mutex<Vec<StrongCrateRef>>,
    /// Who acts when cells fail, by name.
    pub(crate) policies: Mutex<BTreeMap<Arc<str>, Arc<Supervision>>>,
    /// Swaps under way, and versions that can come back.
    pub(crate) swaps: Swaps,
}

#[derive(Default)]
struct Tables {
    crates: Names<StrongCrateRef>,
    /// Second names of cells.
    aliases: Names<StrongCrateRef>,
    /// Symbols by full name, `cell::export`. Values do not keep the sections.
    symbols: Names<WeakSectionRef>,
    /// First address of every image, with its end.
    images: BTreeMap<usize, (usize, Weak<LoadedCrate>)>,
    /// What remains of names whose cell is gone.
    remains: BTreeMap<Arc<str>, Remains>,
    /// Symbols of cells under the names of cells they replaced, by cell: symbol and export.
    reexports: BTreeMap<Arc<str>, Vec<exchange::Reexport>>,
}

/// What a name keeps when its cell goes.
#[derive(Default)]
struct Remains {
    /// Entries whose addresses may still be held.
    entries: Vec<Arc<EntryBlock>>,
    /// The last version.
    version: u32,
}

impl CrateNamespace {
    /// An empty namespace. What it does not have is looked up in `recursive_namespace`.
    pub fn new(name: &str, recursive_namespace: Option<Arc<CrateNamespace>>) -> Arc<CrateNamespace> {
        Arc::new_cyclic(|me| CrateNamespace {
            name: name.into(),
            recursive_namespace,
            me: me.clone(),
            tables: RwLock::new(Tables::default()),
            providers: RwLock::new(Vec::new()),
            orphans: Mutex::new(Vec::new()),
            policies: Mutex::new(BTreeMap::new()),
            swaps: Swaps::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it looks for what it does not have.
    pub fn recursive_namespace(&self) -> Option<&Arc<CrateNamespace>> {
        self.recursive_namespace.as_ref()
    }

    /// This namespace, then its parents.
    pub(crate) fn chain(&self) -> impl Iterator<Item = &CrateNamespace> {
        core::iter::successors(Some(self), |n| n.recursive_namespace.as_deref())
    }

    /// Keeps entries for the next cell of this name. A name that keeps none is forgotten, its versions too.
    pub(crate) fn keep_entries(&self, name: &Arc<str>, version: u32, blocks: Vec<Arc<EntryBlock>>) {
        let mut tables = self.tables.write();
        if blocks.is_empty() {
            if tables.remains.get(name).is_some_and(|r| r.entries.is_empty()) {
                tables.remains.remove(name);
            }
            return;
        }
        // Addresses of entries are held elsewhere: when there is no memory to note them, they stay for ever.
        let mut blocks = NeverFreed(blocks);
        let remains = tables.remains.entry(name.clone()).or_default();
        remains.version = remains.version.max(version);
        remains.entries.reserve(blocks.0.len());
        for block in core::mem::take(&mut blocks.0) {
            if !remains.entries.iter().any(|b| Arc::ptr_eq(b, &block)) {
                remains.entries.push(block);
            }
        }
    }
}

/// Entries of cells whose namespace is gone, but whose addresses may be held anywhere.
static ORPHANED_ENTRIES: Mutex<Vec<Arc<EntryBlock>>> = Mutex::new(Vec::new());

/// Keeps entries whose cell is gone already.
pub(crate) fn keep_for_ever(block: Arc<EntryBlock>) {
    ORPHANED_ENTRIES.lock().push(block);
}

/// Keeps entries of a cell that is gone: in its namespace if that lives, else for ever.
pub(crate) fn keep_entries(
    namespace: &Weak<CrateNamespace>,
    name: &Arc<str>,
    version: u32,
    blocks: Vec<Arc<EntryBlock>>,
) {
    match namespace.upgrade() {
        Some(namespace) => namespace.keep_entries(name, version, blocks),
        None => ORPHANED_ENTRIES.lock().extend(blocks),
    }
}

impl Drop for CrateNamespace {
    fn drop(&mut self) {
        let remains = core::mem::take(&mut self.tables.get_mut().remains);
        ORPHANED_ENTRIES.lock().extend(remains.into_values().flat_map(|r| r.entries));
    }
}

impl core::fmt::Debug for CrateNamespace {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("CrateNamespace").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What is not freed when it is dropped.
struct NeverFreed(Vec<Arc<EntryBlock>>);

impl Drop for NeverFreed {
    fn drop(&mut self) {
        core::mem::forget(core::mem::take(&mut self.0));
    }
}
