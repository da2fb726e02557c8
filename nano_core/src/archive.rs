//! The boot archive: files in the portable "new ASCII" cpio format.
//!
//! `find . | cpio -o -H newc` makes one. Each entry is a header of 110 bytes (magic `070701` and 13 numbers of 8
//! hexadecimal digits), the name with a terminating zero, padding to 4 bytes, the content, padding to 4 bytes. The entry
//! named `TRAILER!!!` ends the archive. Nothing is believed: every length is checked against the bytes that are there.

use alloc::vec::Vec;
use core::fmt;

const MAGIC: &[u8; 6] = b"070701";
const HEADER: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// Longest name accepted, in bytes: Linux's `PATH_MAX`.
const NAME_MAX: usize = 4096;
/// `st_mode`: the bits of the file type, a regular file, and a character device, which in an overlay says that there is no such file.
const TYPE_MASK: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const WHITEOUT: u32 = 0o020_000;

/// An archive in memory.
#[derive(Debug, Clone, Copy)]
pub struct Archive<'a> {
    bytes: &'a [u8],
}

/// A file of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its path as it stands in the archive.
    pub name: &'a str,
    /// Its content.
    pub content: &'a [u8],
    /// Where the content begins.
    pub content_at: usize,
    mode: u32,
}

impl Entry<'_> {
    /// Whether it is a regular file (not a folder, link or device).
    pub fn is_file(&self) -> bool {
        self.mode & TYPE_MASK == REGULAR
    }

    /// Whether it says that there is no file of this name, whatever stands before or below.
    pub fn is_whiteout(&self) -> bool {
        self.mode & TYPE_MASK == WHITEOUT
    }

    /// Whether it has this name; a leading `./` or `/` does not matter.
    pub fn is_named(&self, name: &str) -> bool {
        plain(self.name) == plain(name)
    }
}

/// The header, name and padding of an entry, before its content: for a file, or with `None` for a whiteout. `None` for a name
/// or a size that the format cannot say.
pub fn header(name: &str, size: Option<usize>) -> Option<Vec<u8>> {
    let mode = if size.is_some() { REGULAR | 0o644 } else { WHITEOUT };
    let size = u32::try_from(size.unwrap_or(0)).ok()?;
    if name.is_empty() || name.len() >= NAME_MAX || name.contains('\0') || name == TRAILER {
        return None;
    }
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(HEADER + name.len() + 4).ok()?;
    bytes.extend_from_slice(MAGIC);
    for number in [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0] {
        bytes.extend((0..8).rev().map(|digit| b"0123456789abcdef"[(number >> (4 * digit) & 15) as usize]));
    }
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Some(bytes)
}

/// What is wrong with an archive, and at which byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The bytes end within an entry or without a trailer. Pack the archive again.
    Truncated {
        /// Offset of the entry.
        at: usize,
    },
    /// No `070701` where an entry should start: not a cpio archive in `newc` format.
    BadMagic {
        /// Offset of the entry.
        at: usize,
    },
    /// A number of the header is not hexadecimal.
    BadNumber {
        /// Offset of the number.
        at: usize,
    },
    /// A name is empty, too long, not terminated or not UTF-8.
    BadName {
        /// Offset of the entry.
        at: usize,
    },
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { at } => write!(f, "the archive ends within the entry at byte {at}"),
            Self::BadMagic { at } => write!(f, "no cpio `newc` entry at byte {at} (pack with `cpio -o -H newc`)"),
            Self::BadNumber { at } => write!(f, "a header number at byte {at} is not hexadecimal"),
            Self::BadName { at } => write!(f, "the name of the entry at byte {at} is not a name"),
        }
    }
}

impl core::error::Error for ArchiveError {}

impl<'a> Archive<'a> {
    /// Checks the whole archive.
    ///
    /// # Errors
    /// The first defect, with its offset.
    pub fn new(bytes: &'a [u8]) -> Result<Self, ArchiveError> {
        let mut at = 0;
        while let Some((_, next)) = entry_at(bytes, at)? {
            at = next;
        }
        Ok(Self { bytes })
    }

    /// Its entries in order.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> {
        let bytes = self.bytes;
        let mut at = 0;
        core::iter::from_fn(move || {
            let (entry, next) = entry_at(bytes, at).ok()??;
            at = next;
            Some(entry)
        })
    }

    /// The file of this name; a leading `./` or `/` does not matter. The last one counts if there are several.
    pub fn file(&self, name: &str) -> Option<&'a [u8]> {
        self.entries().filter(|e| e.is_file() && e.is_named(name)).last().map(|e| e.content)
    }
}

fn plain(name: &str) -> &str {
    name.trim_start_matches("./").trim_start_matches('/')
}

/// The entry at `at` and the offset of the next; `None` for the trailer.
///
/// # Errors
/// What is wrong with it.
pub fn entry_at(bytes: &[u8], at: usize) -> Result<Option<(Entry<'_>, usize)>, ArchiveError> {
    let truncated = ArchiveError::Truncated { at };
    let take = |start: usize, len: usize| -> Result<&[u8], ArchiveError> {
        bytes.get(start..start.checked_add(len).ok_or(truncated)?).ok_or(truncated)
    };
    if take(at, MAGIC.len())? != MAGIC {
        return Err(ArchiveError::BadMagic { at });
    }
    let header = take(at, HEADER)?;
    let number = |field: usize| {
        let offset = MAGIC.len() + 8 * field;
        hexadecimal(&header[offset..offset + 8]).ok_or(ArchiveError::BadNumber { at: at + offset })
    };
    let (mode, size, name_size) = (number(1)?, number(6)? as usize, number(11)? as usize);
    let bad_name = ArchiveError::BadName { at };
    if !(2..=NAME_MAX).contains(&name_size) {
        return Err(bad_name);
    }
    let name_start = at + HEADER;
    let (terminator, name) = take(name_start, name_size)?.split_last().ok_or(bad_name)?;
    if *terminator != 0 || name.contains(&0) {
        return Err(bad_name);
    }
    let name = core::str::from_utf8(name).map_err(|_| bad_name)?;
    if name == TRAILER {
        return Ok(None);
    }
    let start = (name_start + name_size).next_multiple_of(4);
    let content = take(start, size)?;
    let next = (start + size).next_multiple_of(4);
    Ok(Some((Entry { name, content, content_at: start, mode }, next)))
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0u32, |value, digit| Some(value << 4 | (*digit as char).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::String, vec::Vec};

    fn pack(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, content) in files.iter().chain([&(TRAILER, &b""[..])]) {
            let numbers = [1, REGULAR | 0o644, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
            let header: String = numbers.iter().map(|n| format!("{n:08x}")).collect();
            out.extend(format!("070701{header}{name}\0").bytes());
            out.resize(out.len().next_multiple_of(4), 0);
            out.extend(*content);
            out.resize(out.len().next_multiple_of(4), 0);
        }
        out
    }

    #[test]
    fn files_are_found_by_name_with_or_without_a_leading_dot() {
        let bytes = pack(&[("./a.wasm", b"one"), ("dir/b", b""), ("c", b"four")]);
        let archive = Archive::new(&bytes).expect("well-formed");
        assert_eq!(archive.file("a.wasm"), Some(&b"one"[..]));
        assert_eq!(archive.file("/dir/b"), Some(&b""[..]));
        assert_eq!(archive.file("./c"), Some(&b"four"[..]));
        assert_eq!(archive.file("d"), None);
        assert_eq!(archive.entries().count(), 3);
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = pack(&[("a", b"12345"), ("bc", b"1")]);
        let name = b"TRAILER!!!\0";
        let end = bytes.windows(name.len()).position(|w| w == name).expect("packed") + name.len();
        for len in 0..end {
            assert!(Archive::new(&bytes[..len]).is_err(), "{len} of {} bytes were accepted", bytes.len());
        }
    }

    #[test]
    fn every_changed_header_byte_gives_an_archive_or_an_error_but_no_panic() {
        let bytes = pack(&[("a", b"12345"), ("bc", b"1")]);
        for at in 0..bytes.len() {
            for value in [0, b'0', b'f', b'z', 0xff] {
                let mut changed = bytes.clone();
                changed[at] = value;
                if let Ok(archive) = Archive::new(&changed) {
                    archive.entries().for_each(drop);
                }
            }
        }
    }

    #[test]
    fn a_size_beyond_the_archive_is_refused() {
        let mut bytes = pack(&[("a", b"12345")]);
        bytes[6 + 8 * 6..6 + 8 * 7].copy_from_slice(b"ffffffff");
        assert_eq!(Archive::new(&bytes).err(), Some(ArchiveError::Truncated { at: 0 }));
    }

    #[test]
    fn other_bytes_are_not_an_archive() {
        assert_eq!(Archive::new(b"\0asm\x01\0\0\0").err(), Some(ArchiveError::BadMagic { at: 0 }));
    }
}
