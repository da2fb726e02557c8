//! Relocations that assemblers leave out: where code takes the address of a local function of its own section, the distance is known and
//! there is none. It is put back, because the address must be the function's entry: it may be kept by anybody.
//!
//! Only whole `lea r64, [rip + distance]` whose distance leads exactly to a known function count. That other bytes look like
//! one takes a coincidence of seven bytes.
#![deny(unsafe_code)]

use super::object::{Kind, NativeObject, Part, Relocation, SymbolKind, SymbolPlace};
use alloc::vec::Vec;
use goblin::elf::reloc::{R_X86_64_GOTPC64, R_X86_64_PC32};
use hashbrown::{HashMap, HashSet};

/// Bytes of the instruction; the distance is the last four.
const LEA: usize = 7;
const FIELD: usize = 3;

/// Adds them.
pub(super) fn add(object: &mut NativeObject) {
    let mut functions: HashMap<usize, HashMap<usize, usize>> = HashMap::new();
    for (index, symbol) in object.symbols.iter().enumerate().filter(|(_, s)| s.kind == SymbolKind::Function) {
        if let SymbolPlace::Section(section, offset) = symbol.place {
            functions.entry(section).or_default().entry(offset).or_insert(index);
        }
    }
    for (section, functions) in functions {
        if object.sections.get(section).is_some_and(|s| s.kind == Kind::Plain(Part::Text)) {
            let found = in_section(object, section, &functions);
            let relocations = &mut object.sections[section].relocations;
            relocations.extend(found);
            relocations.sort_by_key(|r| r.offset);
        }
    }
}

fn in_section(object: &NativeObject, section: usize, functions: &HashMap<usize, usize>) -> Vec<Relocation> {
    let (bytes, relocations) = (object.section_bytes(section), &object.sections[section].relocations);
    // In the large model, code that wants the table of slots loads the address of a place, which may be a function's first, and adds the table's distance
    // from there.
    let of_table = relocations.iter().filter(|r| r.typ == R_X86_64_GOTPC64);
    let places: HashSet<usize> = of_table.map(|r| r.offset.wrapping_sub(r.addend as usize)).collect();
    let mut found = Vec::new();
    for (at, code) in bytes.windows(LEA).enumerate() {
        let &[rex, 0x8d, modrm, a, b, c, d] = code else { continue };
        if !matches!(rex, 0x48 | 0x4c) || modrm & 0xc7 != 0x05 {
            continue;
        }
        let distance = i32::from_le_bytes([a, b, c, d]) as isize;
        let target = (at + LEA).checked_add_signed(distance);
        let Some(symbol) = target.and_then(|target| functions.get(&target)) else { continue };
        let first = relocations.partition_point(|r| r.offset < at);
        let is_written = relocations.get(first).is_some_and(|r| r.offset < at + LEA);
        if !is_written && !places.contains(&(at + LEA).wrapping_add_signed(distance)) {
            found.push(Relocation { offset: at + FIELD, typ: R_X86_64_PC32, symbol: *symbol, addend: -4 });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::object::{Scope, Section, Symbol};
    use std::vec;

    fn object(bytes: &[u8], relocations: Vec<Relocation>) -> NativeObject {
        let symbol = |offset| Symbol {
            name: 0..0,
            place: SymbolPlace::Section(0, offset),
            kind: SymbolKind::Function,
            scope: Scope::Local,
            hidden: false,
            size: 1,
        };
        let kind = Kind::Plain(Part::Text);
        let section = Section { name: 0..0, kind, size: bytes.len(), align: 16, bytes: 0..bytes.len(), relocations };
        NativeObject { bytes: bytes.to_vec(), sections: vec![section], symbols: vec![symbol(0), symbol(9)] }
    }

    #[test]
    fn an_address_of_a_local_function_gets_its_relocation() {
        // nop; lea rax, [rip + 1]; ret; ret
        let code = [0x90, 0x48, 0x8d, 0x05, 1, 0, 0, 0, 0xc3, 0xc3];
        let mut with = object(&code, Vec::new());
        add(&mut with);
        assert_eq!(with.sections[0].relocations, [Relocation { offset: 4, typ: R_X86_64_PC32, symbol: 1, addend: -4 }]);
        // Into the function, to nowhere, another instruction.
        for (at, byte) in [(4, 2), (4, 0), (4, 200), (2, 0x8b), (3, 0x04), (1, 0x40)] {
            let mut other = code;
            other[at] = byte;
            let mut without = object(&other, Vec::new());
            add(&mut without);
            assert!(without.sections[0].relocations.is_empty(), "{other:x?}");
        }
        // lea rax, [rip - 7]; …; ret: the address of the function itself, or, with the distance of the table behind it, a place.
        let own = [0x48, 0x8d, 0x05, 0xf9, 0xff, 0xff, 0xff, 0x90, 0x90, 0xc3];
        let mut itself = object(&own, Vec::new());
        add(&mut itself);
        assert_eq!(itself.sections[0].relocations.len(), 1);
        let distance = Relocation { offset: 9, typ: R_X86_64_GOTPC64, symbol: 0, addend: 9 };
        let mut place = object(&own, vec![distance]);
        add(&mut place);
        assert_eq!(place.sections[0].relocations, [distance]);
        let known = Relocation { offset: 4, typ: R_X86_64_PC32, symbol: 0, addend: 0 };
        let mut written = object(&code, vec![known]);
        add(&mut written);
        assert_eq!(written.sections[0].relocations, [known]);
    }
}
