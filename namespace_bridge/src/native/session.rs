//! Loading: one object, and the objects that it needs and providers have, become cells together or not at all.
//!
//! The phases are functions in this order: *stage* every object (read, map, make entries), *resolve* its imports, which stages
//! more; *link*; *make* the cells; *initialise*, those first that others need; *publish*. Cells may need each other in a
//! circle: entries have their addresses before anything is linked. Until the end nobody else sees any of them, and a failure
//! takes back everything, cells that were loaded on demand included.

mod find;

use super::adapters::{AdapterRequest, Adapters, Caller};
use super::attribution::NameRegistration;
use super::cell::{Live, ObjectBody, Sections};
use super::error::NativeError;
use super::lifecycle;
use super::object::{Kind, Part};
use super::relocate::{Import, Linking};
use super::resolve::From;
use super::stage::Staged;
use crate::cell::{LoadedCrate, StrongCrateRef};
use crate::entries::EntryBlock;
use crate::error::LoadError;
use crate::linker::Over;
use crate::namespace::CrateNamespace;
use crate::options::LoadOptions;
use crate::order::after_needs;
use crate::section::{RelocationEntry, StrongSectionRef};
use alloc::{format, string::ToString, sync::Arc, vec::Vec};
use hashbrown::HashMap;
use runtime_port::heap::{guarded, without_failing};
use runtime_port::unwind::UnwindRegistration;

/// Loads an object as a cell, with what it needs.
pub(crate) fn load(
    namespace: &Arc<CrateNamespace>,
    cell: &Arc<str>,
    bytes: Vec<u8>,
    options: &LoadOptions,
    loading: &mut Vec<Arc<str>>,
) -> Result<StrongCrateRef, LoadError> {
    crate::retire::look_again();
    if let Some(existing) = namespace.check_name(cell, options)? {
        return Ok(existing);
    }
    let mut session = Session::new(loading, &[], &|_, _| None);
    let result = guarded(|| session.run(namespace, cell, bytes, options)).unwrap_or_else(|e| Err(e.into()));
    if result.is_err() {
        without_failing(|| session.undo());
    }
    result
}

/// A native cell that is to take the place of another one. Nobody sees it.
pub(crate) struct Successor {
    pub(crate) cell: StrongCrateRef,
    /// Its place among those made with it: after those that it needs.
    pub(crate) rank: usize,
    initialisers: Vec<usize>,
}

/// Native cells that are to take the place of others.
pub(crate) struct Successors {
    pub(crate) cells: Vec<Successor>,
    /// References, of these cells and of those that they need, to cells of other kinds that come with them.
    pub(crate) pending: Vec<Pending>,
}

/// A reference to a cell that has no section yet.
pub(crate) struct Pending {
    /// What it refers to, as it was promised.
    pub(crate) promise: StrongSectionRef,
    /// Where it is written.
    pub(crate) piece: StrongSectionRef,
    pub(crate) relocation: RelocationEntry,
}

/// What a successor is made of.
pub(crate) struct SuccessorRequest {
    pub name: Arc<str>,
    pub bytes: Vec<u8>,
    pub options: LoadOptions,
    pub version: u32,
    /// Entries of the versions before.
    pub kept: Vec<Arc<EntryBlock>>,
}

impl Successor {
    /// Whether it has code that runs before anybody calls it.
    pub(crate) fn has_initialisers(&self) -> bool {
        !self.initialisers.is_empty()
    }

    /// Runs the initialisers.
    pub(crate) fn initialise(&self) -> Result<(), LoadError> {
        initialise_all(&self.cell, &self.initialisers)
    }
}

/// Makes the next versions of cells of objects, with the entries of the versions before, but puts them behind no entry and runs
/// nothing of them. They link to each other and to `coming`, cells of other kinds that come with them, and not to `replaced`, which go in the
/// same step. What they need and providers have is loaded.
pub(crate) fn prepare(
    namespace: &Arc<CrateNamespace>,
    requests: Vec<SuccessorRequest>,
    replaced: &[StrongCrateRef],
    coming: &Over<'_>,
) -> Result<Successors, LoadError> {
    let mut waiting: Vec<_> = requests.iter().map(|r| r.name.clone()).collect();
    let mut session = Session::new(&mut waiting, replaced, coming);
    session.successors = requests.len();
    let run = || session.run_successors(namespace, requests);
    let result = guarded(run).unwrap_or_else(|e| Err(e.into()));
    if result.is_err() {
        without_failing(|| session.undo_successors());
    }
    result
}

struct Session<'a> {
    /// How many of the cells, from the first, take the place of others.
    successors: usize,
    /// The cells that go when they come.
    replaced: &'a [StrongCrateRef],
    /// Cells of other kinds that come with them.
    coming: &'a Over<'a>,
    cells: Vec<Staged>,
    /// The cells that were made of them, in the same order.
    made: Vec<Made>,
    /// Cells of other kinds that were loaded for this.
    on_demand: Vec<(Arc<CrateNamespace>, Arc<str>)>,
    /// Names of cells that wait.
    loading: &'a mut Vec<Arc<str>>,
}

/// A cell that nobody sees yet.
struct Made {
    cell: StrongCrateRef,
    sections: Sections,
    initialisers: Vec<usize>,
    /// Where the entries of typed exports lead.
    described: Vec<usize>,
}

impl<'a> Session<'a> {
    fn new(loading: &'a mut Vec<Arc<str>>, replaced: &'a [StrongCrateRef], coming: &'a Over<'a>) -> Session<'a> {
        Session { successors: 0, replaced, coming, cells: Vec::new(), made: Vec::new(), on_demand: Vec::new(), loading }
    }
}

impl Session<'_> {
    fn run(
        &mut self,
        namespace: &Arc<CrateNamespace>,
        cell: &Arc<str>,
        bytes: Vec<u8>,
        options: &LoadOptions,
    ) -> Result<StrongCrateRef, LoadError> {
        let depth = self.loading.len();
        self.cells.reserve(1);
        self.cells.push(Staged::new(namespace.clone(), cell.clone(), bytes, options, depth, None)?);
        let mut next = 0;
        while next < self.cells.len() {
            self.resolve(next)?;
            next += 1;
        }
        for index in 0..self.cells.len() {
            self.link_and_make(index)?;
        }
        self.join();
        for made in &self.made {
            self.open(made)?;
        }
        self.initialise()?;
        self.publish()
    }

    fn run_successors(
        &mut self,
        namespace: &Arc<CrateNamespace>,
        requests: Vec<SuccessorRequest>,
    ) -> Result<Successors, LoadError> {
        self.cells.reserve(requests.len());
        for SuccessorRequest { name, bytes, options, version, kept } in requests {
            let succeeds = Some((version, kept));
            self.cells.push(Staged::new(namespace.clone(), name, bytes, &options, 1, succeeds)?);
        }
        let mut next = 0;
        while next < self.cells.len() {
            self.resolve(next)?;
            next += 1;
        }
        for index in 0..self.cells.len() {
            self.link_and_make(index)?;
        }
        let pending = self.join();
        for made in &self.made {
            self.open(made)?;
        }
        let order = self.order();
        for index in order.iter().copied().filter(|index| *index >= self.successors) {
            let Some(made) = self.made.get(index) else { continue };
            initialise_all(&made.cell, &made.initialisers)?;
            let staged = &self.cells[index];
            staged.namespace.publish(&made.cell, &staged.options)?;
        }
        let successor = |(index, made): (usize, &Made)| Successor {
            cell: made.cell.clone(),
            rank: order.iter().position(|i| *i == index).unwrap_or(0),
            initialisers: made.initialisers.clone(),
        };
        let cells = self.made.iter().take(self.successors).enumerate().map(successor).collect();
        Ok(Successors { cells, pending })
    }

    /// Takes back what is not published.
    fn undo_successors(&mut self) {
        for (index, staged) in self.order().into_iter().rev().filter_map(|i| Some((i, self.cells.get(i)?))) {
            let made = self.made.get(index).map(|m| &m.cell);
            let published = made
                .is_some_and(|m| staged.namespace.own_crate(&staged.name).is_some_and(|there| Arc::ptr_eq(&there, m)));
            if published {
                continue;
            }
            if let Some(body) = made.and_then(|m| m.object_body()) {
                // The initialisers of successors have not run.
                body.give_up(
                    index >= self.successors && self.made.get(index).is_some_and(|m| !m.initialisers.is_empty()),
                );
            }
            lifecycle::forget(staged.handle());
            if index >= self.successors {
                staged.namespace.keep_entries(&staged.name, staged.version - 1, staged.kept.clone());
            }
        }
    }

    /// Finds every import of a cell; stages the cells that it needs.
    fn resolve(&mut self, index: usize) -> Result<(), LoadError> {
        let mut missing = Vec::new();
        let imports = self.cells[index].plan.imports.clone();
        for symbol in imports {
            match self.find(index, symbol)? {
                Ok(found) => {
                    if let From::Staged(other, _) | From::StagedExport(other, _) = found.from {
                        self.cells[index].needs.push(other);
                    }
                    self.cells[index].imports.insert(symbol, found);
                }
                Err(problem) => missing.push(problem),
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(self.failed(index, NativeError::Missing(missing))) }
    }

    fn failed(&self, index: usize, source: NativeError) -> LoadError {
        LoadError::Native { cell: self.cells[index].name.clone(), source }
    }

    /// Writes the image of a cell and makes the cell.
    fn link_and_make(&mut self, index: usize) -> Result<(), LoadError> {
        // A cell that is made is taken back by `undo` only, without running anything of it.
        self.made.reserve(1);
        let made = self.try_link_and_make(index);
        self.made.push(made.map_err(|e| self.failed(index, e))?);
        Ok(())
    }

    fn try_link_and_make(&mut self, index: usize) -> Result<Made, NativeError> {
        let staged = &mut self.cells[index];
        let inward = adapt_imports(staged)?;
        let outward = adapt_exports(staged)?;
        let entries: Vec<usize> = (0..staged.plan.entries.len()).map(|k| staged.entry(k)).collect();
        let low_entries: Vec<usize> = match staged.plan.low {
            true => (0..entries.len()).map(|k| staged.low_entry(k)).collect(),
            false => Vec::new(),
        };
        let imports: HashMap<usize, Import> = staged.imports.iter().map(|(s, f)| (*s, f.import)).collect();
        let (object, plan) = (&staged.object, &staged.plan);
        let linking = Linking { object, plan, imports: &imports, entries: &entries, low_entries: &low_entries };
        let Some(mut image) = staged.image.take() else { return Err(NativeError::damaged("it was linked before")) };
        staged.edges = linking.write(&mut image)?;
        let image = Arc::new(image.seal()?);
        let initialisers = functions_to_run(staged, &image, &imports, false)?;
        let finalisers = functions_to_run(staged, &image, &imports, true)?;
        let described = described_targets(staged, &outward);

        let mut sections = None;
        let mut failure = None;
        let cell = LoadedCrate::object(staged.name.clone(), Arc::downgrade(&staged.namespace), |me| {
            let made = Sections::new(staged, &image, me);
            let names = NameRegistration::new(&staged.name, image.part(Part::Text), made.functions());
            let unwind = register_unwind_info(staged, &image).unwrap_or_else(|e| {
                failure = Some(e);
                None
            });
            let live = Live {
                _unwind: unwind,
                names,
                adapters: [inward, outward],
                handle: staged.handle(),
                finalisers,
                image: image.clone(),
            };
            let body = ObjectBody::new(staged, &made, live);
            sections = Some(made);
            body
        });
        if let (Some(error), Some(body)) = (failure, cell.object_body()) {
            // The entries that a successor has taken over are those of the version in service.
            match staged.succeeds {
                true => body.give_up(false),
                false => body.abandon(),
            }
            return Err(error);
        }
        let sections = sections.ok_or_else(|| NativeError::damaged("it has no sections"))?;
        Ok(Made { cell, sections, initialisers, described })
    }

    /// Records every reference to another cell, on both sides. Gives those to cells that have no sections yet.
    fn join(&self) -> Vec<Pending> {
        let mut pending = Vec::new();
        for (staged, made) in self.cells.iter().zip(&self.made) {
            for edge in &staged.edges {
                let Some(found) = staged.imports.get(&edge.symbol) else { continue };
                let section = match &found.from {
                    From::Section(section) | From::Coming(section) => Some(section),
                    From::Staged(other, symbol) => self.made.get(*other).and_then(|o| o.sections.of_symbol(*symbol)),
                    From::StagedExport(other, export) => {
                        self.made.get(*other).and_then(|o| o.sections.of_description(*export))
                    }
                    From::Image | From::Nobody => None,
                };
                let place = staged.start + edge.offset;
                if let (Some(section), Some(piece)) = (section, made.sections.piece(place)) {
                    let offset = place - piece.virt_addr.value();
                    let relocation = RelocationEntry { typ: edge.typ, addend: edge.addend as usize, offset };
                    match found.from {
                        From::Coming(_) => {
                            pending.push(Pending { promise: section.clone(), piece: piece.clone(), relocation });
                        }
                        _ => section.add_dependent(piece, relocation),
                    }
                }
            }
        }
        pending
    }

    /// Makes the entries of a cell lead to its functions.
    fn open(&self, made: &Made) -> Result<(), LoadError> {
        let index = self.made.iter().position(|m| core::ptr::eq(m, made)).unwrap_or(0);
        let (staged, Some(body)) = (&self.cells[index], made.cell.object_body()) else { return Ok(()) };
        body.entries.prepare(|k| match staged.plan.entries.get(k) {
            Some(symbol) => staged.entry_target(*symbol),
            None => made.described.get(k - staged.plan.entries.len()).copied(),
        });
        match staged.succeeds {
            true => body.entries.open_own(),
            false => body.entries.open(),
        }
        for found in staged.imports.values() {
            if let From::Staged(other, _) | From::StagedExport(other, _) = found.from
                && let Some(other) = self.made.get(other).and_then(|m| m.cell.object_body())
            {
                other.entries.own().mark_escaped();
            }
        }
        Ok(())
    }

    /// Runs initialisers: of a cell after those of the cells that it needs.
    fn initialise(&self) -> Result<(), LoadError> {
        for index in self.order() {
            let Some(made) = self.made.get(index) else { continue };
            initialise_all(&made.cell, &made.initialisers)?;
        }
        Ok(())
    }

    /// The cells, each after those that it needs as far as circles allow.
    fn order(&self) -> Vec<usize> {
        after_needs(self.cells.len(), |cell, at| self.cells[cell].needs.get(at).copied())
    }

    /// Makes all cells visible.
    fn publish(&mut self) -> Result<StrongCrateRef, LoadError> {
        let mut published: Vec<usize> = Vec::with_capacity(self.cells.len());
        let mut failure = None;
        for index in self.order() {
            let staged = &self.cells[index];
            let publish = || staged.namespace.publish(&self.made[index].cell, &staged.options);
            match guarded(publish).unwrap_or_else(|e| Err(e.into())) {
                // Another task has loaded a cell of the name meanwhile.
                Ok(cell) if !Arc::ptr_eq(&cell, &self.made[index].cell) => {
                    failure = Some(LoadError::NameTaken {
                        namespace: staged.namespace.name().into(),
                        cell: staged.name.clone(),
                    });
                    break;
                }
                Ok(_) => published.push(index),
                Err(e) => {
                    failure = Some(e);
                    break;
                }
            }
        }
        match failure {
            None => Ok(self.made[0].cell.clone()),
            Some(error) => {
                without_failing(|| {
                    for index in published.into_iter().rev() {
                        self.cells[index].namespace.withdraw(&self.made[index].cell);
                    }
                });
                Err(error)
            }
        }
    }

    /// Takes back everything.
    fn undo(&mut self) {
        // What was initialised last goes first.
        for (index, staged) in self.order().into_iter().rev().filter_map(|i| Some((i, self.cells.get(i)?))) {
            if let Some(body) = self.made.get(index).and_then(|m| m.cell.object_body()) {
                body.abandon();
            }
            lifecycle::forget(staged.handle());
            staged.namespace.keep_entries(&staged.name, staged.version - 1, staged.kept.clone());
        }
        self.made.clear();
        for (namespace, cell) in self.on_demand.drain(..).rev() {
            // One that somebody else uses by now stays.
            let _ = namespace.unload(&cell);
        }
    }
}

/// Runs the initialisers of a cell.
fn initialise_all(cell: &StrongCrateRef, initialisers: &[usize]) -> Result<(), LoadError> {
    initialisers.iter().try_for_each(|address| initialise(cell, *address))?;
    if let Some(body) = cell.object_body() {
        body.set_initialised();
    }
    Ok(())
}

fn initialise(cell: &StrongCrateRef, address: usize) -> Result<(), LoadError> {
    // SAFETY: the linker checked that the address is a function of the cell or one it imports.
    unsafe { lifecycle::initialise(address) }.map_err(|message| {
        let function = cell.object_body().and_then(|b| b.function_at(address));
        let function = function.map_or_else(|| format!("{address:#x}"), |name| name.to_string());
        LoadError::Native { cell: cell.crate_name.clone(), source: NativeError::Init { function, message } }
    })
}

/// Makes the adapters by which a cell calls wasm functions.
fn adapt_imports(staged: &mut Staged) -> Result<Adapters, NativeError> {
    let mut wanted: Vec<_> = staged.imports.iter().filter_map(|(s, f)| Some((*s, f.adapter.clone()?))).collect();
    wanted.sort_unstable_by_key(|w| w.0);
    let requests: Vec<AdapterRequest> = wanted.iter().map(|w| w.1.clone()).collect();
    let adapters = Adapters::new(&requests)?;
    for (i, (symbol, _)) in wanted.iter().enumerate() {
        if let (Some(found), Some(address)) = (staged.imports.get_mut(symbol), adapters.address(i)) {
            found.import.address = address;
        }
    }
    Ok(adapters)
}

/// Makes the adapters by which wasm calls a cell's typed exports.
fn adapt_exports(staged: &mut Staged) -> Result<Adapters, NativeError> {
    let mut requests = Vec::new();
    for (index, description) in staged.descriptions.iter().enumerate() {
        let code = staged.described_code(description).ok_or_else(|| NativeError::Export {
            index,
            reason: format!("`{}` is no function of this cell", description.name),
        })?;
        if !description.ty.is_register_only() {
            requests.push(AdapterRequest { caller: Caller::Wasm, ty: description.ty.clone(), function: code });
        }
    }
    Adapters::new(&requests)
}

/// Where the entries of typed exports lead: to the functions, or to their adapters.
fn described_targets(staged: &Staged, outward: &Adapters) -> Vec<usize> {
    let mut adapter = 0;
    let target = |d: &super::export::Description| match d.ty.is_register_only() {
        true => staged.described_code(d).unwrap_or(0),
        false => {
            adapter += 1;
            outward.address(adapter - 1).unwrap_or(0)
        }
    };
    staged.descriptions.iter().map(target).collect()
}

/// Addresses of initialisers or finalisers, in the order in which they run.
fn functions_to_run(
    staged: &Staged,
    image: &super::image::NativeImage,
    imports: &HashMap<usize, Import>,
    at_end: bool,
) -> Result<Vec<usize>, NativeError> {
    let wanted = |kind| match kind {
        Kind::Init(_) => !at_end,
        Kind::Fini(_) => at_end,
        _ => false,
    };
    let sections = staged.object.sections.iter().zip(&staged.plan.sections).filter(|(s, _)| wanted(s.kind));
    let mut sections: Vec<_> = sections.filter_map(|(s, at)| Some(((*at)?, s))).collect();
    sections.sort_unstable_by_key(|s| s.0);
    if at_end {
        // What was initialised first goes last.
        sections.reverse();
    }
    let mut functions = Vec::new();
    for (offset, section) in sections {
        let words = image.words(offset, section.size / 8);
        let name = staged.object.text(&section.name);
        // The older sections are filled from the end, and may have marks at both ends.
        let backwards = name.starts_with(".ctors") || name.starts_with(".fini_array");
        let real = words.iter().copied().filter(|w| *w != 0 && *w != usize::MAX);
        let from = functions.len();
        functions.extend(real);
        let text = image.part(Part::Text);
        let imported = |address| imports.values().any(|i| i.is_function && i.address == address);
        if let Some(bad) = functions.iter().skip(from).find(|f| !text.contains(f) && !imported(**f)) {
            return Err(NativeError::damaged(format!("`{name}` holds {bad:#x}, which is no function")));
        }
        if backwards && let Some(own) = functions.get_mut(from..) {
            own.reverse();
        }
    }
    Ok(functions)
}

fn register_unwind_info(
    staged: &Staged,
    image: &Arc<super::image::NativeImage>,
) -> Result<Option<UnwindRegistration>, NativeError> {
    let (text, size) = (image.part(Part::Text), staged.plan.unwind_info.bytes.len());
    if size == 0 || text.is_empty() {
        return Ok(None);
    }
    let start = image.start() + staged.plan.eh_frame;
    // SAFETY: text and unwind info lie in the image, which the registration keeps mapped and nobody writes any more.
    let made = unsafe { UnwindRegistration::new(text, start..start + size, image.clone()) };
    made.map(Some).map_err(|e| NativeError::damaged(format!("its unwind info was refused: {e}")))
}
