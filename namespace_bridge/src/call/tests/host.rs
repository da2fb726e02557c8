//! Host functions: their arguments and results, errors, traps and panics, and the stack that they run on.

use super::{Import, Linked, TRAPS, host};
use crate::call::*;
use crate::host::HostFunc;
use crate::val::Val;
use alloc::{format, string::String, sync::Arc, vec, vec::Vec};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use wasm_cell::types::FuncType;

#[derive(Debug, thiserror::Error)]
#[error("exit with {0}")]
struct Exit(i32);

#[test]
fn host_closures_get_arguments_and_return_results() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let cell = Linked::new(
        r#"(module
            (import "h" "add" (func $add (param i32 i64) (result i64)))
            (import "h" "many" (func $many (param i32 i32 i32 i32 i32 i32 i32 f64 i64) (result f64)))
            (import "h" "pair" (func $pair (param v128 f32) (result f32 v128)))
            (import "h" "note" (func $note (param externref)))
            (func (export "add") (param i32 i64) (result i64) (call $add (local.get 0) (local.get 1)))
            (func (export "many") (result f64)
                (call $many (i32.const 1) (i32.const 2) (i32.const 3) (i32.const 4) (i32.const 5) (i32.const 6)
                    (i32.const 7) (f64.const 8) (i64.const 9)))
            (func (export "twice") (result f64) (f64.add (call 5) (call 5)))
            (func (export "pair") (param v128 f32) (result f32 v128) (call $pair (local.get 0) (local.get 1)))
            (func (export "note") (param externref) (call $note (local.get 0))))"#,
        vec![
            host(|a: i32, b: i64| i64::from(a) + b),
            host(|a: i32, b: i32, c: i32, d: i32, e: i32, f: i32, g: i32, h: f64, i: u64| {
                f64::from(a + b * 2 + c * 3 + d * 4 + e * 5 + f * 6 + g * 7) + h * 8.0 + i as f64 * 9.0
            }),
            host(|v: u128, x: f32| (x * 2.0, v.rotate_left(64))),
            host(move |caller: &crate::Caller, r: Option<crate::ExternRef>| {
                assert!(caller.instance().is_none());
                counter.fetch_add(r.map_or(1000, |r| r.get() as usize), Ordering::SeqCst);
            }),
        ],
    );
    assert_eq!(cell.typed::<(i32, i64), i64>("add").call((-2, 5)).unwrap(), 3);
    let sum: f64 = (1..=9).map(|i| f64::from(i * i)).sum();
    assert_eq!(cell.typed::<(), f64>("many").call(()).unwrap(), sum);
    assert_eq!(cell.typed::<(), f64>("twice").call(()).unwrap(), 2.0 * sum);
    let v = 0x0123_4567_89ab_cdef_u128;
    assert_eq!(cell.typed::<(u128, f32), (f32, u128)>("pair").call((v, 1.5)).unwrap(), (3.0, v << 64));
    let note = cell.typed::<(Option<crate::ExternRef>,), ()>("note");
    note.call((None,)).unwrap();
    note.call((crate::ExternRef::new(5),)).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 1005);
}

#[test]
fn dynamic_host_functions_take_any_signature() {
    for n in [0, 3, 8, 9, 30] {
        let types: Vec<&str> = (0..n).map(|i| ["i32", "f64", "i64", "v128", "f32"][i % 5]).collect();
        let (params, results) = (types.join(" "), types.iter().rev().copied().collect::<Vec<_>>().join(" "));
        let gets: String = (0..n).map(|i| format!("(local.get {i}) ")).collect();
        let wat = format!(
            r#"(module (import "h" "f" (func $f (param {params}) (result {results})))
                (func (export "f") (param {params}) (result {results}) (call $f {gets})))"#
        );
        let of = |t: &&str| match *t {
            "i32" => wasm_cell::types::ValType::I32,
            "i64" => wasm_cell::types::ValType::I64,
            "f32" => wasm_cell::types::ValType::F32,
            "f64" => wasm_cell::types::ValType::F64,
            _ => wasm_cell::types::ValType::V128,
        };
        let params: Vec<_> = types.iter().map(of).collect();
        let ty = FuncType::new(params.clone(), params.iter().rev().copied().collect::<Vec<_>>());
        let reverse = HostFunc::dynamic(ty, |_, args, results| {
            results.iter_mut().zip(args.iter().rev()).for_each(|(r, a)| *r = *a);
            Ok(())
        });
        let cell = Linked::new(&wat, vec![Import::Host(reverse)]);
        // SAFETY: no function references among them.
        let args: Vec<Val> =
            params.iter().enumerate().map(|(i, t)| unsafe { Val::from_raw(i as u128 * 77 + 1, t) }).collect();
        let mut results = vec![Val::I32(0); n];
        for _ in 0..100 {
            cell.func("f").call(&args, &mut results).unwrap();
            results.reverse();
            assert_eq!(results, args);
        }
    }
}

#[test]
fn an_error_of_a_host_function_is_a_trap_that_carries_it() {
    let cell = Linked::new(
        r#"(module (import "h" "exit" (func $exit (param i32)))
            (func $leave (param i32) (call $exit (local.get 0)))
            (func (export "run") (param i32) (call $leave (local.get 0))))"#,
        vec![host(|code: i32| -> Result<(), Exit> {
            if code == 0 { Ok(()) } else { Err(Exit(code)) }
        })],
    );
    let run = cell.typed::<(i32,), ()>("run");
    run.call((0,)).unwrap();
    for i in 1..100 {
        let trap = run.call((i,)).unwrap_err();
        assert_eq!(trap.code(), TrapCode::HostError);
        assert_eq!(trap.downcast_ref::<Exit>().unwrap().0, i);
        let names: Vec<_> = trap.frames().map(|f| f.wasm.unwrap().name.into_owned()).collect();
        assert_eq!(names, ["leave", "run"]);
    }
}

#[test]
fn a_trap_that_a_host_function_passes_on_keeps_its_code_and_cause() {
    let inner = Linked::new(TRAPS, vec![]);
    let load = inner.typed::<(i32,), i32>("load");
    let outer = Linked::new(
        r#"(module (import "h" "f" (func $f (param i32) (result i32)))
            (func (export "run") (param i32) (result i32) (call $f (local.get 0))))"#,
        vec![host(move |at: i32| load.call((at,)))],
    );
    let run = outer.typed::<(i32,), i32>("run");
    assert_eq!(run.call((8,)).unwrap(), 0);
    let trap = run.call((-1,)).unwrap_err();
    assert_eq!(trap.code(), TrapCode::MemoryOutOfBounds);
    assert_eq!(trap.origin().unwrap().name, "run");
    assert_eq!(trap.cause().unwrap().origin().unwrap().name, "load");
    assert!(format!("{trap:#}").contains("\ncaused by: out of bounds memory access in test!load"), "{trap:#}");
}

#[test]
fn a_panic_of_a_host_function_crosses_wasm_and_leaves_the_cell_usable() {
    let cell = Linked::new(
        r#"(module (import "h" "f" (func $f (param i32)))
            (func (export "run") (param i32) (call $f (local.get 0))))"#,
        vec![host(|x: i32| -> () { std::panic::resume_unwind(alloc::boxed::Box::new(x)) })],
    );
    let run = cell.typed::<(i32,), ()>("run");
    for i in 0..20 {
        let payload = catch_unwind(AssertUnwindSafe(|| run.call((i,)))).unwrap_err();
        assert_eq!(*payload.downcast::<i32>().unwrap(), i);
        assert!(innermost(current_task()).is_null());
    }
}

#[test]
fn catches_nest_through_host_functions() {
    let inner = Linked::new(TRAPS, vec![]);
    let load = inner.typed::<(i32,), i32>("load");
    let outer = Linked::new(
        r#"(module (import "h" "try" (func $try (param i32) (result i32)))
            (func (export "run") (param i32) (result i32) (call $try (local.get 0)))
            (func (export "fail") (param i32) (result i32) (drop (call $try (local.get 0))) unreachable))"#,
        vec![host(move |at: i32| match load.call((at,)) {
            Ok(v) => v,
            Err(t) => 100 + t.code() as i32,
        })],
    );
    let run = outer.typed::<(i32,), i32>("run");
    assert_eq!(run.call((0,)).unwrap(), 0);
    assert_eq!(run.call((-1,)).unwrap(), 100 + TrapCode::MemoryOutOfBounds as i32);
    let fail = outer.typed::<(i32,), i32>("fail");
    assert_eq!(fail.call((-1,)).unwrap_err().code(), TrapCode::Unreachable);
}

#[test]
fn host_functions_run_close_to_the_stack_limit_and_cells_go_on_afterwards() {
    let small = Linked::new(r#"(module (func (export "f") (result i32) (i32.const 7)))"#, vec![]);
    let inner = small.typed::<(), i32>("f");
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let cell = Linked::new(
        r#"(module (import "h" "big" (func $big))
            (func $f (export "f") (param i32) (result i32)
                (call $big) (i32.add (i32.const 1) (call $f (i32.add (local.get 0) (i32.const 1))))))"#,
        vec![host(move || {
            let mut buffer = [0u8; 20_000];
            std::hint::black_box(&mut buffer);
            match inner.call(()) {
                Ok(7) => {}
                Err(t) if t.code() == TrapCode::StackOverflow => {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                other => panic!("{other:?}"),
            }
        })],
    );
    let f = cell.typed::<(i32,), i32>("f");
    for _ in 0..5 {
        assert_eq!(f.call((0,)).unwrap_err().code(), TrapCode::StackOverflow);
    }
    assert!(refused.load(Ordering::SeqCst) > 0);
}
