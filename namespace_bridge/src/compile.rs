//! From wasm bytes to a module ready for instantiation, compiled at most once while anybody uses it.
//!
//! Code is compiled with the type ids that the registry has for its types. A module in the cache keeps its own registered, so
//! it fits whoever finds it. A module that brings a type whose id is taken is compiled again, with ids that the registry has
//! set aside for it: once, whatever other tasks load meanwhile.
#![deny(unsafe_code)]

use crate::code::{CellModule, claim_types};
use crate::error::LoadError;
use crate::old_code::OldCode;
use crate::options::LoadOptions;
use crate::types_registry;
use alloc::sync::{Arc, Weak};
use hashbrown::HashMap;
use spin::{Mutex, Once};
use wasm_cell::{
    CellObject, CompileError,
    compiler::{CompileOptions, Compiler, CompilerSettings},
    header::ObjectHeader,
    parallel::Helpers,
    reuse::ReuseReport,
    types::TypeHash,
};

/// What identifies a compilation: the module's bytes, by hash, and the options that change the code.
type Key = ([u8; 32], bool);

static COMPILER: Once<Result<Compiler, CompileError>> = Once::new();
static CACHE: Mutex<Option<HashMap<Key, Weak<CellModule>>>> = Mutex::new(None);

/// The port's processors, as the compiler's helpers.
#[derive(Debug)]
struct Processors;

static PROCESSORS: Processors = Processors;

impl Helpers for Processors {
    fn together(&self, work: &(dyn Fn() + Sync)) {
        runtime_port::together::together(work);
    }
}

/// The compiler for this processor.
pub fn compiler() -> Result<&'static Compiler, CompileError> {
    COMPILER
        .call_once(|| {
            let settings = CompilerSettings { cpu: crate::processor::features(), ..CompilerSettings::default() };
            Compiler::new(settings).map(|c| c.with_helpers(&PROCESSORS))
        })
        .as_ref()
        .map_err(Clone::clone)
}

/// Compiles a module for this system, or finds it among those in use, without instantiating it
/// ([`crate::CrateNamespace::load_module`] does that). `name` is what errors call it.
pub fn compile_module(name: &str, bytes: &[u8], options: &LoadOptions) -> Result<Arc<CellModule>, LoadError> {
    module(&name.into(), bytes, options)
}

/// Compiles a module as the next version of `old`, from which the code of unchanged functions is taken over. The module is
/// validated as a whole all the same. The report says what was taken over; all of it when the module is in use already.
pub fn compile_module_reusing(
    name: &str,
    bytes: &[u8],
    options: &LoadOptions,
    old: &Arc<CellModule>,
) -> Result<(Arc<CellModule>, ReuseReport), LoadError> {
    compile(&name.into(), bytes, options, Some(old))
}

/// As [`compile_module_reusing`], but gives the object, for whoever keeps objects. Types have the ids that they have in a system in which no two collide.
pub fn compile_object_reusing(
    bytes: &[u8],
    options: &LoadOptions,
    old: &Arc<CellModule>,
) -> Result<(CellObject, ReuseReport), CompileError> {
    let old = Some(old).filter(|old| !old.is_suspect()).and_then(|old| OldCode::map(old).ok());
    let options = CompileOptions { guarded_memories: options.guarded_memories, ..CompileOptions::default() };
    compiler()?.compile_reusing(bytes, &options, old.as_ref().map(OldCode::version))
}

/// Compiles a module, or finds it among those in use.
pub(crate) fn module(cell: &Arc<str>, bytes: &[u8], options: &LoadOptions) -> Result<Arc<CellModule>, LoadError> {
    compile(cell, bytes, options, None).map(|(module, _)| module)
}

/// Compiles a module as the next version of `old`, if there is one, or finds it among those in use.
pub(crate) fn next_version(
    cell: &Arc<str>,
    bytes: &[u8],
    options: &LoadOptions,
    old: Option<&Arc<CellModule>>,
) -> Result<(Arc<CellModule>, ReuseReport), LoadError> {
    compile(cell, bytes, options, old)
}

fn compile(
    cell: &Arc<str>,
    bytes: &[u8],
    options: &LoadOptions,
    old: Option<&Arc<CellModule>>,
) -> Result<(Arc<CellModule>, ReuseReport), LoadError> {
    let failed = |source| LoadError::Compile { cell: cell.clone(), source };
    let key = (*blake3::hash(bytes).as_bytes(), options.guarded_memories);
    // A damaged module is made anew.
    let known = CACHE.lock().get_or_insert_default().get(&key).and_then(Weak::upgrade);
    if let Some(known) = known.filter(|m| !m.is_suspect()) {
        let m = known.metadata();
        let code = m.funcs.iter().map(|f| u64::from(f.size)).sum();
        let report = ReuseReport { reused: m.funcs.len() as u32, reused_bytes: code, ..ReuseReport::default() };
        return Ok((known, report));
    }
    // Without the old version's code every function is compiled: that costs time and is no reason to fail.
    let old = old.filter(|old| !old.is_suspect()).and_then(|old| OldCode::map(old).ok());
    let old = old.as_ref().map(OldCode::version);
    let compile = |salts: &[(TypeHash, u8)]| {
        let options = CompileOptions {
            guarded_memories: options.guarded_memories,
            type_salts: salts,
            ..CompileOptions::default()
        };
        compiler()?.compile_reusing(bytes, &options, old)
    };
    let (mut object, mut report) = compile(&types_registry::salts()).map_err(failed)?;
    let (types, collision) = claim_types(cell, &object.metadata)?;
    if collision.is_some() {
        (object, report) = compile(&types.salts()).map_err(failed)?;
    }
    let module = CellModule::with_types(cell, object.into(), types)?;
    let mut cache = CACHE.lock();
    let cache = cache.get_or_insert_default();
    if cache.len() == cache.capacity() {
        cache.retain(|_, m| m.strong_count() > 0);
    }
    cache.insert(key, Arc::downgrade(&module));
    Ok((module, report))
}

/// Refuses an object compiled for a processor with features this one lacks. `cell` is the name that errors use.
pub fn check_header(cell: &Arc<str>, header: &ObjectHeader) -> Result<(), LoadError> {
    crate::processor::check(header).map_err(|source| LoadError::Compile { cell: cell.clone(), source })
}
