//! Names: of symbols as people and the symbol map know them, of cells by files, of crates in symbols.
//!
//! | in the object | in the symbol map |
//! | --- | --- |
//! | legacy Rust mangling | `crate::path::name::h0123456789abcdef`, as in Theseus |
//! | v0 Rust mangling | `crate::path::name::h` and 16 digits of a hash of the mangled name, which has none of its own |
//! | anything else | itself |
//! | `planks$CELL$EXPORT` | not in it: how C spells the export of another cell, `CELL::EXPORT` |
#![deny(unsafe_code)]

use alloc::{format, string::String, string::ToString, vec::Vec};

/// A symbol's name in the symbol map.
pub(super) fn display(raw: &str) -> String {
    let Ok(demangled) = rustc_demangle::try_demangle(raw) else { return raw.to_string() };
    if raw.starts_with("_R") {
        let hash = blake3::hash(raw.as_bytes());
        let [a, b, c, d, e, f, g, h, ..] = *hash.as_bytes();
        return format!("{demangled:#}::h{:016x}", u64::from_be_bytes([a, b, c, d, e, f, g, h]));
    }
    demangled.to_string()
}

/// A name without the compiler's hash; the separator stays (Theseus: `section_name_without_hash`).
pub fn section_name_without_hash(name: &str) -> &str {
    match name.rfind("::h") {
        Some(at) if is_hash(&name[at + 3..]) => &name[..at + 3],
        _ => name,
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The crates that a demangled symbol names, in the order in which they are to be asked for it: `<a::T as b::U>::f` may be in
/// `a` or in `b` (Theseus: `get_containing_crate_name`).
pub(super) fn containing_crates(symbol: &str) -> Vec<&str> {
    let mut crates: Vec<&str> = Vec::new();
    for (at, _) in symbol.match_indices("::") {
        let Some(before) = symbol.get(..at) else { continue };
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
            .map_or(0, |i| i + before[i..].chars().next().map_or(1, char::len_utf8));
        // Only the first component of a path is a crate.
        let is_first = !before[..start].ends_with("::");
        let name = &before[start..];
        let is_name = !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
        if is_first && is_name && !crates.contains(&name) {
            crates.push(name);
        }
    }
    crates
}

/// The cell and export that a symbol spells: `CELL::EXPORT` at every separator, or `planks$CELL$EXPORT`.
pub(super) fn exports_spelled(raw: &str) -> Vec<(&str, &str)> {
    if let Some(rest) = raw.strip_prefix("planks$") {
        return rest.match_indices('$').filter_map(|(at, _)| Some((rest.get(..at)?, rest.get(at + 1..)?))).collect();
    }
    raw.match_indices("::").filter_map(|(at, _)| Some((raw.get(..at)?, raw.get(at + 2..)?))).collect()
}

/// The cell that a file holds, by its name: `my_crate` for `my_crate.o`, `my_crate-0123456789abcdef.o`,
/// `ksse#my_crate-0123456789abcdef.o`, with folders before it or not (Theseus: `CrateType::from_module_name`,
/// `crate_name_from_path`). The compiler's hash is left out: entries belong to the name, and the next version has another
/// hash. `None` if nothing is left.
pub fn crate_name_from_path(path: &str) -> Option<&str> {
    let file = path.rsplit('/').next()?;
    let file = file.rsplit_once('#').map_or(file, |(_, file)| file);
    let stem = file.rsplit_once('.').map_or(file, |(stem, _)| stem);
    let name = match stem.rsplit_once('-') {
        Some((name, hash)) if hash.len() >= 8 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => name,
        _ => stem,
    };
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mangled_names_become_paths_with_a_hash() {
        assert_eq!(display("_ZN1a3one17h672f19a986a2fa4aE"), "a::one::h672f19a986a2fa4a");
        let v0 = display("_RNvNtCsgEmfK2I1SDS_4core9panicking9panic_fmt");
        assert!(v0.starts_with("core::panicking::panic_fmt::h") && is_hash(&v0[v0.len() - 16..]), "{v0}");
        assert_eq!(display("printf"), "printf");
        assert_eq!(display("_Z3addii"), "_Z3addii");
    }

    #[test]
    fn hashes_are_left_out_and_nothing_else() {
        assert_eq!(section_name_without_hash("a::one::h672f19a986a2fa4a"), "a::one::h");
        assert_eq!(section_name_without_hash("a::hello"), "a::hello");
        assert_eq!(section_name_without_hash("main"), "main");
    }

    #[test]
    fn crates_of_a_symbol_are_the_first_components_of_its_paths() {
        assert_eq!(containing_crates("a::one::h12"), ["a"]);
        assert_eq!(containing_crates("<a::Sq as b_1::Shape>::area::h12"), ["a", "b_1"]);
        assert_eq!(containing_crates("core::ptr::drop_in_place<a::boom::D>::h12"), ["core", "a"]);
        assert!(containing_crates("memcpy").is_empty());
        assert!(containing_crates("<&T as é>::x").is_empty() || !containing_crates("<&T as é::x>::y").is_empty());
    }

    #[test]
    fn exports_of_other_cells_have_two_spellings() {
        assert_eq!(exports_spelled("planks$counter$inc"), [("counter", "inc")]);
        assert_eq!(exports_spelled("counter::inc"), [("counter", "inc")]);
        assert_eq!(exports_spelled("a::b::c"), [("a", "b::c"), ("a::b", "c")]);
        assert!(exports_spelled("memcpy").is_empty());
    }

    #[test]
    fn cells_are_named_by_their_files() {
        for file in
            ["my_crate.o", "my_crate-0123456789abcdef.o", "/a/b/ksse#my_crate-0123456789abcdef.o", "k#my_crate.o"]
        {
            assert_eq!(crate_name_from_path(file), Some("my_crate"), "{file}");
        }
        assert_eq!(crate_name_from_path("my-tool.o"), Some("my-tool"));
        assert_eq!(crate_name_from_path(".o"), None);
    }
}
