//! Files and directories on the heap.

use super::{Directory, File, FileOrDir, FsError, NodeKind, check_name};
use crate::sync::Mutex;
use alloc::{borrow::ToOwned, collections::BTreeMap, string::String, sync::Arc, vec::Vec};

/// A file whose content is a vector.
#[derive(Debug)]
pub struct MemoryFile {
    name: String,
    content: Mutex<Vec<u8>>,
}

impl MemoryFile {
    /// A file with this content.
    pub fn new(name: impl Into<String>, content: Vec<u8>) -> Arc<MemoryFile> {
        Arc::new(MemoryFile { name: name.into(), content: Mutex::new(content) })
    }
}

impl File for MemoryFile {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn len(&self) -> Result<u64, FsError> {
        Ok(self.content.lock().len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize, FsError> {
        let content = self.content.lock();
        let rest = usize::try_from(offset).ok().and_then(|o| content.get(o..)).unwrap_or(&[]);
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), FsError> {
        let offset = usize::try_from(offset).map_err(|_| FsError::NoSpace)?;
        let end = offset.checked_add(bytes.len()).ok_or(FsError::NoSpace)?;
        let mut content = self.content.lock();
        if end > content.len() {
            resize(&mut content, end)?;
        }
        content[offset..end].copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), FsError> {
        resize(&mut self.content.lock(), usize::try_from(length).map_err(|_| FsError::NoSpace)?)
    }
}

fn resize(content: &mut Vec<u8>, length: usize) -> Result<(), FsError> {
    content.try_reserve(length.saturating_sub(content.len())).map_err(|_| FsError::NoSpace)?;
    content.resize(length, 0);
    Ok(())
}

/// A directory whose entries are on the heap, or are files of other kinds that were put there.
#[derive(Default)]
pub struct MemoryDirectory {
    name: String,
    entries: Mutex<BTreeMap<String, FileOrDir>>,
}

impl MemoryDirectory {
    /// An empty directory.
    pub fn new(name: impl Into<String>) -> Arc<MemoryDirectory> {
        Arc::new(MemoryDirectory { name: name.into(), entries: Mutex::new(BTreeMap::new()) })
    }

    /// Puts an existing file or directory under a name; refused when the name is taken.
    pub fn link(&self, name: &str, node: FileOrDir) -> Result<(), FsError> {
        check_name(name)?;
        let mut entries = self.entries.lock();
        if entries.contains_key(name) {
            return Err(FsError::Exists(name.into()));
        }
        entries.insert(name.to_owned(), node);
        Ok(())
    }
}

impl Directory for MemoryDirectory {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn get(&self, name: &str) -> Result<FileOrDir, FsError> {
        self.entries.lock().get(name).cloned().ok_or_else(|| FsError::NotFound(name.into()))
    }

    fn insert(&self, name: &str, kind: NodeKind) -> Result<FileOrDir, FsError> {
        let node = match kind {
            NodeKind::File => FileOrDir::File(MemoryFile::new(name, Vec::new())),
            NodeKind::Directory => FileOrDir::Dir(MemoryDirectory::new(name)),
        };
        self.link(name, node.clone())?;
        Ok(node)
    }

    fn remove(&self, name: &str) -> Result<(), FsError> {
        let mut entries = self.entries.lock();
        match entries.get(name) {
            None => return Err(FsError::NotFound(name.into())),
            Some(FileOrDir::Dir(dir)) if !dir.list()?.is_empty() => return Err(FsError::NotEmpty(name.into())),
            Some(_) => {}
        }
        entries.remove(name);
        Ok(())
    }

    fn list(&self) -> Result<Vec<String>, FsError> {
        Ok(self.entries.lock().keys().cloned().collect())
    }
}
