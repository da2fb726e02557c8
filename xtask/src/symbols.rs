//! Names of the kernel's functions and data, for its reports and for native cells: a file of the boot archive.

use std::{collections::HashMap, fmt::Write};

/// Name of the file in the archive.
pub const FILE: &str = "nano_core.sym";

/// A symbol of the image.
#[derive(Clone, Copy)]
struct Named<'a> {
    address: usize,
    size: usize,
    is_function: bool,
    /// Others were compiled knowing nothing of its callers, so there may be more of them.
    is_external: bool,
    name: &'a str,
}

/// The functions and data of a 64-bit little-endian ELF image: a line for each, with its address and size in hexadecimal, its
/// kind and its name, sorted by address. Kind `F` is a function and `D` is data that other code may link to: compiled for callers that were
/// not known, and the only one of its name. What is `f` or `d` is not; the compiler may have changed how it is called. `None` for an
/// image without symbols, or none at all.
///
/// What sections `.native_cells` (addresses) and `.native_cells.names` list can be linked to whatever the symbol table says.
///
/// The layout is that of the ELF-64 Object File Format, version 1.5: header, section header, symbol table entry.
pub fn table(image: &[u8]) -> Option<String> {
    const SYMBOL_TABLE: u32 = 2;
    if !image.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (sections, size, count) = (word(image, 0x28)?, half(image, 0x3a)?, half(image, 0x3c)?);
    let section = |i: usize| image.get(sections.checked_add(i.checked_mul(size)?)?..);
    let content = |header: &[u8]| {
        let start = word(header, 0x18)?;
        image.get(start..start.checked_add(word(header, 0x20)?)?)
    };
    let is_code = |i: usize| section(i).and_then(|header| word(header, 8)).is_some_and(|flags| flags & EXECUTABLE != 0);
    let table = (0..count).filter_map(section).find(|header| double(header, 4) == Some(SYMBOL_TABLE))?;
    let names = content(section(double(table, 0x28)? as usize)?)?;
    let mut symbols: Vec<Named> =
        content(table)?.chunks_exact(24).filter_map(|symbol| named(symbol, names, &is_code)).collect();
    let section_names = content(section(half(image, 0x3e)?)?)?;
    let called = |wanted: &str| {
        (0..count).filter_map(section).find(|header| {
            let name = double(header, 0).and_then(|at| section_names.get(at as usize..)).unwrap_or_default();
            name.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&0))
        })
    };
    if let (Some(addresses), Some(names)) = (called(".native_cells"), called(".native_cells.names")) {
        let mut sizes: HashMap<usize, usize> = HashMap::new();
        for symbol in &symbols {
            let size = sizes.entry(symbol.address).or_default();
            *size = symbol.size.max(*size);
        }
        let holds = |header: &[u8], address: usize| {
            let range = word(header, 0x10).zip(word(header, 0x20));
            range.is_some_and(|(start, size)| (start..start.saturating_add(size)).contains(&address))
        };
        let names = std::str::from_utf8(content(names)?).ok()?.split_terminator('\0');
        for (address, name) in content(addresses)?.chunks_exact(8).zip(names) {
            let address = word(address, 0)?;
            let size = sizes.get(&address).copied().unwrap_or_default();
            let is_function = (0..count).any(|i| is_code(i) && section(i).is_some_and(|header| holds(header, address)));
            symbols.push(Named { address, size, is_function, is_external: true, name });
        }
    }
    symbols.sort_unstable_by_key(|s| (s.address, s.name, !s.is_external));
    symbols.dedup_by_key(|s| (s.address, s.name));
    let mut places: HashMap<&str, usize> = HashMap::new();
    for symbol in &symbols {
        *places.entry(symbol.name).or_default() += usize::from(symbol.is_external);
    }
    let mut text = String::new();
    for Named { address, size, is_function, is_external, name } in &symbols {
        let kind = match (is_function, *is_external && places.get(name) == Some(&1)) {
            (true, true) => 'F',
            (true, false) => 'f',
            (false, true) => 'D',
            (false, false) => 'd',
        };
        writeln!(text, "{address:x} {size:x} {kind} {name}").ok()?;
    }
    Some(text).filter(|text| !text.is_empty())
}

/// The names in a table that other code may link to.
pub fn linkable(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter_map(|line| {
        let mut words = line.splitn(4, ' ').skip(2);
        let (kind, name) = (words.next()?, words.next()?);
        matches!(kind, "F" | "D").then_some(name)
    })
}

/// How many bytes of an ELF image are loaded into memory from it: what its file has without symbols, but for headers. `None` for what is no
/// image.
pub fn loaded_bytes(image: &[u8]) -> Option<u64> {
    const LOAD: u32 = 1;
    if !image.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (segments, size, count) = (word(image, 0x20)?, half(image, 0x36)?, half(image, 0x38)?);
    let segment = |i: usize| image.get(segments.checked_add(i.checked_mul(size)?)?..);
    let loaded = (0..count).filter_map(segment).filter(|header| double(header, 0) == Some(LOAD));
    loaded.map(|header| word(header, 0x20).map(|bytes| bytes as u64)).sum()
}

/// `sh_flags`: the section has code.
const EXECUTABLE: usize = 4;

/// Reads an entry of the symbol table. `None`: it names neither code nor data of the image.
fn named<'a>(symbol: &[u8], names: &'a [u8], is_code: &dyn Fn(usize) -> bool) -> Option<Named<'a>> {
    const UNDEFINED: usize = 0;
    const RESERVED: usize = 0xff00;
    const LOCAL: u8 = 0;
    const HIDDEN: u8 = 2;
    let (info, other, place) = (*symbol.get(4)?, *symbol.get(5)?, half(symbol, 6)?);
    let is_function = match info & 0xf {
        // Labels of assembly seldom say what they are.
        0 => is_code(place),
        1 => false,
        2 => true,
        _ => return None,
    };
    let name = names.get(double(symbol, 0)? as usize..)?;
    let name = std::str::from_utf8(&name[..name.iter().position(|b| *b == 0)?]).ok()?;
    // A name with a blank is no name that a reference could have.
    let is_named = !name.is_empty() && !name.contains(char::is_whitespace);
    (place != UNDEFINED && place < RESERVED && is_named).then_some(Named {
        address: word(symbol, 8)?,
        size: word(symbol, 16)?,
        is_function,
        // The linker makes symbols of an executable local that are hidden; what never was more than local has default visibility.
        is_external: info >> 4 != LOCAL || other & 3 == HIDDEN,
        name,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?) as usize)
}

fn double(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<usize> {
    Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_functions_of_this_program_are_listed_by_address() {
        let image = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let text = table(&image).unwrap();
        let addresses: Vec<u64> =
            text.lines().map(|l| u64::from_str_radix(l.split_once(' ').unwrap().0, 16).unwrap()).collect();
        assert!(addresses.is_sorted());
        assert!(text.contains("the_functions_of_this_program_are_listed_by_address"));
        let kind = |name: &str| {
            let line = text.lines().find(|l| l.rsplit(' ').next() == Some(name)).unwrap_or_else(|| panic!("no {name}"));
            line.split(' ').nth(2).unwrap().to_owned()
        };
        assert_eq!((kind("main").as_str(), kind("rust_eh_personality").as_str()), ("F", "F"));
        assert!(text.lines().any(|l| l.contains(" D ")), "no data is listed");
    }

    #[test]
    fn most_of_an_image_is_loaded_but_its_symbols() {
        let image = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let loaded = loaded_bytes(&image).unwrap();
        assert!(loaded > 100_000 && loaded < image.len() as u64, "{loaded} of {}", image.len());
        assert_eq!(loaded_bytes(&image[..0x30]), None);
    }

    #[test]
    fn what_is_no_image_or_cut_has_no_names() {
        assert_eq!(table(b""), None);
        assert_eq!(table(b"\0asm\x01\0\0\0"), None);
        let image = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        for len in [6, 0x28, 0x40, 0x1000, image.len() / 2] {
            assert_eq!(table(&image[..len]), None, "the first {len} bytes");
        }
    }
}
