//! Failures of what runs because something failed: destructors that call cells, recoveries, operations that end half-way; and what a failure
//! leaves as it was.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{
    CrateNamespace, LoadError, LoadOptions, Policy, RecoveryState, StrongCrateRef, TypedFunc, catch_trap,
};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use wasm_cell::trap::TrapCode;

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    ns.load_wasm(name, &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Has state, so it has a gate; counts, and traps in several ways.
const FRAGILE: &str = r#"(module
    (memory 1) (global $n (mut i32) (i32.const 0))
    (func $count (global.set $n (i32.add (global.get $n) (i32.const 1))))
    (func (export "count") (result i32) (call $count) (global.get $n))
    (func (export "unreachable") (call $count) unreachable)
    (func (export "bounds") (call $count) (drop (i32.load (i32.const -1))))
    (func $deep (export "deep") (call $deep)))"#;

/// Calls functions that trap, when it is dropped.
struct Calls {
    functions: Vec<TypedFunc<(), ()>>,
    codes: Arc<Mutex<Vec<TrapCode>>>,
}

impl Drop for Calls {
    fn drop(&mut self) {
        for function in &self.functions {
            self.codes.lock().unwrap().push(function.call(()).unwrap_err().code());
        }
    }
}

const CODES: [TrapCode; 3] = [TrapCode::Unreachable, TrapCode::MemoryOutOfBounds, TrapCode::StackOverflow];

fn functions(cell: &StrongCrateRef) -> Vec<TypedFunc<(), ()>> {
    ["unreachable", "bounds", "deep"].map(|name| cell.typed_func(name).unwrap()).into()
}

/// A namespace with `fragile`, and `outer`, which calls a host function whose destructors call `fragile`: `panics` panics,
/// `traps` calls a raw entry of `outer` that traps.
fn namespace(fragile: &str) -> (Arc<CrateNamespace>, StrongCrateRef, Arc<Mutex<Vec<TrapCode>>>) {
    let ns = CrateNamespace::new("cleanup", None);
    let starts = AtomicUsize::new(0);
    ns.define("env", "may_start", move || match starts.fetch_add(1, Ordering::SeqCst) {
        2 => Err("not a third time"),
        _ => Ok(()),
    })
    .unwrap();
    let fragile = load(&ns, "fragile", fragile);
    let codes = Arc::<Mutex<Vec<TrapCode>>>::default();
    let of = |codes: &Arc<Mutex<Vec<TrapCode>>>| {
        let (functions, codes) = (functions(&fragile), codes.clone());
        move || Calls { functions: functions.clone(), codes: codes.clone() }
    };
    let calls = of(&codes);
    ns.define("env", "panics", move || -> () {
        let _calls = calls();
        resume_unwind(Box::new(17u64))
    })
    .unwrap();
    let raw = Arc::new(AtomicUsize::new(0));
    let (calls, entry) = (of(&codes), raw.clone());
    ns.define("env", "traps", move || {
        let _calls = calls();
        // SAFETY: the address of a function of this type; the cell that has it is running.
        let raw: extern "C-unwind" fn() = unsafe { std::mem::transmute(entry.load(Ordering::SeqCst)) };
        raw();
    })
    .unwrap();
    let text = r#"(module (import "env" "panics" (func $panics)) (import "env" "traps" (func $traps))
        (memory 1) (global $n (mut i32) (i32.const 0))
        (func (export "panics") (call $panics)) (func (export "traps") (call $traps))
        (func (export "bad") (drop (i32.div_s (i32.const 1) (global.get $n))))
        (func (export "fine") (result i32) (i32.const 5)))"#;
    let outer = load(&ns, "outer", text);
    // SAFETY: the signature is that of the function, and the cell lives.
    let bad: extern "C-unwind" fn() = unsafe { outer.func("bad").unwrap().entry().unwrap() };
    raw.store(bad as *const () as usize, Ordering::SeqCst);
    (ns, outer, codes)
}

/// Both gates are free: another task gets in.
fn both_serve(ns: &Arc<CrateNamespace>, counted: i32) {
    let (outer, fragile) = (ns.get_crate("outer").unwrap(), ns.get_crate("fragile").unwrap());
    thread::spawn(move || {
        assert_eq!(outer.typed_func::<(), i32>("fine").unwrap().call(()).unwrap(), 5);
        assert_eq!(fragile.typed_func::<(), i32>("count").unwrap().call(()).unwrap(), counted);
    })
    .join()
    .unwrap();
}

#[test]
fn a_trap_in_a_destructor_that_a_panic_runs_is_the_destructors_own() {
    let (ns, outer, codes) = namespace(FRAGILE);
    let panics = outer.typed_func::<(), ()>("panics").unwrap();
    for round in 1..=20 {
        let payload = catch_unwind(AssertUnwindSafe(|| panics.call(()))).unwrap_err();
        assert_eq!(payload.downcast_ref::<u64>(), Some(&17), "the panic goes on");
        assert_eq!(std::mem::take(&mut *codes.lock().unwrap()), CODES);
        both_serve(&ns, 3 * round);
    }
}

#[test]
fn a_trap_in_a_destructor_that_a_trap_runs_is_the_destructors_own() {
    let (ns, outer, codes) = namespace(FRAGILE);
    let traps = outer.typed_func::<(), ()>("traps").unwrap();
    for round in 1..=20 {
        let trap = traps.call(()).unwrap_err();
        assert_eq!(trap.code(), TrapCode::IntegerDivisionByZero, "the trap that came first goes on");
        assert_eq!(trap.frames().next().unwrap().wasm.unwrap().name.to_string(), "bad");
        assert_eq!(std::mem::take(&mut *codes.lock().unwrap()), CODES);
        both_serve(&ns, 3 * round);
    }
}

#[test]
fn a_trap_in_a_destructor_through_a_raw_entry_is_caught_there() {
    struct Caught(extern "C-unwind" fn(), Arc<Mutex<Vec<TrapCode>>>);
    impl Drop for Caught {
        fn drop(&mut self) {
            self.1.lock().unwrap().push(catch_trap(|| (self.0)()).unwrap_err().code());
        }
    }
    let ns = CrateNamespace::new("cleanup", None);
    let fragile = load(&ns, "fragile", FRAGILE);
    let codes = Arc::<Mutex<Vec<TrapCode>>>::default();
    for (name, code) in ["unreachable", "bounds", "deep"].into_iter().zip(CODES) {
        // SAFETY: the signature is that of the function, and the cell lives.
        let raw: extern "C-unwind" fn() = unsafe { fragile.func(name).unwrap().entry().unwrap() };
        let payload = catch_unwind(AssertUnwindSafe(|| {
            let _caught = Caught(raw, codes.clone());
            resume_unwind(Box::new("on the way"))
        }));
        assert_eq!(payload.unwrap_err().downcast_ref::<&str>(), Some(&"on the way"));
        assert_eq!(codes.lock().unwrap().pop(), Some(code));
    }
}

#[test]
fn a_recovery_that_a_destructor_sets_off_happens_and_one_that_fails_is_contained() {
    // Its third start fails.
    let text = FRAGILE.replace("(module", r#"(module (import "env" "may_start" (func $s)) (start $s)"#);
    let (ns, outer, codes) = namespace(&text);
    let fragile = ns.get_crate("fragile").unwrap();
    ns.set_policy("fragile", Policy::reset()).unwrap();
    let panics = outer.typed_func::<(), ()>("panics").unwrap();
    let counted = fragile.typed_func::<(), i32>("count").unwrap();
    // A poisoned cell is recovered when every task that was inside of wasm then has left: those of other tests, too.
    let count = || {
        for _ in 0..10_000 {
            match counted.call(()) {
                Err(trap) if trap.code() == TrapCode::Poisoned => thread::sleep(std::time::Duration::from_millis(1)),
                outcome => return outcome,
            }
        }
        counted.call(())
    };
    // The first call of the destructor poisons the cell. Nobody resets it while `outer` is inside of wasm.
    catch_unwind(AssertUnwindSafe(|| panics.call(()))).unwrap_err();
    let seen = std::mem::take(&mut *codes.lock().unwrap());
    assert_eq!(seen[0], TrapCode::Unreachable);
    assert!(seen[1..].iter().all(|code| *code == TrapCode::Poisoned), "{seen:?}");
    assert_eq!(count().unwrap(), 1, "a fresh instance");
    // The second reset fails: out of service, and the panic goes on all the same.
    catch_unwind(AssertUnwindSafe(|| panics.call(()))).unwrap_err();
    assert_eq!(count().unwrap_err().code(), TrapCode::Quarantined);
    assert_eq!(ns.recovery_state("fragile"), RecoveryState::Quarantined);
    ns.reset("fragile").unwrap();
    assert_eq!(count().unwrap(), 1);
}

#[test]
fn a_trap_leaves_floating_point_control_as_it_was_in_a_task_that_attached_before_its_first_call() {
    let text = r#"(module (func (export "bad") unreachable)
        (func (export "root") (param f64) (result f64) (f64.sqrt (f64.div (local.get 0) (f64.const 3)))))"#;
    let ns = CrateNamespace::new("cleanup", None);
    let cell = load(&ns, "float", text);
    thread::spawn(move || {
        runtime_port::platform().tasks().attach().unwrap();
        let bad = cell.typed_func::<(), ()>("bad").unwrap();
        assert_eq!(bad.call(()).unwrap_err().code(), TrapCode::Unreachable);
        // With unmasked exceptions an inexact result is one.
        assert_eq!(cell.typed_func::<(f64,), f64>("root").unwrap().call((2.0,)).unwrap(), (2.0f64 / 3.0).sqrt());
        assert!(std::hint::black_box(1.0f64) / std::hint::black_box(3.0) > 0.3);
    })
    .join()
    .unwrap();
}

#[test]
fn segments_that_were_applied_before_one_that_does_not_fit_stay_and_the_cell_does_not() {
    let ns = CrateNamespace::new("cleanup", None);
    let home = load(
        &ns,
        "home",
        r#"(module (memory (export "m") 1) (table (export "t") 4 funcref)
            (func (export "byte") (param i32) (result i32) (i32.load8_u (local.get 0)))
            (func (export "call") (param i32) (result i32) (call_indirect (result i32) (local.get 0))))"#,
    );
    let byte = home.typed_func::<(i32,), i32>("byte").unwrap();
    let call = home.typed_func::<(i32,), i32>("call").unwrap();
    let guest = |segments: &str| {
        let text = format!(
            r#"(module (import "home" "m" (memory 1)) (import "home" "t" (table 4 funcref))
                (func $f (result i32) (i32.const 42)) {segments})"#
        );
        ns.load_wasm("guest", &wat::parse_str(text).unwrap(), LoadOptions::default())
    };
    let half = r#"(data (i32.const 10) "ab") (data (i32.const 65535) "cd")"#;
    let error = guest(half).unwrap_err();
    assert!(matches!(&error, LoadError::Trap { trap, .. } if trap.code() == TrapCode::MemoryOutOfBounds), "{error}");
    // The one that does not fit has written nothing (core spec, 4.5.4: `memory.init` traps before it writes).
    assert_eq!([10, 11, 65535].map(|at| byte.call((at,)).unwrap()), [97, 98, 0]);
    assert!(ns.get_crate("guest").is_none());
    let half = r#"(elem (i32.const 1) func $f) (elem (i32.const 3) func $f $f)"#;
    let error = guest(half).unwrap_err();
    assert!(matches!(&error, LoadError::Trap { trap, .. } if trap.code() == TrapCode::TableOutOfBounds), "{error}");
    // The function that others got hold of lives on with its cell, which has no name.
    assert_eq!(call.call((1,)).unwrap(), 42);
    assert_eq!(call.call((3,)).unwrap_err().code(), TrapCode::IndirectCallToNull);
    assert!(ns.get_crate("guest").is_none());
    let whole = r#"(elem (i32.const 1) func $f) (data (i32.const 10) "xy")"#;
    guest(whole).unwrap();
    assert_eq!((call.call((1,)).unwrap(), byte.call((10,)).unwrap()), (42, 120));
}
