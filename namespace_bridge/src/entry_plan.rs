//! Which stable entry stands for each function of a cell that can be referred to.
//!
//! A function takes the entry that an earlier cell of the same name gave to a function of the same label and type, if that
//! entry was kept; otherwise its own. So pointers and function references survive unloading and loading again.
#![deny(unsafe_code)]

use crate::code::CellModule;
use crate::entries::EntryBlock;
use alloc::{borrow::Cow, format, sync::Arc, vec::Vec};
use wasm_cell::metadata::{ExportItem, Metadata};
use wasm_cell::types::TypeHash;

/// The entries of one cell.
#[derive(Debug)]
pub(crate) struct CellEntries {
    own: Arc<EntryBlock>,
    adopted: Vec<Adopted>,
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
            return CellEntries { own, adopted: Vec::new() };
        }
        let mine = labels(own.module());
        let mut taken = alloc::vec![false; mine.len()];
        let adopted = kept
            .into_iter()
            .map(|block| {
                let find = |label: Option<(Cow<'_, str>, TypeHash)>, taken: &mut [bool]| {
                    let label = label?;
                    let k = mine.iter().position(|m| m.as_ref() == Some(&label))?;
                    let free = !core::mem::replace(taken.get_mut(k)?, true);
                    free.then_some(k)
                };
                let leads_to = labels(block.module()).into_iter().map(|l| find(l, &mut taken)).collect();
                Adopted { block, leads_to }
            })
            .collect();
        CellEntries { own, adopted }
    }

    /// The cell's own entries.
    pub(crate) fn own(&self) -> &Arc<EntryBlock> {
        &self.own
    }

    /// The entry of escaped function `k`, with the block that it lies in.
    pub(crate) fn of(&self, k: usize) -> Option<(Arc<EntryBlock>, usize)> {
        for adopted in &self.adopted {
            if let Some(at) = adopted.leads_to.iter().position(|l| *l == Some(k)) {
                return Some((adopted.block.clone(), adopted.block.entry(at)?));
            }
        }
        Some((self.own.clone(), self.own.entry(k)?))
    }

    /// Makes the entries lead to the new code: `target` gives the address of escaped function `k`, if this cell defines it.
    pub(crate) fn open(&self, target: impl Fn(usize) -> Option<usize>) {
        for k in 0..self.own.count() {
            if let Some(address) = target(k) {
                self.own.set_target(k, address);
            }
        }
        for adopted in &self.adopted {
            adopted.block.reopen();
            for (at, k) in adopted.leads_to.iter().enumerate() {
                if let Some(address) = k.and_then(&target) {
                    adopted.block.set_target(at, address);
                }
            }
        }
    }

    /// Makes every entry lead to a trap.
    pub(crate) fn close(&self) {
        self.own.retire();
        self.adopted.iter().for_each(|a| a.block.retire());
    }

    /// The blocks that outlive the cell: those whose entries may be held where no dependency edge shows it.
    pub(crate) fn to_keep(&self) -> Vec<Arc<EntryBlock>> {
        let mut keep: Vec<_> = self.adopted.iter().map(|a| a.block.clone()).collect();
        let all_adopted = (0..self.own.count()).all(|k| self.adopted.iter().any(|a| a.leads_to.contains(&Some(k))));
        if self.own.has_escaped() && !all_adopted {
            keep.push(self.own.clone());
        }
        keep
    }
}

/// What identifies each escaped function across versions: export name, else name section, else index; and its type.
/// `None` for imported functions, whose entries belong to others.
fn labels(module: &CellModule) -> Vec<Option<(Cow<'_, str>, TypeHash)>> {
    let m = module.metadata();
    let label = |func: &u32| {
        if (*func as usize) < m.imported_funcs.len() {
            return None;
        }
        Some((label_of(m, *func), m.func_type(*func)?.hash))
    };
    m.escaped_funcs.iter().map(label).collect()
}

fn label_of(m: &Metadata, func: u32) -> Cow<'_, str> {
    if let Some(e) = m.exports.iter().find(|e| e.item == ExportItem::Func(func)) {
        return Cow::Borrowed(&e.name);
    }
    match m.func_name(func) {
        Some(name) => Cow::Owned(format!("${name}")),
        None => Cow::Owned(format!("wasm[{func}]")),
    }
}
