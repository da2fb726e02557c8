//! Look-ups, with Theseus's names and meaning (`mod_mgmt::CrateNamespace`).
#![deny(unsafe_code)]

use super::CrateNamespace;
use crate::cell::StrongCrateRef;
use crate::section::{StrongSectionRef, WeakSectionRef};
use alloc::{
    format,
    string::String,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::fmt::Write;
use runtime_port::memory::VirtualAddress;

impl CrateNamespace {
    /// The cell of this name (or second name), here or in a parent.
    pub fn get_crate(&self, name: &str) -> Option<StrongCrateRef> {
        self.chain().find_map(|n| n.own_crate(name))
    }

    /// The cell of this name (or second name) in this very namespace.
    pub fn own_crate(&self, name: &str) -> Option<StrongCrateRef> {
        let tables = self.tables.read();
        tables.crates.get(name).or_else(|| tables.aliases.get(name)).cloned()
    }

    /// The cell of this name and the namespace that has it.
    pub fn get_crate_and_namespace(&self, name: &str) -> Option<(StrongCrateRef, Arc<CrateNamespace>)> {
        self.chain().find_map(|n| Some((n.own_crate(name)?, n.me.upgrade()?)))
    }

    /// Cells whose name starts with `prefix`, this namespace's first.
    pub fn get_crates_starting_with(&self, prefix: &str) -> Vec<(Arc<str>, StrongCrateRef)> {
        let mut found = Vec::new();
        for namespace in self.chain() {
            let tables = namespace.tables.read();
            found.extend(tables.crates.starting_with(prefix).map(|(n, c)| (n.clone(), c.clone())));
        }
        found
    }

    /// The cell whose name starts with `prefix`, if there is exactly one.
    pub fn get_crate_starting_with(&self, prefix: &str) -> Option<(Arc<str>, StrongCrateRef)> {
        let mut found = self.get_crates_starting_with(prefix);
        if found.len() == 1 { found.pop() } else { None }
    }

    /// Names of the cells, sorted, this namespace's first.
    pub fn crate_names(&self, recursive: bool) -> Vec<Arc<str>> {
        let mut names = Vec::new();
        self.for_each_crate(recursive, |name, _| {
            names.push(name.clone());
            true
        });
        names
    }

    /// Calls `f` for each cell until it returns `false`. No lock is held meanwhile.
    pub fn for_each_crate(&self, recursive: bool, mut f: impl FnMut(&Arc<str>, &StrongCrateRef) -> bool) {
        let depth = if recursive { usize::MAX } else { 1 };
        for namespace in self.chain().take(depth) {
            let cells: Vec<_> = namespace.tables.read().crates.iter().map(|(n, c)| (n.clone(), c.clone())).collect();
            for (name, cell) in &cells {
                if !f(name, cell) {
                    return;
                }
            }
        }
    }

    /// Number of cells of this very namespace.
    pub fn crate_count(&self) -> usize {
        self.tables.read().crates.len()
    }

    /// Number of symbols of this very namespace.
    pub fn symbol_count(&self) -> usize {
        self.tables.read().symbols.len()
    }

    /// The export `name` of cell `module`, here or in a parent: what an import names.
    pub fn find_export(&self, module: &str, name: &str) -> Option<StrongSectionRef> {
        self.chain().find_map(|n| n.own_crate(module)?.export(name))
    }

    /// The section of a symbol, here or in a parent; a dangling reference if there is none.
    pub fn get_symbol(&self, symbol: &str) -> WeakSectionRef {
        self.get_symbol_and_namespace(symbol).map_or_else(Weak::new, |(section, _)| section)
    }

    /// The section of a symbol and the namespace that has it.
    pub fn get_symbol_and_namespace(&self, symbol: &str) -> Option<(WeakSectionRef, Arc<CrateNamespace>)> {
        self.chain().find_map(|n| {
            let section = n.tables.read().symbols.get(symbol).filter(|s| s.strong_count() > 0).cloned()?;
            Some((section, n.me.upgrade()?))
        })
    }

    /// The section of a symbol; if there is none, the providers are asked for the cell its name starts with.
    pub fn get_symbol_or_load(&self, symbol: &str) -> WeakSectionRef {
        let found = self.get_symbol(symbol);
        if found.strong_count() > 0 {
            return found;
        }
        // A cell's own name may contain the separator, so every split is tried.
        for (at, _) in symbol.match_indices("::") {
            let Some(cell) = symbol.get(..at) else { continue };
            if self.get_crate(cell).is_none()
                && let Err(e) = self.load_from_providers(cell, &mut Vec::new())
            {
                log::warn!("cannot load `{cell}` for symbol `{symbol}`: {e}");
            }
        }
        self.get_symbol(symbol)
    }

    /// Symbols that start with `prefix`, this namespace's first.
    pub fn find_symbols_starting_with(&self, prefix: &str) -> Vec<(Arc<str>, WeakSectionRef)> {
        let mut found = Vec::new();
        for namespace in self.chain() {
            let tables = namespace.tables.read();
            found.extend(tables.symbols.starting_with(prefix).map(|(n, s)| (n.clone(), s.clone())));
        }
        found
    }

    /// The symbol that starts with `prefix`, if there is exactly one.
    pub fn get_symbol_starting_with(&self, prefix: &str) -> WeakSectionRef {
        match self.find_symbols_starting_with(prefix).as_slice() {
            [(_, section)] => section.clone(),
            _ => Weak::new(),
        }
    }

    /// The cell whose image an address lies in.
    pub fn get_crate_containing_address(&self, address: VirtualAddress) -> Option<StrongCrateRef> {
        self.chain().find_map(|n| {
            let tables = n.tables.read();
            let (_, (end, cell)) = tables.images.range(..=address.value()).next_back()?;
            if address.value() < *end { cell.upgrade() } else { None }
        })
    }

    /// The section an address lies in, and the offset in it.
    pub fn get_section_containing_address(&self, address: VirtualAddress) -> Option<(StrongSectionRef, usize)> {
        self.get_crate_containing_address(address)?.section_at(address)
    }

    /// The symbol map as text, one line per symbol.
    pub fn dump_symbol_map(&self) -> String {
        let mut text = String::new();
        for (name, section) in self.tables.read().symbols.iter() {
            if let Some(section) = section.upgrade() {
                let line = writeln!(text, "{} {:6} {name}", section.virt_addr, section.typ.name());
                line.expect("writing to a string does not fail");
            }
        }
        text
    }

    /// The symbol maps of this namespace and its parents as text.
    pub fn dump_symbol_map_recursive(&self) -> String {
        let mut text = String::new();
        for namespace in self.chain() {
            text.push_str(&format!("namespace {}:\n", namespace.name));
            text.push_str(&namespace.dump_symbol_map());
        }
        text
    }
}
