//! Any bytes to the compiler and the loader.

use super::object::check_round_trip;
use namespace_bridge::{CrateNamespace, LoadOptions};
use std::sync::{Arc, OnceLock};
use wasm_cell::{CellObject, CompileError, CompileOptions, Compiler, CompilerSettings};
use wasmparser::Validator;

/// Gives any bytes to the compiler, and what compiles to the loader.
///
/// # Panics
/// An error does not say where; the compiler and the validator differ on what is valid; an object does not survive
/// being written and read.
pub fn load_bytes(wasm: &[u8]) {
    match compile(wasm) {
        Ok(object) => {
            check_round_trip(&object);
            check_load(wasm, &object);
        }
        Err(error) => check_error(wasm, &error),
    }
}

/// Compiles with the settings that fuzzing uses: code is generated for the baseline and checked by the verifier.
///
/// # Errors
/// What [`Compiler::compile`] says.
pub fn compile(wasm: &[u8]) -> Result<CellObject, CompileError> {
    compiler().compile(wasm, &CompileOptions::default())
}

/// The compiler that fuzzing uses.
pub(super) fn compiler() -> &'static Compiler {
    static COMPILER: OnceLock<Compiler> = OnceLock::new();
    COMPILER.get_or_init(|| {
        let settings = CompilerSettings { verify_ir: true, ..CompilerSettings::default() };
        Compiler::new(settings).expect("the baseline always has a code generator")
    })
}

/// Loads a module that compiled, unless its start function would run, which may never end.
fn check_load(wasm: &[u8], object: &CellObject) {
    if object.metadata.start.is_some() {
        return;
    }
    // One a thread: tests run side by side, and each counts what is left.
    thread_local!(static NAMESPACE: Arc<CrateNamespace> = CrateNamespace::new("fuzz", None));
    let namespace = NAMESPACE.with(Arc::clone);
    match namespace.load_wasm("fuzzed", wasm, LoadOptions::default()) {
        Ok(cell) => {
            assert_eq!(namespace.symbol_count(), object.metadata.exports.len());
            drop(cell);
            namespace.unload("fuzzed").unwrap_or_else(|e| panic!("{e}"));
        }
        Err(error) => assert!(error.to_string().contains("`fuzzed`"), "does not name the cell: {error}"),
    }
    assert_eq!((namespace.crate_count(), namespace.symbol_count()), (0, 0), "something is left in the namespace");
}

fn check_error(wasm: &[u8], error: &CompileError) {
    let valid = Validator::new_with_features(wasm_cell::features::FEATURES).validate_all(wasm);
    match error {
        CompileError::Invalid { offset, reason } | CompileError::UnsupportedFeature { offset, reason, .. } => {
            assert!(*offset <= wasm.len() as u64, "offset {offset} beyond {} bytes: {reason}", wasm.len());
            assert!(!reason.is_empty(), "no reason at {offset}");
            assert!(valid.is_err(), "the validator accepts what was refused with: {error}");
        }
        CompileError::Limit { what, value, limit } => assert!(value > limit, "{what}: {value} is within {limit}"),
        other => panic!("not the module's fault: {other}"),
    }
}
