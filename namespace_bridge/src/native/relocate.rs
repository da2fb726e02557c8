//! Writing an image: the sections' bytes, slots, stubs, and every relocation, checked.
#![deny(unsafe_code)]

use super::error::NativeError;
use super::image::WritableImage;
use super::object::{Kind, NativeObject, Relocation, SymbolPlace};
use super::plan::{Plan, STUB_SIZE, Target, functions_by_place, is_lea, mapped_relocations, problem};
use super::relocation::{self, Field, Formula, Reason};
use crate::section::R_X86_64_64;
use alloc::vec::Vec;
use hashbrown::HashMap;

/// What a symbol of another cell is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Import {
    /// Its address: a function's entry.
    pub address: usize,
    pub is_function: bool,
    pub size: usize,
    /// Whether it lies in the importer's own image.
    pub near: bool,
    /// Whether it is where it is for ever: no version of a cell takes its place. Then its data may be referred to directly.
    pub stays: bool,
}

/// A place where the address of an imported symbol stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Edge {
    /// The symbol.
    pub symbol: usize,
    /// Offset in the image.
    pub offset: usize,
    pub typ: u32,
    pub addend: i64,
}

/// What relocations are computed from.
pub(super) struct Linking<'a> {
    pub object: &'a NativeObject,
    pub plan: &'a Plan,
    pub imports: &'a HashMap<usize, Import>,
    /// Addresses of the entries.
    pub entries: &'a [usize],
    /// Addresses of entries for the same functions that 32 bits have room for, if the object has such references.
    pub low_entries: &'a [usize],
}

impl Linking<'_> {
    /// Writes the whole image. Gives the places where imported addresses stand.
    pub fn write(&self, image: &mut WritableImage) -> Result<Vec<Edge>, NativeError> {
        let mut edges = Vec::new();
        self.write_sections(image)?;
        self.write_slots(image, &mut edges)?;
        self.write_stubs(image)?;
        let functions = functions_by_place(self.object);
        let mut problems = Vec::new();
        for (section, r) in mapped_relocations(self.object) {
            let Some(base) = self.plan.sections.get(section).copied().flatten() else { continue };
            if let Err(reason) = self.apply(image, &functions, section, base + r.offset, r, &mut edges) {
                problems.push(problem(self.object, section, r, reason));
            }
        }
        let unwind = self.object.sections.iter().position(|s| s.kind == Kind::EhFrame).unwrap_or(0);
        for r in &self.plan.unwind_info.relocations {
            if let Err(reason) = self.apply(image, &functions, unwind, self.plan.eh_frame + r.offset, r, &mut edges) {
                problems.push(problem(self.object, unwind, r, reason));
            }
        }
        if problems.is_empty() { Ok(edges) } else { Err(NativeError::Relocations(problems)) }
    }

    fn write_sections(&self, image: &mut WritableImage) -> Result<(), NativeError> {
        for (index, section) in self.object.sections.iter().enumerate() {
            if let Some(offset) = self.plan.sections[index].filter(|_| section.kind != Kind::Zero) {
                image.write(offset, self.object.section_bytes(index))?;
            }
        }
        image.write(self.plan.eh_frame, &self.plan.unwind_info.bytes)
    }

    fn write_slots(&self, image: &mut WritableImage, edges: &mut Vec<Edge>) -> Result<(), NativeError> {
        for target in &self.plan.slots {
            let Some(offset) = self.plan.slot(*target) else { continue };
            let address = self.address(image.start(), *target).unwrap_or(0);
            image.write(offset, &address.to_le_bytes())?;
            if let Target::Symbol(symbol) = *target {
                edges.push(Edge { symbol, offset, typ: R_X86_64_64, addend: 0 });
            }
        }
        Ok(())
    }

    fn write_stubs(&self, image: &mut WritableImage) -> Result<(), NativeError> {
        for symbol in &self.plan.stubs {
            let places = self.plan.stub(*symbol).zip(self.plan.slot(Target::Symbol(*symbol)));
            let Some((stub, slot)) = places else { continue };
            // jmp [rip + slot]; int3 …
            let mut code = [0xcc; STUB_SIZE];
            code[..2].copy_from_slice(&[0xff, 0x25]);
            code[2..6].copy_from_slice(&((slot - stub - 6) as u32).to_le_bytes());
            image.write(stub, &code)?;
        }
        Ok(())
    }

    /// The address of a target.
    pub fn address(&self, start: usize, target: Target) -> Option<usize> {
        match target {
            Target::Own { section, offset } => {
                Some(start + self.plan.sections.get(section).copied().flatten()? + offset)
            }
            Target::Entry(entry) => self.entries.get(entry).copied(),
            Target::Symbol(symbol) => match self.object.symbols.get(symbol)?.place {
                SymbolPlace::Absolute(value) => Some(value as usize),
                SymbolPlace::Common(_) => Some(start + self.plan.common.get(&symbol)?),
                // Symbol 0, which stands for no symbol, is undefined too.
                SymbolPlace::Undefined if symbol == 0 => Some(0),
                SymbolPlace::Undefined => self.imports.get(&symbol).map(|i| i.address),
                SymbolPlace::Section(..) => None,
            },
        }
    }

    fn apply(
        &self,
        image: &mut WritableImage,
        functions: &HashMap<(usize, usize), usize>,
        section: usize,
        offset: usize,
        r: &Relocation,
        edges: &mut Vec<Edge>,
    ) -> Result<(), Reason> {
        let (formula, field) = relocation::rule(r.typ)?;
        let target = self.plan.target(self.object, functions, section, r)?;
        let import = match target {
            Target::Symbol(symbol) => self.imports.get(&symbol).map(|i| (symbol, *i)),
            _ => None,
        };
        let start = image.start();
        let at = |offset: usize| Some((start + offset) as i128);
        let place = (start + offset) as i128;
        let table = (start + self.plan.slot_base) as i128;
        let symbol = || self.address(start, target).map(|a| a as i128);
        let slot = || self.plan.slot(target).and_then(at);
        let a = i128::from(r.addend);
        // What stays where it is, in reach of the field, needs no stub.
        let stub = |from: i128| {
            let direct = import.filter(|(_, i)| i.stays).map(|(_, i)| i.address as i128);
            let direct = direct.filter(|address| field.encode(address + a - from).is_some());
            direct.or_else(|| import.and_then(|(symbol, _)| self.plan.stub(symbol)).and_then(at))
        };
        let is_foreign_data = import.is_some_and(|(_, i)| !i.is_function && !i.stays);
        let is_function = import.is_some_and(|(_, i)| i.is_function);
        let narrow = field != Field::Word64;
        let address_in_slot = is_lea(self.object, section, r) && (matches!(target, Target::Entry(_)) || is_function);
        let in_reach = |s: &i128| field.encode(*s).is_some();
        let low_entry = || {
            let entry = if let Target::Entry(k) = target { Some(k) } else { self.plan.entry_of(r.symbol) };
            self.low_entries.get(entry?).map(|e| *e as i128)
        };
        let value = match formula {
            // A `lea` of a function's address becomes a `mov` of the slot that holds it.
            Formula::Relative if address_in_slot => {
                image.write(offset - 2, &[0x8b]).map_err(|_| Reason::NotLoaded)?;
                slot().map(|g| g - 4 - place)
            }
            Formula::Relative | Formula::Absolute if narrow && is_foreign_data => return Err(Reason::ForeignData),
            Formula::Relative if narrow && is_function => stub(place).map(|l| l + a - place),
            Formula::Absolute if narrow && is_function && symbol() != Some(0) => {
                symbol().filter(in_reach).or_else(low_entry).map(|s| s + a)
            }
            // The addend of an entry names the function, and is none of the entry.
            Formula::Absolute if matches!(target, Target::Entry(_)) => symbol().filter(in_reach).or_else(low_entry),
            Formula::Absolute => symbol().map(|s| s + a),
            Formula::Relative => symbol().map(|s| s + a - place),
            Formula::Stub => stub(place).or_else(symbol).map(|l| l + a - place),
            Formula::SlotRelative => slot().map(|g| g + a - place),
            Formula::SlotOffset => slot().map(|g| g - table + a),
            Formula::TableRelative => Some(table + a - place),
            // As above.
            Formula::TableOffset if matches!(target, Target::Entry(_)) => symbol().map(|s| s - table),
            Formula::TableOffset => symbol().map(|s| s + a - table),
            Formula::StubOffset => stub(table).or_else(symbol).map(|l| l + a - table),
            Formula::Size => {
                let own = self.object.symbols.get(r.symbol).map_or(0, |s| s.size);
                Some(import.map_or(own, |(_, i)| i.size) as i128 + a)
            }
        };
        let bytes = field.encode(value.ok_or(Reason::NotLoaded)?).ok_or(Reason::Overflow)?;
        image.write(offset, &bytes[..field.width()]).map_err(|_| Reason::NotLoaded)?;
        if let Some((symbol, i)) = import
            && !i.near
            && matches!(formula, Formula::Absolute | Formula::Relative | Formula::TableOffset)
            && !narrow
        {
            edges.push(Edge { symbol, offset, typ: r.typ, addend: r.addend });
        }
        Ok(())
    }
}
