//! Cells: what a namespace holds under a name (Theseus: `LoadedCrate`).
//!
//! A wasm cell owns an instance; its sections are its exports and the parts of its image. A native cell is a set of
//! definitions by the embedder. Sections may outlive the cell: whoever depends on one holds it.
#![deny(unsafe_code)]

mod parts;

use self::parts::ImageParts;
use crate::code::{CellModule, LoadedCode};
use crate::entries::EntryBlock;
use crate::entry_plan::CellEntries;
use crate::error::FuncError;
use crate::function::{Function, Signature, WasmFunction};
use crate::host::Thunk;
use crate::instance::InstanceRecord;
use crate::namespace::CrateNamespace;
use crate::native::ObjectBody;
use crate::options::LoadOptions;
use crate::retire;
use crate::section::{LoadedSection, SectionItem, SectionType, StrongSectionRef};
use crate::typed::{Func, TypedFunc, WasmParams, WasmResults};
use alloc::{
    boxed::Box,
    string::String,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use runtime_port::heap::{guarded, without_failing};
use runtime_port::memory::VirtualAddress;
use spin::{Mutex, RwLock};
use wasm_cell::{
    metadata::ExportItem,
    types::{ExternType, FuncType},
};

/// A shared cell.
pub type StrongCrateRef = Arc<LoadedCrate>;
/// A reference that does not keep the cell.
pub type WeakCrateRef = Weak<LoadedCrate>;

/// A loaded cell.
pub struct LoadedCrate {
    /// Its name in the namespace.
    pub crate_name: Arc<str>,
    namespace: Weak<CrateNamespace>,
    /// It failed to load but lives on because others may hold its functions; nothing waits for it.
    orphan: AtomicBool,
    /// Another version serves under its name.
    superseded: AtomicBool,
    /// Exports of versions before it that others use and it does not have, or not of their type.
    lost: Mutex<Vec<LostExport>>,
    body: Body,
}

/// The name of an export, and the section by which others use it.
pub(crate) type LostExport = (Box<str>, StrongSectionRef);

enum Body {
    Wasm(WasmBody),
    /// From a relocatable object.
    Object(ObjectBody),
    /// Definitions by the embedder.
    Native(RwLock<Vec<StrongSectionRef>>),
}

/// What a wasm cell consists of.
pub(crate) struct WasmBody {
    pub(crate) code: Arc<LoadedCode>,
    /// `None` once the cell is unloaded.
    pub(crate) instance: RwLock<Option<Arc<InstanceRecord>>>,
    pub(crate) entries: CellEntries,
    /// Addresses of its image.
    image: Range<usize>,
    /// How it was loaded, for a fresh instance.
    pub(crate) options: LoadOptions,
    /// One per export, in the module's order.
    exports: Box<[StrongSectionRef]>,
    parts: ImageParts,
}

impl LoadedCrate {
    /// An empty native cell.
    pub(crate) fn native(crate_name: Arc<str>, namespace: Weak<CrateNamespace>) -> StrongCrateRef {
        Arc::new(LoadedCrate {
            crate_name,
            namespace,
            orphan: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
            lost: Mutex::default(),
            body: Body::Native(RwLock::new(Vec::new())),
        })
    }

    /// A native cell from an object. `body` is given what its sections refer to the cell by.
    pub(crate) fn object(
        crate_name: Arc<str>,
        namespace: Weak<CrateNamespace>,
        body: impl FnOnce(&Weak<LoadedCrate>) -> ObjectBody,
    ) -> StrongCrateRef {
        Arc::new_cyclic(|me| LoadedCrate {
            crate_name,
            namespace,
            orphan: AtomicBool::new(false),
            superseded: AtomicBool::new(false),
            lost: Mutex::default(),
            body: Body::Object(body(me)),
        })
    }

    /// A cell around an instance.
    pub(crate) fn wasm(
        namespace: Weak<CrateNamespace>,
        instance: Arc<InstanceRecord>,
        entries: CellEntries,
        options: LoadOptions,
    ) -> StrongCrateRef {
        let code = instance.code().clone();
        Arc::new_cyclic(|me| {
            let exports =
                (0..code.metadata().exports.len()).filter_map(|i| export_section(me, &instance, &entries, i)).collect();
            let image = instance.image().range();
            let body = WasmBody {
                image,
                instance: RwLock::new(Some(instance)),
                entries,
                options,
                exports,
                parts: ImageParts::of(me.clone()),
                code: code.clone(),
            };
            LoadedCrate {
                crate_name: code.cell().clone(),
                namespace,
                orphan: AtomicBool::new(false),
                superseded: AtomicBool::new(false),
                lost: Mutex::default(),
                body: Body::Wasm(body),
            }
        })
    }

    /// Whether another version serves under its name. It may come back ([`CrateNamespace::rollback`]).
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Relaxed)
    }

    /// Exports that its users lost with this version, or an earlier one. A version that has one again has its users too.
    pub(crate) fn lost_exports(&self) -> &Mutex<Vec<LostExport>> {
        &self.lost
    }

    /// Says whether another version has taken its place. Callers that wait at its gate then go by the stable entry again.
    pub(crate) fn set_superseded(&self, superseded: bool) {
        self.superseded.store(superseded, Ordering::Relaxed);
        if let Some(code) = self.code() {
            code.set_superseded(superseded);
        }
        if let Some(instance) = self.instance() {
            instance.set_superseded(superseded);
        }
    }

    /// Its stable entries; `None` for definitions by the embedder.
    pub(crate) fn entries(&self) -> Option<&CellEntries> {
        match &self.body {
            Body::Wasm(body) => Some(&body.entries),
            Body::Object(body) => Some(&body.entries),
            Body::Native(_) => None,
        }
    }

    /// Its name; `name@version` when another version serves under the name.
    pub fn display_name(&self) -> Arc<str> {
        match self.is_superseded() {
            true => alloc::format!("{}@{}", self.crate_name, self.version()).into(),
            false => self.crate_name.clone(),
        }
    }

    /// The namespace it was loaded into, while that lives.
    pub fn namespace(&self) -> Option<Arc<CrateNamespace>> {
        self.namespace.upgrade()
    }

    /// Whether it is a wasm cell.
    pub fn is_wasm(&self) -> bool {
        matches!(self.body, Body::Wasm(_))
    }

    pub(crate) fn body(&self) -> Option<&WasmBody> {
        match &self.body {
            Body::Wasm(body) => Some(body),
            Body::Object(_) | Body::Native(_) => None,
        }
    }

    /// What it consists of, if it is a native cell from an object.
    pub(crate) fn object_body(&self) -> Option<&ObjectBody> {
        match &self.body {
            Body::Object(body) => Some(body),
            Body::Wasm(_) | Body::Native(_) => None,
        }
    }

    /// Whether it is a native cell from a relocatable object.
    pub fn is_object(&self) -> bool {
        matches!(self.body, Body::Object(_))
    }

    /// Whether it is a set of definitions by the embedder.
    pub(crate) fn is_definitions(&self) -> bool {
        matches!(self.body, Body::Native(_))
    }

    /// Its code: name, version, text range, metadata. `None` for native cells.
    pub fn code(&self) -> Option<&Arc<LoadedCode>> {
        self.body().map(|b| &b.code)
    }

    /// The compiled module, to load it again under another name. `None` for native cells.
    pub fn module(&self) -> Option<&Arc<CellModule>> {
        self.code().map(|c| c.module())
    }

    /// Version under its name, from 1. 0 for definitions by the embedder.
    pub fn version(&self) -> u32 {
        match &self.body {
            Body::Wasm(body) => body.code.version(),
            Body::Object(body) => body.version,
            Body::Native(_) => 0,
        }
    }

    /// Its instance; `None` for native cells and once the cell is unloaded.
    pub fn instance(&self) -> Option<Arc<InstanceRecord>> {
        self.body()?.instance.read().clone()
    }

    /// Whether it has been unloaded: its functions are gone.
    pub fn is_unloaded(&self) -> bool {
        match &self.body {
            Body::Wasm(body) => body.instance.read().is_none(),
            Body::Object(body) => body.is_unloaded(),
            Body::Native(_) => false,
        }
    }

    /// Whether it failed to load and lives on only because others may hold its functions.
    pub fn is_orphan(&self) -> bool {
        self.orphan.load(Ordering::Relaxed)
    }

    pub(crate) fn mark_orphan(&self) {
        self.orphan.store(true, Ordering::Relaxed);
    }

    /// Every section others may link to: exports in the module's order, or definitions in the order they were made.
    pub fn global_sections(&self) -> Vec<StrongSectionRef> {
        match &self.body {
            Body::Wasm(body) => body.exports.to_vec(),
            Body::Object(body) => body.global_sections(),
            Body::Native(sections) => sections.read().clone(),
        }
    }

    /// Every section, parts of the image first.
    pub fn sections(&self) -> Vec<StrongSectionRef> {
        let parts = match &self.body {
            Body::Wasm(body) => &body.parts.all(&body.code)[..],
            Body::Object(body) => body.parts(),
            Body::Native(_) => &[],
        };
        parts.iter().cloned().chain(self.global_sections()).collect()
    }

    /// The section in which dependencies on others are written; `None` for native cells.
    pub(crate) fn data_section(&self) -> Option<&StrongSectionRef> {
        self.body().map(|b| b.parts.data(&b.code))
    }

    /// The section of an export.
    pub fn export(&self, name: &str) -> Option<StrongSectionRef> {
        match &self.body {
            Body::Wasm(body) => body.exports.get(body.code.module().export_index(name)?).cloned(),
            Body::Object(body) => body.export(name),
            Body::Native(sections) => sections.read().iter().find(|s| s.export_name() == name).cloned(),
        }
    }

    /// The section of an exported function.
    pub fn get_function_section(&self, name: &str) -> Option<StrongSectionRef> {
        self.export(name).filter(|s| matches!(s.item, SectionItem::Func(_)))
    }

    /// A handle of an exported function, for calls with values. It follows later versions of the cell, and its calls
    /// fail with `FunctionGone` once the cell is unloaded.
    pub fn func(self: &Arc<Self>, name: &str) -> Result<Func, FuncError> {
        guarded(|| self.func_inner(name))?
    }

    fn func_inner(self: &Arc<Self>, name: &str) -> Result<Func, FuncError> {
        let found = self.export(name);
        let cell = self.crate_name.clone();
        let Some(section) = found else {
            let sections = self.global_sections();
            let names = sections.iter().filter(|s| matches!(s.item, SectionItem::Func(_))).map(|s| s.export_name());
            let nearest = crate::linker::nearest(name, names);
            return Err(FuncError::NotFound { cell, name: name.into(), nearest });
        };
        let function = match &section.item {
            SectionItem::Func(f) => f.clone(),
            other => return Err(FuncError::NotAFunction { cell, name: name.into(), found: other.ty() }),
        };
        if self.is_unloaded() {
            return Err(FuncError::Unloaded { cell });
        }
        crate::handle::of(&section, &function)
    }

    /// A handle of an exported function with the Rust types of its parameters and results.
    pub fn typed_func<P: WasmParams, R: WasmResults>(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<TypedFunc<P, R>, FuncError> {
        guarded(|| {
            let function = self.func_inner(name)?;
            let mistyped = |source| FuncError::Type { cell: self.crate_name.clone(), name: name.into(), source };
            function.typed().map_err(mistyped)
        })?
    }

    /// The first section that `predicate` accepts.
    pub fn find_section(&self, mut predicate: impl FnMut(&LoadedSection) -> bool) -> Option<StrongSectionRef> {
        self.sections().into_iter().find(|s| predicate(s))
    }

    /// Names and types of what it exports, in order.
    pub fn exports(&self) -> Vec<(String, ExternType)> {
        let typed = |s: &StrongSectionRef| Some((s.export_name().into(), s.item.ty()?));
        self.global_sections().iter().filter_map(typed).collect()
    }

    /// The cells it depends on, each once.
    pub fn crates_i_depend_on(&self) -> Vec<StrongCrateRef> {
        let mut cells: Vec<StrongCrateRef> = Vec::new();
        for edge in self.dependencies() {
            if let Some(cell) = edge.0.parent_crate.upgrade()
                && !cells.iter().any(|c| Arc::ptr_eq(c, &cell))
            {
                cells.push(cell);
            }
        }
        cells
    }

    /// The sections it depends on, with where each is written in its data block.
    pub fn dependencies(&self) -> Vec<(StrongSectionRef, crate::section::RelocationEntry)> {
        if let Body::Object(body) = &self.body {
            return body.dependencies();
        }
        let Some(data) = self.body().and_then(|b| b.parts.data_if_made()) else { return Vec::new() };
        data.inner.read().sections_i_depend_on.iter().map(|d| (d.section.clone(), d.relocation)).collect()
    }

    /// The cells that depend on it, each once.
    pub fn crates_dependent_on_me(&self) -> Vec<WeakCrateRef> {
        let mut cells: Vec<StrongCrateRef> = Vec::new();
        for (cell, _) in self.dependents() {
            if !cells.iter().any(|c| Arc::ptr_eq(c, &cell)) {
                cells.push(cell);
            }
        }
        cells.iter().map(Arc::downgrade).collect()
    }

    /// Whether a cell that depends on `on` keeps it from being unloaded.
    pub(crate) fn counts_as_dependent(cell: &LoadedCrate, on: &LoadedCrate) -> bool {
        !cell.is_unloaded() && !cell.is_orphan() && !cell.is_superseded() && !core::ptr::eq(cell, on)
    }

    /// Who depends on it, and through which of its sections. Unloaded and orphaned cells do not count.
    pub fn dependents(&self) -> Vec<(StrongCrateRef, StrongSectionRef)> {
        let mut all = Vec::new();
        for section in self.global_sections() {
            for cell in section.dependents() {
                if LoadedCrate::counts_as_dependent(&cell, self) {
                    all.push((cell, section.clone()));
                }
            }
        }
        all
    }

    /// Adds a definition to a native cell; `false` for wasm cells.
    pub(crate) fn add_section(&self, section: StrongSectionRef) -> bool {
        match &self.body {
            Body::Native(sections) => {
                sections.write().push(section);
                true
            }
            Body::Wasm(_) | Body::Object(_) => false,
        }
    }

    /// Takes a definition out of a native cell.
    pub(crate) fn remove_section(&self, export: &str) -> Option<StrongSectionRef> {
        let Body::Native(sections) = &self.body else { return None };
        let mut sections = sections.write();
        let at = sections.iter().position(|s| s.export_name() == export)?;
        Some(sections.remove(at))
    }

    /// Number of definitions of a native cell, exports of a wasm cell.
    pub fn symbol_count(&self) -> usize {
        match &self.body {
            Body::Wasm(body) => body.exports.len(),
            Body::Object(body) => body.global_sections().len(),
            Body::Native(sections) => sections.read().len(),
        }
    }

    /// The section an address lies in, and the offset in it: the exported function, if it is in one.
    pub fn section_at(&self, address: VirtualAddress) -> Option<(StrongSectionRef, usize)> {
        let sections = self.sections();
        let containing = |s: &&StrongSectionRef| {
            let start = s.virt_addr.value();
            (start..start + s.size.max(1)).contains(&address.value())
        };
        let smallest = sections.iter().filter(containing).min_by_key(|s| s.size)?;
        Some((smallest.clone(), address.value() - smallest.virt_addr.value()))
    }

    /// Addresses of its image.
    pub(crate) fn image_range(&self) -> Option<Range<usize>> {
        match &self.body {
            Body::Wasm(body) => Some(body.image.clone()),
            Body::Object(body) => Some(body.image()),
            Body::Native(_) => None,
        }
    }

    /// Ends the cell: closes its entries, lets go of what it depends on, and frees the instance when no task can be
    /// inside. Returns the entries that must stay because their addresses may be held anywhere.
    pub(crate) fn shut_down(&self) -> Vec<Arc<EntryBlock>> {
        without_failing(|| self.close_and_let_go())
    }

    fn close_and_let_go(&self) -> Vec<Arc<EntryBlock>> {
        if let Body::Object(body) = &self.body {
            return body.shut_down(self.is_superseded());
        }
        let Some(body) = self.body() else { return Vec::new() };
        let Some(instance) = body.instance.write().take() else { return Vec::new() };
        if self.is_superseded() {
            // Its entries lead to another version, but for those that nothing is behind.
            self.let_go(body, instance);
            let mut kept = body.entries.to_keep();
            kept.retain(|b| b.is_gone());
            return kept;
        }
        if let Some(supervision) = body.code.supervision() {
            supervision.detach(&body.code);
        }
        body.entries.close();
        self.let_go(body, instance);
        body.entries.to_keep()
    }

    /// Ends a cell that was to succeed another and could not: the entries it adopted are not its own. `exposed`: addresses of its own
    /// ones may be held.
    pub(crate) fn give_up(&self, exposed: bool) {
        let Some(body) = self.body() else { return };
        let Some(instance) = body.instance.write().take() else { return };
        without_failing(|| {
            body.entries.own().retire();
            if exposed {
                crate::namespace::keep_for_ever(body.entries.own().clone());
            }
            self.let_go(body, instance);
        });
    }

    fn let_go(&self, body: &WasmBody, instance: Arc<InstanceRecord>) {
        body.code.supervise(None);
        // Who waits at its gate goes by the entries again: to a successor, or to the trap that says it is gone.
        instance.set_superseded(true);
        if let Some(thunks) = instance.thunks.get() {
            thunks.references.iter().for_each(Thunk::close);
        }
        let data = body.parts.data_if_made();
        let edges = data.map(|data| core::mem::take(&mut data.inner.write().sections_i_depend_on));
        // Cells that failed to load but live on in a table or global of this one go with it.
        instance.tables().iter().skip(instance.metadata().imported_tables as usize).for_each(|t| t.release_kept());
        for (section, export) in body.exports.iter().zip(&instance.metadata().exports) {
            if matches!(export.item, ExportItem::Global(i) if i >= instance.metadata().imported_globals) {
                section.item.release_kept();
            }
        }
        // A task that has read where an entry leads may not have jumped yet.
        let retirement = instance.retirement(body.entries.take_tables());
        retire::retire_own(retirement);
        drop(edges);
    }
}

impl fmt::Debug for LoadedCrate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("LoadedCrate");
        f.field("crate_name", &self.crate_name).field("version", &self.version());
        f.field("symbols", &self.symbol_count()).field("unloaded", &self.is_unloaded()).finish_non_exhaustive()
    }
}

impl Drop for LoadedCrate {
    fn drop(&mut self) {
        let kept = self.shut_down();
        if !kept.is_empty() {
            without_failing(|| {
                crate::namespace::keep_entries(&self.namespace, &self.crate_name, self.version(), kept);
            });
        }
        if let Body::Native(sections) = &mut self.body {
            sections.get_mut().iter().for_each(|s| s.item.release_kept());
        }
    }
}

/// Makes the section of export number `index`.
fn export_section(
    me: &Weak<LoadedCrate>,
    instance: &Arc<InstanceRecord>,
    entries: &CellEntries,
    index: usize,
) -> Option<StrongSectionRef> {
    let m = instance.metadata();
    let export = m.exports.get(index)?;
    let (item, typ, range) = match export.item {
        ExportItem::Func(f) => {
            let function = match instance.imported_func(f) {
                Some(imported) => imported.clone(),
                None => {
                    let (block, entry) = entries.of(instance.code().module().entry_index(f)?)?;
                    let signature = Signature::Module(instance.code().module().clone(), f);
                    Function::Wasm(WasmFunction { block, entry, signature })
                }
            };
            let range = match instance.body_address(f) {
                Some(start) => start..start + m.funcs.get(f as usize - m.imported_funcs.len())?.size as usize,
                None => {
                    let at = function.entry().unwrap_or(0);
                    at..at
                }
            };
            (SectionItem::Func(function), SectionType::Text, range)
        }
        ExportItem::Memory(i) => {
            let memory = instance.memory(i)?.clone();
            let range = memory.base()..memory.base() + memory.bytes() as usize;
            (SectionItem::Memory(memory), SectionType::Bss, range)
        }
        ExportItem::Table(i) => {
            let table = instance.table(i)?.clone();
            let range = table.base()..table.base() + 8 * table.len() as usize;
            (SectionItem::Table(table), SectionType::Data, range)
        }
        ExportItem::Global(i) => {
            let global = instance.global(i)?;
            let range = global.address()..global.address() + 16;
            (SectionItem::Global(global), SectionType::Data, range)
        }
    };
    Some(LoadedSection::new(symbol_name(instance.cell(), &export.name), typ, range, me.clone(), item))
}

/// `cell::export`
pub(crate) fn symbol_name(cell: &str, export: &str) -> Arc<str> {
    let mut name = String::with_capacity(cell.len() + 2 + export.len());
    name.push_str(cell);
    name.push_str("::");
    name.push_str(export);
    name.into()
}

/// The type of an exported function, if `section` is one.
pub fn function_type(section: &LoadedSection) -> Option<&FuncType> {
    match &section.item {
        SectionItem::Func(f) => Some(f.ty()),
        _ => None,
    }
}
