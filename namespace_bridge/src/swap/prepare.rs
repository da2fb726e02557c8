//! Prepare: new versions beside the old ones. Nothing is visible, and everything that could fail for want of memory happens here.
#![deny(unsafe_code)]

use super::adopt;
use super::error::{Refusal, SwapError, SwapProblem};
use super::request::{CellChange, StatePlan, SwapRequest};
use super::step::SwapStep;
use super::transaction::{Change, Lists, Plan, Transaction, timed};
use super::transfer::Transferred;
use crate::cell::{LoadedCrate, StrongCrateRef};
use crate::code::CellModule;
use crate::compile;
use crate::entries::EntryBlock;
use crate::error::LoadError;
use crate::instantiate::{self, Request};
use crate::linker::{Scope, nearest, resolve};
use crate::module_diff::ModuleDiff;
use crate::namespace::{CellSource, CrateNamespace};
use crate::native;
use crate::options::{AddPolicy, LoadOptions};
use alloc::{boxed::Box, collections::BTreeSet, format, string::String, sync::Arc, vec::Vec};
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
        let result = compiled.and_then(|modules| {
            timed(&mut phases.prepare, || {
                self.allocate_native(request)?;
                self.link_and_allocate(&modules)
            })
        });
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

    /// Native cells of the request. They find functions of others by their stable entries, so they come first.
    fn allocate_native(&mut self, request: &SwapRequest) -> Result<(), SwapError> {
        let (namespace, fail_at) = (self.namespace.clone(), self.settings.fail_at);
        self.on_demand.begin(&namespace);
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
        let replaced: Vec<StrongCrateRef> =
            claimed.iter().filter_map(|(at, ..)| self.changes.get(*at)?.old.clone()).collect();
        let places: Vec<usize> = claimed.iter().map(|(at, _)| *at).collect();
        let requests = claimed.into_iter().map(|(_, request)| request).collect::<Vec<_>>();
        if requests.is_empty() && problems.is_empty() {
            return Ok(());
        }
        let successors = native::prepare(&namespace, requests, &replaced)?;
        for (at, made) in places.into_iter().zip(successors) {
            let Some(change) = self.changes.get_mut(at) else { continue };
            change.new = Some(made.cell.clone());
            change.native = Some(made);
            problems.extend(super::export::problem_of_native(change));
            super::validate::compare(change, None);
        }
        if problems.is_empty() { Ok(()) } else { Err(Refusal { problems }.into()) }
    }

    /// In an order in which each new cell finds those that it imports from.
    fn link_and_allocate(&mut self, modules: &[Option<Arc<CellModule>>]) -> Result<(), SwapError> {
        let order = self.order(modules)?;
        let mut over: Vec<(Arc<str>, Option<StrongCrateRef>)> =
            self.changes.iter().filter_map(|c| Some((c.old_name.clone()?, None))).collect();
        for change in self.changes.iter().filter(|c| c.native.is_some()) {
            over.retain(|(n, _)| Some(n) != change.new_name.as_ref());
            over.extend(change.new_name.clone().map(|name| (name, change.new.clone())));
        }
        let mut problems = Vec::new();
        let mut failed: Vec<Arc<str>> = Vec::new();
        let namespace = self.namespace.clone();
        for i in order {
            let fail_at = self.settings.fail_at;
            let (Some(change), Some(Some(module))) = (self.changes.get_mut(i), modules.get(i)) else { continue };
            let Some(name) = change.new_name.clone() else { continue };
            SwapStep::Link.check(fail_at)?;
            let uses = |m: &CellModule, names: &[Arc<str>]| {
                m.metadata().imports.iter().any(|i| names.iter().any(|n| **n == *i.module))
            };
            let imports = match uses(module, &failed) {
                true => None,
                false => {
                    let scope = Scope { namespace: &namespace, over: &over };
                    match resolve(&scope, &name, module, &change.options, &mut alloc::vec![name.clone()]) {
                        Ok(imports) => Some(imports),
                        Err(LoadError::Link(e)) => {
                            problems.push(SwapProblem::Link(e));
                            None
                        }
                        Err(e) => return Err(e.into()),
                    }
                }
            };
            problems.extend(adopt::problem(change, module));
            problems.extend(super::export::problem(change, module));
            super::validate::compare(change, Some(module));
            match imports.filter(|_| problems.is_empty()) {
                Some(imports) => {
                    SwapStep::Allocate.check(fail_at)?;
                    allocate(&namespace, change, module, imports)?;
                    let reexported = change.old_name.clone().filter(|_| change.reexport);
                    for name in [Some(name), reexported].into_iter().flatten() {
                        over.retain(|(n, _)| *n != name);
                        over.push((name, change.new.clone()));
                    }
                }
                None => failed.push(name),
            }
        }
        if problems.is_empty() {
            return Ok(());
        }
        // All reasons at once.
        self.find_problems(modules, &mut problems);
        Err(Refusal { problems }.into())
    }

    /// The new cells, those first that others import from.
    fn order(&self, modules: &[Option<Arc<CellModule>>]) -> Result<Vec<usize>, SwapError> {
        let names_of = |c: &Change| {
            let old = c.old_name.clone().filter(|_| c.reexport);
            [c.new_name.clone(), old]
        };
        let provides = |c: &Change, module: &str| names_of(c).iter().flatten().any(|n| **n == *module);
        let mut left: Vec<usize> =
            (0..modules.len()).filter(|i| modules.get(*i).is_some_and(|m| m.is_some())).collect();
        let mut order = Vec::with_capacity(left.len());
        while !left.is_empty() {
            let needs_one_left = |i: usize| {
                let imports = modules.get(i).and_then(|m| m.as_ref()).map(|m| &m.metadata().imports);
                imports.is_some_and(|imports| {
                    imports.iter().any(|import| {
                        left.iter().filter_map(|j| self.changes.get(*j)).any(|c| provides(c, &import.module))
                    })
                })
            };
            let Some(at) = left.iter().position(|i| !needs_one_left(*i)) else {
                let names = left.iter().filter_map(|i| Some(format!("`{}`", self.changes.get(*i)?.name())));
                let cells = names.collect::<Vec<String>>().join(", ");
                return Err(Refusal { problems: alloc::vec![SwapProblem::Cycle { cells }] }.into());
            };
            order.push(left.remove(at));
        }
        Ok(order)
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
    (next.max(change.old.as_ref().map_or(0, |o| o.version()) + 1), kept)
}

/// Makes the instance, the entries and the version tables.
fn allocate(
    namespace: &CrateNamespace,
    change: &mut Change,
    module: &Arc<CellModule>,
    imports: Vec<crate::section::StrongSectionRef>,
) -> Result<(), SwapError> {
    let Some(name) = change.new_name.clone() else { return Ok(()) };
    let old_instance = change.old_instance();
    let (version, kept) = claim_entries(namespace, change, &name);
    let request = Request {
        cell: &name,
        version,
        module,
        imports: &imports,
        kept,
        options: &change.options,
        domain: old_instance.as_ref().and_then(|i| i.domain()),
        adopt: old_instance.as_deref().filter(|_| change.plan.adopts()),
    };
    let (instance, entries) = instantiate::allocate(request)?;
    entries.prepare(|k| instance.version_target(k));
    entries.open_own();
    change.new = Some(LoadedCrate::wasm(namespace.shared(), instance, entries, change.options.clone()));
    change.imports = imports;
    Ok(())
}
