//! Which stable entry stands for each function of a cell that can be referred to.
//!
//! A function takes the entry that an earlier cell of the same name gave to a function of the same label and type, if that
//! entry was kept; otherwise its own. So pointers and function references survive unloading and loading again.
#![deny(unsafe_code)]

use crate::call::gone_routine;
use crate::entries::EntryBlock;
use alloc::{borrow::Cow, format, sync::Arc, vec::Vec};
use hashbrown::HashMap;
use wasm_cell::metadata::ExportItem;
use wasm_cell::types::TypeHash;

/// The entries of one cell.
#[derive(Debug)]
pub(crate) struct CellEntries {
    own: Arc<EntryBlock>,
    adopted: Vec<Adopted>,
    /// Per escaped function that has an adopted entry: the block's position in `adopted` and the entry's in the block.
    places: HashMap<usize, (usize, usize)>,
}

/// Entries of an earlier cell of the same name.
#[derive(Debug)]
struct Adopted {
    block: Arc<EntryBlock>,
    /// Per entry of the block: the position in the new cell's `escaped_funcs` that it leads to.
    leads_to: Vec<Option<usize>>,
}

impl CellEntries {
    /// Takes over what fits of the kept entries.
    pub(crate) fn new(own: Arc<EntryBlock>, kept: Vec<Arc<EntryBlock>>) -> CellEntries {
        if kept.is_empty() {
            return CellEntries { own, adopted: Vec::new(), places: HashMap::new() };
        }
        let mine = labels(&own);
        let position: HashMap<&Label<'_>, usize> =
            mine.iter().enumerate().filter_map(|(k, l)| Some((l.as_ref()?, k))).collect();
        let mut places = HashMap::new();
        let mut adopted = Vec::with_capacity(kept.len());
        for block in &kept {
            let mut leads_to = Vec::with_capacity(block.count());
            let same_module = block.module().zip(own.module()).is_some_and(|(a, b)| Arc::ptr_eq(a, b));
            for (at, label) in labels(block).into_iter().enumerate() {
                // In the same module, functions are the same whatever else has their name.
                let k = label.and_then(|l| if same_module { Some(at) } else { position.get(&l).copied() });
                let k = k.filter(|k| !places.contains_key(k));
                if let Some(k) = k {
                    places.insert(k, (adopted.len(), at));
                }
                leads_to.push(k);
            }
            adopted.push(Adopted { block: block.clone(), leads_to });
        }
        drop(position);
        drop(mine);
        CellEntries { own, adopted, places }
    }

    /// Every block of entries that anybody can have an address of, in the order in which a successor is to take them over.
    pub(crate) fn in_use(&self) -> Vec<Arc<EntryBlock>> {
        let mut blocks: Vec<_> = self.adopted.iter().map(|a| a.block.clone()).collect();
        let own = &self.own;
        let mut defined = (0..own.count()).filter(|k| defines(own, *k));
        if !defined.all(|k| self.places.contains_key(&k)) {
            blocks.push(self.own.clone());
        }
        blocks
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

    /// Makes the entries lead to the new code: `target` gives the address of escaped function `k`, if this cell defines it.
    pub(crate) fn open(&self, target: impl Fn(usize) -> Option<usize>) {
        for k in 0..self.own.count() {
            if let Some(address) = target(k) {
                self.own.set_target(k, address);
            }
        }
        for adopted in &self.adopted {
            for (at, k) in adopted.leads_to.iter().enumerate() {
                adopted.block.set_target(at, k.and_then(&target).unwrap_or_else(gone_routine));
            }
            adopted.block.reopen();
        }
    }

    /// Makes every entry lead to a trap.
    pub(crate) fn close(&self) {
        self.own.retire();
        self.adopted.iter().for_each(|a| a.block.retire());
    }

    /// The blocks that outlive the cell: those whose entries may be held where no dependency edge shows it.
    pub(crate) fn to_keep(&self) -> Vec<Arc<EntryBlock>> {
        let mut keep = self.in_use();
        keep.retain(|b| !Arc::ptr_eq(b, &self.own) || self.own.has_escaped());
        keep
    }
}

/// A function's name and type.
type Label<'m> = (Cow<'m, str>, TypeHash);

/// Whether entry `k` is of a function that the block's cell defines. Those of imported functions belong to others.
fn defines(block: &EntryBlock, k: usize) -> bool {
    block.module().is_none_or(|module| {
        let m = module.metadata();
        m.escaped_funcs.get(k).is_some_and(|f| *f as usize >= m.imported_funcs.len())
    })
}

/// What identifies the function of each entry across versions: export name, else name section, else index; and its type.
/// `None` for functions that nothing identifies, and for imported ones.
fn labels(block: &EntryBlock) -> Vec<Option<Label<'_>>> {
    let Some(module) = block.module() else {
        let labels = block.pages().map_or(&[][..], |p| p.labels());
        return labels.iter().map(|l| l.as_ref().map(|(name, ty)| (Cow::Borrowed(&**name), *ty))).collect();
    };
    let m = module.metadata();
    let mut export_names: HashMap<u32, &str> = HashMap::new();
    for export in &m.exports {
        if let ExportItem::Func(f) = export.item {
            export_names.entry(f).or_insert(&export.name);
        }
    }
    let label = |func: &u32| {
        if (*func as usize) < m.imported_funcs.len() {
            return None;
        }
        let name = match (export_names.get(func), m.func_name(*func)) {
            (Some(export), _) => Cow::Borrowed(*export),
            (None, Some(name)) => Cow::Owned(format!("${name}")),
            (None, None) => Cow::Owned(format!("wasm[{func}]")),
        };
        Some((name, m.func_type(*func)?.hash))
    };
    m.escaped_funcs.iter().map(label).collect()
}
