//! Prepare: new versions beside the old ones. Nothing is visible, and everything that could fail for want of memory happens here.
#![deny(unsafe_code)]

use super::adopt;
use super::error::{Refusal, SwapError, SwapProblem};
use super::request::{CellChange, StatePlan, SwapRequest};
use super::step::SwapStep;
use super::together::{Ingredients, Linked, Promises, Together};
use super::transaction::{Change, Lists, Plan, Transaction, timed};
use super::transfer::Transferred;
use crate::cell::{LoadedCrate, StrongCrateRef};
use crate::code::CellModule;
use crate::compile;
use crate::entries::EntryBlock;
use crate::error::LoadError;
use crate::linker::{Scope, nearest, resolve};
use crate::module_diff::ModuleDiff;
use crate::namespace::{CellSource, CrateNamespace};
use crate::native::{self, Pending};
use crate::options::{AddPolicy, LoadOptions};
use crate::order::after_needs;
use crate::section::StrongSectionRef;
use alloc::{boxed::Box, collections::BTreeSet, sync::Arc, vec::Vec};
use wasm_cell::{Loadable, reuse::ReuseReport};

/// Cells that were loaded because a new version imports from them.
pub(super) struct OnDemand {
    /// Names that there were before.
    before: Option<BTreeSet<Arc<str>>>,
}

impl OnDemand {
    pub(super) fn none() -> OnDemand {
        OnDemand { before: None }
    }

    fn begin(&mut self, namespace: &CrateNamespace) {
        self.before = Some(namespace.crate_names(false).into_iter().collect());
    }

    /// Unloads what was loaded on demand and nobody uses.
    pub(super) fn undo(&mut self, namespace: &CrateNamespace) {
        let Some(before) = self.before.take() else { return };
        let is_new = |name: &Arc<str>| !before.contains(name);
        // One may keep the next in use.
        while namespace.crate_names(false).into_iter().filter(is_new).any(|name| namespace.unload(&name).is_ok()) {}
    }
}

impl Transaction {
    /// Makes the new versions.
    pub(super) fn prepare(&mut self, request: &SwapRequest) -> Result<(), SwapError> {
        let mut phases = self.phases;
        let compiled = timed(&mut phases.compile, || {
            self.find_cells(request)?;
            self.compile(request)
        });
        let result = compiled.and_then(|modules| timed(&mut phases.prepare, || self.make(request, &modules)));
        self.phases = phases;
        result
    }

    /// The old cells, and whether the request makes sense.
    fn find_cells(&mut self, request: &SwapRequest) -> Result<(), SwapError> {
        let mut problems = Vec::new();
        let namespace = self.namespace.clone();
        for cell in &request.cells {
            let old = match &cell.old {
                None => None,
                Some(name) => match find_old(&namespace, name) {
                    Ok(old) => Some(old),
                    Err(problem) => {
                        problems.push(problem);
                        continue;
                    }
                },
            };
            if let (Some(new), None) = (&cell.new, &cell.source) {
                problems.push(SwapProblem::NoSource { cell: new.clone() });
            }
            let of_old = old.as_ref().and_then(|o| o.body()).map(|b| b.options.clone());
            let options = cell.options.clone().or(of_old).unwrap_or_default();
            self.changes.push(Change {
                old_name: cell.old.clone(),
                old,
                new_name: cell.new.clone(),
                new: None,
                plan: Plan::State(cell.state.clone()),
                reexport: cell.reexport,
                options: LoadOptions { policy: AddPolicy::Refuse, ..options },
                imports: Vec::new(),
                rank: 0,
                remains: None,
                fresh: true,
                native: None,
                lists: Lists::default(),
                reuse: None,
                diff: None,
                bytes_adopted: 0,
                bytes_copied: 0,
                transferred: Transferred::default(),
            });
        }
        problems.extend(named_twice(&request.cells));
        for new in request.new_names().filter(|new| !request.old_names().any(|old| old == *new)) {
            if namespace.own_crate(new).is_some() {
                problems.push(SwapProblem::NameTaken { namespace: namespace.name().into(), cell: new.clone() });
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Refusal { problems }.into()) }
    }

    fn compile(&mut self, request: &SwapRequest) -> Result<Vec<Option<Arc<CellModule>>>, SwapError> {
        self.step(SwapStep::Compile)?;
        let explain = self.settings.explain;
        let compile = |(change, cell): (&mut Change, &CellChange)| match (&change.new_name, &cell.source) {
            (Some(_), Some(CellSource::Native(_))) => Ok(None),
            (Some(name), Some(source)) => {
                let old = change.old.as_ref().and_then(|o| o.module());
                let (module, reuse) = module_of(name, source, &change.options, old)?;
                change.reuse = reuse;
                change.diff = old.filter(|_| explain).map(|old| Box::new(ModuleDiff::between(old, &module)));
                Ok(Some(module))
            }
            _ => Ok(None),
        };
        self.changes.iter_mut().zip(&request.cells).map(compile).collect()
    }

    /// Makes the new versions: wasm cells have a place for all that they export before native ones are linked, and these before wasm cells are.
    fn make(&mut self, request: &SwapRequest, modules: &[Option<Arc<CellModule>>]) -> Result<(), SwapError> {
        let namespace = self.namespace.clone();
        self.on_demand.begin(&namespace);
        let mut problems = Vec::new();
        let ingredients = self.claim(modules, &mut problems)?;
        let together = Together::stage(&namespace, &ingredients, &self.changes)?;
        let pending = self.make_native(request, &together)?;
        together.add_natives(&self.changes);
        let imports = self.resolve(&together, &ingredients, modules, &mut problems)?;
        problems.extend(together.circles());
        if !problems.is_empty() {
            drop(together);
            // All reasons at once.
            self.find_problems(modules, &mut problems);
            return Err(Refusal { problems }.into());
        }
        let (linked, promises) = together.link(&imports)?;
        self.make_cells(&ingredients, linked);
        self.settle(&ingredients, imports, pending, &promises);
        Ok(())
    }

    /// What the wasm cells are made of: their numbers, the entries that they take over. Those that there is something against are left out.
    fn claim(
        &mut self,
        modules: &[Option<Arc<CellModule>>],
        problems: &mut Vec<SwapProblem>,
    ) -> Result<Vec<Ingredients>, SwapError> {
        let mut ingredients = Vec::new();
        for (at, (change, module)) in self.changes.iter_mut().zip(modules).enumerate() {
            let (Some(module), Some(cell)) = (module, change.new_name.clone()) else { continue };
            SwapStep::Link.check(self.settings.fail_at)?;
            super::validate::compare(change, Some(module));
            let against = adopt::problem(change, module).into_iter().chain(super::export::problem(change, module));
            let before = problems.len();
            problems.extend(against);
            if problems.len() > before {
                continue;
            }
            SwapStep::Allocate.check(self.settings.fail_at)?;
            let (version, kept) = claim_entries(&self.namespace, change, &cell);
            let old = change.old_instance();
            ingredients.push(Ingredients {
                change: at,
                names: change.old_name.clone().filter(|_| change.reexport).into_iter().collect(),
                cell,
                version,
                module: module.clone(),
                options: change.options.clone(),
                kept,
                domain: old.as_ref().and_then(|i| i.domain()),
                adopt: old.filter(|_| change.plan.adopts()),
            });
        }
        Ok(ingredients)
    }

    /// Makes the native cells of the request. Returns their references to the wasm cells.
    fn make_native(&mut self, request: &SwapRequest, together: &Together<'_>) -> Result<Vec<Pending>, SwapError> {
        let (namespace, fail_at) = (self.namespace.clone(), self.settings.fail_at);
        let mut problems = Vec::new();
        let mut claimed = Vec::new();
        for (at, (change, cell)) in self.changes.iter_mut().zip(&request.cells).enumerate() {
            let (Some(name), Some(CellSource::Native(bytes))) = (change.new_name.clone(), &cell.source) else {
                continue;
            };
            if matches!(cell.state, StatePlan::Adopt) {
                let plan = change.plan.name();
                problems.push(SwapProblem::NativeState { cell: name, plan });
                continue;
            }
            SwapStep::Link.check(fail_at)?;
            SwapStep::Allocate.check(fail_at)?;
            let (version, kept) = claim_entries(&namespace, change, &name);
            let (bytes, options) = (bytes.clone(), change.options.clone());
            claimed.push((at, native::SuccessorRequest { name, bytes, options, version, kept }));
        }
        let going: Vec<StrongCrateRef> = self.changes.iter().filter_map(|c| c.old.clone()).collect();
        let places: Vec<usize> = claimed.iter().map(|(at, _)| *at).collect();
        let requests = claimed.into_iter().map(|(_, request)| request).collect::<Vec<_>>();
        if requests.is_empty() && problems.is_empty() {
            return Ok(Vec::new());
        }
        let made = native::prepare(&namespace, requests, &going, &|cell, export| together.export(cell, export))?;
        for (at, made) in places.into_iter().zip(made.cells) {
            let Some(change) = self.changes.get_mut(at) else { continue };
            change.new = Some(made.cell.clone());
            change.native = Some(made);
            problems.extend(super::export::problem_of_native(change));
            super::validate::compare(change, None);
        }
        if problems.is_empty() { Ok(made.pending) } else { Err(Refusal { problems }.into()) }
    }

    /// Finds what the wasm cells import. Of cells that import from one that there is something against nothing more is said.
    fn resolve(
        &self,
        together: &Together<'_>,
        ingredients: &[Ingredients],
        modules: &[Option<Arc<CellModule>>],
        problems: &mut Vec<SwapProblem>,
    ) -> Result<Vec<Vec<StrongSectionRef>>, SwapError> {
        let is_made = |at: usize| ingredients.iter().any(|i| i.change == at);
        let failed = self.changes.iter().zip(modules).enumerate();
        let failed = failed.filter(|(at, (_, module))| module.is_some() && !is_made(*at));
        let failed: Vec<_> = failed.filter_map(|(_, (change, _))| change.new_name.clone()).collect();
        let mut all = Vec::with_capacity(ingredients.len());
        for Ingredients { cell, module, options, .. } in ingredients {
            let mut imports = module.metadata().imports.iter();
            if imports.any(|import| failed.iter().any(|name| **name == *import.module)) {
                continue;
            }
            let over = |cell: &str, export: &str| together.export(cell, export);
            let scope = Scope { namespace: &self.namespace, over: &over };
            match resolve(&scope, cell, module, options, &mut alloc::vec![cell.clone()]) {
                Ok(imports) => all.push(imports),
                Err(LoadError::Link(e)) => problems.push(SwapProblem::Link(e)),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(all)
    }

    /// Makes cells of the instances, with their version tables. Those start first that others import from.
    fn make_cells(&mut self, ingredients: &[Ingredients], linked: Vec<Linked>) {
        let position =
            |name: &str| ingredients.iter().position(|i| i.names.iter().chain([&i.cell]).any(|n| **n == *name));
        let need = |at: usize, nth: usize| {
            let imports = ingredients.get(at)?.module.metadata().imports.get(nth)?;
            // One that is not of the request needs nothing here.
            Some(position(&imports.module).unwrap_or(at))
        };
        let order = after_needs(ingredients.len(), need);
        for (at, (of, made)) in ingredients.iter().zip(linked).enumerate() {
            let Some(change) = self.changes.get_mut(of.change) else { continue };
            let Linked { instance, entries, .. } = made;
            entries.prepare(|k| instance.version_target(k));
            entries.open_own();
            change.rank = order.iter().position(|i| *i == at).unwrap_or(0);
            change.new = Some(LoadedCrate::wasm(self.namespace.shared(), instance, entries, change.options.clone()));
        }
    }

    /// Notes what the new cells depend on, now that there is a section for every promise.
    fn settle(
        &mut self,
        ingredients: &[Ingredients],
        imports: Vec<Vec<StrongSectionRef>>,
        pending: Vec<Pending>,
        promises: &Promises,
    ) {
        let made: Vec<StrongCrateRef> =
            ingredients.iter().filter_map(|i| self.changes.get(i.change)?.new.clone()).collect();
        for (of, imports) in ingredients.iter().zip(imports) {
            if let Some(change) = self.changes.get_mut(of.change) {
                change.imports = imports.iter().map(|section| promises.settle(section, &made)).collect();
            }
        }
        for Pending { promise, piece, relocation } in pending {
            promises.settle(&promise, &made).add_dependent(&piece, relocation);
        }
    }
}

fn find_old(namespace: &CrateNamespace, name: &Arc<str>) -> Result<StrongCrateRef, SwapProblem> {
    let found = namespace.own_crate(name).filter(|c| c.crate_name == *name);
    let Some(cell) = found else {
        let names = namespace.crate_names(false);
        let nearest = nearest(name, names.iter().map(|n| &**n));
        return Err(SwapProblem::NotFound { namespace: namespace.name().into(), cell: name.clone(), nearest });
    };
    match cell.entries() {
        Some(_) if !cell.is_unloaded() => Ok(cell),
        _ => Err(SwapProblem::NotSwappable { cell: name.clone() }),
    }
}

fn named_twice(cells: &[CellChange]) -> Vec<SwapProblem> {
    let mut problems = Vec::new();
    let (mut old, mut new) = (BTreeSet::new(), BTreeSet::new());
    for cell in cells {
        let twice = cell.old.iter().filter(|n| !old.insert(Arc::clone(n))).count() > 0
            || cell.new.iter().filter(|n| !new.insert(Arc::clone(n))).count() > 0;
        if let Some(name) = cell.new.as_ref().or(cell.old.as_ref()).filter(|_| twice) {
            problems.push(SwapProblem::Twice { cell: name.clone() });
        }
    }
    problems
}

/// The compiled module of a source. Functions that are as in the old version are not compiled again; what was compiled is told.
fn module_of(
    cell: &Arc<str>,
    source: &CellSource,
    options: &LoadOptions,
    old: Option<&Arc<CellModule>>,
) -> Result<(Arc<CellModule>, Option<ReuseReport>), LoadError> {
    match (source, old) {
        (CellSource::Wasm(bytes), old) => compile::next_version(cell, bytes, options, old).map(|(m, r)| (m, Some(r))),
        (CellSource::Native(_), _) => Err(LoadError::Object { cell: cell.clone(), reason: "it is a native object" }),
        (CellSource::Module(module), _) => Ok((module.clone(), None)),
        (CellSource::Object(bytes), _) => {
            let object =
                Loadable::from_elf(bytes).map_err(|source| LoadError::Compile { cell: cell.clone(), source })?;
            compile::check_header(cell, &object.header)?;
            Ok((CellModule::new(cell, object)?, None))
        }
    }
}

/// Number of the new version, and the entries that it takes over.
fn claim_entries(namespace: &CrateNamespace, change: &mut Change, name: &Arc<str>) -> (u32, Vec<Arc<EntryBlock>>) {
    let mut kept = change.old.as_ref().and_then(|o| o.entries()).map(|e| e.in_use()).unwrap_or_default();
    let (next, remains) = namespace.claim_remains(name);
    // First of all, so that they are given back whatever happens.
    let (_, remains) = change.remains.insert((next - 1, remains));
    kept.extend(remains.iter().cloned());
    // A cell of the name that was removed and can come back has its entries still.
    let removed = namespace.swaps.cache.removed(name).filter(|_| change.old.is_none());
    kept.extend(removed.iter().filter_map(|cell| cell.entries()).flat_map(|entries| entries.in_use()));
    let mut blocks: Vec<Arc<EntryBlock>> = Vec::with_capacity(kept.len());
    for block in kept {
        if !blocks.iter().any(|known| Arc::ptr_eq(known, &block)) {
            blocks.push(block);
        }
    }
    let last = change.old.as_ref().or(removed.as_ref()).map_or(0, |cell| cell.version());
    (next.max(last + 1), blocks)
}
