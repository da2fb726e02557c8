//! Several tasks at once: waiting and waking, loading in parallel, unloading what others run.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{Caller, CrateNamespace, LoadOptions, StrongCrateRef, reclaim, text_index::TEXT};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use wasm_cell::trap::TrapCode;

/// These tests look at what the whole process has registered, so they run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    ns.load_wasm(name, &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

const WAITER: &str = r#"(module (memory (export "m") 1 1 shared)
    (func (export "wait") (param i32 i64) (result i32)
        (memory.atomic.wait32 (i32.const 8) (local.get 0) (local.get 1)))
    (func (export "notify") (param i32) (result i32) (memory.atomic.notify (i32.const 8) (local.get 0)))
    (func (export "notify_other") (result i32) (memory.atomic.notify (i32.const 16) (i32.const 100))))"#;

#[test]
fn waiting_ends_by_notify_by_timeout_or_at_once_when_the_value_differs() {
    let _alone = ALONE.lock();
    let ns = CrateNamespace::new("test", None);
    let cell = load(&ns, "waiter", WAITER);
    let wait = cell.typed_func::<(i32, i64), i32>("wait").unwrap();
    let notify = cell.typed_func::<(i32,), i32>("notify").unwrap();
    assert_eq!(wait.call((1, -1)).unwrap(), 1);
    assert_eq!(wait.call((0, 1_000_000)).unwrap(), 2);
    assert_eq!(notify.call((5,)).unwrap(), 0);
    let sleepers: Vec<_> = (0..3)
        .map(|_| {
            let wait = wait.clone();
            thread::spawn(move || wait.call((0, -1)).unwrap())
        })
        .collect();
    let mut woken = 0;
    while woken < 3 {
        assert_eq!(cell.typed_func::<(), i32>("notify_other").unwrap().call(()).unwrap(), 0);
        let n = notify.call((1,)).unwrap();
        assert!(n <= 1);
        woken += n;
        thread::yield_now();
    }
    for sleeper in sleepers {
        assert_eq!(sleeper.join().unwrap(), 0);
    }
}

#[test]
fn waiting_on_memory_that_is_not_shared_traps() {
    let _alone = ALONE.lock();
    let ns = CrateNamespace::new("test", None);
    let text = WAITER.replace("1 1 shared", "1 1");
    let cell = load(&ns, "waiter", &text);
    let trap = cell.typed_func::<(i32, i64), i32>("wait").unwrap().call((0, 0)).unwrap_err();
    assert_eq!(trap.code(), TrapCode::ExpectedSharedMemory);
    assert_eq!(cell.typed_func::<(i32,), i32>("notify").unwrap().call((1,)).unwrap(), 0);
}

#[test]
fn code_that_a_task_is_inside_of_stays_until_it_has_left() {
    let _alone = ALONE.lock();
    let ns = CrateNamespace::new("test", None);
    let (entered, inside) = mpsc::channel();
    let gate = Arc::new(Barrier::new(2));
    let host_gate = gate.clone();
    let entered = Mutex::new(entered);
    ns.define("env", "pause", move || {
        entered.lock().unwrap().send(()).unwrap();
        host_gate.wait();
    })
    .unwrap();
    let text = r#"(module (import "env" "pause" (func $pause)) (memory 1)
        (func (export "run") (result i32) (i32.store (i32.const 4) (i32.const 42)) call $pause (i32.load (i32.const 4))))"#;
    let cell = load(&ns, "slow", text);
    let run = cell.typed_func::<(), i32>("run").unwrap();
    let again = run.clone();
    let task = thread::spawn(move || run.call(()));
    inside.recv().unwrap();
    drop(cell);
    let registered = TEXT.len();
    ns.unload_force("slow").unwrap();
    assert_eq!(reclaim(), 1, "the cell is still in use");
    assert_eq!(TEXT.len(), registered);
    assert_eq!(again.call(()).unwrap_err().code(), TrapCode::FunctionGone);
    gate.wait();
    assert_eq!(task.join().unwrap().unwrap(), 42, "the task finished in the code it was in");
    assert_eq!(reclaim(), 0);
    assert_eq!(TEXT.len(), registered - 1);
}

#[test]
fn a_cell_can_unload_itself_from_a_host_function() {
    let _alone = ALONE.lock();
    let ns = CrateNamespace::new("test", None);
    let weak = Arc::downgrade(&ns);
    ns.define("env", "bye", move |caller: &Caller| {
        let name = caller.cell().unwrap().to_string();
        weak.upgrade().unwrap().unload(&name).unwrap();
    })
    .unwrap();
    let text =
        r#"(module (import "env" "bye" (func $bye)) (func (export "run") (result i32) call $bye (i32.const 7)))"#;
    let run = load(&ns, "self", text).typed_func::<(), i32>("run").unwrap();
    assert_eq!(run.call(()).unwrap(), 7);
    assert_eq!(run.call(()).unwrap_err().code(), TrapCode::FunctionGone);
    assert_eq!(reclaim(), 0);
}

#[test]
fn many_tasks_load_call_and_unload_at_once() {
    let _alone = ALONE.lock();
    let ns = CrateNamespace::new("test", None);
    static CALLS: AtomicU32 = AtomicU32::new(0);
    ns.define("env", "count", |x: i32| {
        CALLS.fetch_add(1, Ordering::Relaxed);
        x
    })
    .unwrap();
    let text = r#"(module (import "env" "count" (func $count (param i32) (result i32))) (memory 1)
        (func (export "f") (param i32) (result i32) (i32.store (i32.const 0) (local.get 0)) (call $count (i32.load (i32.const 0)))))"#;
    let bytes = wat::parse_str(text).unwrap();
    let before = TEXT.len();
    thread::scope(|s| {
        for t in 0..4 {
            let (ns, bytes) = (&ns, &bytes);
            s.spawn(move || {
                for i in 0..200 {
                    let name = format!("cell-{t}-{i}");
                    let cell = ns.load_wasm(&name, bytes, LoadOptions::default()).unwrap();
                    assert_eq!(cell.typed_func::<(i32,), i32>("f").unwrap().call((i,)).unwrap(), i);
                    drop(cell);
                    ns.unload(&name).unwrap();
                }
            });
        }
    });
    assert_eq!(CALLS.load(Ordering::Relaxed), 800);
    assert_eq!(reclaim(), 0);
    assert_eq!((ns.crate_count(), TEXT.len()), (1, before));
}
