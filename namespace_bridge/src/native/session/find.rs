//! Finding what a symbol of an object being loaded is, and having cells loaded that have it.
#![deny(unsafe_code)]

use super::super::adapters::{AdapterRequest, Caller};
use super::super::error::MissingSymbol;
use super::super::relocate::Import;
use super::super::resolve::{Found, From, holder};
use super::super::stage::{Staged, is_weak};
use super::super::{lifecycle, names};
use super::Session;
use crate::cell::StrongCrateRef;
use crate::error::LoadError;
use crate::linker::nearest;
use crate::namespace::{CellSource, CrateNamespace};
use crate::options::LoadOptions;
use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use kernel_config::limits::LOAD_CHAIN;

impl Session<'_> {
    /// What a symbol is, in the order that [`super::super::resolve`] gives.
    pub(super) fn find(&mut self, index: usize, symbol: usize) -> Result<Result<Found, MissingSymbol>, LoadError> {
        let staged = &self.cells[index];
        let raw = staged.object.symbol_name(symbol).to_string();
        let weak = is_weak(&staged.object, symbol);
        let name = names::display(&raw);
        if let Some(address) = staged.own_symbol(&raw) {
            return Ok(Ok(Found::near(address)));
        }
        if let Some(found) = self.in_namespaces(index, &raw, &name) {
            return Ok(found);
        }
        let mut because = None;
        if !weak && staged.options.providers {
            let spelled = names::exports_spelled(&raw);
            let crates = names::containing_crates(&name).into_iter().chain(spelled.into_iter().map(|(cell, _)| cell));
            for wanted in crates {
                match self.provide(index, wanted) {
                    Ok(true) => {
                        if let Some(found) = self.in_namespaces(index, &raw, &name) {
                            return Ok(found);
                        }
                    }
                    Ok(false) => {}
                    Err(e @ (LoadError::Cycle(_) | LoadError::ChainTooLong { .. })) => return Err(e),
                    Err(e) => {
                        because = Some(format!("`{wanted}` was found by a provider but could not be loaded: {e}"))
                    }
                }
            }
        }
        if raw == "__cxa_atexit" {
            return Ok(Ok(Found::image(lifecycle::at_exit as *const () as usize, 0, true)));
        }
        if let Some(d) = runtime_port::backtrace::find(&raw) {
            return Ok(Ok(Found::image(d.address, d.size, d.is_function)));
        }
        if weak {
            return Ok(Ok(Found::nobody()));
        }
        Ok(Err(self.missing(index, name, because)))
    }

    /// Looks in the namespace of a cell and its parents: among loaded cells and those on their way.
    fn in_namespaces(&self, index: usize, raw: &str, name: &str) -> Option<Result<Found, MissingSymbol>> {
        let namespace = &self.cells[index].namespace;
        let spelled = names::exports_spelled(raw);
        for here in namespace.chain() {
            // What comes with this cell in the place of others.
            for (number, staged) in self.on_their_way(here).take_while(|(number, _)| *number < self.successors) {
                if let Some(symbol) = staged.definitions.get(name) {
                    return staged_symbol(number, staged, *symbol).map(Ok);
                }
            }
            if core::ptr::eq(here, Arc::as_ptr(namespace))
                && let Some(section) = spelled.iter().find_map(|(cell, export)| (self.coming)(cell, export).flatten())
            {
                return Some(Found::coming(section.clone()).map_err(|_| not_usable(&section, name)));
            }
            if let Some(section) =
                here.own_symbol(name).filter(|s| !self.is_replaced(s.parent_crate.upgrade().as_ref()))
            {
                return Some(usable(&section, name));
            }
            for (number, staged) in self.on_their_way(here) {
                if let Some(symbol) = staged.definitions.get(name) {
                    return staged_symbol(number, staged, *symbol).map(Ok);
                }
            }
            for (cell, export) in &spelled {
                let there = here.own_crate(cell).filter(|c| !self.is_replaced(Some(c)));
                if let Some(section) = there.and_then(|c| c.export(export)) {
                    return Some(usable(&section, name));
                }
                let staged = self.on_their_way(here).find(|(_, s)| &*s.name == *cell);
                if let Some((number, staged)) = staged
                    && let Some(description) = staged.described(export)
                {
                    return Some(Ok(staged_export(number, staged, description)));
                }
            }
        }
        None
    }

    /// Whether this cell goes when the successors come.
    fn is_replaced(&self, cell: Option<&StrongCrateRef>) -> bool {
        cell.is_some_and(|cell| self.replaced.iter().any(|r| Arc::ptr_eq(r, cell)))
    }

    fn on_their_way<'s>(&'s self, namespace: &'s CrateNamespace) -> impl Iterator<Item = (usize, &'s Staged)> {
        self.cells.iter().enumerate().filter(move |(_, s)| core::ptr::eq(Arc::as_ptr(&s.namespace), namespace))
    }

    /// Has a cell loaded by a provider, unless it is there. Says whether anything is new.
    fn provide(&mut self, index: usize, wanted: &str) -> Result<bool, LoadError> {
        let from = self.cells[index].namespace.clone();
        let depth = self.cells[index].depth + 1;
        if from.get_crate(wanted).is_some() || self.cells.iter().any(|s| &*s.name == wanted) {
            return Ok(false);
        }
        let Some((namespace, source)) = from.provided(wanted) else { return Ok(false) };
        let name: Arc<str> = wanted.into();
        let CellSource::Native(bytes) = source else {
            // Cells on their way are nothing that other kinds of cells could import yet.
            let waiting = self.loading.len();
            self.loading.extend(self.cells.iter().map(|s| s.name.clone()));
            let loaded = from.load_from_providers(wanted, self.loading);
            self.loading.truncate(waiting);
            let loaded = loaded?;
            self.on_demand.extend(loaded.map(|cell| (namespace, cell.crate_name.clone())));
            return Ok(true);
        };
        if self.loading.iter().any(|l| **l == *wanted) {
            return Err(LoadError::Cycle(format!("`{}` -> `{wanted}`", self.cells[index].name)));
        }
        if depth >= LOAD_CHAIN {
            return Err(LoadError::ChainTooLong { cell: name, limit: LOAD_CHAIN });
        }
        self.cells.reserve(1);
        let staged = Staged::new(namespace, name, bytes, &LoadOptions::default(), depth, None)?;
        self.cells.push(staged);
        Ok(true)
    }

    fn missing(&self, index: usize, symbol: String, because: Option<String>) -> MissingSymbol {
        let namespace = &self.cells[index].namespace;
        // The same function of another build differs in the hash only.
        let prefix = names::section_name_without_hash(&symbol);
        let mut near: Vec<String> = match prefix.len() < symbol.len() {
            true => namespace.find_symbols_starting_with(prefix).iter().take(3).map(|(n, _)| n.to_string()).collect(),
            false => Vec::new(),
        };
        let all = namespace.find_symbols_starting_with("");
        if near.is_empty() {
            // An export of this name, which is spelled with its cell's.
            let export = format!("::{symbol}");
            near = all.iter().filter(|(n, _)| n.ends_with(&export)).take(3).map(|(n, _)| n.to_string()).collect();
        }
        if near.is_empty() {
            near = nearest(&symbol, all.iter().map(|(n, _)| &**n));
        }
        MissingSymbol { symbol, nearest: near, because }
    }
}

/// A section of a loaded cell, for native code.
fn usable(section: &crate::section::StrongSectionRef, name: &str) -> Result<Found, MissingSymbol> {
    Found::section(section).map_err(|_| not_usable(section, name))
}

fn not_usable(section: &crate::section::StrongSectionRef, name: &str) -> MissingSymbol {
    let what = section.item.ty().map_or_else(String::new, |t| format!(" ({t})"));
    let because =
        format!("`{}` has it, but it is no function{what}: native code can call exports only", holder(section));
    MissingSymbol { symbol: name.into(), nearest: Vec::new(), because: Some(because) }
}

/// A symbol of a cell on its way.
fn staged_symbol(number: usize, staged: &Staged, symbol: usize) -> Option<Found> {
    let size = staged.object.symbols.get(symbol)?.size;
    let (address, is_function) = match staged.plan.entry_of(symbol) {
        Some(entry) => (staged.entry(entry), true),
        None => (staged.address(symbol)?, false),
    };
    let import = Import { address, is_function, size, near: false, stays: false };
    Some(Found { import, from: From::Staged(number, symbol), adapter: None })
}

/// A typed export of a cell on its way.
fn staged_export(number: usize, staged: &Staged, export: usize) -> Found {
    let address = staged.entry(staged.plan.entries.len() + export);
    let ty = &staged.descriptions[export].ty;
    let adapter =
        (!ty.is_register_only()).then(|| AdapterRequest { caller: Caller::Native, ty: ty.clone(), function: address });
    let import = Import { address, is_function: true, size: 0, near: false, stays: false };
    Found { import, from: From::StagedExport(number, export), adapter }
}
