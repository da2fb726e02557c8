//! Files and directories as objects (Theseus: crates `fs_node`, `memfs`).
//!
//! A file is read and written at offsets; a directory maps names to files and directories. Both are shared references
//! that synchronise inside. [`MemoryDirectory`] keeps them on the heap; a port may offer a root of its own.

mod in_memory;
#[cfg(test)]
mod tests;

pub use in_memory::{MemoryDirectory, MemoryFile};

use crate::heap::try_vec;
use crate::path::{Component, Path};
use alloc::{string::String, sync::Arc, vec::Vec};

/// A share of a file.
pub type FileRef = Arc<dyn File>;

/// A share of a directory.
pub type DirRef = Arc<dyn Directory>;

/// Why a file operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FsError {
    /// Nothing has this name.
    #[error("{0}: not found")]
    NotFound(String),
    /// Something has this name already.
    #[error("{0}: exists already")]
    Exists(String),
    /// A directory was expected and a file found, or the other way round.
    #[error("{name}: is not a {expected}")]
    WrongKind {
        /// What was looked at.
        name: String,
        /// "file" or "directory".
        expected: &'static str,
    },
    /// A name that is empty, `.`, `..` or contains `/` or a zero byte.
    #[error("{0:?} cannot be the name of a file")]
    InvalidName(String),
    /// A directory with entries cannot be removed.
    #[error("{0}: directory is not empty")]
    NotEmpty(String),
    /// The file is larger than the caller accepts.
    #[error("{size} bytes are more than the limit of {limit}")]
    TooLarge {
        /// Size of the file in bytes.
        size: u64,
        /// Limit in bytes.
        limit: u64,
    },
    /// No memory or no space on the medium.
    #[error("no space left")]
    NoSpace,
    /// What the system below says.
    #[error("{0}")]
    System(String),
}

/// A sequence of bytes with a name.
pub trait File: Send + Sync {
    /// Name in its directory.
    fn name(&self) -> String;

    /// Length in bytes.
    fn len(&self) -> Result<u64, FsError>;

    /// Whether it holds nothing.
    fn is_empty(&self) -> Result<bool, FsError> {
        Ok(self.len()? == 0)
    }

    /// Reads up to `buffer.len()` bytes from `offset` on; fewer (or 0) only at the end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, FsError>;

    /// Writes all bytes at `offset`; a gap before it reads zero.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), FsError>;

    /// Cuts, or extends with zeroes.
    fn set_len(&self, length: u64) -> Result<(), FsError>;
}

/// A map from names to files and directories.
pub trait Directory: Send + Sync {
    /// Name in its parent.
    fn name(&self) -> String;

    /// What has this name.
    fn get(&self, name: &str) -> Result<FileOrDir, FsError>;

    /// Makes an empty file or directory; refused when the name is taken.
    fn insert(&self, name: &str, kind: NodeKind) -> Result<FileOrDir, FsError>;

    /// Removes a file or an empty directory. Shares of it stay usable.
    fn remove(&self, name: &str) -> Result<(), FsError>;

    /// Names of all entries, sorted.
    fn list(&self) -> Result<Vec<String>, FsError>;
}

/// What to make in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A file.
    File,
    /// A directory.
    Directory,
}

/// An entry of a directory.
#[derive(Clone)]
pub enum FileOrDir {
    /// A file.
    File(FileRef),
    /// A directory.
    Dir(DirRef),
}

impl core::fmt::Debug for FileOrDir {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            FileOrDir::File(file) => write!(f, "File({:?})", file.name()),
            FileOrDir::Dir(dir) => write!(f, "Dir({:?})", dir.name()),
        }
    }
}

impl FileOrDir {
    /// The file, or an error.
    pub fn file(self) -> Result<FileRef, FsError> {
        match self {
            FileOrDir::File(file) => Ok(file),
            FileOrDir::Dir(dir) => Err(FsError::WrongKind { name: dir.name(), expected: "file" }),
        }
    }

    /// The directory, or an error.
    pub fn dir(self) -> Result<DirRef, FsError> {
        match self {
            FileOrDir::Dir(dir) => Ok(dir),
            FileOrDir::File(file) => Err(FsError::WrongKind { name: file.name(), expected: "directory" }),
        }
    }
}

/// What `path` names, seen from `directory` (which an absolute path takes as the root).
pub fn lookup(directory: &DirRef, path: &Path) -> Result<FileOrDir, FsError> {
    let mut here = FileOrDir::Dir(directory.clone());
    for component in path.normalise().components() {
        match component {
            Component::Root => {}
            Component::Name(name) => here = here.dir()?.get(name)?,
            Component::Parent => return Err(FsError::InvalidName(path.as_str().into())),
        }
    }
    Ok(here)
}

/// The whole content of a file of at most `limit` bytes.
pub fn read_all(file: &FileRef, limit: u64) -> Result<Vec<u8>, FsError> {
    let size = file.len()?;
    if size > limit {
        return Err(FsError::TooLarge { size, limit });
    }
    let mut bytes = try_vec(0, usize::try_from(size).map_err(|_| FsError::NoSpace)?).map_err(|_| FsError::NoSpace)?;
    let mut read = 0;
    while read < bytes.len() {
        match file.read_at(&mut bytes[read..], read as u64)? {
            0 => break,
            n => read += n,
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// Makes a file in `directory`, or empties the one that is there, and writes `bytes` to it.
pub fn write_all(directory: &DirRef, name: &str, bytes: &[u8]) -> Result<FileRef, FsError> {
    let file = match directory.insert(name, NodeKind::File) {
        Err(FsError::Exists(_)) => directory.get(name)?.file()?,
        made => made?.file()?,
    };
    file.set_len(0)?;
    file.write_at(bytes, 0)?;
    Ok(file)
}

/// Refuses names that are no names.
pub fn check_name(name: &str) -> Result<(), FsError> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(FsError::InvalidName(name.into()));
    }
    Ok(())
}
