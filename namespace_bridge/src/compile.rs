//! From wasm bytes to a module ready for instantiation, compiled at most once while anybody uses it.
#![deny(unsafe_code)]

use crate::code::CellModule;
use crate::error::LoadError;
use crate::options::LoadOptions;
use alloc::sync::{Arc, Weak};
use hashbrown::HashMap;
use spin::{Mutex, Once};
use wasm_cell::{
    CellObject, CompileError,
    compiler::{CompileOptions, Compiler, CompilerSettings},
};

/// What identifies a compilation: the module's bytes, by hash, and the options that change the code.
type Key = ([u8; 32], bool);

static COMPILER: Once<Result<Compiler, CompileError>> = Once::new();
static CACHE: Mutex<Option<HashMap<Key, Weak<CellModule>>>> = Mutex::new(None);

/// The compiler for this processor.
pub fn compiler() -> Result<&'static Compiler, CompileError> {
    COMPILER
        .call_once(|| {
            let settings = CompilerSettings { cpu: crate::processor::features(), ..CompilerSettings::default() };
            Compiler::new(settings)
        })
        .as_ref()
        .map_err(Clone::clone)
}

/// Compiles a module, or finds it among those in use.
pub(crate) fn module(cell: &Arc<str>, bytes: &[u8], options: &LoadOptions) -> Result<Arc<CellModule>, LoadError> {
    let failed = |source| LoadError::Compile { cell: cell.clone(), source };
    let key = (*blake3::hash(bytes).as_bytes(), options.guarded_memories);
    if let Some(known) = CACHE.lock().get_or_insert_default().get(&key).and_then(Weak::upgrade) {
        return Ok(known);
    }
    let compile = CompileOptions { guarded_memories: options.guarded_memories, ..CompileOptions::default() };
    let object = compiler().map_err(failed)?.compile(bytes, &compile).map_err(failed)?;
    let module = CellModule::new(cell, object)?;
    let mut cache = CACHE.lock();
    let cache = cache.get_or_insert_default();
    if cache.len() == cache.capacity() {
        cache.retain(|_, m| m.strong_count() > 0);
    }
    cache.insert(key, Arc::downgrade(&module));
    Ok(module)
}

/// Refuses an object compiled for a processor with features this one lacks.
pub(crate) fn check_header(cell: &Arc<str>, object: &CellObject) -> Result<(), LoadError> {
    crate::processor::check(&object.header).map_err(|source| LoadError::Compile { cell: cell.clone(), source })
}
