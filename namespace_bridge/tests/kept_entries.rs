//! Entries whose addresses may be held anywhere outlive their cell, and little else of it does. A process of its own: it counts.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::swap::SwapRequest;
use namespace_bridge::{CrateNamespace, LoadOptions, StrongCrateRef, catch_trap, compile_module, reclaim};
use runtime_port::memory::committed_bytes;
use runtime_port::platform;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use wasm_cell::trap::TrapCode;

static ALONE: Mutex<()> = Mutex::new(());

/// What a name may keep once its cell is gone: a page of code, a page of words.
const PER_NAME: usize = 2 * 4096;

/// A cell whose function references can get anywhere, with much text, read-only data and globals.
fn escaping(result: usize) -> Vec<u8> {
    large(result, r#"(table (export "table") 4 funcref) (elem (i32.const 0) $f)"#)
}

/// A cell with this besides.
fn large(result: usize, what: &str) -> Vec<u8> {
    let functions: String = (0..200)
        .map(|i| format!("(func (param i64) (result i64) (i64.div_s (i64.const {}) (local.get 0)))", i + result))
        .collect();
    let globals = "(global (mut v128) (v128.const i64x2 1 2))".repeat(1000);
    let data = "x".repeat(100_000);
    wat::parse_str(format!(
        r#"(module {what} (memory 1)
        (func $f (export "f") (result i32) (i32.const {result})) {functions} {globals} (data "{data}"))"#
    ))
    .unwrap()
}

fn load(ns: &CrateNamespace, name: &str, wasm: &[u8]) -> StrongCrateRef {
    ns.load_wasm(name, wasm, LoadOptions::default()).unwrap()
}

fn settle() {
    while reclaim() > 0 {
        thread::yield_now();
    }
}

/// Frames of mappings with their own, shared frames, and address space, in bytes.
fn memory() -> [usize; 3] {
    settle();
    let statistics = platform().memory().statistics();
    [committed_bytes(), statistics.shared_bytes, statistics.reserved_bytes]
}

#[test]
fn a_name_keeps_two_pages_of_a_cell_of_any_size() {
    let _alone = ALONE.lock();
    let ns = CrateNamespace::new("test", None);
    let round = |names: std::ops::Range<usize>| {
        for i in names {
            let name = format!("cell {i}");
            let cell = load(&ns, &name, &escaping(i));
            assert!(cell.code().unwrap().text().len() > 3 * 4096);
            assert_eq!(cell.typed_func::<(), i32>("f").unwrap().call(()).unwrap(), i as i32);
            drop(cell);
            ns.unload(&name).unwrap();
        }
    };
    round(0..20);
    let before = memory();
    round(20..120);
    let after = memory();
    let [committed, shared, reserved] = [0, 1, 2].map(|i| (after[i] - before[i]) / 100);
    println!("a name keeps {committed} bytes of words, {shared} of code, {reserved} of address space");
    assert!(committed + shared <= PER_NAME && reserved <= PER_NAME, "{before:?} {after:?}");
}

#[test]
fn a_version_that_was_replaced_leaves_two_pages_to_its_successor() {
    let _alone = ALONE.lock();
    let ns = CrateNamespace::new("test", None);
    let small = wat::parse_str(r#"(module (func (export "f") (result i32) (i32.const -1)))"#).unwrap();
    let small = compile_module("small", &small, &LoadOptions::default()).unwrap();
    const USER: &str =
        r#"(module (import "NAME" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#;
    let round = |names: std::ops::Range<usize>, replaced: bool| {
        for i in names {
            let (name, user) = (format!("cell {i}"), format!("user {i}"));
            // Functions of it are reached by its entries alone: they cannot get anywhere.
            match replaced {
                true => drop(load(&ns, &name, &large(i, ""))),
                false => drop(ns.load_module(&name, &small, LoadOptions::default()).unwrap()),
            }
            let user = load(&ns, &user, &wat::parse_str(USER.replace("NAME", &name)).unwrap());
            let g = user.typed_func::<(), i32>("g").unwrap();
            if replaced {
                assert_eq!(g.call(()).unwrap(), i as i32);
                ns.swap(SwapRequest::new(&name).with_module(&small).keep_old(false)).unwrap();
            }
            assert_eq!(g.call(()).unwrap(), -1);
        }
    };
    let cost = |names: std::ops::Range<usize>, replaced: bool| {
        let before = memory();
        // In a task of its own, so that nothing of it is left on this one's stack.
        thread::scope(|s| s.spawn(|| round(names, replaced)).join().unwrap());
        let after = memory();
        [0, 1, 2].map(|i| (after[i] - before[i]) / 50)
    };
    round(0..20, true);
    let (first, second) = (cost(20..70, false), cost(70..120, true));
    let [committed, shared, reserved] = [0, 1, 2].map(|i| second[i].saturating_sub(first[i]));
    println!("a replaced version leaves {committed} bytes of words, {shared} of code, {reserved} of address space");
    assert!(committed + shared <= PER_NAME && reserved <= PER_NAME, "{first:?} {second:?}");
}

#[test]
fn an_entry_that_is_kept_traps_and_leads_to_the_next_cell_of_the_name() {
    let _alone = ALONE.lock();
    let ns = CrateNamespace::new("test", None);
    let cell = load(&ns, "cell", &escaping(1));
    // SAFETY: of this type.
    let f = unsafe { cell.entry::<extern "C-unwind" fn() -> i32>("f") }.unwrap();
    assert_eq!(catch_trap(|| f()).unwrap(), 1);
    drop(cell);
    for version in 2..10 {
        ns.unload("cell").unwrap();
        settle();
        assert_eq!(catch_trap(|| f()).unwrap_err().code(), TrapCode::FunctionGone);
        load(&ns, "cell", &escaping(version));
        assert_eq!(catch_trap(|| f()).unwrap(), version as i32);
    }
}

#[test]
fn who_calls_a_kept_entry_meanwhile_notices_nothing() {
    let _alone = ALONE.lock();
    let ns = CrateNamespace::new("test", None);
    let module = load(&ns, "other", &escaping(7)).module().unwrap().clone();
    let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    for round in 0..50 {
        let name = format!("cell {round}");
        let cell = ns.load_module(&name, &module, LoadOptions::default()).unwrap();
        // SAFETY: of this type.
        let f = unsafe { cell.entry::<extern "C-unwind" fn() -> i32>("f") }.unwrap();
        drop(cell);
        stop.store(false, Ordering::SeqCst);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    platform().tasks().attach().unwrap();
                    while !stop.load(Ordering::SeqCst) {
                        match catch_trap(|| f()) {
                            Ok(result) => assert_eq!(result, 7),
                            Err(trap) => assert_eq!(trap.code(), TrapCode::FunctionGone),
                        }
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            let before = calls.load(Ordering::Relaxed);
            while calls.load(Ordering::Relaxed) < before + 100 {
                thread::yield_now();
            }
            ns.unload(&name).unwrap();
            settle();
            let before = calls.load(Ordering::Relaxed);
            while calls.load(Ordering::Relaxed) < before + 100 {
                thread::yield_now();
            }
            stop.store(true, Ordering::SeqCst);
        });
    }
}
