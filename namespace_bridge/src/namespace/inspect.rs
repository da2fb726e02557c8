//! What a namespace holds, for people and tools.
#![deny(unsafe_code)]

use super::CrateNamespace;
use crate::cell::LoadedCrate;
use crate::domain::{Concurrency, Inside};
use crate::section::RelocationEntry;
use alloc::{string::String, sync::Arc, vec::Vec};
use core::ops::Range;
use wasm_cell::types::ExternType;

/// A cell at a glance.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct CellInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Version under its name, from 1; 0 for definitions by the embedder.
    pub version: u32,
    /// Whether it came from a wasm module.
    pub is_wasm: bool,
    /// Whether it came from a native object.
    pub is_object: bool,
    /// Addresses of its code; empty for definitions by the embedder.
    pub text: Range<usize>,
    /// Addresses of its whole image; empty for definitions by the embedder.
    pub image: Range<usize>,
    /// Bytes of its data, private to the cell.
    pub data_bytes: usize,
    /// Current size in bytes of each memory, imported first.
    pub memories: Vec<u64>,
    /// Current number of elements of each table, imported first.
    pub tables: Vec<u64>,
    /// Who may be inside at the same time; stateless for native cells, whose state is their own matter.
    pub concurrency: Concurrency,
    /// Who is inside of its state domain now.
    pub inside: Option<Inside>,
    /// Number of functions it defines.
    pub functions: usize,
    /// Names and types of what it exports, in order.
    pub exports: Vec<(String, ExternType)>,
    /// Number of symbols of a native cell that other native cells can use.
    pub symbols: usize,
    /// What it depends on.
    pub dependencies: Vec<DependencyInfo>,
    /// Who depends on it: cell and symbol.
    pub dependents: Vec<(Arc<str>, Arc<str>)>,
}

/// One dependency of a cell.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DependencyInfo {
    /// The cell depended on; empty when it has been unloaded by force.
    pub cell: Arc<str>,
    /// The symbol depended on.
    pub symbol: Arc<str>,
    /// Where it is written in the dependent's data block.
    pub relocation: RelocationEntry,
}

impl CellInfo {
    /// Describes a cell.
    pub fn of(cell: &LoadedCrate) -> CellInfo {
        let instance = cell.instance();
        let instance = instance.as_ref();
        let object = cell.object_body();
        let dependencies = cell.dependencies().into_iter().map(|(section, relocation)| DependencyInfo {
            cell: section.parent_crate.upgrade().map_or_else(|| "".into(), |c| c.crate_name.clone()),
            symbol: section.name.clone(),
            relocation,
        });
        CellInfo {
            name: cell.crate_name.clone(),
            version: cell.version(),
            is_wasm: cell.is_wasm(),
            is_object: object.is_some(),
            text: object.map_or_else(|| cell.code().map_or(0..0, |c| c.text()), |b| b.text()),
            image: cell.image_range().unwrap_or(0..0),
            data_bytes: object.map_or_else(|| instance.map_or(0, |i| i.image().data().len()), |b| b.data_bytes()),
            memories: instance.map_or_else(Vec::new, |i| i.memories().iter().map(|m| m.bytes()).collect()),
            tables: instance.map_or_else(Vec::new, |i| i.tables().iter().map(|t| t.len()).collect()),
            concurrency: cell.module().map_or(Concurrency::Stateless, |m| Concurrency::of(m.metadata())),
            inside: instance.and_then(|i| i.domain()?.owner()),
            functions: object.map_or_else(|| cell.module().map_or(0, |m| m.metadata().funcs.len()), |b| b.functions()),
            exports: cell.exports(),
            symbols: object.map_or(0, |b| b.symbols()),
            dependencies: dependencies.collect(),
            dependents: cell
                .dependents()
                .into_iter()
                .map(|(cell, section)| (cell.crate_name.clone(), section.name.clone()))
                .collect(),
        }
    }
}

impl CrateNamespace {
    /// Every cell of this namespace at a glance, sorted by name.
    pub fn cells(&self) -> Vec<CellInfo> {
        let mut all = Vec::new();
        self.for_each_crate(false, |_, cell| {
            all.push(CellInfo::of(cell));
            true
        });
        all
    }
}
