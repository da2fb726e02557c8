//! Source lines of wasm code, from the DWARF that its module carries.
//!
//! Nothing is parsed before somebody reads a backtrace. DWARF is untrusted input of any size and shape, read inside the
//! kernel: every step of the search is paid for from a budget, tables are only built after their size was checked, and
//! whatever does not parse gives no line instead of an error. So nothing is kept but an index of the units and the last
//! answers.
//!
//! Addresses of wasm DWARF count from the contents of the code section.
#![deny(unsafe_code)]

mod inlined;
mod program;
#[cfg(test)]
mod tests;
mod unit;

use alloc::{string::String, sync::Arc, vec::Vec};
use gimli::{Dwarf, EndianSlice, LittleEndian};
use runtime_port::backtrace::Location;
use spin::Mutex;
use unit::{Index, OpenUnit};
use wasm_cell::metadata::Metadata;

type Reader<'d> = EndianSlice<'d, LittleEndian>;

/// A function in the source text, and the place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFrame {
    /// Name of the function, demangled if it was of Rust.
    pub function: Option<String>,
    /// File, line and column.
    pub location: Option<Location>,
}

/// What one search may cost, in steps of some nanoseconds each.
const LOOKUP_STEPS: usize = 1 << 22;
/// What building the index of a module may cost.
const INDEX_STEPS: usize = 1 << 24;
/// Units that are tried for one address; in sound DWARF there is one.
const CANDIDATES: usize = 4;
/// Answers that are kept.
const KEPT: usize = 256;

/// Steps that are left.
struct Budget(usize);

impl Budget {
    /// Pays; `None` when the budget is exhausted, and from then on.
    fn spend(&mut self, steps: usize) -> Option<()> {
        match self.0.checked_sub(steps) {
            Some(left) => self.0 = left,
            None => {
                self.0 = 0;
                return None;
            }
        }
        Some(())
    }
}

/// Source lines of one module, found when asked for.
#[derive(Default)]
pub(crate) struct SourceLines(Mutex<Cache>);

#[derive(Default)]
struct Cache {
    index: Option<Index>,
    /// Last answers, by wasm offset, and which of them goes next.
    kept: Vec<(u32, Arc<[SourceFrame]>)>,
    next: usize,
}

impl SourceLines {
    /// The functions at an offset in the module, innermost first: those inlined there, then the one they were inlined
    /// into. Empty when the DWARF does not tell.
    pub(crate) fn lookup(&self, metadata: &Metadata, wasm_offset: u32) -> Arc<[SourceFrame]> {
        if !metadata.custom.iter().any(|(name, _)| name == ".debug_info") {
            return Arc::new([]);
        }
        // Who finds the cache in use works without it: a backtrace must not wait, it may be that of the holder.
        match self.0.try_lock() {
            Some(mut cache) => cache.lookup(metadata, wasm_offset),
            None => Cache::default().lookup(metadata, wasm_offset),
        }
    }
}

impl Cache {
    fn lookup(&mut self, metadata: &Metadata, wasm_offset: u32) -> Arc<[SourceFrame]> {
        if let Some((_, known)) = self.kept.iter().find(|(offset, _)| *offset == wasm_offset) {
            return known.clone();
        }
        let dwarf = dwarf(metadata);
        let index = self.index.get_or_insert_with(|| Index::new(&dwarf, &mut Budget(INDEX_STEPS)));
        let address = wasm_offset.checked_sub(metadata.code_section_offset);
        let mut budget = Budget(LOOKUP_STEPS);
        let frames = address.map(|a| find(&dwarf, index, u64::from(a), &mut budget)).unwrap_or_default();
        let found: Arc<[SourceFrame]> = frames.into();
        let answer = (wasm_offset, found.clone());
        if let Some(oldest) = self.kept.get_mut(self.next) {
            *oldest = answer;
        } else if self.kept.try_reserve(1).is_ok() {
            self.kept.push(answer);
        } else {
            return found;
        }
        self.next = (self.next + 1) % KEPT;
        found
    }
}

/// The module's DWARF sections.
fn dwarf(metadata: &Metadata) -> Dwarf<Reader<'_>> {
    let section = |id: gimli::SectionId| -> Result<Reader<'_>, core::convert::Infallible> {
        let found = metadata.custom.iter().find(|(name, _)| name == id.name());
        let bytes = found.map_or(&[][..], |(_, bytes)| bytes);
        // Strings end, so that looking for the end of one never costs more than its length.
        let strings = matches!(id, gimli::SectionId::DebugStr | gimli::SectionId::DebugLineStr);
        let sound = !strings || bytes.last() == Some(&0);
        Ok(EndianSlice::new(if sound { bytes } else { &[] }, LittleEndian))
    };
    match Dwarf::load(section) {
        Ok(dwarf) => dwarf,
        Err(never) => match never {},
    }
}

/// The functions and places at an address.
fn find(dwarf: &Dwarf<Reader<'_>>, index: &Index, address: u64, budget: &mut Budget) -> Vec<SourceFrame> {
    for at in index.candidates(address).into_iter().flatten() {
        let Some(unit) = OpenUnit::new(dwarf, at, budget) else { continue };
        let frames = frames(&unit, index, address, budget);
        if !frames.is_empty() {
            return frames;
        }
    }
    Vec::new()
}

/// What one unit knows of an address.
fn frames(unit: &OpenUnit<'_, '_>, index: &Index, address: u64, budget: &mut Budget) -> Vec<SourceFrame> {
    let mut location = program::find(unit, address, budget).and_then(|row| unit.location(row));
    let functions = inlined::find(unit, address, budget);
    if functions.is_empty() {
        return location.map(|at| SourceFrame { function: None, location: Some(at) }).into_iter().collect();
    }
    let mut frames = Vec::with_capacity(functions.len());
    for function in functions.iter().rev() {
        let name = inlined::name(unit, index, function.entry, budget);
        let caller = function.called_from.and_then(|row| unit.location(row));
        frames.push(SourceFrame { function: name, location: core::mem::replace(&mut location, caller) });
    }
    frames
}
