//! The kinds of defects that WebAssembly runtimes and their compilers had to publish advisories about, tried here: one module for each
//! kind, named in the words of the advisories of Wasmtime and Cranelift.

#![expect(clippy::unwrap_used, reason = "tests")]

mod bounds_elision;
mod interruption;
mod reachable_panics;
mod reuse;
mod stack_traces;
mod type_confusion;
mod widened_loads;

use namespace_bridge::{CrateNamespace, LoadOptions, StrongCrateRef, Val};
use std::sync::Arc;
use wasm_cell::trap::TrapCode;

fn namespace() -> Arc<CrateNamespace> {
    CrateNamespace::new("advisories", None)
}

fn load_with(ns: &CrateNamespace, name: &str, text: &str, options: LoadOptions) -> StrongCrateRef {
    let bytes = wat::parse_str(text).unwrap_or_else(|e| panic!("{name}: {e}"));
    ns.load_wasm(name, &bytes, options).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    load_with(ns, name, text, LoadOptions::default())
}

/// Calls a function with at most one result; 0 for none.
fn call(cell: &StrongCrateRef, name: &str, args: &[Val]) -> Result<Val, TrapCode> {
    let func = cell.func(name).unwrap();
    let mut results = vec![Val::I32(0); func.ty().results.len()];
    match func.call(args, &mut results) {
        Ok(()) => Ok(results.first().copied().unwrap_or(Val::I32(0))),
        Err(e) => Err(e.into_trap().unwrap().code()),
    }
}
