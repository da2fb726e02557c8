//! What a file system of the kernel works on: the boot archive, and a disk in memory.
//!
//! The disk is a log of cpio entries in the format of the archive, without a trailer. The last entry of a name counts, before any of the archive; a
//! whiteout says that there is no file. What is appended becomes part of the log with [`Disks::commit`], which checks that it is one whole entry; what
//! is not committed goes with the next operation. So a file system that fails in the middle of something loses nothing, and
//! another one can go on where it stopped: [`Disks`] has no other state, and no file system may have one that counts.
//!
//! The functions [`Disks::find`], [`Disks::next`], [`Disks::write`] and [`Disks::remove`] are a file system: the native default.

use crate::archive::{Entry, entry_at, header};
use alloc::vec::Vec;
use core::fmt;

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Disk {
    /// The boot archive.
    Archive = 0,
    /// The disk in memory.
    Memory = 1,
}

impl Disk {
    /// By its number.
    pub fn new(number: i32) -> Option<Disk> {
        [Disk::Archive, Disk::Memory].into_iter().find(|d| *d as i32 == number)
    }
}

/// A piece of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The disk.
    pub disk: Disk,
    /// First byte.
    pub offset: usize,
    /// Bytes.
    pub len: usize,
}

/// A place on a disk where an entry begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The disk.
    pub disk: Disk,
    /// First byte.
    pub offset: usize,
}

impl Place {
    /// Where a walk over all entries begins.
    pub const FIRST: Place = Place { disk: Disk::Archive, offset: 0 };
}

/// Why a file cannot be written or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskError {
    /// The disk in memory would exceed its size (bytes). Remove files, or give the machine more memory.
    Full(usize),
    /// The heap has no room.
    NoMemory,
    /// Names have 1 to 4094 bytes, none of them zero.
    BadName,
    /// What was appended is not one whole entry.
    NoEntry,
    /// There is no such file.
    NotFound,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(limit) => write!(f, "the disk in memory is full ({limit} bytes)"),
            Self::NoMemory => f.write_str("out of memory"),
            Self::BadName => f.write_str("not a name for a file: 1 to 4094 bytes, none of them zero"),
            Self::NoEntry => f.write_str("what was written is not a directory entry"),
            Self::NotFound => f.write_str("no such file"),
        }
    }
}

impl core::error::Error for DiskError {}

/// Both disks.
#[derive(Debug)]
pub struct Disks<'a> {
    archive: &'a [u8],
    log: Vec<u8>,
    committed: usize,
    limit: usize,
}

impl<'a> Disks<'a> {
    /// An archive, and an empty disk that grows up to `limit` bytes.
    pub const fn new(archive: &'a [u8], limit: usize) -> Self {
        Self { archive, log: Vec::new(), committed: 0, limit }
    }

    /// The bytes of a disk, as far as they are committed.
    pub fn bytes(&self, disk: Disk) -> &[u8] {
        match disk {
            Disk::Archive => self.archive,
            Disk::Memory => &self.log[..self.committed],
        }
    }

    /// The bytes of an extent, if the disk has them.
    pub fn read(&self, extent: Extent) -> Option<&[u8]> {
        self.bytes(extent.disk).get(extent.offset..extent.offset.checked_add(extent.len)?)
    }

    /// Appends to the disk in memory; not part of the log until [`Disks::commit`].
    ///
    /// # Errors
    /// No room.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), DiskError> {
        if bytes.len() > self.limit.saturating_sub(self.log.len()) {
            return Err(DiskError::Full(self.limit));
        }
        self.log.try_reserve(bytes.len()).map_err(|_| DiskError::NoMemory)?;
        self.log.extend_from_slice(bytes);
        Ok(())
    }

    /// Drops what is not committed.
    pub fn revert(&mut self) {
        self.log.truncate(self.committed);
    }

    /// Makes what was appended part of the log.
    ///
    /// # Errors
    /// It is not one whole entry. It is dropped.
    pub fn commit(&mut self) -> Result<(), DiskError> {
        let padded = self.log.len().next_multiple_of(4);
        if self.log.try_reserve(padded - self.log.len()).is_err() {
            self.revert();
            return Err(DiskError::NoMemory);
        }
        self.log.resize(padded, 0);
        let whole = matches!(entry_at(&self.log, self.committed),
            Ok(Some((entry, end))) if end == padded && (entry.is_file() || entry.is_whiteout()));
        match whole {
            true => self.committed = padded,
            false => self.revert(),
        }
        whole.then_some(()).ok_or(DiskError::NoEntry)
    }

    /// The file of this name.
    pub fn find(&self, name: &str) -> Option<Extent> {
        let (place, entry) = self.last(Disk::Memory, name).or_else(|| self.last(Disk::Archive, name))?;
        entry.is_file().then_some(Extent { disk: place.disk, offset: entry.content_at, len: entry.content.len() })
    }

    /// The file or whiteout of this name that counts on one disk.
    fn last(&self, disk: Disk, name: &str) -> Option<(Place, Entry<'_>)> {
        self.entries(Place { disk, offset: 0 }).filter(|(_, e, _)| e.is_named(name)).last().map(|(p, e, _)| (p, e))
    }

    /// The files and whiteouts of one disk from a place on, each with where the next begins.
    fn entries(&self, from: Place) -> impl Iterator<Item = (Place, Entry<'_>, usize)> {
        let bytes = self.bytes(from.disk);
        let mut at = from.offset;
        let all = core::iter::from_fn(move || {
            let place = Place { offset: at, ..from };
            let (entry, next) = entry_at(bytes, at).ok()??;
            at = next;
            Some((place, entry, next))
        });
        all.filter(|(_, e, _)| e.is_file() || e.is_whiteout())
    }

    /// The first file at this place or behind that is the one of its name, and where the next may be.
    pub fn next(&self, from: Place) -> Option<(Place, Place)> {
        let of = |from: Place| {
            let counts = |place: Place, e: &Entry<'_>| {
                let newer = place.disk == Disk::Archive && self.last(Disk::Memory, e.name).is_some();
                e.is_file() && !newer && self.last(place.disk, e.name).is_some_and(|(last, _)| last == place)
            };
            self.entries(from).find(|(p, e, _)| counts(*p, e)).map(|(p, _, next)| (p, Place { offset: next, ..p }))
        };
        let on_memory = || of(Place { disk: Disk::Memory, offset: 0 });
        of(from).or_else(|| if from.disk == Disk::Archive { on_memory() } else { None })
    }

    /// The name of the entry at a place, and its size, if it is a file.
    pub fn file_at(&self, place: Place) -> Option<(&str, usize)> {
        let (entry, _) = entry_at(self.bytes(place.disk), place.offset).ok()??;
        entry.is_file().then_some((entry.name, entry.content.len()))
    }

    /// Writes a file, in the place of any of this name.
    ///
    /// # Errors
    /// No room, or no name. The file is as it was.
    pub fn write(&mut self, name: &str, content: &[u8]) -> Result<(), DiskError> {
        self.put(&header(name, Some(content.len())).ok_or(DiskError::BadName)?, content)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// There is none, or no room to say so.
    pub fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        self.find(name).ok_or(DiskError::NotFound)?;
        self.put(&header(name, None).ok_or(DiskError::BadName)?, &[])
    }

    fn put(&mut self, header: &[u8], content: &[u8]) -> Result<(), DiskError> {
        self.revert();
        let appended = self.append(header).and_then(|()| self.append(content));
        match appended {
            Ok(()) => self.commit(),
            Err(error) => {
                self.revert();
                Err(error)
            }
        }
    }

    /// Leaves out of the log what counts no more. Returns how many bytes that were; none if there is no memory for a copy.
    pub fn compact(&mut self) -> usize {
        self.revert();
        let mut kept = Vec::new();
        for (place, entry, next) in self.entries(Place { disk: Disk::Memory, offset: 0 }) {
            let last = self.last(place.disk, entry.name).is_some_and(|(last, _)| last == place);
            // A whiteout of what the archive does not have says nothing.
            if last && (entry.is_file() || self.last(Disk::Archive, entry.name).is_some()) {
                let bytes = &self.log[place.offset..next];
                if kept.try_reserve(bytes.len()).is_err() {
                    return 0;
                }
                kept.extend_from_slice(bytes);
            }
        }
        let freed = self.committed - kept.len();
        self.committed = kept.len();
        self.log = kept;
        freed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{string::String, vec::Vec};

    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut disks = Disks::new(&[], usize::MAX);
        files.iter().for_each(|(name, content)| disks.write(name, content).unwrap());
        let mut bytes = disks.log;
        bytes.extend(b"07070100000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000b00000000TRAILER!!!\0");
        bytes
    }

    fn content<'d>(disks: &'d Disks<'_>, name: &str) -> Option<&'d [u8]> {
        disks.find(name).map(|extent| disks.read(extent).unwrap())
    }

    fn names(disks: &Disks<'_>) -> Vec<String> {
        let mut from = Place::FIRST;
        let mut names = Vec::new();
        while let Some((place, next)) = disks.next(from) {
            names.push(disks.file_at(place).unwrap().0.into());
            from = next;
        }
        names
    }

    #[test]
    fn files_written_hide_those_of_the_archive_and_can_be_removed() {
        let archive = archive(&[("a", b"old"), ("./b", b"other")]);
        let mut disks = Disks::new(&archive, 4096);
        assert_eq!(content(&disks, "/a"), Some(&b"old"[..]));
        disks.write("a", b"new").unwrap();
        disks.write("c", b"").unwrap();
        disks.write("a", b"newer").unwrap();
        assert_eq!(content(&disks, "a"), Some(&b"newer"[..]));
        assert_eq!(names(&disks), ["./b", "c", "a"]);
        disks.remove("a").unwrap();
        disks.remove("b").unwrap();
        assert_eq!((content(&disks, "a"), content(&disks, "b")), (None, None));
        assert_eq!(names(&disks), ["c"]);
        assert_eq!(disks.remove("a"), Err(DiskError::NotFound));
        disks.write("a", b"again").unwrap();
        assert_eq!(names(&disks), ["c", "a"]);
    }

    #[test]
    fn what_is_not_one_whole_entry_is_not_committed() {
        let mut disks = Disks::new(&[], 4096);
        disks.write("a", b"kept").unwrap();
        let whole = header("b", Some(3)).unwrap();
        for bytes in [&b""[..], b"nonsense", &whole, &[&whole[..], b"1234567"].concat(), &whole[..60]] {
            disks.append(bytes).unwrap();
            assert_eq!(disks.commit(), Err(DiskError::NoEntry), "{bytes:?}");
            assert_eq!(names(&disks), ["a"]);
        }
        disks.append(&whole).unwrap();
        disks.append(b"123").unwrap();
        disks.commit().unwrap();
        assert_eq!(content(&disks, "b"), Some(&b"123"[..]));
    }

    #[test]
    fn a_full_disk_refuses_and_keeps_what_it_has() {
        let mut disks = Disks::new(&[], 600);
        disks.write("a", &[1; 100]).unwrap();
        assert_eq!(disks.write("b", &[2; 400]), Err(DiskError::Full(600)));
        assert_eq!(names(&disks), ["a"]);
        disks.write("a", &[3; 100]).unwrap();
        assert_eq!(disks.write("b", &[2; 100]), Err(DiskError::Full(600)));
        assert!(disks.compact() > 100);
        disks.write("b", &[2; 100]).unwrap();
        assert_eq!(content(&disks, "a"), Some(&[3; 100][..]));
        assert_eq!(content(&disks, "b"), Some(&[2; 100][..]));
    }

    #[test]
    fn compaction_keeps_whiteouts_of_the_archive_only() {
        let archive = archive(&[("a", b"old")]);
        let mut disks = Disks::new(&archive, 4096);
        disks.write("b", b"1").unwrap();
        disks.remove("b").unwrap();
        disks.remove("a").unwrap();
        disks.compact();
        assert_eq!(names(&disks), Vec::<String>::new());
        assert_eq!(disks.committed, header("a", None).unwrap().len());
    }

    #[test]
    fn names_that_the_format_cannot_say_are_refused() {
        let mut disks = Disks::new(&[], 1 << 20);
        for name in ["", "TRAILER!!!", "a\0b", &"n".repeat(4096)] {
            assert_eq!(disks.write(name, b""), Err(DiskError::BadName));
        }
        disks.write(&"n".repeat(4000), &[0; 5]).unwrap();
    }
}
