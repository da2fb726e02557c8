//! Files and directories of the system.

use crate::fs::{DirRef, Directory, File, FileOrDir, FsError, NodeKind, check_name};
use alloc::{format, string::String, string::ToString, sync::Arc, vec::Vec};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The directory at `path`, whether it exists or not; operations tell.
pub fn directory(path: &Path) -> DirRef {
    Arc::new(SystemDirectory { path: path.into() })
}

struct SystemDirectory {
    path: PathBuf,
}

struct SystemFile {
    path: PathBuf,
    file: std::fs::File,
}

impl SystemDirectory {
    fn child(&self, name: &str) -> Result<PathBuf, FsError> {
        check_name(name)?;
        Ok(self.path.join(name))
    }
}

impl Directory for SystemDirectory {
    fn name(&self) -> String {
        last_name(&self.path)
    }

    fn get(&self, name: &str) -> Result<FileOrDir, FsError> {
        let path = self.child(name)?;
        let metadata = std::fs::metadata(&path).map_err(|e| error(&path, &e))?;
        if metadata.is_dir() {
            return Ok(FileOrDir::Dir(directory(&path)));
        }
        // Read-only files can be opened too; writing to them then fails.
        let both = std::fs::OpenOptions::new().read(true).write(true).open(&path);
        let file = both.or_else(|_| std::fs::File::open(&path)).map_err(|e| error(&path, &e))?;
        Ok(FileOrDir::File(Arc::new(SystemFile { path, file })))
    }

    fn insert(&self, name: &str, kind: NodeKind) -> Result<FileOrDir, FsError> {
        let path = self.child(name)?;
        match kind {
            NodeKind::File => {
                let options = std::fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path);
                let file = options.map_err(|e| error(&path, &e))?;
                Ok(FileOrDir::File(Arc::new(SystemFile { path, file })))
            }
            NodeKind::Directory => {
                std::fs::create_dir(&path).map_err(|e| error(&path, &e))?;
                Ok(FileOrDir::Dir(directory(&path)))
            }
        }
    }

    fn remove(&self, name: &str) -> Result<(), FsError> {
        let path = self.child(name)?;
        let is_dir = std::fs::symlink_metadata(&path).map_err(|e| error(&path, &e))?.is_dir();
        let removed = if is_dir { std::fs::remove_dir(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(|e| error(&path, &e))
    }

    fn list(&self) -> Result<Vec<String>, FsError> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(|e| error(&self.path, &e))? {
            let entry = entry.map_err(|e| error(&self.path, &e))?;
            // A name that is not UTF-8 cannot be asked for through this interface, so it is not listed.
            names.extend(entry.file_name().into_string().ok());
        }
        names.sort();
        Ok(names)
    }
}

impl File for SystemFile {
    fn name(&self) -> String {
        last_name(&self.path)
    }

    fn len(&self) -> Result<u64, FsError> {
        Ok(self.file.metadata().map_err(|e| error(&self.path, &e))?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, FsError> {
        if i64::try_from(offset).is_err() {
            return Ok(0);
        }
        let mut read = 0;
        while read < buffer.len() {
            match self.file.read_at(&mut buffer[read..], offset + read as u64) {
                Ok(0) => break,
                Ok(n) => read += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(error(&self.path, &e)),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), FsError> {
        self.file.write_all_at(bytes, offset).map_err(|e| error(&self.path, &e))
    }

    fn set_len(&self, length: u64) -> Result<(), FsError> {
        self.file.set_len(length).map_err(|e| error(&self.path, &e))
    }
}

fn last_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into()
}

fn error(path: &Path, e: &std::io::Error) -> FsError {
    let name = path.display().to_string();
    match e.kind() {
        ErrorKind::NotFound => FsError::NotFound(name),
        ErrorKind::AlreadyExists => FsError::Exists(name),
        ErrorKind::DirectoryNotEmpty => FsError::NotEmpty(name),
        ErrorKind::NotADirectory => FsError::WrongKind { name, expected: "directory" },
        ErrorKind::IsADirectory => FsError::WrongKind { name, expected: "file" },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::OutOfMemory => FsError::NoSpace,
        _ => FsError::System(format!("{name}: {e}")),
    }
}
