//! The step of a swap in which the namespace changes: names, symbols and addresses of several cells at once.
#![deny(unsafe_code)]

use super::{CrateNamespace, Tables};
use crate::cell::{StrongCrateRef, symbol_name};
use alloc::{sync::Arc, vec::Vec};

/// A symbol under the name of a cell that was replaced, and the export that it stands for.
pub(super) type Reexport = (Arc<str>, Arc<str>);

/// What becomes of one name.
pub(crate) struct Exchange<'a> {
    /// The cell that goes.
    pub old: Option<&'a StrongCrateRef>,
    /// The cell that comes.
    pub new: Option<&'a StrongCrateRef>,
    /// Whether the symbols of the new one are there under the old one's name too.
    pub reexport: bool,
}

impl Exchange<'_> {
    fn renames(&self) -> Option<(&StrongCrateRef, &StrongCrateRef)> {
        self.old.zip(self.new).filter(|(old, new)| old.crate_name != new.crate_name)
    }
}

impl CrateNamespace {
    /// Exchanges cells in one step: `show` puts the versions behind their entries. Does nothing, and says which name it is, when an old cell is
    /// not the one of its name any more, or a new name is taken.
    pub(crate) fn exchange<R>(&self, changes: &[Exchange<'_>], show: impl FnOnce() -> R) -> Result<R, Arc<str>> {
        // What goes out of the tables is dropped when they are unlocked: dropping a cell locks them.
        let mut held: Vec<StrongCrateRef> = Vec::with_capacity(2 * changes.len());
        let mut tables = self.tables.write();
        let stale = |change: &Exchange<'_>| is_stale(&tables, change, changes);
        if let Some(name) = changes.iter().find_map(stale) {
            return Err(name);
        }
        let shown = show();
        // Cells may exchange their names, so all go before any comes.
        let reexports: Vec<_> = changes.iter().map(|change| tables.take_out(change, &mut held)).collect();
        for (change, reexports) in changes.iter().zip(reexports) {
            tables.put_in(change, reexports, &mut held);
        }
        drop(tables);
        drop(held);
        Ok(shown)
    }

    /// Goes where [`exchange`](CrateNamespace::exchange) will go, so that it is in the cache when the namespace is locked.
    pub(crate) fn look_ahead(&self, changes: &[Exchange<'_>]) {
        let tables = self.tables.read();
        for change in changes {
            core::hint::black_box(is_stale(&tables, change, changes));
            for cell in [change.old, change.new].into_iter().flatten() {
                for section in cell.global_sections() {
                    core::hint::black_box(tables.symbols.get(&section.name));
                }
                let start = cell.image_range().map_or(0, |range| range.start);
                core::hint::black_box(tables.images.range(..=start).next_back());
            }
        }
    }

    /// Removes the addresses of an old version that goes.
    pub(crate) fn forget_addresses(&self, cell: &StrongCrateRef) {
        self.tables.write().remove_image(cell);
    }
}

fn is_stale(tables: &Tables, change: &Exchange<'_>, all: &[Exchange<'_>]) -> Option<Arc<str>> {
    if let Some(old) = change.old
        && !tables.crates.get(&old.crate_name).is_some_and(|c| Arc::ptr_eq(c, old))
    {
        return Some(old.crate_name.clone());
    }
    let new = change.new?;
    let goes = |cell: &StrongCrateRef| all.iter().any(|c| c.old.is_some_and(|old| Arc::ptr_eq(old, cell)));
    let taken = tables.crates.get(&new.crate_name).or_else(|| tables.aliases.get(&new.crate_name));
    taken.filter(|cell| !goes(cell)).map(|_| new.crate_name.clone())
}

impl Tables {
    /// Removes what the new version does not replace in place. Returns the symbols that the old one had under other names.
    fn take_out(&mut self, change: &Exchange<'_>, held: &mut Vec<StrongCrateRef>) -> Vec<Reexport> {
        let Some(old) = change.old else { return Vec::new() };
        let successor = change.new.filter(|new| old.crate_name == new.crate_name);
        // Symbols of native cells do not take the place of others as a matter of course.
        let by_name = |cell: &&StrongCrateRef| !cell.is_object() && !old.is_object();
        self.remove_exports(old, successor.filter(by_name));
        if successor.is_none() {
            held.extend(self.crates.remove(&old.crate_name));
        }
        self.repoint_aliases(old, change.new, held);
        self.reexports.remove(&old.crate_name).unwrap_or_default()
    }

    fn put_in(&mut self, change: &Exchange<'_>, reexports: Vec<Reexport>, held: &mut Vec<StrongCrateRef>) {
        let Some(new) = change.new else {
            reexports.iter().for_each(|(symbol, _)| drop(self.symbols.remove(symbol)));
            return;
        };
        if new.is_object() {
            self.add_symbols_of(new);
        }
        for section in new.global_sections().into_iter().filter(|_| !new.is_object()) {
            let place = Arc::downgrade(&section);
            match self.symbols.get_mut(&section.name) {
                Some(known) => *known = place,
                None => drop(self.symbols.insert(section.name.clone(), place)),
            }
        }
        if let Some(range) = new.image_range() {
            self.images.insert(range.start, (range.end, Arc::downgrade(new)));
        }
        match self.crates.get_mut(&new.crate_name) {
            Some(known) => held.push(core::mem::replace(known, new.clone())),
            None => held.extend(self.crates.insert(new.crate_name.clone(), new.clone())),
        }
        self.reexport(change, new, reexports, held);
    }

    /// Removes the symbols of a cell that goes, but for those that its successor has too.
    fn remove_exports(&mut self, old: &StrongCrateRef, successor: Option<&StrongCrateRef>) {
        for section in old.global_sections() {
            if successor.is_some_and(|new| new.export(section.export_name()).is_some()) {
                continue;
            }
            let same = |s: &crate::section::WeakSectionRef| core::ptr::eq(s.as_ptr(), Arc::as_ptr(&section));
            if self.symbols.get(&section.name).is_some_and(same) {
                self.symbols.remove(&section.name);
            }
        }
    }

    /// Second names of the old cell are the new one's, but for the name that the new one has itself.
    fn repoint_aliases(&mut self, old: &StrongCrateRef, new: Option<&StrongCrateRef>, held: &mut Vec<StrongCrateRef>) {
        let of_old = self.aliases.iter().filter(|(_, cell)| Arc::ptr_eq(cell, old)).map(|(alias, _)| alias.clone());
        for alias in of_old.collect::<Vec<_>>() {
            held.extend(self.aliases.remove(&alias));
            if let Some(new) = new.filter(|new| new.crate_name != alias) {
                self.aliases.insert(alias, new.clone());
            }
        }
    }

    /// Symbols of the new cell under names of the old one: those that there are already, and those asked for now.
    fn reexport(
        &mut self,
        change: &Exchange<'_>,
        new: &StrongCrateRef,
        before: Vec<Reexport>,
        held: &mut Vec<StrongCrateRef>,
    ) {
        let mut all = before;
        if let Some((old, _)) = change.renames().filter(|_| change.reexport) {
            held.extend(self.aliases.insert(old.crate_name.clone(), new.clone()));
            for section in old.global_sections() {
                all.push((symbol_name(&old.crate_name, section.export_name()), section.export_name().into()));
            }
        }
        all.retain(|(symbol, export)| match new.export(export) {
            Some(section) if !is_symbol_of(symbol, &new.crate_name) => {
                self.symbols.insert(symbol.clone(), Arc::downgrade(&section));
                true
            }
            Some(_) => false,
            None => {
                self.symbols.remove(symbol);
                false
            }
        });
        if !all.is_empty() {
            self.reexports.insert(new.crate_name.clone(), all);
        }
    }
}

/// Whether a symbol is one of the cell's own.
fn is_symbol_of(symbol: &str, cell: &str) -> bool {
    symbol.strip_prefix(cell).is_some_and(|rest| rest.starts_with("::"))
}
