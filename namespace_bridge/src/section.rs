//! Loaded sections: what symbols name and dependency edges join (Theseus: `crate_metadata`).
//!
//! A wasm cell has one section per export and four for the parts of its image; a native cell one per definition. An edge
//! is kept on both sides: [`StrongDependency`] keeps what it points to alive, [`WeakDependent`] points back.
#![deny(unsafe_code)]

use crate::cell::LoadedCrate;
use crate::entries::EntryBlock;
use crate::function::Function;
use crate::global::Global;
use crate::linear_memory::LinearMemory;
use crate::native::NativeImage;
use crate::table::Table;
use alloc::{
    sync::{Arc, Weak},
    vec::Vec,
};
use core::fmt;
use runtime_port::memory::VirtualAddress;
use spin::RwLock;
use wasm_cell::types::ExternType;

/// A shared section.
pub type StrongSectionRef = Arc<LoadedSection>;
/// A reference that does not keep the section.
pub type WeakSectionRef = Weak<LoadedSection>;

/// Kind of a section (Theseus: `crate_metadata_serde::SectionType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SectionType {
    /// Code.
    Text,
    /// Read-only data.
    Rodata,
    /// Initialised data: data blocks, tables, globals.
    Data,
    /// Data that starts as zeroes: linear memories.
    Bss,
    /// Cleanup tables of the unwinder.
    GccExceptTable,
    /// Unwind info.
    EhFrame,
}

impl SectionType {
    /// Its name in an object file.
    pub fn name(self) -> &'static str {
        match self {
            SectionType::Text => ".text",
            SectionType::Rodata => ".rodata",
            SectionType::Data => ".data",
            SectionType::Bss => ".bss",
            SectionType::GccExceptTable => ".gcc_except_table",
            SectionType::EhFrame => ".eh_frame",
        }
    }
}

/// `R_X86_64_NONE`: nothing was written; the section stands for the other one.
pub const R_X86_64_NONE: u32 = 0;
/// `R_X86_64_64` (psABI, table 4.9): the section's address stands in 8 bytes.
pub const R_X86_64_64: u32 = 1;
/// `R_X86_64_COPY`: the section's content was copied (immutable globals).
pub const R_X86_64_COPY: u32 = 5;

/// Where and how a dependency was written (Theseus: `RelocationEntry`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RelocationEntry {
    /// ELF relocation type.
    pub typ: u32,
    /// Added to the address.
    pub addend: usize,
    /// Offset in the section that depends.
    pub offset: usize,
}

impl RelocationEntry {
    /// Whether the address itself was written.
    pub fn is_absolute(&self) -> bool {
        self.typ == R_X86_64_64
    }
}

/// "I depend on `section`": keeps it alive.
#[derive(Debug)]
pub struct StrongDependency {
    /// What is depended on.
    pub section: StrongSectionRef,
    /// Where it was written, in the section that holds this.
    pub relocation: RelocationEntry,
}

/// "`section` depends on me".
#[derive(Debug)]
pub struct WeakDependent {
    /// Who depends.
    pub section: WeakSectionRef,
    /// Where it was written, in `section`.
    pub relocation: RelocationEntry,
}

/// Both kinds of edges of a section.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct LoadedSectionInner {
    /// Forward edges.
    pub sections_i_depend_on: Vec<StrongDependency>,
    /// Back edges. Some may be dead.
    pub sections_dependent_on_me: Vec<WeakDependent>,
    /// The section of another version that has taken its place: who comes to depend on this one depends on that.
    pub(crate) successor: WeakSectionRef,
}

/// What a section is to the linker.
#[derive(Debug, Clone)]
pub enum SectionItem {
    /// A function.
    Func(Function),
    /// A linear memory.
    Memory(Arc<LinearMemory>),
    /// A table.
    Table(Arc<Table>),
    /// A global.
    Global(Arc<Global>),
    /// A symbol of a native cell without a typed description.
    Native(NativeSymbol),
    /// A part of an image, nothing that could be imported.
    Part,
}

/// A symbol of a native cell: for native cells; wasm cells need a typed description.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum NativeSymbol {
    /// A function.
    Func {
        /// The entries its address belongs to.
        block: Arc<EntryBlock>,
        /// Its address: a stable entry of `block`.
        entry: usize,
        /// Whether another definition may stand for it.
        weak: bool,
    },
    /// Data.
    Data {
        /// Its address.
        address: usize,
        /// The image it lies in, which stays as long as anybody depends on it.
        image: Arc<NativeImage>,
        /// Whether another definition may stand for it.
        weak: bool,
    },
}

impl NativeSymbol {
    /// Whether another definition may stand for it.
    pub fn is_weak(&self) -> bool {
        match self {
            NativeSymbol::Func { weak, .. } | NativeSymbol::Data { weak, .. } => *weak,
        }
    }
}

impl SectionItem {
    /// Its type now (memories and tables: with their current size as minimum).
    pub fn ty(&self) -> Option<ExternType> {
        Some(match self {
            SectionItem::Func(f) => ExternType::Func(f.ty().clone()),
            SectionItem::Memory(m) => ExternType::Memory(m.ty()),
            SectionItem::Table(t) => ExternType::Table(t.ty()),
            SectionItem::Global(g) => ExternType::Global(g.ty()),
            SectionItem::Native(_) | SectionItem::Part => return None,
        })
    }

    /// Lets go of cells that failed to load but live on in this table or global.
    pub(crate) fn release_kept(&self) {
        match self {
            SectionItem::Table(table) => table.release_kept(),
            SectionItem::Global(global) => global.release_kept(),
            _ => {}
        }
    }
}

/// A section of a loaded cell.
#[non_exhaustive]
pub struct LoadedSection {
    /// `cell::export`, or the section's name in object files.
    pub name: Arc<str>,
    /// Its kind.
    pub typ: SectionType,
    /// Whether others may link to it.
    pub global: bool,
    /// Where it lies: code, not its stable entry.
    pub virt_addr: VirtualAddress,
    /// Bytes; 0 when unknown (native functions).
    pub size: usize,
    /// The cell it belongs to.
    pub parent_crate: Weak<LoadedCrate>,
    /// What it is to the linker.
    pub item: SectionItem,
    /// Edges.
    pub inner: RwLock<LoadedSectionInner>,
}

impl fmt::Debug for LoadedSection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut f = f.debug_struct("LoadedSection");
        f.field("name", &self.name).field("typ", &self.typ);
        f.field("virt_addr", &self.virt_addr).field("size", &self.size).finish_non_exhaustive()
    }
}

impl LoadedSection {
    pub(crate) fn new(
        name: Arc<str>,
        typ: SectionType,
        range: core::ops::Range<usize>,
        parent_crate: Weak<LoadedCrate>,
        item: SectionItem,
    ) -> StrongSectionRef {
        Arc::new(LoadedSection {
            name,
            typ,
            global: !matches!(item, SectionItem::Part),
            virt_addr: VirtualAddress::new_canonical(range.start),
            size: range.len(),
            parent_crate,
            item,
            inner: RwLock::new(LoadedSectionInner::default()),
        })
    }

    /// The name without the cell's.
    pub fn export_name(&self) -> &str {
        match self.parent_crate.upgrade() {
            Some(cell) => {
                self.name.strip_prefix(&*cell.crate_name).and_then(|n| n.strip_prefix("::")).unwrap_or(&self.name)
            }
            None => &self.name,
        }
    }

    /// Position of the edge from `dependent`, if it depends on this section.
    pub fn find_weak_dependent(&self, dependent: &StrongSectionRef) -> Option<usize> {
        let edges = &self.inner.read().sections_dependent_on_me;
        edges.iter().position(|e| core::ptr::eq(e.section.as_ptr(), Arc::as_ptr(dependent)))
    }

    /// Records that `dependent` depends on `self` through `relocation`, on both sides.
    pub(crate) fn add_dependent(self: &Arc<Self>, dependent: &Arc<LoadedSection>, relocation: RelocationEntry) {
        let mut inner = self.inner.write();
        if let Some(successor) = inner.successor.upgrade() {
            drop(inner);
            return successor.add_dependent(dependent, relocation);
        }
        let edges = &mut inner.sections_dependent_on_me;
        // Dead edges of unloaded dependents are dropped when the list would grow, so its length stays proportional to
        // the live ones.
        if edges.len() == edges.capacity() {
            edges.retain(|d| d.section.strong_count() > 0);
        }
        edges.push(WeakDependent { section: Arc::downgrade(dependent), relocation });
        drop(inner);
        let mut inner = dependent.inner.write();
        inner.sections_i_depend_on.push(StrongDependency { section: self.clone(), relocation });
    }

    /// The cells that depend on this section and still live, each once.
    pub fn dependents(&self) -> Vec<Arc<LoadedCrate>> {
        let mut cells: Vec<Arc<LoadedCrate>> = Vec::new();
        for edge in &self.inner.read().sections_dependent_on_me {
            if let Some(cell) = edge.section.upgrade().and_then(|s| s.parent_crate.upgrade())
                && !cells.iter().any(|c| Arc::ptr_eq(c, &cell))
            {
                cells.push(cell);
            }
        }
        cells
    }

    /// Who depends on it depends on `successor` from now on: edges on both sides, those to come too. Returns how many there were.
    pub(crate) fn hand_dependents_to(self: &Arc<Self>, successor: &Arc<LoadedSection>) -> usize {
        // The successor may be a version that comes back.
        successor.inner.write().successor = WeakSectionRef::new();
        let edges = {
            let mut inner = self.inner.write();
            inner.successor = Arc::downgrade(successor);
            core::mem::take(&mut inner.sections_dependent_on_me)
        };
        let mut moved = 0;
        for edge in edges {
            let Some(dependent) = edge.section.upgrade() else { continue };
            let taken = {
                let depends_on = &mut dependent.inner.write().sections_i_depend_on;
                let same = |d: &StrongDependency| {
                    Arc::ptr_eq(&d.section, self) && d.relocation.offset == edge.relocation.offset
                };
                depends_on.iter().position(same).map(|i| depends_on.remove(i))
            };
            if taken.is_some() {
                successor.add_dependent(&dependent, edge.relocation);
                moved += 1;
            }
            // Sections are dropped only while nothing is locked.
            drop(taken);
        }
        moved
    }
}
