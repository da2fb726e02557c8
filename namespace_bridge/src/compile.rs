//! From wasm bytes to a module ready for instantiation, compiled at most once while anybody uses it.
//!
//! Code is compiled with the type ids that the registry has for its types. A module in the cache keeps its own registered, so
//! it fits whoever finds it. A module that brings a type whose id is taken is compiled again, with ids that the registry has
//! set aside for it: once, whatever other tasks load meanwhile.
#![deny(unsafe_code)]

use crate::code::{CellModule, claim_types};
use crate::error::LoadError;
use crate::options::LoadOptions;
use crate::types_registry;
use alloc::sync::{Arc, Weak};
use hashbrown::HashMap;
use spin::{Mutex, Once};
use wasm_cell::{
    CellObject, CompileError,
    compiler::{CompileOptions, Compiler, CompilerSettings},
    types::TypeHash,
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

/// Compiles a module for this system, or finds it among those in use, without instantiating it
/// ([`crate::CrateNamespace::load_module`] does that). `name` is what errors call it.
pub fn compile_module(name: &str, bytes: &[u8], options: &LoadOptions) -> Result<Arc<CellModule>, LoadError> {
    module(&name.into(), bytes, options)
}

/// Compiles a module, or finds it among those in use.
pub(crate) fn module(cell: &Arc<str>, bytes: &[u8], options: &LoadOptions) -> Result<Arc<CellModule>, LoadError> {
    let failed = |source| LoadError::Compile { cell: cell.clone(), source };
    let key = (*blake3::hash(bytes).as_bytes(), options.guarded_memories);
    if let Some(known) = CACHE.lock().get_or_insert_default().get(&key).and_then(Weak::upgrade) {
        return Ok(known);
    }
    let compile = |salts: &[(TypeHash, u8)]| {
        let options = CompileOptions {
            guarded_memories: options.guarded_memories,
            type_salts: salts,
            ..CompileOptions::default()
        };
        compiler()?.compile(bytes, &options)
    };
    let mut object = compile(&types_registry::salts()).map_err(failed)?;
    let (types, collision) = claim_types(cell, &object)?;
    if collision.is_some() {
        object = compile(&types.salts()).map_err(failed)?;
    }
    let module = CellModule::with_types(cell, object, types)?;
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
