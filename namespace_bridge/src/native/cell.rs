//! What a native cell consists of once it is loaded.

use super::adapters::Adapters;
use super::attribution::NameRegistration;
use super::image::NativeImage;
use super::lifecycle;
use super::object::{Part, SymbolKind, SymbolPlace};
use super::stage::{Staged, is_weak};
use crate::cell::{LoadedCrate, symbol_name};
use crate::entries::EntryBlock;
use crate::entry_plan::CellEntries;
use crate::function::{Function, Signature, WasmFunction};
use crate::retire::{self, Retirement};
use crate::section::{LoadedSection, NativeSymbol, RelocationEntry, SectionItem, SectionType, StrongSectionRef};
use alloc::{
    boxed::Box,
    sync::{Arc, Weak},
    vec::Vec,
};
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use hashbrown::HashMap;
use runtime_port::unwind::UnwindRegistration;
use spin::RwLock;

/// What a native cell consists of.
pub(crate) struct ObjectBody {
    pub(crate) version: u32,
    pub(crate) entries: Arc<CellEntries>,
    /// `None` once the cell is unloaded.
    live: RwLock<Option<Arc<Live>>>,
    /// Whether all its initialisers have run.
    initialised: AtomicBool,
    image: Range<usize>,
    text: Range<usize>,
    functions: usize,
    data_bytes: usize,
    /// Typed exports in the order of their descriptions, then symbols.
    exports: Box<[StrongSectionRef]>,
    /// Positions in `exports` by name without the cell's; a typed export comes before a symbol of its name.
    by_name: HashMap<Box<str>, usize>,
    /// Pieces of the image, then local symbols.
    parts: Box<[StrongSectionRef]>,
    /// Symbols without a description, as functions of the type that an importer said they have.
    assumed: RwLock<Vec<StrongSectionRef>>,
}

/// What goes when nobody can be inside any more. The fields' order is the order in which they go.
#[derive(Debug)]
pub(crate) struct Live {
    pub(super) _unwind: Option<UnwindRegistration>,
    pub(super) names: NameRegistration,
    pub(super) adapters: [Adapters; 2],
    pub(super) handle: usize,
    pub(super) finalisers: Vec<usize>,
    pub(super) image: Arc<NativeImage>,
}

/// The sections of a cell that is made.
pub(super) struct Sections {
    exports: Vec<StrongSectionRef>,
    by_name: HashMap<Box<str>, usize>,
    parts: Vec<StrongSectionRef>,
    /// Positions in `exports` by symbol.
    pub by_symbol: HashMap<usize, usize>,
}

impl Sections {
    /// Makes a section per piece of the image, symbol and typed export.
    pub fn new(staged: &Staged, image: &Arc<NativeImage>, me: &Weak<LoadedCrate>) -> Sections {
        let start = image.start();
        let make =
            |name: Arc<str>, typ, range: Range<usize>, item| LoadedSection::new(name, typ, range, me.clone(), item);
        let pieces = staged.plan.pieces.iter();
        let mut parts: Vec<_> = pieces
            .map(|(typ, name, r)| make((*name).into(), *typ, start + r.start..start + r.end, SectionItem::Part))
            .collect();
        let (mut exports, mut by_name, mut by_symbol) = (Vec::new(), HashMap::new(), HashMap::new());
        let sizes: HashMap<usize, usize> =
            symbols(staged).filter(|s| s.1.kind == SymbolKind::Function).map(|s| (s.2, s.1.size)).collect();
        for (i, d) in staged.descriptions.iter().enumerate() {
            let Some((block, entry)) = staged.entries.of(staged.plan.entries.len() + i) else { continue };
            let at = staged.described_code(d).unwrap_or(entry);
            let size = sizes.get(&at).copied().unwrap_or(0);
            let signature = Signature::Described(Arc::new(d.ty.clone()));
            let item = SectionItem::Func(Function::Wasm(WasmFunction { block, entry, signature }));
            by_name.insert(d.name.as_str().into(), exports.len());
            exports.push(make(symbol_name(&staged.name, &d.name), SectionType::Text, at..at + size, item));
        }
        for (index, symbol, at) in symbols(staged) {
            let name: Arc<str> = super::names::display(staged.object.symbol_name(index)).into();
            let range = at..at.saturating_add(symbol.size);
            let typ = piece_at(staged, at.wrapping_sub(start));
            if !staged.object.is_exported(index) {
                // Labels and file names are nothing to look up.
                if symbol.size > 0 {
                    parts.push(make(name, typ, range, SectionItem::Part));
                }
                continue;
            }
            let weak = is_weak(&staged.object, index);
            let native = match staged.plan.entry_of(index).and_then(|k| staged.entries.of(k)) {
                Some((block, entry)) => NativeSymbol::Func { block, entry, weak },
                None => NativeSymbol::Data { address: at, image: image.clone(), weak },
            };
            let export = name.strip_prefix(&*staged.name).and_then(|n| n.strip_prefix("::")).unwrap_or(&name);
            by_name.entry(export.into()).or_insert(exports.len());
            by_symbol.insert(index, exports.len());
            exports.push(make(name.clone(), typ, range, SectionItem::Native(native)));
        }
        Sections { exports, by_name, parts, by_symbol }
    }

    /// The section of an exported symbol.
    pub fn of_symbol(&self, symbol: usize) -> Option<&StrongSectionRef> {
        self.exports.get(*self.by_symbol.get(&symbol)?)
    }

    /// The section of a typed export.
    pub fn of_description(&self, index: usize) -> Option<&StrongSectionRef> {
        self.exports.get(index)
    }

    /// The piece of the image that an address lies in.
    pub fn piece(&self, address: usize) -> Option<&StrongSectionRef> {
        self.parts.iter().find(|s| (s.virt_addr.value()..s.virt_addr.value() + s.size).contains(&address))
    }

    /// Names of the functions, for backtraces.
    pub fn functions(&self) -> Vec<(usize, usize, Arc<str>)> {
        let symbols =
            self.exports.iter().chain(&self.parts).filter(|s| s.typ == SectionType::Text && !s.name.starts_with('.'));
        let mut functions: Vec<_> = symbols.map(|s| (s.virt_addr.value(), s.size, s.name.clone())).collect();
        functions.sort_unstable();
        functions.dedup_by_key(|f| f.0);
        functions
    }
}

/// Symbols that have a place: index, symbol, address.
fn symbols(staged: &Staged) -> impl Iterator<Item = (usize, &super::object::Symbol, usize)> {
    let all = staged.object.symbols.iter().enumerate().skip(1);
    let named = all.filter(|(i, s)| {
        s.kind != SymbolKind::Section && s.place != SymbolPlace::Undefined && !staged.object.symbol_name(*i).is_empty()
    });
    named.filter_map(|(i, s)| Some((i, s, staged.address(i)?)))
}

fn piece_at(staged: &Staged, offset: usize) -> SectionType {
    let piece = staged.plan.pieces.iter().find(|(_, _, r)| r.contains(&offset));
    piece.map_or(SectionType::Rodata, |(typ, ..)| *typ)
}

impl ObjectBody {
    pub(super) fn new(staged: &Staged, sections: &Sections, live: Live) -> ObjectBody {
        let image = live.image.clone();
        ObjectBody {
            version: staged.version,
            entries: staged.entries.clone(),
            image: image.range(),
            text: image.part(Part::Text),
            functions: sections.functions().len(),
            data_bytes: image.part(Part::Data).len(),
            exports: sections.exports.clone().into(),
            by_name: sections.by_name.clone(),
            parts: sections.parts.clone().into(),
            assumed: RwLock::new(Vec::new()),
            live: RwLock::new(Some(Arc::new(live))),
            initialised: AtomicBool::new(false),
        }
    }

    /// Addresses of the image.
    pub(crate) fn image(&self) -> Range<usize> {
        self.image.clone()
    }

    /// Addresses of the code.
    pub(crate) fn text(&self) -> Range<usize> {
        self.text.clone()
    }

    /// Number of functions that have a name.
    pub(crate) fn functions(&self) -> usize {
        self.functions
    }

    /// Number of symbols without a type.
    pub(crate) fn symbols(&self) -> usize {
        self.exports.iter().filter(|s| matches!(s.item, SectionItem::Native(_))).count()
    }

    /// Bytes of data that can be written.
    pub(crate) fn data_bytes(&self) -> usize {
        self.data_bytes
    }

    pub(crate) fn is_unloaded(&self) -> bool {
        self.live.read().is_none()
    }

    /// Sections that others may link to.
    pub(crate) fn global_sections(&self) -> Vec<StrongSectionRef> {
        let assumed = self.assumed.read();
        self.exports.iter().chain(&*assumed).cloned().collect()
    }

    /// Pieces of the image and local symbols.
    pub(crate) fn parts(&self) -> &[StrongSectionRef] {
        &self.parts
    }

    pub(crate) fn export(&self, name: &str) -> Option<StrongSectionRef> {
        self.exports.get(*self.by_name.get(name)?).cloned()
    }

    /// The sections it depends on, with where each is written in its pieces.
    pub(crate) fn dependencies(&self) -> Vec<(StrongSectionRef, RelocationEntry)> {
        let mut all = Vec::new();
        for part in &self.parts {
            all.extend(part.inner.read().sections_i_depend_on.iter().map(|d| (d.section.clone(), d.relocation)));
        }
        all
    }

    /// Adds a symbol under the type that an importer said it has.
    pub(crate) fn assume(&self, section: StrongSectionRef) {
        self.assumed.write().push(section);
    }

    /// Symbols under types that importers said they have.
    pub(crate) fn assumed(&self) -> Vec<StrongSectionRef> {
        self.assumed.read().clone()
    }

    /// Runs the finalisers, closes the entries, lets go of what it depends on, and frees the code when no task can be inside.
    /// Returns the entries that must stay.
    /// Another version may have taken its place: then the entries are that one's, but for those that nothing is behind.
    pub(crate) fn shut_down(&self, superseded: bool) -> Vec<Arc<EntryBlock>> {
        let Some(live) = self.live.write().take() else { return Vec::new() };
        self.finalise(&live);
        if superseded {
            self.let_go(live);
            let mut kept = self.entries.to_keep();
            kept.retain(|b| b.is_gone());
            return kept;
        }
        self.entries.close();
        self.let_go(live);
        self.entries.to_keep()
    }

    /// Name of the function at an address.
    pub(super) fn function_at(&self, address: usize) -> Option<Arc<str>> {
        self.live.read().as_ref()?.names.function(address)
    }

    /// Notes that all its initialisers have run.
    pub(super) fn set_initialised(&self) {
        self.initialised.store(true, Ordering::Relaxed);
    }

    /// Undoes what initialisers did: what they registered runs, and the finalisers if all of them have run.
    fn finalise(&self, live: &Live) {
        let finalisers = if self.initialised.load(Ordering::Relaxed) { &live.finalisers[..] } else { &[] };
        // SAFETY: the linker checked the addresses, and `live` keeps the image mapped.
        unsafe { lifecycle::finalise(self.entries.own().cell(), live.handle, finalisers) };
    }

    /// Ends a cell that never was in service.
    pub(super) fn abandon(&self) {
        let Some(live) = self.live.write().take() else { return };
        self.finalise(&live);
        self.entries.close();
        self.let_go(live);
    }

    /// Ends a cell that was to succeed another and could not: the entries it adopted are not its own. `exposed`: code of it has run, and
    /// addresses of its own ones may be held.
    pub(crate) fn give_up(&self, exposed: bool) {
        let Some(live) = self.live.write().take() else { return };
        self.finalise(&live);
        self.entries.own().retire();
        if exposed {
            crate::namespace::keep_for_ever(self.entries.own().clone());
        }
        self.let_go(live);
    }

    fn let_go(&self, live: Arc<Live>) {
        let mut edges = Vec::new();
        for part in &self.parts {
            edges.append(&mut part.inner.write().sections_i_depend_on);
        }
        let retirement = self.retirement(live);
        retire::retire_own(retirement);
        drop(edges);
    }

    /// What to free once no task can use it, with the tables by which entries led to it.
    #[inline(never)]
    fn retirement(&self, live: Arc<Live>) -> Retirement {
        let tables = self.entries.take_tables();
        // The first byte of the image is also the end of what is mapped below it, and a return address may be the end of the text.
        let image = self.image.start + 1..self.image.end + 1;
        let mut ranges: Vec<Range<usize>> = core::iter::once(image).collect();
        ranges.extend(live.adapters.iter().filter_map(Adapters::range));
        ranges.extend(tables.iter().flat_map(|t| t.ranges()));
        let (name, version, bytes) = (self.entries.own().cell().clone(), self.version, self.image.len());
        Retirement { name, version, bytes, ranges, shows_in_frames: false, what: Arc::new((live, tables)) }
    }
}

impl LoadedCrate {
    /// The address of a symbol of a native cell, by its name in the symbol map or without the cell's: the stable entry of a
    /// function, the place of data. `None` for other cells, and once the cell is unloaded.
    ///
    /// A function's entry may be kept anywhere from now on: it follows later versions, and traps when there is none. A call
    /// that is not inside [`crate::catch_trap`] must not run while the cell is unloaded: only tasks inside a catch are waited for.
    pub fn native_address(&self, symbol: &str) -> Option<usize> {
        let body = self.object_body().filter(|b| !b.is_unloaded())?;
        let short = symbol.strip_prefix(&*self.crate_name).and_then(|n| n.strip_prefix("::")).unwrap_or(symbol);
        let matches = |s: &&StrongSectionRef| &*s.name == symbol || s.export_name() == short;
        let mut natives = body.exports.iter().filter(|s| matches!(s.item, SectionItem::Native(_)));
        match &natives.find(matches)?.item {
            SectionItem::Native(NativeSymbol::Func { entry, block, .. }) => {
                block.mark_escaped();
                Some(*entry)
            }
            SectionItem::Native(NativeSymbol::Data { address, .. }) => Some(*address),
            _ => None,
        }
    }
}
