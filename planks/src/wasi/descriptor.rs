//! File descriptors: what a number of the guest stands for.

use super::Errno;
use super::stream::{Input, Output};
use cap_std::fs::{Dir, File};
use std::collections::BTreeMap;

/// Most descriptors a guest may hold.
const MAX_DESCRIPTORS: u32 = 4096;

/// An open file, directory or stream.
#[derive(Debug)]
pub enum Descriptor {
    /// Bytes to read.
    Input(Input),
    /// Bytes to write.
    Output(Output),
    /// A regular file (or whatever a path led to).
    File(OpenFile),
    /// A directory; paths are resolved below it and cannot leave it.
    Directory(OpenDir),
}

/// An open file.
#[derive(Debug)]
pub struct OpenFile {
    /// The host's file.
    pub file: File,
    /// `fdflags` as last set.
    pub flags: u16,
    /// Opened for reading.
    pub read: bool,
    /// Opened for writing.
    pub write: bool,
}

/// An open directory.
#[derive(Debug)]
pub struct OpenDir {
    /// The host's directory.
    pub dir: Dir,
    /// The name under which it was given to the guest at its start.
    pub preopened_as: Option<String>,
}

/// The guest's descriptors by number.
#[derive(Debug, Default)]
pub struct Descriptors {
    open: BTreeMap<u32, Descriptor>,
}

impl Descriptors {
    /// Puts a descriptor at the lowest free number.
    pub fn insert(&mut self, descriptor: Descriptor) -> Result<u32, Errno> {
        let fd = (0..MAX_DESCRIPTORS).find(|fd| !self.open.contains_key(fd)).ok_or(Errno::TooManyFiles)?;
        self.open.insert(fd, descriptor);
        Ok(fd)
    }

    /// What the number stands for.
    pub fn get(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        self.open.get_mut(&fd).ok_or(Errno::BadFd)
    }

    /// The file with this number.
    pub fn file(&mut self, fd: u32) -> Result<&mut OpenFile, Errno> {
        match self.get(fd)? {
            Descriptor::File(file) => Ok(file),
            Descriptor::Directory(_) => Err(Errno::IsDirectory),
            Descriptor::Input(_) | Descriptor::Output(_) => Err(Errno::SeekPipe),
        }
    }

    /// The directory with this number.
    pub fn dir(&mut self, fd: u32) -> Result<&mut OpenDir, Errno> {
        match self.get(fd)? {
            Descriptor::Directory(dir) => Ok(dir),
            _ => Err(Errno::NotDirectory),
        }
    }

    /// Closes a descriptor.
    pub fn close(&mut self, fd: u32) -> Result<(), Errno> {
        self.open.remove(&fd).map(drop).ok_or(Errno::BadFd)
    }

    /// Moves a descriptor to another open number, closing what was there.
    pub fn renumber(&mut self, from: u32, to: u32) -> Result<(), Errno> {
        if !self.open.contains_key(&to) {
            return Err(Errno::BadFd);
        }
        let moved = self.open.remove(&from).ok_or(Errno::BadFd)?;
        self.open.insert(to, moved);
        Ok(())
    }
}
