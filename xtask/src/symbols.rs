//! Names of the kernel's functions, for its reports: a file of the boot archive.

use std::fmt::Write;

/// Name of the file in the archive.
pub const FILE: &str = "nano_core.sym";

/// The functions of a 64-bit little-endian ELF image: a line for each, its address in hexadecimal and its name, sorted by
/// address. `None` for an image without symbols, or none at all.
///
/// The layout is that of the ELF-64 Object File Format, version 1.5: header, section header, symbol table entry.
pub fn table(image: &[u8]) -> Option<String> {
    const SYMBOL_TABLE: u32 = 2;
    const FUNCTION: u8 = 2;
    if !image.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (sections, size, count) = (word(image, 0x28)?, half(image, 0x3a)?, half(image, 0x3c)?);
    let section = |i: usize| image.get(sections.checked_add(i.checked_mul(size)?)?..);
    let content = |header: &[u8]| {
        let start = word(header, 0x18)?;
        image.get(start..start.checked_add(word(header, 0x20)?)?)
    };
    let table = (0..count).filter_map(section).find(|header| double(header, 4) == Some(SYMBOL_TABLE))?;
    let names = content(section(double(table, 0x28)? as usize)?)?;
    let mut functions: Vec<(usize, &str)> = content(table)?
        .chunks_exact(24)
        .filter(|symbol| symbol[4] & 0xf == FUNCTION)
        .filter_map(|symbol| {
            let name = names.get(double(symbol, 0)? as usize..)?;
            let end = name.iter().position(|b| *b == 0)?;
            Some((word(symbol, 8)?, std::str::from_utf8(&name[..end]).ok()?))
        })
        .collect();
    functions.sort_unstable();
    functions.dedup_by_key(|(address, _)| *address);
    let mut text = String::new();
    for (address, name) in functions {
        writeln!(text, "{address:x} {name}").ok()?;
    }
    Some(text).filter(|text| !text.is_empty())
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
        assert!(addresses.windows(2).all(|w| w[0] < w[1]));
        assert!(text.contains("the_functions_of_this_program_are_listed_by_address"));
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
