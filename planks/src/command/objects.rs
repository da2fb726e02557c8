//! Options about compiled code that was kept: the cache, and whose object files are trusted.

use super::output;
use crate::cache::{Cache, Origin};
use crate::failure::Failure;
use crate::seal_key;
use clap::Args;
use namespace_bridge::{CellModule, LoadError, LoadOptions, compile_module, compile_module_reusing};
use std::path::PathBuf;
use std::sync::Arc;
use wasm_cell::reuse::ReuseReport;

/// What commands that load modules take.
#[derive(Args, Clone, Debug, Default)]
pub struct Objects {
    /// Keep compiled modules in DIR, and take them from there: the next time nothing is compiled
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// The key that seals object files and the cache, instead of the user's own, which is made on first use
    #[arg(long, value_name = "FILE")]
    seal_key: Option<PathBuf>,
}

impl Objects {
    /// The cache, if one is wanted.
    pub fn cache(&self) -> Result<Option<Cache>, Failure> {
        self.cache.as_deref().map(|dir| Cache::open(dir, self.seal_key.as_deref())).transpose()
    }

    /// Refuses an object file that is not sealed.
    pub fn check(&self, path: &str, elf: &[u8]) -> Result<(), Failure> {
        seal_key::check_object(path, elf, self.seal_key.as_deref())
    }
}

/// A module ready to be loaded, from the cache if there is one. What is wrong with the cache is told, and no failure.
pub fn module(
    cache: Option<&Cache>,
    name: &str,
    wasm: &[u8],
    options: &LoadOptions,
) -> Result<Arc<CellModule>, LoadError> {
    let Some(cache) = cache else { return compile_module(name, wasm, options) };
    let (module, origin) = cache.module(name, wasm, options)?;
    tell(name, &origin);
    Ok(module)
}

/// The same for the next version of `old`. Also says what was compiled; `None` for a module from the cache.
pub fn next_version(
    cache: Option<&Cache>,
    name: &str,
    wasm: &[u8],
    options: &LoadOptions,
    old: &Arc<CellModule>,
) -> Result<(Arc<CellModule>, Option<ReuseReport>), LoadError> {
    let Some(cache) = cache else {
        return compile_module_reusing(name, wasm, options, old).map(|(module, reuse)| (module, Some(reuse)));
    };
    let (module, origin, reuse) = cache.next_version(name, wasm, options, old)?;
    tell(name, &origin);
    Ok((module, reuse))
}

/// Says what is wrong with the cache.
fn tell(name: &str, origin: &Origin) {
    if matches!(origin, Origin::Replaced(_) | Origin::NotKept(_)) {
        output::tell(format_args!("planks: {name}: {origin}"));
    }
}
