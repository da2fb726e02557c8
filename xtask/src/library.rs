//! What the toolchain's `core` and `alloc` have for compiled code: the kernel image has it for native cells.

use crate::{kernel::workspace, symbols};
use std::{fs, io, path::PathBuf, process::Command};

/// The names of the functions and data of `core` and `alloc` that compiled code can refer to.
///
/// # Errors
/// The toolchain does not say where its libraries are, or they are not there.
pub fn names() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for library in ["libcore-", "liballoc-"] {
        let archive = fs::read(path(library)?)?;
        for object in members(&archive).filter_map(symbols::table) {
            names.extend(symbols::linkable(&object).map(String::from));
        }
    }
    // A pointer to the personality routine, which every object has of its own; and what the compiler replaces in a program
    // that has its own (a handler of failed allocations).
    names.retain(|name| !name.starts_with("DW.ref.") && !name.contains("_7___rustc"));
    if names.is_empty() { Err(io::Error::other("the toolchain's libraries have no symbols")) } else { Ok(names) }
}

/// The toolchain's library whose file's name begins so.
fn path(library: &str) -> io::Result<PathBuf> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let output = rustc.args(["--print", "target-libdir"]).current_dir(workspace()).output()?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let files: Vec<PathBuf> = fs::read_dir(&folder)?.map(|f| f.map(|f| f.path())).collect::<io::Result<_>>()?;
    let is_it = |name: &str| name.starts_with(library) && name.ends_with(".rlib");
    let found = files.into_iter().find(|f| f.file_name().and_then(|n| n.to_str()).is_some_and(is_it));
    found.ok_or_else(|| io::Error::other(format!("no {library}*.rlib in {}", folder.display())))
}

/// The members of an archive, in the `ar` format of System V: a signature, and for each member a header of 60 bytes, whose
/// bytes 48 to 58 are the size in decimal, and the content, padded to an even length.
fn members(archive: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = archive.strip_prefix(b"!<arch>\n").unwrap_or_default();
    std::iter::from_fn(move || {
        let size: usize = std::str::from_utf8(rest.get(48..58)?).ok()?.trim_end().parse().ok()?;
        let member = rest.get(60..)?.get(..size)?;
        rest = rest.get(60 + size.next_multiple_of(2)..).unwrap_or_default();
        Some(member)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_core_and_alloc_are_known_by_name() {
        let names = names().unwrap();
        for part in ["core9panicking9panic_fmt", "core5slice5index16slice_index_fail", "alloc18handle_alloc_error"] {
            assert!(names.iter().any(|name| name.ends_with(part)), "{part} is none of {} names", names.len());
        }
    }

    #[test]
    fn members_end_with_the_archive() {
        let header = |size: &str| format!("{:<16}{:<32}{size:<10}`\n", "name/", "");
        let archive = format!("!<arch>\n{}abc\n{}defg{}", header("3"), header("4"), header("9"));
        assert_eq!(members(archive.as_bytes()).collect::<Vec<_>>(), [&b"abc"[..], b"defg"]);
        assert_eq!(members(b"no archive").count(), 0);
    }
}
