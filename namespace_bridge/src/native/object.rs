//! A native object as the reader left it: everything in it was checked against the file, nothing against other cells.
//!
//! Names are ranges of the file's bytes, which the object owns.
#![deny(unsafe_code)]

use alloc::vec::Vec;
use core::ops::Range;
use runtime_port::memory::round_up_to_page;

/// The part of the image that a section goes to; in the order in which parts lie in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Read and execute.
    Text,
    /// Read only, no address in it.
    Rodata,
    /// Written by the linker, then read only.
    Relro,
    /// Read and write.
    Data,
}

/// Number of parts.
pub(super) const PARTS: usize = 4;

/// What a section is to the loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Mapped as it is.
    Plain(Part),
    /// Zeroes, mapped behind the data.
    Zero,
    /// `.eh_frame`: rebuilt before it is mapped.
    EhFrame,
    /// Addresses of functions to run at load, in a certain order.
    Init(u32),
    /// Addresses of functions to run at unload, in a certain order.
    Fini(u32),
    /// Typed descriptions (`.planks.exports`): read, not mapped.
    Exports,
    /// Not loaded: debug info, notes, symbol tables, and what a group that came second has.
    Skipped,
}

/// A section.
#[derive(Debug)]
pub(super) struct Section {
    pub name: Range<usize>,
    pub kind: Kind,
    pub size: usize,
    pub align: usize,
    /// Its bytes in the file; empty for zeroes.
    pub bytes: Range<usize>,
    /// Sorted by offset.
    pub relocations: Vec<Relocation>,
}

/// A relocation whose symbol exists and whose field lies in its section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Relocation {
    pub offset: usize,
    pub typ: u32,
    pub symbol: usize,
    pub addend: i64,
}

/// Where a symbol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SymbolPlace {
    /// In another cell.
    Undefined,
    /// A number.
    Absolute(u64),
    /// At an offset (at most the size) of a section.
    Section(usize, usize),
    /// Zeroes that the loader makes room for: alignment.
    Common(usize),
}

/// What a symbol stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SymbolKind {
    /// Code.
    Function,
    /// Data, or nothing known.
    Data,
    /// A whole section.
    Section,
}

/// Who may use a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// This object.
    Local,
    /// Everybody; a second definition is an error.
    Global,
    /// Everybody; the first definition counts, and undefined it is zero.
    Weak,
}

/// A symbol.
#[derive(Debug)]
pub(super) struct Symbol {
    pub name: Range<usize>,
    pub place: SymbolPlace,
    pub kind: SymbolKind,
    pub scope: Scope,
    /// Not for other cells (hidden or internal visibility).
    pub hidden: bool,
    pub size: usize,
}

/// An object.
#[derive(Debug)]
pub(super) struct NativeObject {
    pub bytes: Vec<u8>,
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
}

impl NativeObject {
    /// The text in a range of the file; what is not UTF-8 has no name.
    pub fn text(&self, range: &Range<usize>) -> &str {
        self.bytes.get(range.clone()).and_then(|b| core::str::from_utf8(b).ok()).unwrap_or("?")
    }

    /// A symbol's name; a section symbol's is the section's.
    pub fn symbol_name(&self, index: usize) -> &str {
        let Some(symbol) = self.symbols.get(index) else { return "?" };
        match (symbol.kind, symbol.place) {
            (SymbolKind::Section, SymbolPlace::Section(section, _)) => self.section_name(section),
            _ => self.text(&symbol.name),
        }
    }

    /// A section's name.
    pub fn section_name(&self, index: usize) -> &str {
        self.sections.get(index).map_or("?", |s| self.text(&s.name))
    }

    /// The bytes of a section.
    pub fn section_bytes(&self, index: usize) -> &[u8] {
        self.sections.get(index).and_then(|s| self.bytes.get(s.bytes.clone())).unwrap_or(&[])
    }

    /// Whether a symbol is a definition that other cells may use.
    pub fn is_exported(&self, index: usize) -> bool {
        self.symbols.get(index).is_some_and(|s| {
            s.scope != Scope::Local && !s.hidden && self.is_loaded(s.place) && s.place != SymbolPlace::Undefined
        })
    }

    /// Whether a place is in the image.
    pub fn is_loaded(&self, place: SymbolPlace) -> bool {
        match place {
            SymbolPlace::Section(section, _) => {
                self.sections.get(section).is_some_and(|s| !matches!(s.kind, Kind::Skipped | Kind::Exports))
            }
            _ => true,
        }
    }
}

/// Rounds up to a multiple of `align`, a power of two.
pub(super) fn align_up(value: usize, align: usize) -> Option<usize> {
    Some(value.checked_add(align - 1)? & !(align - 1))
}

/// Rounds up to whole pages.
pub(super) fn page_up(value: usize) -> Option<usize> {
    round_up_to_page(value)
}
