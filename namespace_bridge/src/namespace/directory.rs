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
        let files = self.crates()?;
        Ok(files.into_iter().filter(|f| crate_name_from_path(f) == Some(name)).collect())
    }

    fn crates(&self) -> Result<Vec<String>, FsError> {
        let is_crate = |file: &String| file.ends_with(".o") || file.ends_with(".wasm");
        Ok(self.0.list()?.into_iter().filter(is_crate).collect())
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

    fn files_starting_with(&self, prefix: &str) -> Vec<(String, String)> {
        let files = self.crates().unwrap_or_else(|e| {
            log::error!("cannot look for `{prefix}`: {e}");
            Vec::new()
        });
        // What stands before `#` says what kind of crate it is, and belongs to no name.
        let begins = |file: &String| file.rsplit_once('#').map_or(&**file, |(_, rest)| rest).starts_with(prefix);
        let named = |file: String| crate_name_from_path(&file).map(String::from).map(|name| (file, name));
        files.into_iter().filter(begins).filter_map(named).collect()
    }
}
