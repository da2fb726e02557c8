//! A function taken for one of another type: between cells, after types were freed and registered again, and in races for the
//! registry.

use super::{call, load, namespace};
use namespace_bridge::{LoadOptions, Val};
use std::sync::Barrier;
use std::thread;
use wasm_cell::trap::TrapCode;

/// A cell whose type number 0 is the one with `n` parameters.
fn with_type(n: usize) -> String {
    let params = "i64 ".repeat(n);
    let args = "(i64.const 3) ".repeat(n);
    format!(
        r#"(module (type $t (func (param {params}) (result i64)))
            (import "shared" "table" (table 4 funcref))
            (func $f (export "f") (type $t) i64.const {n})
            (elem declare func $f)
            (func (export "put") (param i32) (table.set (local.get 0) (ref.func $f)))
            (func (export "call") (param i32) (result i64) (call_indirect (type $t) {args} (local.get 0))))"#
    )
}

fn shared_table() -> std::sync::Arc<namespace_bridge::CrateNamespace> {
    let ns = namespace();
    load(&ns, "shared", r#"(module (table (export "table") 4 funcref))"#);
    ns
}

#[test]
fn cells_number_their_types_alike_and_mean_different_ones() {
    let ns = shared_table();
    let cells: Vec<_> = (0..4).map(|n| load(&ns, &format!("c{n}"), &with_type(n))).collect();
    for (n, cell) in cells.iter().enumerate() {
        call(cell, "put", &[Val::I32(n as i32)]).unwrap();
    }
    for (caller, cell) in cells.iter().enumerate() {
        for callee in 0..4 {
            let expected = if caller == callee { Ok(Val::I64(caller as i64)) } else { Err(TrapCode::BadSignature) };
            assert_eq!(call(cell, "call", &[Val::I32(callee as i32)]), expected);
        }
    }
}

#[test]
fn a_type_that_was_freed_is_not_mistaken_for_the_next_one_registered() {
    let ns = shared_table();
    let caller = load(&ns, "caller", &with_type(1));
    for n in 2..40 {
        let name = format!("temporary{n}");
        let cell = load(&ns, &name, &with_type(n));
        call(&cell, "put", &[Val::I32(0)]).unwrap();
        assert_eq!(call(&caller, "call", &[Val::I32(0)]), Err(TrapCode::BadSignature));
        drop(cell);
        ns.unload_force(&name).unwrap();
        // Of another type than asked for, or gone: never called as what it is not.
        let gone = call(&caller, "call", &[Val::I32(0)]).unwrap_err();
        assert!(matches!(gone, TrapCode::BadSignature | TrapCode::FunctionGone), "{gone:?}");
    }
}

#[test]
fn tasks_that_race_for_the_registry_agree_on_every_type() {
    let ns = shared_table();
    let caller = load(&ns, "caller", &with_type(2));
    let start = Barrier::new(3);
    thread::scope(|scope| {
        for task in 0..3 {
            let (ns, start, caller) = (ns.clone(), &start, caller.clone());
            scope.spawn(move || {
                start.wait();
                for round in 0..60 {
                    // The same types come and go in all tasks at once.
                    let n = 1 + (round + task) % 3;
                    let name = format!("{task}");
                    let cell = ns
                        .load_wasm(&name, &wat::parse_str(with_type(n)).unwrap(), LoadOptions::default())
                        .unwrap_or_else(|e| panic!("{e}"));
                    let slot = [Val::I32(task as i32)];
                    call(&cell, "put", &slot).unwrap();
                    assert_eq!(call(&cell, "call", &slot), Ok(Val::I64(n as i64)));
                    let expected = if n == 2 { Ok(Val::I64(2)) } else { Err(TrapCode::BadSignature) };
                    assert_eq!(call(&caller, "call", &slot), expected);
                    drop(cell);
                    ns.unload_force(&name).unwrap();
                }
            });
        }
    });
}

#[test]
fn imports_are_matched_by_structure_with_the_whole_recursion_group() {
    let ns = namespace();
    load(
        &ns,
        "exporter",
        r#"(module (rec (type $a (func (param (ref null $b)))) (type $b (func (param i32))))
            (func (export "f") (type $a)))"#,
    );
    let import = |types: &str| {
        let text = format!(r#"(module {types} (import "exporter" "f" (func (type $a))))"#);
        ns.load_wasm("importer", &wat::parse_str(text).unwrap(), LoadOptions::default())
    };
    // Alike member by member, but not the same group.
    assert!(import("(type $b (func (param i32))) (type $a (func (param (ref null $b))))").is_err());
    assert!(
        import("(rec (type $a (func (param (ref null $b)))) (type $b (func (param i32))) (type $c (func)))").is_err()
    );
    assert!(import("(rec (type $a (func (param (ref null $b)))) (type $b (func (param i64))))").is_err());
    assert!(import("(rec (type $a (func (param (ref null $b)))) (type $b (func (param i32))))").is_ok());
}
