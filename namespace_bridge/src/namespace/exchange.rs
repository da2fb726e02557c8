//! The step of a swap in which the namespace changes: names, symbols and addresses of several cells at once.
//!
//! What changes is worked out before ([`CrateNamespace::prepare_exchange`]), and every name that comes gets its place then. The step itself
//! exchanges what stands at the places, so what it costs depends on the number of exports, and not on how many cells and symbols there are.
#![deny(unsafe_code)]

use super::names::{Draft, Names, Place};
use super::native::is_weak;
use super::{CrateNamespace, Tables};
use crate::cell::{StrongCrateRef, symbol_name};
use crate::section::WeakSectionRef;
use alloc::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    vec::Vec,
};

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

/// An exchange that is worked out. What has gone out of the tables is in it afterwards, and is dropped with it: dropping a cell locks them.
pub(crate) struct Prepared {
    /// [`Tables::changes`] when it was worked out.
    changes: u64,
    crates: Values<StrongCrateRef>,
    aliases: Values<StrongCrateRef>,
    symbols: Values<WeakSectionRef>,
    reexports: BTreeMap<Arc<str>, Vec<Reexport>>,
    /// First addresses of images that were not known before.
    images: Vec<usize>,
}

/// Names, their places, and what comes there.
struct Values<T>(Vec<(Arc<str>, Place, Option<T>)>);

impl<T> Values<T> {
    /// Gives every name a place.
    fn at(names: &mut Names<T>, changes: BTreeMap<Arc<str>, Option<T>>) -> Values<T> {
        let place = |(name, value): (Arc<str>, Option<T>)| {
            let place = if value.is_some() { Some(names.place_of(name.clone())) } else { names.find(&name) };
            Some((name, place?, value))
        };
        Values(changes.into_iter().filter_map(place).collect())
    }

    fn exchange(&mut self, names: &mut Names<T>) {
        for (_, place, value) in &mut self.0 {
            names.exchange(*place, value);
        }
    }

    fn forget_vacant(&self, names: &mut Names<T>) {
        names.forget_vacant(self.0.iter().map(|(name, ..)| name));
    }
}

impl CrateNamespace {
    /// Works an exchange out, and makes the addresses of the cells that come known. Says which name it is when an old cell is not the one of
    /// its name any more, or a new name is taken.
    pub(crate) fn prepare_exchange(&self, changes: &[Exchange<'_>]) -> Result<Prepared, Arc<str>> {
        let mut tables = self.tables.write();
        let mut prepared = tables.prepare(changes)?;
        prepared.images.reserve(changes.len());
        for new in changes.iter().filter_map(|c| c.new) {
            if let Some(range) = new.image_range()
                && tables.images.insert(range.start, (range.end, Arc::downgrade(new))).is_none()
            {
                prepared.images.push(range.start);
            }
        }
        Ok(prepared)
    }

    /// Exchanges cells in one step: `show` puts the versions behind their entries. Does nothing, and says which name it is, when meanwhile an
    /// old cell is not the one of its name any more, or a new name is taken.
    pub(crate) fn exchange<R>(
        &self,
        prepared: &mut Prepared,
        changes: &[Exchange<'_>],
        show: impl FnOnce() -> R,
    ) -> Result<R, Arc<str>> {
        let _stale;
        let mut tables = self.tables.write();
        if tables.changes() != prepared.changes {
            // Somebody was faster. What was worked out is dropped when the tables are unlocked.
            prepared.forget_vacant(&mut tables);
            let anew = tables.prepare(changes)?;
            let images = core::mem::take(&mut prepared.images);
            _stale = core::mem::replace(prepared, Prepared { images, ..anew });
        }
        let shown = show();
        prepared.crates.exchange(&mut tables.crates);
        prepared.aliases.exchange(&mut tables.aliases);
        prepared.symbols.exchange(&mut tables.symbols);
        for (cell, symbols) in core::mem::take(&mut prepared.reexports) {
            match symbols.is_empty() {
                true => drop(tables.reexports.remove(&cell)),
                false => drop(tables.reexports.insert(cell, symbols)),
            }
        }
        drop(tables);
        Ok(shown)
    }

    /// What is left to do after an exchange: names without a value go, and addresses of cells that did not come.
    pub(crate) fn finish_exchange(&self, prepared: Prepared, done: bool) {
        let mut tables = self.tables.write();
        prepared.forget_vacant(&mut tables);
        for start in prepared.images.iter().filter(|_| !done) {
            tables.images.remove(start);
        }
        drop(tables);
        drop(prepared);
    }

    /// Removes the addresses of an old version that goes.
    pub(crate) fn forget_addresses(&self, cell: &StrongCrateRef) {
        self.tables.write().remove_image(cell);
    }
}

impl Prepared {
    fn forget_vacant(&self, tables: &mut Tables) {
        self.crates.forget_vacant(&mut tables.crates);
        self.aliases.forget_vacant(&mut tables.aliases);
        self.symbols.forget_vacant(&mut tables.symbols);
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
    /// A number that every change of a name changes.
    fn changes(&self) -> u64 {
        // Each only grows.
        self.crates.changes() + self.aliases.changes() + self.symbols.changes()
    }

    fn prepare(&mut self, changes: &[Exchange<'_>]) -> Result<Prepared, Arc<str>> {
        if let Some(name) = changes.iter().find_map(|change| is_stale(self, change, changes)) {
            return Err(name);
        }
        let mut sketch = Sketch {
            crates: Draft::new(&self.crates),
            aliases: Draft::new(&self.aliases),
            symbols: Draft::new(&self.symbols),
            before: &self.reexports,
            reexports: BTreeMap::new(),
        };
        // Cells may exchange their names, so all go before any comes.
        let reexports: Vec<_> = changes.iter().map(|change| sketch.take_out(change)).collect();
        for (change, reexports) in changes.iter().zip(reexports) {
            sketch.put_in(change, reexports);
        }
        let Sketch { crates, aliases, symbols, reexports, .. } = sketch;
        let (crates, aliases, symbols) = (crates.finish(), aliases.finish(), symbols.finish());
        let crates = Values::at(&mut self.crates, crates);
        let aliases = Values::at(&mut self.aliases, aliases);
        let symbols = Values::at(&mut self.symbols, symbols);
        Ok(Prepared { changes: self.changes(), crates, aliases, symbols, reexports, images: Vec::new() })
    }
}

/// The tables as they will be.
struct Sketch<'a> {
    crates: Draft<'a, StrongCrateRef>,
    aliases: Draft<'a, StrongCrateRef>,
    symbols: Draft<'a, WeakSectionRef>,
    before: &'a BTreeMap<Arc<str>, Vec<Reexport>>,
    /// Lists that change.
    reexports: BTreeMap<Arc<str>, Vec<Reexport>>,
}

impl Sketch<'_> {
    /// Removes what goes. Returns the symbols that the old cell had under other names.
    fn take_out(&mut self, change: &Exchange<'_>) -> Vec<Reexport> {
        let Some(old) = change.old else { return Vec::new() };
        self.remove_exports(old);
        self.crates.remove(&old.crate_name);
        self.repoint_aliases(old, change.new);
        let reexports = self.before.get(&old.crate_name).cloned().unwrap_or_default();
        if !reexports.is_empty() {
            self.reexports.insert(old.crate_name.clone(), Vec::new());
        }
        reexports
    }

    fn put_in(&mut self, change: &Exchange<'_>, reexports: Vec<Reexport>) {
        let Some(new) = change.new else {
            reexports.iter().for_each(|(symbol, _)| self.symbols.remove(symbol));
            return;
        };
        for section in new.global_sections() {
            // As when it is loaded: a weak symbol does not take the place of another cell's.
            let taken = || self.symbols.get(&section.name).is_some_and(|s| s.strong_count() > 0);
            if !(is_weak(&section) && taken()) {
                self.symbols.insert(section.name.clone(), Arc::downgrade(&section));
            }
        }
        self.crates.insert(new.crate_name.clone(), new.clone());
        self.reexport(change, new, reexports);
    }

    /// Removes the symbols of a cell that goes.
    fn remove_exports(&mut self, old: &StrongCrateRef) {
        for section in old.global_sections() {
            let same = |s: &WeakSectionRef| core::ptr::eq(Weak::as_ptr(s), Arc::as_ptr(&section));
            if self.symbols.get(&section.name).is_some_and(same) {
                self.symbols.remove(&section.name);
            }
        }
    }

    /// Second names of the old cell are the new one's, but for the name that the new one has itself.
    fn repoint_aliases(&mut self, old: &StrongCrateRef, new: Option<&StrongCrateRef>) {
        let of_old = self.aliases.iter().filter(|(_, cell)| Arc::ptr_eq(cell, old)).map(|(alias, _)| alias.clone());
        for alias in of_old.collect::<Vec<_>>() {
            match new.filter(|new| new.crate_name != alias) {
                Some(new) => self.aliases.insert(alias, new.clone()),
                None => self.aliases.remove(&alias),
            }
        }
    }

    /// Symbols of the new cell under names of the old one: those that there are already, and those asked for now.
    fn reexport(&mut self, change: &Exchange<'_>, new: &StrongCrateRef, before: Vec<Reexport>) {
        let mut all = before;
        if let Some((old, _)) = change.renames().filter(|_| change.reexport) {
            self.aliases.insert(old.crate_name.clone(), new.clone());
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
