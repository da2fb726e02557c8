//! Where cells come from that are needed but not loaded (Theseus: the object files of a `NamespaceDir`).
#![deny(unsafe_code)]

use super::CrateNamespace;
use crate::cell::StrongCrateRef;
use crate::code::CellModule;
use crate::error::LoadError;
use crate::native::is_wasm_cell_object;
use crate::options::LoadOptions;
use alloc::{string::String, sync::Arc, vec::Vec};
use core::fmt::Write;
use kernel_config::limits::LOAD_CHAIN;

/// A cell that can be loaded.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum CellSource {
    /// Bytes of a wasm module.
    Wasm(Vec<u8>),
    /// Bytes of a trusted cell object (ELF).
    Object(Vec<u8>),
    /// A compiled module.
    Module(Arc<CellModule>),
    /// Bytes of a trusted native object, as rustc, gcc or clang emit it (ELF).
    Native(Vec<u8>),
}

impl CellSource {
    /// What bytes are, by their content; `None` if no cell could be made of them.
    pub fn of_bytes(bytes: Vec<u8>) -> Option<CellSource> {
        match bytes.first_chunk::<4>()? {
            b"\0asm" => Some(CellSource::Wasm(bytes)),
            b"\x7fELF" if is_wasm_cell_object(&bytes) => Some(CellSource::Object(bytes)),
            b"\x7fELF" => Some(CellSource::Native(bytes)),
            _ => None,
        }
    }
}

/// Finds cells by name: a directory, an archive, a table in the kernel image.
pub trait CrateProvider: Send + Sync {
    /// The cell of this name, if there is one.
    fn find(&self, name: &str) -> Option<CellSource>;

    /// The files that begin so, each with the name of the cell that it holds; none if they cannot be listed.
    fn files_starting_with(&self, _prefix: &str) -> Vec<(String, String)> {
        Vec::new()
    }
}

impl<F: Fn(&str) -> Option<CellSource> + Send + Sync> CrateProvider for F {
    fn find(&self, name: &str) -> Option<CellSource> {
        self(name)
    }
}

impl CrateNamespace {
    /// Adds a provider; those added first are asked first.
    pub fn add_provider(&self, provider: Arc<dyn CrateProvider>) {
        self.providers.write().push(provider);
    }

    /// What the first provider that has a cell of this name says, with the namespace it is to be loaded into.
    pub(crate) fn provided(&self, name: &str) -> Option<(Arc<CrateNamespace>, CellSource)> {
        self.chain().find_map(|namespace| {
            let providers = namespace.providers.read().clone();
            Some((namespace.me.upgrade()?, providers.iter().find_map(|p| p.find(name))?))
        })
    }

    /// Files of all providers, of this namespace and its parents, that begin so, with the names of their cells.
    pub(crate) fn provided_files(&self, prefix: &str) -> Vec<(String, String)> {
        let of = |namespace: &CrateNamespace| {
            let providers = namespace.providers.read().clone();
            providers.iter().flat_map(|p| p.files_starting_with(prefix)).collect::<Vec<_>>()
        };
        self.chain().flat_map(of).collect()
    }

    /// Loads a cell from the first provider that has it, of this namespace or a parent, into the namespace of that provider.
    pub(crate) fn load_from_providers(
        &self,
        name: &str,
        loading: &mut Vec<Arc<str>>,
    ) -> Result<Option<StrongCrateRef>, LoadError> {
        for namespace in self.chain() {
            let providers = namespace.providers.read().clone();
            let Some(source) = providers.iter().find_map(|p| p.find(name)) else { continue };
            if loading.iter().any(|l| &**l == name) {
                let mut circle = String::new();
                for cell in &*loading {
                    write!(circle, "`{cell}` -> ").expect("writing to a string does not fail");
                }
                write!(circle, "`{name}`").expect("writing to a string does not fail");
                return Err(LoadError::Cycle(circle));
            }
            if loading.len() >= LOAD_CHAIN {
                return Err(LoadError::ChainTooLong { cell: name.into(), limit: LOAD_CHAIN });
            }
            let loaded = namespace.load_source(&name.into(), source, &LoadOptions::default(), loading);
            return loaded.map(Some);
        }
        Ok(None)
    }
}
