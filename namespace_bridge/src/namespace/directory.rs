//! A folder of crates as a provider (Theseus: `NamespaceDir`).
#![deny(unsafe_code)]

use super::{CellSource, CrateProvider};
use crate::native::crate_name_from_path;
use alloc::{string::String, vec::Vec};
use kernel_config::limits::MODULE_BYTES;
use runtime_port::fs::{DirRef, FsError, read_all};

/// Finds cells by the names of the files in a folder: `NAME.wasm`, `NAME.o`, `NAME-HASH.o`, `ksse#NAME-HASH.o`. What a file is,
/// its content tells. Of several for one name none is taken, since nothing says which.
pub struct CrateDirectory(DirRef);

impl CrateDirectory {
    /// The crates of this folder.
    pub fn new(directory: DirRef) -> CrateDirectory {
        CrateDirectory(directory)
    }

    /// Names of the files that could be the cell `name`.
    pub fn files_of(&self, name: &str) -> Result<Vec<String>, FsError> {
        let is_crate = |file: &&String| file.ends_with(".o") || file.ends_with(".wasm");
        let files = self.0.list()?;
        Ok(files.iter().filter(is_crate).filter(|f| crate_name_from_path(f) == Some(name)).cloned().collect())
    }

    fn read(&self, file: &str) -> Result<Vec<u8>, FsError> {
        read_all(&self.0.get(file)?.file()?, MODULE_BYTES as u64)
    }
}

impl CrateProvider for CrateDirectory {
    fn find(&self, name: &str) -> Option<CellSource> {
        let files = self.files_of(name).unwrap_or_else(|e| {
            log::error!("cannot look for `{name}`: {e}");
            Vec::new()
        });
        let file = match files.as_slice() {
            [] => return None,
            [file] => file,
            several => {
                log::error!("`{name}` is not loaded: several files could be it: {}", several.join(", "));
                return None;
            }
        };
        match self.read(file) {
            Ok(bytes) => CellSource::of_bytes(bytes),
            Err(e) => {
                log::error!("cannot read `{file}`: {e}");
                None
            }
        }
    }
}
