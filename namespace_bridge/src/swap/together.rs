//! The new wasm cells of a request, before any of them is linked: what each exports can be imported by the others, in circles too, and by
//! the native cells that come with them.
//!
//! Such an export is a *promise*: a section with the function's entry, the memory, the table or the global's place, but of no cell. When all are linked
//! and are cells, [`Promises::settle`] gives the cell's own section for it.
#![deny(unsafe_code)]

use super::error::SwapProblem;
use super::transaction::Change;
use crate::cell::{StrongCrateRef, symbol_name};
use crate::code::CellModule;
use crate::domain::Domain;
use crate::entries::EntryBlock;
use crate::error::LoadError;
use crate::instance::InstanceRecord;
use crate::instantiate;
use crate::linker::find;
use crate::namespace::CrateNamespace;
use crate::options::LoadOptions;
use crate::order::after_needs;
use crate::section::{LoadedSection, SectionItem, SectionType, StrongSectionRef};
use crate::staged::{self, Promise, Request, Staged};
use alloc::{
    format,
    string::String,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::cell::RefCell;
use hashbrown::HashMap;
use wasm_cell::metadata::ConstOp;

/// What a new wasm cell is made of.
pub(super) struct Ingredients {
    /// The position of its change.
    pub change: usize,
    /// The names by which others may import from it.
    pub names: Vec<Arc<str>>,
    pub cell: Arc<str>,
    pub version: u32,
    pub module: Arc<CellModule>,
    pub options: LoadOptions,
    pub kept: Vec<Arc<EntryBlock>>,
    pub domain: Option<Arc<Domain>>,
    pub adopt: Option<Arc<InstanceRecord>>,
}

impl Ingredients {
    pub(super) fn stage(&self) -> Result<Staged<'_>, LoadError> {
        staged::stage(Request {
            cell: &self.cell,
            version: self.version,
            module: &self.module,
            kept: &self.kept,
            options: &self.options,
            domain: self.domain.as_ref(),
            adopt: self.adopt.as_deref(),
        })
    }
}

/// A promise that somebody was given.
struct Given {
    cell: usize,
    export: usize,
    section: StrongSectionRef,
}

/// The new cells of a request, and the names that go.
pub(super) struct Together<'a> {
    namespace: &'a CrateNamespace,
    ingredients: &'a [Ingredients],
    staged: RefCell<Vec<Staged<'a>>>,
    /// New native cells, once they are made.
    natives: RefCell<Vec<(Arc<str>, StrongCrateRef)>>,
    /// Names of cells that go.
    going: Vec<Arc<str>>,
    given: RefCell<Vec<Given>>,
    /// Exports that are only passed on, in circles.
    circles: RefCell<Vec<String>>,
}

/// The promises that were given.
pub(super) struct Promises(Vec<Given>);

impl Promises {
    /// The section that was promised, now that the cells are made; any other section as it is.
    pub(super) fn settle(&self, section: &StrongSectionRef, made: &[StrongCrateRef]) -> StrongSectionRef {
        let kept = self.0.iter().find(|given| Arc::ptr_eq(&given.section, section)).and_then(|given| {
            let cell = made.get(given.cell)?;
            cell.export(&cell.module()?.metadata().exports.get(given.export)?.name)
        });
        kept.unwrap_or_else(|| section.clone())
    }
}

impl<'a> Together<'a> {
    /// Stages the cells.
    pub(super) fn stage(
        namespace: &'a CrateNamespace,
        ingredients: &'a [Ingredients],
        changes: &[Change],
    ) -> Result<Together<'a>, LoadError> {
        let staged = ingredients.iter().map(Ingredients::stage).collect::<Result<Vec<_>, _>>()?;
        Ok(Together {
            namespace,
            ingredients,
            staged: RefCell::new(staged),
            natives: RefCell::default(),
            going: changes.iter().filter_map(|c| c.old_name.clone()).collect(),
            given: RefCell::default(),
            circles: RefCell::default(),
        })
    }

    /// Adds the native cells that were made.
    pub(super) fn add_natives(&self, changes: &[Change]) {
        let made = changes.iter().filter(|c| c.native.is_some());
        self.natives.borrow_mut().extend(made.filter_map(|c| Some((c.new_name.clone()?, c.new.clone()?))));
    }

    /// What a name stands for once the request is carried out, if the request has to do with it.
    pub(super) fn export(&self, cell: &str, export: &str) -> Option<Option<StrongSectionRef>> {
        self.export_along(cell, export, &mut Vec::new())
    }

    /// The same, on the way through exports that are passed on.
    fn export_along(
        &self,
        cell: &str,
        export: &str,
        path: &mut Vec<(usize, usize)>,
    ) -> Option<Option<StrongSectionRef>> {
        let is_it = |name: &Arc<str>| **name == *cell;
        // A cell's own name comes before one that it takes over.
        let by_own = self.ingredients.iter().position(|i| is_it(&i.cell));
        if let Some(native) = self.natives.borrow().iter().find(|(name, _)| is_it(name)) {
            return Some(native.1.export(export));
        }
        if let Some(at) = by_own.or_else(|| self.ingredients.iter().position(|i| i.names.iter().any(is_it))) {
            return Some(self.promise(at, export, path));
        }
        self.going.iter().any(is_it).then_some(None)
    }

    fn promise(&self, cell: usize, export: &str, path: &mut Vec<(usize, usize)>) -> Option<StrongSectionRef> {
        let of = self.ingredients.get(cell)?;
        let number = of.module.export_index(export)?;
        let is_it = |given: &&Given| (given.cell, given.export) == (cell, number);
        if let Some(given) = self.given.borrow().iter().find(is_it) {
            return Some(given.section.clone());
        }
        if path.contains(&(cell, number)) {
            let name = |(cell, export): &(usize, usize)| {
                let of = self.ingredients.get(*cell)?;
                Some(format!("`{}`", symbol_name(&of.cell, &of.module.metadata().exports.get(*export)?.name)))
            };
            self.circles.borrow_mut().push(path.iter().filter_map(name).collect::<Vec<_>>().join(", "));
            return None;
        }
        let promise = self.staged.borrow_mut().get_mut(cell)?.promise(number)?;
        let item = match promise {
            Promise::Own(item) => item,
            Promise::Import(import) => {
                let import = of.module.metadata().imports.get(import)?;
                path.push((cell, number));
                let found = self.export_along(&import.module, &import.name, path).unwrap_or_else(|| {
                    let mut loading = alloc::vec![of.cell.clone()];
                    // If it cannot be loaded, the cell that passes it on says why.
                    find(self.namespace, import, &of.options, &mut loading).ok().flatten()
                });
                path.pop();
                found?.item.clone()
            }
        };
        let place = match &item {
            SectionItem::Func(function) => function.entry().unwrap_or(0),
            SectionItem::Memory(memory) => memory.base(),
            SectionItem::Table(table) => table.base(),
            SectionItem::Global(global) => global.address(),
            SectionItem::Native(_) | SectionItem::Part => 0,
        };
        let name = symbol_name(&of.cell, export);
        let section = LoadedSection::new(name, SectionType::Text, place..place, Weak::new(), item);
        self.given.borrow_mut().push(Given { cell, export: number, section: section.clone() });
        Some(section)
    }

    /// Exports that nobody defines.
    pub(super) fn circles(&self) -> Vec<SwapProblem> {
        let mut circles = self.circles.borrow().clone();
        circles.sort();
        circles.dedup();
        circles.into_iter().map(|exports| SwapProblem::Cycle { exports }).collect()
    }

    /// Links all cells to what their imports were found to be, and gives their globals and tables their initial values.
    pub(super) fn link(self, imports: &[Vec<StrongSectionRef>]) -> Result<(Vec<Linked>, Promises), LoadError> {
        let mut linked = Vec::with_capacity(imports.len());
        for (staged, imports) in self.staged.into_inner().into_iter().zip(imports) {
            let adopts = staged.request.adopt.is_some();
            let (instance, entries) = instantiate::link(staged, imports)?;
            linked.push(Linked { instance, entries, adopts });
        }
        let given = self.given.into_inner();
        let is_value = |given: &Given| matches!(&given.section.item, SectionItem::Global(g) if !g.ty().mutable);
        match given.iter().any(is_value) {
            true => evaluate_globals(&linked)?,
            false => linked.iter().try_for_each(|cell| instantiate::evaluate_globals(&cell.instance))?,
        }
        linked.iter().try_for_each(|cell| instantiate::fill_tables(&cell.instance, cell.adopts))?;
        Ok((linked, Promises(given)))
    }
}

/// A cell that is linked, but no cell of the namespace yet.
pub(super) struct Linked {
    pub instance: Arc<InstanceRecord>,
    pub entries: crate::entry_plan::CellEntries,
    adopts: bool,
}

/// Gives globals their initial values, each after those that it is computed from, whichever of the cells has them.
fn evaluate_globals(cells: &[Linked]) -> Result<(), LoadError> {
    let mut home = HashMap::new();
    let mut first = Vec::with_capacity(cells.len());
    let mut places = Vec::new();
    for (at, cell) in cells.iter().enumerate() {
        first.push(places.len());
        let m = cell.instance.metadata();
        for index in 0..m.globals.len() {
            if let Some(address) = cell.instance.global_address(index as u32)
                && index >= m.imported_globals as usize
            {
                home.insert(address, places.len());
            }
            places.push((at, index));
        }
    }
    // The globals that one is computed from: what it imports, or what its initial value names.
    let need = |place: usize, nth: usize| -> Option<usize> {
        let (at, index) = *places.get(place)?;
        let cell = cells.get(at)?;
        match cell.instance.imported_globals().get(index) {
            Some(imported) => home.get(&imported.address()).copied().filter(|_| nth == 0),
            None => {
                let init = cell.instance.metadata().globals.get(index)?.init.as_ref()?;
                let named = |op: &ConstOp| if let ConstOp::GlobalGet(i) = op { Some(*i as usize) } else { None };
                Some(first.get(at)? + init.0.iter().filter_map(named).nth(nth)?)
            }
        }
    };
    let mut has_value = alloc::vec![false; places.len()];
    for place in after_needs(places.len(), need) {
        let Some((at, index)) = places.get(place) else { continue };
        let mut needs = (0..).map_while(|nth| need(place, nth));
        if needs.any(|need| !has_value.get(need).is_some_and(|has| *has)) {
            let names: Vec<_> = cells.iter().map(|c| format!("`{}`", c.instance.cell())).collect();
            return Err(LoadError::Cycle(format!("initial values of globals of {}", names.join(", "))));
        }
        instantiate::evaluate_global(&cells[*at].instance, *index)?;
        has_value[place] = true;
    }
    Ok(())
}
