//! Compiled code: the module that instances share, and one loaded copy of it.
//!
//! A [`CellModule`] is what compilation produced. A [`LoadedCode`] is that code at an address, as one version of one
//! cell: what a trap, a backtrace or a host function needs to put names to addresses.
#![deny(unsafe_code)]

use alloc::sync::Arc;
use core::ops::Range;
use wasm_cell::{CellObject, metadata::Metadata};

/// A compiled module. Instances share it and the frames its text and rodata lie in.
#[derive(Debug)]
pub struct CellModule {
    object: CellObject,
}

impl CellModule {
    /// Takes over the compiler's product.
    pub fn new(_cell: &Arc<str>, object: CellObject) -> Result<Arc<CellModule>, core::convert::Infallible> {
        Ok(Arc::new(CellModule { object }))
    }

    /// The compiler's product.
    pub fn object(&self) -> &CellObject {
        &self.object
    }

    /// Types, imports, exports, layout, trap table.
    pub fn metadata(&self) -> &Metadata {
        &self.object.metadata
    }
}

/// Code of one version of one cell, at its address.
#[derive(Debug)]
pub struct LoadedCode {
    cell: Arc<str>,
    version: u32,
    text: Range<usize>,
    module: Arc<CellModule>,
}

impl LoadedCode {
    #[cfg_attr(not(test), expect(dead_code, reason = "the loader is its caller"))]
    pub(crate) fn new(cell: Arc<str>, version: u32, text: Range<usize>, module: Arc<CellModule>) -> Arc<LoadedCode> {
        Arc::new(LoadedCode { cell, version, text, module })
    }

    /// Name of the cell.
    pub fn cell(&self) -> &Arc<str> {
        &self.cell
    }

    /// Version of the cell, counted from 1 under its name.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Addresses of the text section. Text offset 0 is at `text().start`.
    pub fn text(&self) -> Range<usize> {
        self.text.clone()
    }

    /// The compiled module.
    pub fn module(&self) -> &Arc<CellModule> {
        &self.module
    }

    /// Types, imports, exports, layout, trap table.
    pub fn metadata(&self) -> &Metadata {
        self.module.metadata()
    }
}
