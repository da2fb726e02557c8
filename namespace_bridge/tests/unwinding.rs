//! Panics and traps on their way through frames of every size, and what backtraces show of them.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{CrateNamespace, LoadOptions, StrongCrateRef, Trap};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use wasm_cell::trap::TrapCode;

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    ns.load_wasm(name, &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Counts its drops.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A function with a frame of at least this many bytes: that many of its results of calls are alive at once.
fn with_frame(bytes: usize) -> String {
    let values = bytes / 8;
    let (mut gets, mut sums) = (String::new(), String::new());
    for i in 0..values {
        gets += &format!("(local.set {} (call $id (i64.const {i})))", i + 1);
        sums += &format!("(local.set 0 (i64.add (local.get 0) (local.get {})))", i + 1);
    }
    let locals = "i64 ".repeat(values);
    format!(
        "(func (export \"run\") (param i64) (result i64) (local {locals}) {gets} (call $host) {sums} (local.get 0))"
    )
}

#[test]
fn panics_cross_frames_of_every_size_and_run_all_destructors() {
    for bytes in [0, 5_000, 100_000] {
        let ns = CrateNamespace::new("test", None);
        let drops = Arc::new(AtomicUsize::new(0));
        let count = drops.clone();
        ns.define("env", "id", |x: i64| x).unwrap();
        ns.define("env", "host", move || -> () {
            let _counted = Counted(count.clone());
            panic_any(17u64)
        })
        .unwrap();
        let text = format!(
            r#"(module (import "env" "id" (func $id (param i64) (result i64))) (import "env" "host" (func $host)) {})"#,
            with_frame(bytes)
        );
        let cell = load(&ns, "framed", &text);
        let run = cell.typed_func::<(i64,), i64>("run").unwrap();
        // SAFETY: the signature is that of the function, and the cell lives.
        let raw: extern "C-unwind" fn(i64) -> i64 = unsafe { cell.func("run").unwrap().entry().unwrap() };
        for round in 0..5 {
            let outer = Counted(drops.clone());
            let by_call = catch_unwind(AssertUnwindSafe(|| {
                let _inside = outer;
                run.call((1,))
            }));
            assert_eq!(by_call.unwrap_err().downcast_ref::<u64>(), Some(&17), "{bytes} bytes");
            let values = std::hint::black_box([round; 6]);
            let by_entry = catch_unwind(|| raw(1));
            assert_eq!(by_entry.unwrap_err().downcast_ref::<u64>(), Some(&17), "{bytes} bytes");
            assert_eq!(values, [round; 6], "callee-saved registers come back");
            assert_eq!(drops.load(Ordering::SeqCst), (round + 1) * 3);
        }
    }
}

/// wasm → native → wasm → native …, `depth` times; the innermost wasm function traps.
fn ladder(ns: &CrateNamespace, drops: &Arc<AtomicUsize>) -> (StrongCrateRef, Arc<AtomicUsize>) {
    let (entry, count) = (Arc::new(AtomicUsize::new(0)), drops.clone());
    let again = entry.clone();
    ns.define("env", "step", move |n: i32| -> i32 {
        let _counted = Counted(count.clone());
        // SAFETY: the entry of `run`, whose cell lives as long as the test.
        let run: extern "C-unwind" fn(i32) -> i32 = unsafe { std::mem::transmute(again.load(Ordering::SeqCst)) };
        run(n - 1) + 1
    })
    .unwrap();
    let text = r#"(module (import "env" "step" (func $step (param i32) (result i32)))
        (func $fault (result i32) unreachable)
        (func $run (export "run") (param i32) (result i32)
            (if (result i32) (i32.eqz (local.get 0)) (then (call $fault)) (else (call $step (local.get 0))))))"#;
    let cell = load(ns, "ladder", text);
    // SAFETY: the signature is that of the function, and the cell lives.
    let raw: extern "C-unwind" fn(i32) -> i32 = unsafe { cell.func("run").unwrap().entry().unwrap() };
    entry.store(raw as *const () as usize, Ordering::SeqCst);
    (cell, entry)
}

#[test]
fn traps_unwind_through_native_frames_at_any_depth_and_show_them_all() {
    let ns = CrateNamespace::new("test", None);
    let drops = Arc::new(AtomicUsize::new(0));
    let (cell, _entry) = ladder(&ns, &drops);
    let run = cell.typed_func::<(i32,), i32>("run").unwrap();
    let mut dropped = 0;
    for depth in [0usize, 1, 2, 5, 40] {
        let trap = run.call((depth as i32,)).unwrap_err();
        assert_eq!(trap.code(), TrapCode::Unreachable);
        dropped += depth;
        assert_eq!(drops.load(Ordering::SeqCst), dropped);
        assert!(trap.depth() >= 2 + depth * 2, "{} frames at depth {depth}", trap.depth());
        if depth <= 5 {
            let frames: Vec<_> = trap.frames().collect();
            let wasm: Vec<_> = frames.iter().filter_map(|f| f.wasm.as_ref()).map(|w| w.name.to_string()).collect();
            let mut names = vec!["fault"];
            names.extend(vec!["run"; depth + 1]);
            assert_eq!(wasm, names, "{trap:#}");
            // The host function's closure, by its name, between any two of the cell's.
            let native = frames.iter().filter(|f| format!("{f:#}").contains("tests/unwinding.rs:"));
            assert_eq!(native.count(), depth, "{trap:#}");
        }
    }
}

#[test]
fn a_trap_below_native_frames_is_caught_where_a_host_function_catches_it() {
    let ns = CrateNamespace::new("test", None);
    let drops = Arc::new(AtomicUsize::new(0));
    let (cell, _entry) = ladder(&ns, &drops);
    // SAFETY: the signature is that of the function, and the cell lives.
    let raw: extern "C-unwind" fn(i32) -> i32 = unsafe { cell.func("run").unwrap().entry().unwrap() };
    let trap = namespace_bridge::catch_trap(|| raw(7)).unwrap_err();
    assert_eq!((trap.code(), drops.load(Ordering::SeqCst)), (TrapCode::Unreachable, 7));
    let payload = catch_unwind(|| raw(3)).unwrap_err();
    assert_eq!(payload.downcast_ref::<Trap>().unwrap().code(), TrapCode::Unreachable);
    assert_eq!(drops.load(Ordering::SeqCst), 10);
}

/// Cells whose `run` tail-calls functions with `count` arguments, of which most lie on the stack: of the cell itself, of a host function, and
/// of a cell behind a gate; and a chain that grows and shrinks. `panic` and `trap` are what happens at the end.
fn growing(ns: &CrateNamespace, count: usize, drops: &Arc<AtomicUsize>) -> StrongCrateRef {
    let of_host = drops.clone();
    ns.define("env", "end", move |how: i64| -> i64 {
        let _counted = Counted(of_host.clone());
        match how {
            0 => panic_any(17u64),
            _ => how,
        }
    })
    .unwrap();
    let of_many = drops.clone();
    // The seventh argument is the first on the stack.
    ns.define("env", "many", move |how: i64, _: i64, _: i64, _: i64, _: i64, _: i64, a: i64, b: i64, c: i64| {
        let _counted = Counted(of_many.clone());
        assert_eq!((a, b, c), (6, 7, 8));
        match how {
            0 => panic_any(17u64),
            1 => Err(namespace_bridge::HostError::from("on request")),
            _ => Ok(how),
        }
    })
    .unwrap();
    let params = "(param i64) ".repeat(count);
    let arguments = (1..count).map(|i| format!("(i64.const {i})")).collect::<String>();
    let gated = format!(
        r#"(module (import "env" "end" (func $end (param i64) (result i64))) (global $calls (mut i64) (i64.const 0))
        (func (export "gated") {params} (result i64)
            (global.set $calls (i64.add (global.get $calls) (i64.const 1)))
            (if (i64.eq (local.get 0) (i64.const 1)) (then unreachable))
            (call $end (local.get 0))))"#
    );
    load(ns, "gated", &gated);
    let text = format!(
        r#"(module (import "env" "end" (func $end (param i64) (result i64)))
        (import "env" "many" (func $many (param i64 i64 i64 i64 i64 i64 i64 i64 i64) (result i64)))
        (import "gated" "gated" (func $gated {params} (result i64)))
        (func $last {params} (result i64)
            (if (i64.eq (local.get 0) (i64.const 1)) (then unreachable))
            (call $end (local.get 0)))
        (func $less (param i64 i64 i64 i64 i64 i64 i64) (result i64) (return_call $last (local.get 0) {arguments}))
        (func (export "own") (param i64) (result i64) (return_call $last (local.get 0) {arguments}))
        (func (export "host") (param i64) (result i64)
            (return_call $many (local.get 0) (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4) (i64.const 5)
                (i64.const 6) (i64.const 7) (i64.const 8)))
        (func (export "gate") (param i64) (result i64) (return_call $gated (local.get 0) {arguments}))
        (func $more {params} (result i64)
            (return_call $less (local.get 0) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)))
        (func (export "chain") (param i64) (result i64) (return_call $more (local.get 0) {arguments})))"#
    );
    load(ns, "growing", &text)
}

#[test]
fn panics_and_traps_find_native_callers_below_tail_calls_with_more_stack_arguments() {
    for count in [7, 8, 9, 16, 33, 200] {
        let ns = CrateNamespace::new("test", None);
        let drops = Arc::new(AtomicUsize::new(0));
        let cell = growing(&ns, count, &drops);
        for export in ["own", "host", "gate", "chain"] {
            // SAFETY: the signature is that of the function, and the cell lives.
            let raw: extern "C-unwind" fn(i64) -> i64 = unsafe { cell.func(export).unwrap().entry().unwrap() };
            for round in 0..3i64 {
                let place = format!("{export} with {count} arguments");
                // Values in callee-saved registers and on the stack of a function without a frame pointer.
                let values = std::hint::black_box([round; 12]);
                let [a, b, c, d, e, ..] = values;
                drops.store(0, Ordering::SeqCst);
                assert_eq!(raw(5), 5, "{place}");
                let panicked = catch_unwind(AssertUnwindSafe(|| {
                    let _inside = Counted(drops.clone());
                    raw(0)
                }));
                assert_eq!(panicked.unwrap_err().downcast_ref::<u64>(), Some(&17), "{place}");
                assert_eq!(drops.load(Ordering::SeqCst), 3, "{place}: a call, a panic, and its caller");
                let trap = namespace_bridge::catch_trap(|| {
                    let _inside = Counted(drops.clone());
                    raw(1)
                });
                let trap = trap.unwrap_err();
                let expected = if export == "host" { TrapCode::HostError } else { TrapCode::Unreachable };
                assert_eq!(trap.code(), expected, "{place}");
                let dropped = if export == "host" { 5 } else { 4 };
                assert_eq!(drops.load(Ordering::SeqCst), dropped, "{place}: {trap:#}");
                assert!(trap.frames().any(|f| format!("{f:#}").contains("tests/unwinding.rs:")), "{place}: {trap:#}");
                let payload = catch_unwind(|| raw(1)).unwrap_err();
                assert_eq!(payload.downcast_ref::<Trap>().unwrap().code(), expected, "{place}");
                assert_eq!(std::hint::black_box(values), [round; 12], "{place}");
                assert_eq!([a, b, c, d, e], [round; 5], "{place}");
            }
        }
    }
}
