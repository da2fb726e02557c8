//! The instance record: what the data block's first word points to.
//!
//! Pinned in an [`Arc`]; compiled code hands its address to every builtin, host thunks to every `Caller`.

use crate::code::{LoadedCode, any_func, may_hold_func};
use crate::const_eval::{ConstContext, eval};
use crate::domain::{Domain, Membership};
use crate::function::Function;
use crate::global::{Global, read_bits, write_bits};
use crate::host::Thunk;
use crate::image::CellImage;
use crate::linear_memory::LinearMemory;
use crate::retire::Retirement;
use crate::table::Table;
use crate::text_index::TextRegistration;
use crate::typed::Func;
use crate::version_table::VersionTables;
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use runtime_port::unwind::UnwindRegistration;
use spin::Once;
use wasm_cell::metadata::{ConstExpr, ElementItems, Metadata};

/// State of one instance of a module.
///
/// The fields' order is the order in which they go: first nobody finds the code any more, last its pages are unmapped.
pub struct InstanceRecord {
    pub(crate) registrations: Once<(TextRegistration, Option<UnwindRegistration>)>,
    pub(crate) thunks: Once<Thunks>,
    /// What the linker wrote to the slots of escaped functions.
    pub(crate) escaped_entries: Once<Box<[usize]>>,
    code: Arc<LoadedCode>,
    memories: Box<[Arc<LinearMemory>]>,
    tables: Box<[Arc<Table>]>,
    imported_globals: Box<[Arc<Global>]>,
    /// Imported functions, by function index.
    imported_funcs: Box<[Function]>,
    dropped_data: Box<[AtomicBool]>,
    dropped_elements: Box<[AtomicBool]>,
    /// Its place in its state domain, if it has one.
    membership: Once<Membership>,
    image: Arc<CellImage>,
}

/// The thunks by which an instance reaches closures that it imports.
#[derive(Debug, Default)]
pub(crate) struct Thunks {
    /// What its calls go through.
    pub calls: Vec<Thunk>,
    /// What function references that can leave it hold. Closed when the cell ends: who calls by them is not waited for.
    pub references: Vec<Thunk>,
}

/// What an instance is made of.
pub(crate) struct Parts {
    pub code: Arc<LoadedCode>,
    pub image: Arc<CellImage>,
    pub memories: Box<[Arc<LinearMemory>]>,
    pub tables: Box<[Arc<Table>]>,
    pub imported_globals: Box<[Arc<Global>]>,
    pub imported_funcs: Box<[Function]>,
}

impl Drop for InstanceRecord {
    fn drop(&mut self) {
        // Shares of the code live on in traps.
        self.code.instance.store(core::ptr::null_mut(), Ordering::Release);
    }
}

impl InstanceRecord {
    pub(crate) fn new(parts: Parts) -> Arc<InstanceRecord> {
        let m = parts.code.metadata();
        let flags = |n: usize| (0..n).map(|_| AtomicBool::new(false)).collect();
        let instance = Arc::new(InstanceRecord {
            registrations: Once::new(),
            thunks: Once::new(),
            escaped_entries: Once::new(),
            dropped_data: flags(m.data.len()),
            dropped_elements: flags(m.elements.len()),
            memories: parts.memories,
            tables: parts.tables,
            imported_globals: parts.imported_globals,
            imported_funcs: parts.imported_funcs,
            membership: Once::new(),
            image: parts.image,
            code: parts.code,
        });
        instance.code.instance.store(Arc::as_ptr(&instance).cast_mut(), Ordering::Release);
        instance
    }

    /// The code it runs, with the cell's name and version.
    pub fn code(&self) -> &Arc<LoadedCode> {
        &self.code
    }

    /// Name of the cell.
    pub fn cell(&self) -> &str {
        self.code.cell()
    }

    /// Its image.
    pub fn image(&self) -> &Arc<CellImage> {
        &self.image
    }

    /// What to free when the cell ends, once no task can use it, with the tables by which entries led to it. Its functions' entries, with what they read, are
    /// not among what it is used by: who holds the address of one gets to another version, or to a trap.
    #[inline(never)]
    pub(crate) fn retirement(self: Arc<Self>, tables: Option<Arc<VersionTables>>) -> Retirement {
        let image = &self.image;
        let owned = self.memories.iter().skip(self.metadata().imported_memories as usize);
        let bytes = image.range().len() + owned.map(|m| m.bytes() as usize).sum::<usize>();
        // A return address may lie just behind the text. The address of the first byte of the image is also the end of what is
        // mapped below it, which is often a stack and so on record; nobody uses the image by it.
        let behind_start = |start: usize| start.max(image.range().start + 1);
        let text = behind_start(image.text().start)..image.text().end + 1;
        let mut ranges = Vec::with_capacity(4);
        ranges.extend([text, behind_start(image.rodata().start)..image.data().end]);
        // Who waits at its gate holds the address of a stub's data.
        ranges.extend(image.gate_stubs());
        if let Some(thunks) = self.thunks.get() {
            ranges.extend(thunks.calls.iter().chain(&thunks.references).map(Thunk::environment));
        }
        ranges.extend(tables.iter().flat_map(|t| t.ranges()));
        let (name, version) = (self.code.cell().clone(), self.code.version());
        Retirement { name, version, bytes, ranges, shows_in_frames: true, what: Arc::new((self, tables)) }
    }

    /// Types, imports, exports, layout.
    pub fn metadata(&self) -> &Metadata {
        self.code.metadata()
    }

    /// Memories, imported first.
    pub fn memories(&self) -> &[Arc<LinearMemory>] {
        &self.memories
    }

    /// Tables, imported first.
    pub fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }

    /// A memory by index.
    pub fn memory(&self, index: u32) -> Option<&Arc<LinearMemory>> {
        self.memories.get(index as usize)
    }

    /// A table by index.
    pub fn table(&self, index: u32) -> Option<&Arc<Table>> {
        self.tables.get(index as usize)
    }

    /// A global by index: the imported one, or a share of the one in the data block. Not for embedders: a global that is not
    /// exported may hold references to functions that nobody keeps.
    pub(crate) fn global(&self, index: u32) -> Option<Arc<Global>> {
        match self.imported_globals.get(index as usize) {
            Some(global) => Some(global.clone()),
            None => {
                let ty = self.metadata().globals.get(index as usize)?.ty;
                let global = Global::in_image(ty, self.global_address(index)?, self.image.clone());
                if let Some(membership) = self.membership().filter(|_| ty.mutable) {
                    global.domain().set(membership.first_domain());
                }
                Some(global)
            }
        }
    }

    /// The globals that it imports.
    pub(crate) fn imported_globals(&self) -> &[Arc<Global>] {
        &self.imported_globals
    }

    /// An imported function by index.
    pub(crate) fn imported_func(&self, index: u32) -> Option<&Function> {
        self.imported_funcs.get(index as usize)
    }

    /// Bits of a global's value.
    pub fn global_bits(&self, index: u32) -> Option<u128> {
        match self.imported_globals.get(index as usize) {
            Some(global) => Some(global.bits()),
            None => {
                let ty = self.metadata().globals.get(index as usize)?.ty;
                let address = self.global_address(index)?;
                // SAFETY: the value is 16 aligned bytes of the data block, which `image` keeps mapped.
                Some(unsafe { read_bits(address, ty.content) })
            }
        }
    }

    /// Address of the value of a defined global.
    pub(crate) fn global_address(&self, index: u32) -> Option<usize> {
        let offset = *self.metadata().layout.globals.get(index as usize)?;
        Some(self.image.data_address(offset, 16))
    }

    /// What `ref.func` yields for a function: its stable entry.
    pub fn func_address(&self, index: u32) -> Option<usize> {
        let k = self.code.module().entry_index(index)?;
        Some(self.image.read_word(*self.metadata().layout.escaped_slots.get(k)?))
    }

    /// Address of the code of a defined function.
    pub(crate) fn body_address(&self, index: u32) -> Option<usize> {
        let m = self.metadata();
        let defined = (index as usize).checked_sub(m.imported_funcs.len())?;
        Some(self.code.text().start + m.funcs.get(defined)?.offset as usize)
    }

    /// The state domain that it belongs to; `None` for a cell that any number of tasks may be inside of.
    pub fn domain(&self) -> Option<Arc<Domain>> {
        Some(self.membership.get()?.domain())
    }

    /// Its place in its state domain.
    pub(crate) fn membership(&self) -> Option<&Membership> {
        self.membership.get()
    }

    /// Makes it a member of its domain. To be called once, before anything can call it.
    pub(crate) fn join(&self, domain: Arc<Domain>) {
        let (code, image) = (&self.code, &self.image);
        let place = || Membership::new(domain, code.cell().clone(), code.version(), image.range(), image.gate_word());
        self.membership.call_once(place);
    }

    /// Says whether another version has taken this one's place. To be called by whoever redirects the entries, inside the domain,
    /// before or after that: callers that have waited at this version's gate then go by the stable entry again.
    pub fn set_superseded(&self, superseded: bool) {
        if let Some(membership) = self.membership() {
            membership.set_superseded(superseded);
        }
    }

    /// Where the stable entry of a defined function leads: what a version table holds for it.
    pub(crate) fn entry_target(&self, index: u32) -> Option<usize> {
        let body = self.body_address(index)?;
        Some(self.code.module().entry_index(index).and_then(|k| self.image.gate_stub(k)).unwrap_or(body))
    }

    /// Where the cell's own entry `k` leads: to a function it defines, or to one that it imports and exports again.
    pub(crate) fn version_target(&self, k: usize) -> Option<usize> {
        let func = *self.metadata().escaped_funcs.get(k)?;
        self.entry_target(func).or_else(|| self.func_address(func)).filter(|address| *address != 0)
    }

    /// A handle of a function that this instance defines, of this very version and past its gate: for who has quiesced it.
    pub(crate) fn func_of_this_version(self: &Arc<Self>, index: u32) -> Option<Func> {
        let (target, ty) = (self.body_address(index)?, self.metadata().func_type(index)?.clone());
        // SAFETY: code of this type, by the wasm convention; the instance keeps it mapped. Whoever takes a reference of it keeps the instance.
        Some(unsafe { Func::new(target, Arc::new(ty), self.clone()) })
    }

    /// Gives a defined global the value that the global of another version had.
    pub(crate) fn carry_global(&self, index: u32, bits: u128) {
        if let (Some(address), Some(global)) = (self.global_address(index), self.metadata().globals.get(index as usize))
        {
            // SAFETY: 16 aligned bytes of the data block; the types of both globals are equal, and no code of this instance runs.
            unsafe { write_bits(address, global.ty.content, bits) };
        }
    }

    /// Drops the segments that another version has dropped.
    pub(crate) fn carry_dropped_segments(&self, other: &InstanceRecord) {
        let carry = |mine: &[AtomicBool], others: &[AtomicBool]| {
            for (mine, other) in mine.iter().zip(others) {
                mine.store(other.load(Ordering::Acquire), Ordering::Release);
            }
        };
        carry(&self.dropped_data, &other.dropped_data);
        carry(&self.dropped_elements, &other.dropped_elements);
    }

    /// Replaces references to functions where the instance has them: slots, tables and globals, imported ones too. No code of it may run.
    pub(crate) fn translate_references(&self, map: impl Fn(u64) -> Option<u64>) {
        let (m, image) = (self.metadata(), &self.image);
        for slot in m.layout.escaped_slots.iter().chain(&m.layout.func_import_slots) {
            if let Some(other) = map(image.read_word(*slot) as u64) {
                image.write_word(*slot, other as usize);
            }
        }
        for (table, meta) in self.tables.iter().zip(&m.tables) {
            if may_hold_func(&meta.ty.element) {
                table.translate(&map);
            }
        }
        for (i, global) in m.globals.iter().enumerate() {
            if any_func(&[global.ty.content])
                && let Some(bits) = self.global_bits(i as u32)
                && let Some(other) = map(bits as u64)
            {
                match self.imported_globals.get(i) {
                    // SAFETY: another address of the same function.
                    Some(imported) => drop(unsafe { imported.set_bits(other.into()) }),
                    None => self.carry_global(i as u32, other.into()),
                }
            }
        }
    }

    /// Value of a constant expression.
    pub(crate) fn eval(&self, expr: &ConstExpr) -> Option<u128> {
        eval(expr, self)
    }

    /// Bytes of a data segment; none once it was dropped.
    pub(crate) fn data_segment(&self, index: u32) -> &[u8] {
        match (self.metadata().data.get(index as usize), self.dropped_data.get(index as usize)) {
            (Some(s), Some(dropped)) if !dropped.load(Ordering::Acquire) => self.image.segment(s.rodata_offset, s.size),
            _ => &[],
        }
    }

    /// Drops a data segment.
    pub(crate) fn drop_data(&self, index: u32) {
        if let Some(dropped) = self.dropped_data.get(index as usize) {
            dropped.store(true, Ordering::Release);
        }
    }

    /// Number of elements of an element segment; 0 once it was dropped.
    pub(crate) fn element_count(&self, index: u32) -> u64 {
        match (self.metadata().elements.get(index as usize), self.dropped_elements.get(index as usize)) {
            (Some(s), Some(dropped)) if !dropped.load(Ordering::Acquire) => match &s.items {
                ElementItems::Funcs(f) => f.len() as u64,
                ElementItems::Exprs(e) => e.len() as u64,
            },
            _ => 0,
        }
    }

    /// An element of a segment. Evaluated when it is used: expressions refer to immutable globals and functions only.
    pub(crate) fn element(&self, segment: u32, at: u64) -> u64 {
        let value = self.metadata().elements.get(segment as usize).and_then(|s| match &s.items {
            ElementItems::Funcs(f) => self.func_address(*f.get(at as usize)?).map(|a| a as u128),
            ElementItems::Exprs(e) => self.eval(e.get(at as usize)?),
        });
        value.unwrap_or(0) as u64
    }

    /// Drops an element segment.
    pub(crate) fn drop_elements(&self, index: u32) {
        if let Some(dropped) = self.dropped_elements.get(index as usize) {
            dropped.store(true, Ordering::Release);
        }
    }
}

impl fmt::Debug for InstanceRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("InstanceRecord");
        f.field("cell", &self.cell()).field("memories", &self.memories).field("tables", &self.tables);
        f.finish_non_exhaustive()
    }
}

impl ConstContext for InstanceRecord {
    fn global(&self, index: u32) -> Option<u128> {
        self.global_bits(index)
    }

    fn func(&self, index: u32) -> Option<usize> {
        self.func_address(index)
    }
}
