//! Compiled code: the module that instances share, and one loaded copy of it.
//!
//! A [`CellModule`] is what compilation produced, in frames that every instance maps: stable entries, text, rodata. A
//! [`LoadedCode`] is that code at an address, as one version of one cell: what a trap, a backtrace or a host function
//! needs to put names to addresses.
#![deny(unsafe_code)]

use crate::domain::Concurrency;
use crate::entries;
use crate::entry_labels::EntryLabels;
use crate::error::{LoadError, TypeCollision};
use crate::gate::{STUB_SIZE, stub};
use crate::instance::InstanceRecord;
use crate::integrity::Fingerprint;
use crate::recovery::Supervision;
use crate::source_line::{SourceFrame, SourceLines};
use crate::types_registry::TypeShares;
use crate::version_table;
use alloc::{sync::Arc, vec::Vec};
use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use kernel_config::{cell::ENTRY_SIZE, limits::CELL_BYTES, memory::PAGE_SIZE};
use runtime_port::memory::{ImageRanges, MemoryError, SharedFrames};
use runtime_port::unwind::{UnwindError, UnwindTable};
use spin::{Mutex, Once};
use wasm_cell::{
    Loadable,
    header::ObjectHeader,
    metadata::{ExportItem, Metadata},
    reuse::ReuseTable,
    types::{HeapType, RefType, ValType},
};

/// A compiled module, ready to be instantiated any number of times. Instances map the same frames.
pub struct CellModule {
    header: ObjectHeader,
    metadata: Metadata,
    frames: SharedFrames,
    layout: ModuleLayout,
    /// Positions of the exports, sorted by name.
    exports_by_name: Vec<u32>,
    funcrefs_can_escape: bool,
    fingerprint: Fingerprint,
    unwind: Option<Arc<UnwindTable>>,
    suspect: AtomicBool,
    source_lines: SourceLines,
    labels: Once<Arc<EntryLabels>>,
    reuse: ReuseTable,
    types: Arc<TypeShares>,
}

/// Where the parts of an image lie: `[text, entries | rodata | data block, version word, table of absent functions]`. The entries fill
/// the gap behind the text if they fit; otherwise they have pages of their own before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModuleLayout {
    /// Sizes of the mapped parts; entries and text are one.
    pub ranges: ImageRanges,
    /// Number of stable entries.
    pub entries: usize,
    /// Offset of the first.
    pub first_entry: usize,
    /// Offset of the first gate stub; 0 for a module without.
    pub first_stub: usize,
    /// Offset of the text section.
    pub text: usize,
    /// Offset of the data block.
    pub data: usize,
    /// Offset of the two words by which gate stubs find gate and instance; 0 for a module without.
    pub gate: usize,
    /// Offset of the version word; a version table follows it, in which every function is absent.
    pub version_word: usize,
}

impl ModuleLayout {
    /// Offsets of the stable entries and the gate stubs behind them.
    pub(crate) fn entry_code(&self) -> Range<usize> {
        let end = match self.first_stub {
            0 => self.first_entry + self.entries * ENTRY_SIZE,
            stub => stub + self.entries * STUB_SIZE,
        };
        self.first_entry..end
    }
}

impl CellModule {
    /// Prepares a cell object for instantiation: puts its code into frames and registers its types. `cell` is the name
    /// that errors use.
    ///
    /// # Errors
    /// [`LoadError::TypeCollision`] when the object was compiled with type ids that mean something else in this system; a
    /// wasm module is compiled with those that fit (`compile_module`).
    pub fn new<'a>(cell: &Arc<str>, object: impl Into<Loadable<'a>>) -> Result<Arc<CellModule>, LoadError> {
        let object = object.into();
        let (types, collision) = claim_types(cell, &object.metadata)?;
        match collision {
            None => CellModule::with_types(cell, object, types),
            Some(collision) => Err(collision.into()),
        }
    }

    /// The same, for an object that was compiled with the ids that `types` registered.
    pub(crate) fn with_types(
        cell: &Arc<str>,
        object: Loadable<'_>,
        types: TypeShares,
    ) -> Result<Arc<CellModule>, LoadError> {
        let bad = |reason| LoadError::Object { cell: cell.clone(), reason };
        let ids = object.metadata.type_ids.iter().map(|i| &i.id);
        if object.metadata.types.len() != types.ids().len() || !ids.eq(types.ids()) {
            return Err(bad("its type ids are not the registered ones"));
        }
        let layout = layout(&object).ok_or_else(|| bad("its sections overlap or leave the image"))?;
        check_indices(&object.metadata).map_err(bad)?;
        let mut entries = entries::code(&object.metadata, layout);
        if layout.first_stub != 0 {
            stub::append(&mut entries, &object.metadata, layout);
        }
        let frames = frames(&object, layout, &entries).map_err(|source| LoadError::Memory {
            cell: cell.clone(),
            what: "code",
            source,
        })?;
        let unwind = unwind_table(&object).map_err(|source| LoadError::Unwind { cell: cell.clone(), source })?;
        let exports = &object.metadata.exports;
        let mut exports_by_name: Vec<u32> = (0..exports.len() as u32).collect();
        exports_by_name.sort_unstable_by(|a, b| exports[*a as usize].name.cmp(&exports[*b as usize].name));
        Ok(Arc::new(CellModule {
            funcrefs_can_escape: funcrefs_can_escape(&object.metadata),
            fingerprint: Fingerprint::new(&object, &entries),
            unwind,
            suspect: AtomicBool::new(false),
            header: object.header,
            metadata: object.metadata,
            frames,
            layout,
            exports_by_name,
            source_lines: SourceLines::default(),
            labels: Once::new(),
            reuse: object.reuse,
            types: Arc::new(types),
        }))
    }

    /// What it was compiled for.
    pub fn header(&self) -> &ObjectHeader {
        &self.header
    }

    /// Types, imports, exports, layout, trap table.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// What it kept so that a later version can take over code that did not change.
    pub fn reuse_table(&self) -> &ReuseTable {
        &self.reuse
    }

    /// The frames that hold entries, text and rodata.
    pub fn frames(&self) -> &SharedFrames {
        &self.frames
    }

    /// Where the parts of an image lie.
    pub fn layout(&self) -> ModuleLayout {
        self.layout
    }

    /// What its bytes were when it was made.
    pub(crate) fn fingerprint(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// The records of its unwind info, if it has any.
    pub fn unwind_table(&self) -> Option<&Arc<UnwindTable>> {
        self.unwind.as_ref()
    }

    /// Makes it suspect: something happened in its code that nothing explains. Images of it are not used again, and its next
    /// instance is verified. Neither allocates nor locks.
    pub(crate) fn suspect(&self) {
        self.suspect.store(true, Ordering::Release);
        self.frames.retire_images();
    }

    /// Whether something happened in its code that nothing explains.
    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Acquire)
    }

    /// Position of an export in [`Metadata::exports`].
    pub fn export_index(&self, name: &str) -> Option<usize> {
        let exports = &self.metadata.exports;
        let at = self.exports_by_name.binary_search_by(|i| exports[*i as usize].name.as_str().cmp(name)).ok()?;
        Some(self.exports_by_name[at] as usize)
    }

    /// Position of a function in [`Metadata::escaped_funcs`], which is the number of its stable entry.
    pub fn entry_index(&self, func: u32) -> Option<usize> {
        self.metadata.escaped_funcs.binary_search(&func).ok()
    }

    /// The functions in the source text at an offset in the wasm module, by the module's own DWARF: first those that were
    /// inlined there, innermost first, last the one they were inlined into. Empty when the module does not tell. Reads the
    /// DWARF at each new offset: not for exception context.
    pub fn source_frames(&self, wasm_offset: u32) -> Arc<[SourceFrame]> {
        self.source_lines.lookup(&self.metadata, wasm_offset)
    }

    /// What keeps the ids of its types what they are.
    pub(crate) fn types(&self) -> &Arc<TypeShares> {
        &self.types
    }

    /// What the entries of its instances stand for, across versions.
    pub(crate) fn labels(&self) -> &Arc<EntryLabels> {
        self.labels.call_once(|| EntryLabels::of_module(&self.metadata))
    }

    /// Whether references to functions of an instance can reach places that outlive its dependency edges: foreign
    /// tables, globals, arguments of imported and results of exported functions.
    pub fn funcrefs_can_escape(&self) -> bool {
        self.funcrefs_can_escape
    }
}

impl fmt::Debug for CellModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let m = &self.metadata;
        let mut f = f.debug_struct("CellModule");
        f.field("module_name", &m.module_name).field("functions", &m.funcs.len());
        f.field("text_size", &m.image.text_size).finish_non_exhaustive()
    }
}

/// Bytes of the words that [`ModuleLayout::gate`] says where.
const GATE_WORDS: usize = 16;

/// Computes the layout; `None` when the object's own figures are inconsistent.
fn layout(object: &Loadable<'_>) -> Option<ModuleLayout> {
    let image = &object.metadata.image;
    let (rodata, data) = (image.rodata_offset as usize, image.data_offset as usize);
    let fits = object.text.len() <= rodata
        && rodata.is_multiple_of(PAGE_SIZE)
        && data.is_multiple_of(PAGE_SIZE)
        && rodata.checked_add(object.rodata.len())? <= data
        && image.text_size as usize == object.text.len()
        && image.rodata_size as usize == object.rodata.len()
        && data <= CELL_BYTES
        && image.data_size as usize <= CELL_BYTES
        && object.metadata.layout.size <= image.data_size;
    let eh_start = image.eh_frame_offset as usize;
    let eh_inside = eh_start >= rodata && eh_start + image.eh_frame_size as usize <= rodata + object.rodata.len();
    let entries = object.metadata.escaped_funcs.len();
    if !fits || !(eh_inside || image.eh_frame_size == 0) || entries > CELL_BYTES / ENTRY_SIZE / 2 {
        return None;
    }
    let is_gated = Concurrency::of(&object.metadata) == Concurrency::Gated;
    let (size, align) = match is_gated {
        true => (stub::region(entries * ENTRY_SIZE, entries), STUB_SIZE),
        false => (entries * ENTRY_SIZE, ENTRY_SIZE),
    };
    let behind = object.text.len().next_multiple_of(align);
    let (text, first_entry) = match behind + size <= rodata {
        true => (0, behind),
        false => (size.next_multiple_of(PAGE_SIZE), 0),
    };
    let first_stub = if is_gated { first_entry + stub::first(entries * ENTRY_SIZE) } else { 0 };
    let behind_data = text + data + (image.data_size as usize).next_multiple_of(16);
    let (gate, version_word) = if is_gated { (behind_data, behind_data + GATE_WORDS) } else { (0, behind_data) };
    let end = (version_word + 8 * (1 + version_table::HEADER + entries)).next_multiple_of(PAGE_SIZE);
    let ranges = ImageRanges { text: text + rodata, rodata: data - rodata, data: end - text - data };
    Some(ModuleLayout { ranges, entries, first_entry, first_stub, text, data: text + data, gate, version_word })
}

/// The frames of a module: text, entries, rodata at their places.
fn frames(object: &Loadable<'_>, layout: ModuleLayout, entries: &[u8]) -> Result<SharedFrames, MemoryError> {
    static GAP: [u8; PAGE_SIZE] = [0; PAGE_SIZE];
    let mut parts: [(usize, &[u8]); 3] =
        [(layout.text, &object.text), (layout.first_entry, entries), (layout.ranges.text, &object.rodata)];
    parts.sort_unstable_by_key(|p| p.0);
    let mut slices: Vec<&[u8]> = Vec::with_capacity(2 * parts.len());
    let mut end = 0;
    for (at, part) in parts {
        while end < at {
            let zeroes = (at - end).min(GAP.len());
            slices.push(&GAP[..zeroes]);
            end += zeroes;
        }
        if !part.is_empty() {
            slices.push(part);
        }
        end += part.len();
    }
    SharedFrames::for_image(&slices, layout.ranges)
}

/// Checks the object's unwind info. `None` without any.
fn unwind_table(object: &Loadable<'_>) -> Result<Option<Arc<UnwindTable>>, UnwindError> {
    let image = &object.metadata.image;
    let start = image.eh_frame_offset.saturating_sub(image.rodata_offset) as usize;
    let section = object.rodata.get(start..start + image.eh_frame_size as usize).unwrap_or_default();
    if section.is_empty() || object.text.is_empty() {
        return Ok(None);
    }
    UnwindTable::new(section, object.text.len(), image.eh_frame_offset as usize).map(Arc::new).map(Some)
}

/// Refuses indices that lead nowhere, so that the linker may rely on them.
fn check_indices(m: &Metadata) -> Result<(), &'static str> {
    let l = &m.layout;
    let inside = |offset: u32, bytes: usize| offset as usize + bytes <= l.size as usize;
    let ok = |condition, reason| if condition { Ok(()) } else { Err(reason) };
    ok(l.size >= wasm_cell::abi::HEADER_SIZE, "the data block lacks its header")?;
    ok(
        l.memories.len() == m.memories.len()
            && l.func_import_slots.len() == m.imported_funcs.len()
            && l.escaped_slots.len() == m.escaped_funcs.len()
            && l.tables.len() == m.tables.len()
            && l.globals.len() == m.globals.len()
            && m.imported_memories as usize <= m.memories.len()
            && m.imported_tables as usize <= m.tables.len()
            && m.imported_globals as usize <= m.globals.len(),
        "the data layout does not match the memories, tables and globals",
    )?;
    ok(
        l.memories.iter().chain(&l.tables).all(|o| inside(*o, 16) && o.is_multiple_of(8))
            && l.globals.iter().enumerate().all(|(i, o)| {
                let by_address = i < m.imported_globals as usize && m.globals.get(i).is_some_and(|g| g.ty.mutable);
                if by_address { inside(*o, 8) && o.is_multiple_of(8) } else { inside(*o, 16) && o.is_multiple_of(16) }
            })
            && l.func_import_slots.iter().chain(&l.escaped_slots).all(|o| inside(*o, 8) && o.is_multiple_of(8))
            && inside(l.builtin_slots, 8 * m.builtins.len()),
        "the data layout leaves the data block",
    )?;
    let types = m.types.len();
    ok(
        m.imported_funcs.iter().chain(m.funcs.iter().map(|f| &f.ty)).all(|t| (*t as usize) < types),
        "a function has no type",
    )?;
    ok(
        m.funcs.iter().all(|f| f.offset as usize + f.size as usize <= m.image.text_size as usize),
        "a function leaves the text section",
    )?;
    let funcs = m.func_count();
    ok(
        m.escaped_funcs.is_sorted() && m.escaped_funcs.iter().chain(&m.start).all(|f| (*f as usize) < funcs),
        "the list of escaped functions is wrong",
    )?;
    let export_exists = |item: &ExportItem| match item {
        ExportItem::Func(i) => m.escaped_funcs.binary_search(i).is_ok(),
        ExportItem::Table(i) => (*i as usize) < m.tables.len(),
        ExportItem::Memory(i) => (*i as usize) < m.memories.len(),
        ExportItem::Global(i) => (*i as usize) < m.globals.len(),
    };
    ok(m.exports.iter().all(|e| export_exists(&e.item)), "an export leads nowhere")?;
    let imports = m.imports.iter().fold([0usize; 4], |mut n, i| {
        use wasm_cell::types::ExternType::*;
        n[match i.ty {
            Func(_) => 0,
            Table(_) => 1,
            Memory(_) => 2,
            Global(_) => 3,
        }] += 1;
        n
    });
    let counts =
        [m.imported_funcs.len(), m.imported_tables as usize, m.imported_memories as usize, m.imported_globals as usize];
    ok(imports == counts, "the imports do not add up")?;
    ok(
        m.memories.iter().all(|m| matches!(m.ty.page_size_log2, 0 | 16)),
        "a memory has a page size that does not exist",
    )?;
    let rodata = m.image.rodata_size as usize;
    ok(
        m.data.iter().all(|d| d.rodata_offset as usize + d.size as usize <= rodata),
        "a data segment leaves the rodata section",
    )?;
    ok(
        m.data.iter().filter_map(|d| d.active.as_ref()).all(|(i, _)| (*i as usize) < m.memories.len()),
        "a data segment has no memory",
    )
}

/// Whether a reference of this type may be a function.
pub(crate) fn may_hold_func(r: &RefType) -> bool {
    matches!(r.heap, HeapType::Func | HeapType::Concrete(_))
}

/// Whether a value of one of these types may be a function.
pub(crate) fn any_func(types: &[ValType]) -> bool {
    types.iter().any(|t| matches!(t, ValType::Ref(r) if may_hold_func(r)))
}

fn funcrefs_can_escape(m: &Metadata) -> bool {
    use wasm_cell::types::ExternType;
    let through_import = m.imports.iter().any(|i| match &i.ty {
        ExternType::Func(t) => any_func(&t.params),
        ExternType::Table(t) => may_hold_func(&t.element),
        ExternType::Global(g) => g.mutable && any_func(&[g.content]),
        ExternType::Memory(_) => false,
    });
    let through_export = m.exports.iter().any(|e| match e.item {
        ExportItem::Func(i) => m.func_type(i).is_some_and(|t| any_func(&t.results)),
        ExportItem::Table(i) => m.tables.get(i as usize).is_some_and(|t| may_hold_func(&t.ty.element)),
        ExportItem::Global(i) => m.globals.get(i as usize).is_some_and(|g| any_func(&[g.ty.content])),
        ExportItem::Memory(_) => false,
    });
    through_import || through_export
}

/// Registers the types of an object, with its ids as far as they are free. `Some`: some id has to be another one.
pub(crate) fn claim_types(cell: &Arc<str>, m: &Metadata) -> Result<(TypeShares, Option<TypeCollision>), LoadError> {
    if m.types.len() != m.type_ids.len() {
        return Err(LoadError::Object { cell: cell.clone(), reason: "the numbers of types and type ids differ" });
    }
    Ok(TypeShares::claim(cell, m.types.iter().zip(m.type_ids.iter().copied()))?)
}

/// Code of one version of one cell, at its address.
#[derive(Debug)]
pub struct LoadedCode {
    cell: Arc<str>,
    version: u32,
    text: Range<usize>,
    module: Arc<CellModule>,
    /// Distinguishes it from every other code that was ever loaded.
    serial: u64,
    /// Who acts when it fails.
    supervision: Mutex<Option<Arc<Supervision>>>,
    is_supervised: AtomicBool,
    /// The instance whose code it is, while there is one: for exception handlers.
    pub(crate) instance: AtomicPtr<InstanceRecord>,
    /// Another version serves under its name.
    superseded: AtomicBool,
}

/// The next code's serial number; 0 is nobody's.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

impl LoadedCode {
    pub(crate) fn new(cell: Arc<str>, version: u32, text: Range<usize>, module: Arc<CellModule>) -> Arc<LoadedCode> {
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        let (supervision, is_supervised) = (Mutex::new(None), AtomicBool::new(false));
        Arc::new(LoadedCode {
            cell,
            version,
            text,
            module,
            serial,
            supervision,
            is_supervised,
            superseded: AtomicBool::new(false),
            instance: AtomicPtr::default(),
        })
    }

    /// Number that no other code has or had.
    pub(crate) fn serial(&self) -> u64 {
        self.serial
    }

    /// Who acts when it fails.
    pub(crate) fn supervision(&self) -> Option<Arc<Supervision>> {
        if self.is_supervised.load(Ordering::Acquire) { self.supervision.lock().clone() } else { None }
    }

    /// Says who acts when it fails.
    pub(crate) fn supervise(&self, by: Option<Arc<Supervision>>) {
        self.is_supervised.store(by.is_some(), Ordering::Release);
        let old = core::mem::replace(&mut *self.supervision.lock(), by);
        drop(old);
    }

    /// Name of the cell.
    pub fn cell(&self) -> &Arc<str> {
        &self.cell
    }

    /// Version of the cell, counted from 1 under its name.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Whether another version serves under its name.
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Relaxed)
    }

    pub(crate) fn set_superseded(&self, superseded: bool) {
        self.superseded.store(superseded, Ordering::Relaxed);
    }

    /// Addresses of the text section. Text offset 0 is at `text().start`.
    pub fn text(&self) -> Range<usize> {
        self.text.clone()
    }

    /// Addresses of the whole image: text, entries, read-only data, data block.
    pub(crate) fn image(&self) -> Range<usize> {
        let layout = self.module.layout;
        let start = self.text.start - layout.text;
        start..start + layout.ranges.text + layout.ranges.rodata + layout.ranges.data
    }

    /// The compiled module.
    pub fn module(&self) -> &Arc<CellModule> {
        &self.module
    }

    /// Types, imports, exports, layout, trap table.
    pub fn metadata(&self) -> &Metadata {
        self.module.metadata()
    }
}
