//! New versions that take over what did not change behave as if they had been compiled in full, down to the place of a trap.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use namespace_bridge::{
    CellModule, CrateNamespace, LoadOptions, StrongCrateRef, Val, compile_module, compile_module_reusing, reclaim,
    retired,
};
use std::sync::Arc;
use std::thread;
use wasm_cell::trap::TrapCode;

/// Three functions that trap in different ways, behind one whose length changes.
fn module(first: &str, divisor: i32) -> Vec<u8> {
    wat::parse_str(format!(
        r#"(module (memory 1) (table 2 funcref) (global $n (mut i32) (i32.const 0))
        (func $first (export "first") (result i32) {first})
        (func $count (export "count") (result i32)
            (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))
        (func $div (export "div") (param i32) (result i32) (i32.div_s (local.get 0) (i32.const {divisor})))
        (func $through (param i32) (result i32) (drop (call $count)) (call $div (local.get 0)))
        (func (export "far") (result i32) (i32.load (i32.const -4)))
        (func (export "indirect") (param i32) (result i32) (call_indirect (result i32) (local.get 0)))
        (func (export "deep") (param i32) (result i32) (call $through (local.get 0)))
        (elem (i32.const 0) $first))"#
    ))
    .unwrap()
}

fn load(module: &Arc<CellModule>) -> StrongCrateRef {
    CrateNamespace::new("incremental", None).load_module("cell", module, LoadOptions::default()).unwrap()
}

/// What a call came to: its result, or its trap with function and offset of each frame.
type Observed = Result<i32, (TrapCode, Vec<(Option<u32>, Option<u32>)>)>;

fn call(cell: &StrongCrateRef, name: &str, args: &[Val]) -> Observed {
    let mut results = [Val::I32(0)];
    match cell.func(name).unwrap().call(args, &mut results) {
        Ok(()) => match results[0] {
            Val::I32(n) => Ok(n),
            _ => unreachable!(),
        },
        Err(e) => {
            let trap = e.into_trap().unwrap();
            let wasm = trap.frames().filter_map(|f| f.wasm);
            let places = wasm.map(|f| (f.function, f.wasm_offset)).collect();
            Err((trap.code(), places))
        }
    }
}

fn apart<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|s| s.spawn(f).join().unwrap())
}

/// Everything observable of the calls to a cell of `module`, which is gone afterwards: it runs in a task that has ended, whose stack keeps
/// nothing.
fn observe(module: &Arc<CellModule>) -> Vec<Observed> {
    let observed = apart(|| observe_cell(&load(module)));
    assert!(
        (0..5000).any(|_| apart(reclaim) == 0 || {
            thread::yield_now();
            false
        }),
        "{:?}",
        retired()
    );
    observed
}

fn observe_cell(cell: &StrongCrateRef) -> Vec<Observed> {
    let calls: [(&str, &[Val]); 8] = [
        ("first", &[]),
        ("count", &[]),
        ("div", &[Val::I32(84)]),
        ("deep", &[Val::I32(84)]),
        ("count", &[]),
        ("far", &[]),
        ("indirect", &[Val::I32(0)]),
        ("indirect", &[Val::I32(7)]),
    ];
    calls.map(|(name, args)| call(cell, name, args)).into()
}

#[test]
fn a_version_with_code_taken_over_behaves_like_one_compiled_in_full() {
    let options = LoadOptions::default();
    // A new divisor changes `through` as well, where the body of `div` stands in place of the call.
    let longer = "(if (i32.eqz (memory.size)) (then (unreachable))) (i32.const 2)";
    for (first, divisor, compiled) in [(longer, 0, 1), ("(i32.const 77)", 0, 1), (longer, 5, 3)] {
        let old = compile_module("cell", &module("(i32.const 1)", 0), &options).unwrap();
        let new = module(first, divisor);
        let full = observe(&compile_module("cell", &new, &options).unwrap());
        // The cache lets go of a module that nobody uses.
        let (reused, report) = compile_module_reusing("cell", &new, &options, &old).unwrap();
        assert_eq!((report.compiled, report.reused), (compiled, 7 - compiled), "{first}");
        assert_eq!(observe(&reused), full);
        assert!(full.iter().filter_map(|r| r.as_ref().err()).all(|(_, places)| places.iter().all(|p| p.1.is_some())));
    }
}

#[test]
fn code_is_taken_over_while_the_old_version_runs_and_after_it_is_gone() {
    let options = LoadOptions::default();
    let old = compile_module("cell", &module("(i32.const 10)", 3), &options).unwrap();
    let running = load(&old);
    let (new, report) = compile_module_reusing("cell", &module("(i32.const 11)", 3), &options, &old).unwrap();
    assert_eq!(report.compiled, 1);
    drop((running, old));
    let cell = load(&new);
    assert_eq!((call(&cell, "first", &[]), call(&cell, "deep", &[Val::I32(9)])), (Ok(11), Ok(3)));
    // A third version from the second, which was never compiled as a whole itself.
    let (third, report) = compile_module_reusing("cell", &module("(i32.const 12)", 3), &options, &new).unwrap();
    assert_eq!(report.compiled, 1);
    drop((new, cell));
    assert_eq!(call(&load(&third), "deep", &[Val::I32(27)]), Ok(9));
}

#[test]
fn an_old_version_from_an_object_file_gives_its_code_as_well() {
    let options = LoadOptions::default();
    let wasm = module("(i32.const 20)", 4);
    let compiler = namespace_bridge::compiler().unwrap();
    let object = compiler.compile(&wasm, &wasm_cell::CompileOptions::default()).unwrap();
    let elf = object.to_elf().unwrap();
    let old = CellModule::new(&"cell".into(), wasm_cell::CellObject::from_elf(&elf).unwrap()).unwrap();
    let (new, report) = compile_module_reusing("cell", &module("(i32.const 21)", 4), &options, &old).unwrap();
    assert_eq!((report.compiled, report.reused), (1, 6));
    assert_eq!(call(&load(&new), "first", &[]), Ok(21));
}

#[test]
fn a_module_in_use_is_not_compiled_again() {
    let options = LoadOptions::default();
    let wasm = module("(i32.const 30)", 1);
    let first = compile_module("cell", &wasm, &options).unwrap();
    let (again, report) = compile_module_reusing("cell", &wasm, &options, &first).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!((report.compiled, report.reused), (0, 7));
}

#[test]
fn an_invalid_version_is_refused_and_the_old_one_goes_on() {
    let options = LoadOptions::default();
    let old = compile_module("cell", &module("(i32.const 40)", 1), &options).unwrap();
    let cell = load(&old);
    let mut bad = module("(i32.const 41)", 1);
    let end = bad.len() - 8;
    bad.truncate(end);
    let error = compile_module_reusing("cell", &bad, &options, &old).unwrap_err();
    assert!(error.to_string().contains("cell"), "{error}");
    assert_eq!(call(&cell, "first", &[]), Ok(40));
}
