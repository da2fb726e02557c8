//! Which stable entry stands for each function of a cell that can be referred to, and the version table behind each block.
//!
//! A function takes the entry that an earlier cell of the same name gave to a function of the same label and type, if that
//! entry was kept; otherwise its own. So pointers and function references survive swapping, and unloading and loading again.
#![deny(unsafe_code)]

use crate::entries::EntryBlock;
use crate::version_table::{Commit, VersionTable, VersionTables};
use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, Ordering};
use hashbrown::HashMap;
use spin::Mutex;

/// The entries of one cell.
#[derive(Debug)]
pub(crate) struct CellEntries {
    own: Arc<EntryBlock>,
    adopted: Vec<Adopted>,
    /// Per escaped function that has an adopted entry: the block's position in `adopted` and the entry's in the block.
    places: HashMap<usize, (usize, usize)>,
    /// What the entries lead to in this version, once it was prepared and until the cell ends.
    tables: Mutex<Option<Arc<VersionTables>>>,
    /// Addresses of own entries may be held although there are earlier ones of the same functions.
    own_exposed: AtomicBool,
    /// Blocks that successors brought, which this version is behind since it came back.
    later: Mutex<Vec<Arc<EntryBlock>>>,
}

/// Entries of an earlier cell of the same name.
#[derive(Debug)]
struct Adopted {
    block: Arc<EntryBlock>,
    /// Per entry of the block: the position in the new cell's own entries that it stands for.
    leads_to: Vec<Option<usize>>,
}

impl CellEntries {
    /// Takes over what fits of the kept entries.
    pub(crate) fn new(own: Arc<EntryBlock>, kept: Vec<Arc<EntryBlock>>) -> CellEntries {
        let mut places = HashMap::new();
        let mut adopted = Vec::with_capacity(kept.len());
        if !kept.is_empty() {
            let mine = own.labels().clone();
            for block in kept {
                block.outlive_cell();
                let labels = block.labels();
                // In the same module, functions are the same whatever else has their name.
                let same_module = Arc::ptr_eq(labels, &mine);
                let mut leads_to = Vec::with_capacity(block.count());
                for (at, label) in labels.iter().enumerate() {
                    let k = label.and_then(|l| if same_module { Some(at) } else { mine.position(l) });
                    // The entries of what the cell imports are the exporter's.
                    if let Some(k) = k.filter(|k| mine.get(*k).is_some()) {
                        places.entry(k).or_insert((adopted.len(), at));
                    }
                    leads_to.push(k);
                }
                adopted.push(Adopted { block, leads_to });
            }
        }
        let (tables, later) = (Mutex::new(None), Mutex::new(Vec::new()));
        CellEntries { own, adopted, places, tables, own_exposed: AtomicBool::new(false), later }
    }

    /// Every block of entries that anybody can have an address of, in the order in which a successor is to take them over.
    pub(crate) fn in_use(&self) -> Vec<Arc<EntryBlock>> {
        let mut blocks: Vec<_> = self.adopted.iter().map(|a| a.block.clone()).collect();
        if !self.has_spare_own() {
            blocks.push(self.own.clone());
        }
        blocks.extend(self.later.lock().iter().cloned());
        blocks
    }

    /// The version is in service again, and nothing is behind these blocks that it does not know.
    pub(crate) fn stand_behind(&self, blocks: &[Arc<EntryBlock>]) {
        let known = self.in_use();
        let unknown = blocks.iter().filter(|b| !known.iter().any(|k| Arc::ptr_eq(k, b)));
        self.later.lock().extend(unknown.cloned());
    }

    /// Whether nobody outside can have an address of the cell's own entries: each of its functions has an earlier one.
    pub(crate) fn has_spare_own(&self) -> bool {
        // Without earlier blocks nobody asks for labels, which cost something to make.
        let labels = || self.own.labels().iter().enumerate();
        let exposed = self.own_exposed.load(Ordering::Relaxed);
        !exposed && !self.adopted.is_empty() && labels().all(|(k, l)| l.is_none() || self.places.contains_key(&k))
    }

    /// The cell's own entries.
    pub(crate) fn own(&self) -> &Arc<EntryBlock> {
        &self.own
    }

    /// The entry of escaped function `k`, with the block that it lies in.
    pub(crate) fn of(&self, k: usize) -> Option<(Arc<EntryBlock>, usize)> {
        match self.places.get(&k) {
            Some((block, at)) => {
                let block = &self.adopted.get(*block)?.block;
                Some((block.clone(), block.entry(*at)?))
            }
            None => Some((self.own.clone(), self.own.entry(k)?)),
        }
    }

    /// An entry of escaped function `k` below an address: one that an earlier version gave out, else the own one, which is given out now.
    pub(crate) fn below(&self, k: usize, limit: usize) -> Option<usize> {
        let earlier = |adopted: &Adopted| {
            let at = adopted.leads_to.iter().position(|leads_to| *leads_to == Some(k))?;
            adopted.block.entry(at).filter(|entry| *entry < limit)
        };
        self.adopted.iter().find_map(earlier).or_else(|| {
            self.expose_own();
            self.own.entry(k)
        })
    }

    /// Tables for every block of the cell: `target` gives the address of escaped function `k`, if there is one.
    pub(crate) fn tables_to(&self, target: impl Fn(usize) -> Option<usize>) -> VersionTables {
        let mut tables = Vec::with_capacity(self.adopted.len() + 1);
        for adopted in &self.adopted {
            let leads_to = |at: usize| adopted.leads_to.get(at).copied().flatten().and_then(&target);
            tables.push(VersionTable::new(&adopted.block, leads_to));
        }
        tables.push(VersionTable::new(&self.own, &target));
        VersionTables::new(tables)
    }

    /// Makes this version's tables. Nothing is visible yet.
    pub(crate) fn prepare(&self, target: impl Fn(usize) -> Option<usize>) {
        let tables = Arc::new(self.tables_to(target));
        let old = self.tables.lock().replace(tables);
        debug_assert!(old.is_none(), "a version is prepared once");
    }

    /// What the entries lead to in this version; `None` before it was prepared and after the cell ended.
    pub(crate) fn tables(&self) -> Option<Arc<VersionTables>> {
        self.tables.lock().clone()
    }

    /// Takes the tables out, to be freed when no task can be inside. They must not be visible any more.
    pub(crate) fn take_tables(&self) -> Option<Arc<VersionTables>> {
        self.tables.lock().take()
    }

    /// Puts this version behind its entries.
    pub(crate) fn open(&self) {
        if let Some(tables) = self.tables() {
            self.show(&tables);
        }
    }

    /// Puts other targets behind its entries.
    pub(crate) fn show(&self, tables: &VersionTables) {
        let blocks = self.in_use();
        if let Some(waiting) = Commit::new([(&blocks[..], Some(tables))]).show() {
            crate::retire::retire(waiting.retirement());
        }
    }

    /// Puts this version behind its own entries only, which nobody has yet.
    pub(crate) fn open_own(&self) {
        if let Some(table) = self.tables().as_ref().and_then(|t| t.of(&self.own)) {
            table.show();
        }
    }

    /// Notes that the addresses of own entries may be held.
    pub(crate) fn expose_own(&self) {
        self.own_exposed.store(true, Ordering::Relaxed);
    }

    /// Every function's entry for everybody, with its own one, where they differ.
    pub(crate) fn homes(&self) -> impl Iterator<Item = (usize, usize)> {
        self.places.iter().filter_map(|(k, (block, at))| {
            let public = self.adopted.get(*block)?.block.entry(*at)?;
            Some((public, self.own.entry(*k)?))
        })
    }

    /// Makes every entry lead to a trap.
    pub(crate) fn close(&self) {
        self.own.retire();
        self.adopted.iter().for_each(|a| a.block.retire());
        self.later.lock().iter().for_each(|b| b.retire());
    }

    /// The blocks that outlive the cell: those whose entries may be held where no dependency edge shows it.
    pub(crate) fn to_keep(&self) -> Vec<Arc<EntryBlock>> {
        let mut keep = self.in_use();
        keep.retain(|b| !Arc::ptr_eq(b, &self.own) || self.own.has_escaped());
        keep
    }
}
