//! The plan of an image: where each section goes, which functions have entries, which references need a slot or a stub.
//!
//! ```text
//! text    stubs, .text*
//! rodata  .rodata*, .gcc_except_table*, .eh_frame
//! relro   slots, .data.rel.ro*, .init_array, .fini_array
//! data    .data*, .bss*, common symbols
//! ```
//!
//! How a reference is made depends on what it refers to (D6):
//!
//! - A *call* inside the cell goes to the function itself: a version that is running ends as that version.
//! - The *address* of a function with an entry is its entry, wherever it is written: vtables, tables of functions, slots. For that a
//!   `lea` of the address becomes a `mov` from a slot, which has the same length, and the large model's distance from the table of slots
//!   becomes that of the entry.
//! - A call of another cell goes to a stub `jmp [slot]`; the base image in reach is called directly.
//! - A 32-bit address of a function is an entry too: the entries of an object that has such references lie in low addresses, and a function
//!   of another cell whose own entry does not gets one that leads to the stub.
#![deny(unsafe_code)]

use super::error::NativeError;
use super::names;
use super::object::{Kind, NativeObject, PARTS, Part, Relocation, SymbolKind, SymbolPlace, align_up, page_up};
use super::relocation::{self, Field, Formula, Reason, RelocationProblem};
use super::unwind_info::{self, UnwindInfo};
use crate::section::SectionType;
use alloc::{string::ToString, vec, vec::Vec};
use core::ops::Range;
use hashbrown::HashMap;
use kernel_config::limits::CELL_BYTES;

/// Bytes of a stub: `jmp [rip + slot]`, padded.
pub(super) const STUB_SIZE: usize = 16;

/// What a reference refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// A place in a section of the object.
    Own { section: usize, offset: usize },
    /// A stable entry of the cell.
    Entry(usize),
    /// A symbol that is not the object's, or is made by the loader (common, absolute).
    Symbol(usize),
}

/// Where everything goes.
#[derive(Debug)]
pub(super) struct Plan {
    /// Offset in the image of each section that is mapped.
    pub sections: Vec<Option<usize>>,
    /// Offset of each common symbol.
    pub common: HashMap<usize, usize>,
    /// Offsets of the parts, each from a page on.
    pub parts: [Range<usize>; PARTS],
    /// What people call the pieces of the parts, in order.
    pub pieces: Vec<(SectionType, &'static str, Range<usize>)>,
    /// Offset of the rebuilt `.eh_frame`.
    pub eh_frame: usize,
    pub unwind_info: UnwindInfo,
    /// Offset of the first slot; it is what `_GLOBAL_OFFSET_TABLE_` means.
    pub slot_base: usize,
    pub slots: Vec<Target>,
    slot_of: HashMap<Target, usize>,
    /// Symbols of other cells that have a stub; the first lies at the start of the text.
    pub stubs: Vec<usize>,
    stub_of: HashMap<usize, usize>,
    /// The function symbol that each entry stands for: an own one, or one of another cell whose 32-bit address is written.
    pub entries: Vec<usize>,
    entry_of: HashMap<usize, usize>,
    /// Symbols that the object refers to and does not define.
    pub imports: Vec<usize>,
    /// Whether addresses of the cell's own functions are written anywhere, so that they can be passed on.
    pub passes_on_entries: bool,
    /// Whether addresses are to fit into 32 bits.
    pub low: bool,
    /// Size of the image.
    pub size: usize,
    /// Alignment of the image: of the section that asks for most, at least a page.
    pub align: usize,
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// All relocations that no loader of cells could apply, or that the image gets too large.
    pub fn new(object: &NativeObject) -> Result<Plan, NativeError> {
        let mut plan = Plan {
            sections: vec![None; object.sections.len()],
            common: HashMap::new(),
            parts: [const { 0..0 }; PARTS],
            pieces: Vec::new(),
            eh_frame: 0,
            unwind_info: unwind_info::rebuild(object)?,
            slot_base: 0,
            slots: Vec::new(),
            slot_of: HashMap::new(),
            stubs: Vec::new(),
            stub_of: HashMap::new(),
            entries: Vec::new(),
            entry_of: HashMap::new(),
            imports: Vec::new(),
            passes_on_entries: false,
            low: false,
            size: 0,
            align: kernel_config::memory::PAGE_SIZE,
        };
        plan.choose_entries(object);
        plan.scan(object)?;
        plan.lay_out(object).ok_or(NativeError::TooLarge(CELL_BYTES))?;
        Ok(plan)
    }

    /// Every exported function, and every other one whose address is taken, gets an entry.
    fn choose_entries(&mut self, object: &NativeObject) {
        for index in (0..object.symbols.len()).filter(|i| object.is_exported(*i)) {
            if is_own_function(object, index) {
                self.add_entry(index);
            }
        }
        let functions = functions_by_place(object);
        for (section, relocation) in mapped_relocations(object) {
            let foreign = || narrow_address_of_other(object, relocation);
            if let Some(function) = address_taken(object, &functions, section, relocation).or_else(foreign) {
                self.add_entry(function);
                self.passes_on_entries = true;
            }
        }
    }

    fn add_entry(&mut self, symbol: usize) {
        if !self.entry_of.contains_key(&symbol) {
            self.entry_of.insert(symbol, self.entries.len());
            self.entries.push(symbol);
        }
    }

    /// The entry of a function symbol.
    pub fn entry_of(&self, symbol: usize) -> Option<usize> {
        self.entry_of.get(&symbol).copied()
    }

    /// Reserves slots and stubs, and notes which symbols are to be found elsewhere.
    fn scan(&mut self, object: &NativeObject) -> Result<(), NativeError> {
        let functions = functions_by_place(object);
        let mut problems = Vec::new();
        let mut needed = vec![false; object.symbols.len()];
        let rebuilt: Vec<Relocation> = self.unwind_info.relocations.clone();
        let of_unwind_info = object.sections.iter().position(|s| s.kind == Kind::EhFrame).unwrap_or(0);
        let all = mapped_relocations(object).chain(rebuilt.iter().map(|r| (of_unwind_info, r)));
        for (section, r) in all {
            let rule = match relocation::rule(r.typ) {
                Ok(rule) => rule,
                Err(reason) => {
                    problems.push(problem(object, section, r, reason));
                    continue;
                }
            };
            if let Some(needed) = needed.get_mut(r.symbol) {
                *needed = true;
            }
            let target = match self.target(object, &functions, section, r) {
                Ok(target) => target,
                Err(reason) => {
                    problems.push(problem(object, section, r, reason));
                    continue;
                }
            };
            self.low |= matches!(rule, (Formula::Absolute, Field::Unsigned32 | Field::Signed32));
            match rule {
                (Formula::SlotRelative | Formula::SlotOffset, _) => self.add_slot(target),
                (Formula::Relative, _) if is_lea(object, section, r) && matches!(target, Target::Entry(_)) => {
                    self.add_slot(target);
                }
                (Formula::Relative | Formula::Stub | Formula::StubOffset, _)
                | (Formula::Absolute, Field::Unsigned32 | Field::Signed32) => self.add_stub(object, target),
                _ => {}
            }
        }
        if !problems.is_empty() {
            return Err(NativeError::Relocations(problems));
        }
        let undefined = |i: &usize| object.symbols.get(*i).is_some_and(|s| s.place == SymbolPlace::Undefined);
        // Symbol 0 is no symbol.
        self.imports = (1..needed.len()).filter(|i| needed[*i]).filter(undefined).collect();
        Ok(())
    }

    fn add_slot(&mut self, target: Target) {
        if !self.slot_of.contains_key(&target) {
            self.slot_of.insert(target, self.slots.len());
            self.slots.push(target);
        }
    }

    /// A stub for a function of another cell.
    fn add_stub(&mut self, object: &NativeObject, target: Target) {
        let Target::Symbol(symbol) = target else { return };
        let undefined = object.symbols.get(symbol).is_some_and(|s| s.place == SymbolPlace::Undefined);
        if undefined && !self.stub_of.contains_key(&symbol) {
            self.add_slot(target);
            self.stub_of.insert(symbol, self.stubs.len());
            self.stubs.push(symbol);
        }
    }

    /// Offset of a target's slot.
    pub fn slot(&self, target: Target) -> Option<usize> {
        Some(self.slot_base + 8 * self.slot_of.get(&target)?)
    }

    /// Offset of a symbol's stub.
    pub fn stub(&self, symbol: usize) -> Option<usize> {
        Some(self.parts[Part::Text as usize].start + STUB_SIZE * self.stub_of.get(&symbol)?)
    }

    /// What a relocation refers to, without its addend if it is a symbol.
    pub fn target(
        &self,
        object: &NativeObject,
        functions: &HashMap<(usize, usize), usize>,
        section: usize,
        r: &Relocation,
    ) -> Result<Target, Reason> {
        if let Some(function) = address_taken(object, functions, section, r)
            && let Some(entry) = self.entry_of(function)
        {
            return Ok(Target::Entry(entry));
        }
        match object.symbols.get(r.symbol).map(|s| s.place) {
            Some(SymbolPlace::Section(index, offset)) => match object.sections.get(index).map(|s| s.kind) {
                None | Some(Kind::Skipped | Kind::Exports | Kind::EhFrame) => Err(Reason::NotLoaded),
                Some(_) => Ok(Target::Own { section: index, offset }),
            },
            Some(_) => Ok(Target::Symbol(r.symbol)),
            None => Err(Reason::NotLoaded),
        }
    }

    /// Pieces of one kind follow each other.
    fn add_piece(&mut self, typ: SectionType, name: &'static str, range: Range<usize>) {
        match self.pieces.last_mut() {
            _ if range.is_empty() => {}
            Some(last) if last.1 == name => last.2.end = range.end,
            _ => self.pieces.push((typ, name, range)),
        }
    }

    /// Gives every section its place; `None` when it all gets too large.
    fn lay_out(&mut self, object: &NativeObject) -> Option<()> {
        let mut end = 0usize;
        for part in [Part::Text, Part::Rodata, Part::Relro, Part::Data] {
            let start = page_up(end)?;
            end = start;
            match part {
                Part::Text => {
                    end = end.checked_add(self.stubs.len().checked_mul(STUB_SIZE)?)?;
                    self.add_piece(SectionType::Text, ".text", start..end);
                }
                Part::Relro => {
                    self.slot_base = end;
                    end = end.checked_add(self.slots.len().checked_mul(8)?)?;
                    self.add_piece(SectionType::Data, ".got", start..end);
                }
                _ => {}
            }
            for index in in_order(object, part) {
                let section = object.sections.get(index)?;
                self.align = self.align.max(section.align);
                end = align_up(end, section.align)?;
                self.sections[index] = Some(end);
                let (typ, name) = piece(section.kind, part, object.text(&section.name));
                self.add_piece(typ, name, end..end.checked_add(section.size)?);
                end += section.size;
            }
            if part == Part::Rodata && !self.unwind_info.bytes.is_empty() {
                self.eh_frame = align_up(end, unwind_info::ALIGN)?;
                end = self.eh_frame.checked_add(self.unwind_info.bytes.len())?;
                self.add_piece(SectionType::EhFrame, ".eh_frame", self.eh_frame..end);
            }
            if part == Part::Data {
                for (index, symbol) in object.symbols.iter().enumerate() {
                    if let SymbolPlace::Common(align) = symbol.place {
                        self.align = self.align.max(align);
                        end = align_up(end, align)?;
                        self.common.insert(index, end);
                        self.add_piece(SectionType::Bss, ".bss", end..end.checked_add(symbol.size)?);
                        end += symbol.size;
                    }
                }
            }
            self.parts[part as usize] = start..end;
        }
        self.size = page_up(end)?;
        (self.size <= CELL_BYTES).then_some(())
    }
}

/// What a section becomes a piece of.
fn piece(kind: Kind, part: Part, name: &str) -> (SectionType, &'static str) {
    match (kind, part) {
        (Kind::Zero, _) => (SectionType::Bss, ".bss"),
        (_, Part::Text) => (SectionType::Text, ".text"),
        (_, Part::Rodata) if is_except_table(name) => (SectionType::GccExceptTable, ".gcc_except_table"),
        (_, Part::Rodata) => (SectionType::Rodata, ".rodata"),
        (_, Part::Relro) => (SectionType::Data, ".data.rel.ro"),
        (_, Part::Data) => (SectionType::Data, ".data"),
    }
}

fn is_except_table(name: &str) -> bool {
    name.starts_with(".gcc_except_table")
}

/// Sections of a part in the order in which they are laid: as in the object, but those whose name is an identifier of C together
/// (`__start_NAME`, `__stop_NAME`), initialisers by priority, zeroes last.
fn in_order(object: &NativeObject, part: Part) -> Vec<usize> {
    let rank = |index: usize| {
        let section = object.sections.get(index)?;
        let name = object.text(&section.name);
        let identifier = if is_identifier(name) { name } else { "" };
        Some(match (section.kind, part) {
            (Kind::Plain(p), _) if p == part => (u8::from(is_except_table(name)), 0, identifier),
            (Kind::Init(priority), Part::Relro) => (1, priority, ""),
            (Kind::Fini(priority), Part::Relro) => (2, priority, ""),
            (Kind::Zero, Part::Data) => (3, 0, identifier),
            _ => return None,
        })
    };
    let mut order: Vec<_> = (0..object.sections.len()).filter_map(|i| Some((rank(i)?, i))).collect();
    order.sort_unstable();
    order.into_iter().map(|(_, i)| i).collect()
}

/// Whether a section of this name gets symbols for its start and end.
pub(super) fn is_identifier(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Every relocation of a section that is mapped as it is, with the section's index.
pub(super) fn mapped_relocations(object: &NativeObject) -> impl Iterator<Item = (usize, &Relocation)> {
    let mapped = |kind| matches!(kind, Kind::Plain(_) | Kind::Init(_) | Kind::Fini(_));
    let sections = object.sections.iter().enumerate().filter(move |(_, s)| mapped(s.kind));
    sections.flat_map(|(i, s)| s.relocations.iter().map(move |r| (i, r)))
}

/// Function symbols by section and offset; exported ones first, since their entry is the one everybody knows.
pub(super) fn functions_by_place(object: &NativeObject) -> HashMap<(usize, usize), usize> {
    let mut functions = HashMap::new();
    for index in 0..object.symbols.len() {
        if let SymbolPlace::Section(section, offset) = object.symbols[index].place
            && is_own_function(object, index)
        {
            let known = functions.entry((section, offset)).or_insert(index);
            if object.is_exported(index) && !object.is_exported(*known) {
                *known = index;
            }
        }
    }
    functions
}

fn is_own_function(object: &NativeObject, symbol: usize) -> bool {
    object.symbols.get(symbol).is_some_and(|s| {
        s.kind == SymbolKind::Function
            && matches!(s.place, SymbolPlace::Section(section, _)
                if object.sections.get(section).is_some_and(|s| s.kind == Kind::Plain(Part::Text)))
    })
}

/// The own function whose address a relocation takes.
fn address_taken(
    object: &NativeObject,
    functions: &HashMap<(usize, usize), usize>,
    section: usize,
    r: &Relocation,
) -> Option<usize> {
    let kind = object.sections.get(section)?.kind;
    if matches!(kind, Kind::Init(_) | Kind::Fini(_) | Kind::EhFrame) {
        return None;
    }
    let (formula, field) = relocation::rule(r.typ).ok()?;
    let addend = match formula {
        Formula::Absolute if field.width() >= 4 => r.addend,
        // Elsewhere than in code it would be a distance in a table of jumps.
        Formula::TableOffset if kind == Kind::Plain(Part::Text) => r.addend,
        Formula::Relative if is_lea(object, section, r) => r.addend.checked_add(4)?,
        Formula::SlotRelative | Formula::SlotOffset if !is_call(object, section, r) => 0,
        _ => return None,
    };
    let symbol = object.symbols.get(r.symbol)?;
    let SymbolPlace::Section(index, offset) = symbol.place else { return None };
    if addend == 0 && is_own_function(object, r.symbol) {
        return Some(r.symbol);
    }
    let offset = usize::try_from(i64::try_from(offset).ok()?.checked_add(addend)?).ok()?;
    functions.get(&(index, offset)).copied()
}

/// A symbol of another cell whose 32-bit address is written: of a function, or of what will be refused.
fn narrow_address_of_other(object: &NativeObject, r: &Relocation) -> Option<usize> {
    let is_narrow = matches!(relocation::rule(r.typ), Ok((Formula::Absolute, Field::Unsigned32 | Field::Signed32)));
    let symbol = object.symbols.get(r.symbol).filter(|_| is_narrow && r.symbol != 0)?;
    (symbol.place == SymbolPlace::Undefined).then_some(r.symbol)
}

/// The bytes of a section before a field, the nearest first.
fn before(object: &NativeObject, section: usize, r: &Relocation) -> Option<[u8; 2]> {
    let bytes = object.section_bytes(section);
    let at = r.offset.checked_sub(2)?;
    Some([*bytes.get(at + 1)?, *bytes.get(at)?])
}

/// Whether the field belongs to a call of, or jump to, the address in a slot: `call [rip + …]`, `jmp [rip + …]`.
fn is_call(object: &NativeObject, section: usize, r: &Relocation) -> bool {
    let is_text = object.sections.get(section).is_some_and(|s| s.kind == Kind::Plain(Part::Text));
    is_text && r.addend == -4 && matches!(before(object, section, r), Some([0x15 | 0x25, 0xff]))
}

/// Whether the field belongs to a `lea r64, [rip + …]`, which can be made `mov r64, [rip + …]`.
pub(super) fn is_lea(object: &NativeObject, section: usize, r: &Relocation) -> bool {
    let is_text = object.sections.get(section).is_some_and(|s| s.kind == Kind::Plain(Part::Text));
    let Some([modrm, 0x8d]) = before(object, section, r) else { return false };
    let rex = r.offset.checked_sub(3).and_then(|at| object.section_bytes(section).get(at).copied());
    is_text && modrm & 0xc7 == 0x05 && matches!(rex, Some(0x48 | 0x4c)) && relocation::width(r.typ) == 4
}

/// Describes a relocation that cannot be applied.
pub(super) fn problem(object: &NativeObject, section: usize, r: &Relocation, reason: Reason) -> RelocationProblem {
    RelocationProblem {
        symbol: names::display(object.symbol_name(r.symbol)),
        section: object.section_name(section).to_string(),
        offset: r.offset,
        relocation: relocation::name(r.typ),
        reason,
    }
}
