//! Calls through gates: one task at a time, nesting, every signature, every way out.

use super::{load, namespace};
use namespace_bridge::{Caller, CrateNamespace, Domain, StrongCrateRef, Val, kill_task};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use wasm_cell::trap::TrapCode;
use wasm_cell::types::ValType;

fn domain(cell: &StrongCrateRef) -> Arc<Domain> {
    cell.instance().unwrap().domain().unwrap()
}

const COUNTER: &str = r#"(module
    (global $n (mut i64) (i64.const 0))
    (func (export "get") (result i64) (global.get $n))
    (func (export "add") (param i64) (result i64)
        (local $old i64)
        (local.set $old (global.get $n))
        (global.set $n (i64.add (local.get $old) (local.get 0)))
        (local.get $old)))"#;

#[test]
fn tasks_that_count_without_atomics_lose_nothing() {
    const TIMES: i64 = 100_000;
    let ns = namespace();
    let cell = load(&ns, "counter", COUNTER);
    let last = AtomicU64::new(0);
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                let add = cell.typed_func::<(i64,), i64>("add").unwrap();
                let mut before = -1;
                for _ in 0..TIMES {
                    let old = add.call((1,)).unwrap();
                    assert!(old > before, "{old} after {before}");
                    before = old;
                }
                last.fetch_max(before as u64, Ordering::Relaxed);
            });
        }
    });
    assert_eq!(cell.typed_func::<(), i64>("get").unwrap().call(()).unwrap(), 2 * TIMES);
    assert_eq!(last.into_inner() as i64, 2 * TIMES - 1);
    assert!(domain(&cell).owner().is_none());
}

#[test]
fn every_way_from_outside_passes_the_gate() {
    let ns = namespace();
    let seen = Arc::new(AtomicUsize::new(0));
    let (count, inner) = (seen.clone(), Arc::downgrade(&ns));
    let probe = move |caller: &Caller| {
        let domain = inner.upgrade().unwrap().get_crate(caller.cell().unwrap()).map(|c| domain(&c));
        // While its start function runs the cell is not in the namespace yet.
        let inside = domain.is_none_or(|d| d.is_held_by_current() && d.owner().is_some());
        assert!(inside && caller.instance().unwrap().domain().unwrap().is_held_by_current());
        count.fetch_add(1, Ordering::Relaxed);
    };
    ns.define("h", "probe", probe).unwrap();
    let wat = r#"(module (import "h" "probe" (func $probe)) (memory 1) (table (export "t") 1 funcref) (elem (i32.const 0) $f)
        (start $f) (func $f (export "f") (call $probe)))"#;
    let a = load(&ns, "a", wat);
    let user = load(
        &ns,
        "user",
        r#"(module (import "a" "f" (func $f)) (func (export "call") (call $f)) (func (export "tail") (return_call $f)))"#,
    );
    let b = load(
        &ns,
        "b",
        r#"(module (import "a" "t" (table 1 funcref)) (func (export "f") (call_indirect (i32.const 0))))"#,
    );
    a.typed_func::<(), ()>("f").unwrap().call(()).unwrap();
    a.func("f").unwrap().call(&[], &mut []).unwrap();
    // SAFETY: the function's signature; the cell stays loaded.
    let raw: extern "C-unwind" fn() = unsafe { a.entry("f").unwrap() };
    raw();
    thread::spawn(move || raw()).join().unwrap();
    for name in ["call", "tail"] {
        user.typed_func::<(), ()>(name).unwrap().call(()).unwrap();
    }
    b.typed_func::<(), ()>("f").unwrap().call(()).unwrap();
    // The start function, two handles, two raw calls, a call, a tail call and one through a table.
    assert_eq!(seen.load(Ordering::Relaxed), 8);
    assert!(domain(&a).owner().is_none());
}

/// Any signature through a gate, directly and from another cell, comes out as it went in.
#[test]
fn all_signatures_pass() {
    let of = |t: &str| match t {
        "i32" => ValType::I32,
        "i64" => ValType::I64,
        "f32" => ValType::F32,
        "f64" => ValType::F64,
        _ => ValType::V128,
    };
    for n in [0, 1, 2, 6, 7, 8, 9, 14, 17, 40, 1000] {
        for mix in [&["i32", "f64", "i64", "v128", "f32"][..], &["i64"], &["f64"], &["v128", "i32"]] {
            let types: Vec<&str> = (0..n).map(|i| mix[i % mix.len()]).collect();
            let few: Vec<&str> = types.iter().rev().take(1).copied().collect();
            for results in [types.iter().rev().copied().collect::<Vec<_>>(), few] {
                let (params, result) = (types.join(" "), results.join(" "));
                let gets: String = (0..n).rev().take(results.len()).map(|i| format!("(local.get {i})")).collect();
                let ns = namespace();
                let callee =
                    format!(r#"(module (memory 1) (func $g (export "g") (param {params}) (result {result}) {gets}))"#);
                let all: String = (0..n).map(|i| format!("(local.get {i})")).collect();
                let caller = format!(
                    r#"(module (import "a" "g" (func $g (param {params}) (result {result}))) (memory 1)
                        (func (export "call") (param {params}) (result {result}) (call $g {all}))
                        (func (export "tail") (param {params}) (result {result}) (return_call $g {all})))"#
                );
                let a = load(&ns, "a", &callee);
                let b = load(&ns, "b", &caller);
                // SAFETY: no references among them.
                let value = |(i, t): (usize, &&str)| unsafe { Val::from_raw(i as u128 * 0x1_0000_0001 + 1, &of(t)) };
                let args: Vec<Val> = types.iter().enumerate().map(value).collect();
                let expected: Vec<Val> = args.iter().rev().take(results.len()).copied().collect();
                for f in [a.func("g").unwrap(), b.func("call").unwrap(), b.func("tail").unwrap()] {
                    for _ in 0..3 {
                        let mut out = vec![Val::I32(0); results.len()];
                        f.call(&args, &mut out).unwrap();
                        assert_eq!(out, expected, "{n} of {mix:?}");
                    }
                }
                assert!(domain(&a).owner().is_none() && domain(&b).owner().is_none());
            }
        }
    }
}

/// Two cells with a domain each that call each other by calls and by tail calls: `b` calls `a` through a table.
fn ring(ns: &CrateNamespace) -> (StrongCrateRef, StrongCrateRef) {
    let b = load(ns, "b", &RING.replace("CALLEE", CALL_TABLE).replace("TAIL", TAIL_TABLE).replace("IMPORTS", TABLE));
    let a = load(ns, "a", &RING.replace("CALLEE", CALL_B).replace("TAIL", TAIL_B).replace("IMPORTS", IMPORT_B));
    (a, b)
}

const TABLE: &str = r#"(table $t 2 funcref)
    (func (export "set") (param funcref funcref)
        (table.set $t (i32.const 0) (local.get 0)) (table.set $t (i32.const 1) (local.get 1)))"#;
const CALL_TABLE: &str = "(call_indirect $t (type $f) (i32.sub (local.get 0) (i32.const 1)) (i32.const 0))";
const TAIL_TABLE: &str = "(return_call_indirect $t (type $f) (i32.sub (local.get 0) (i32.const 1)) (i32.const 1))";
const IMPORT_B: &str = r#"(import "b" "down" (func $down (type $f))) (import "b" "tail" (func $tail (type $f)))
    (import "b" "set" (func $set (param funcref funcref)))
    (func $init (call $set (ref.func $mine_down) (ref.func $mine_tail))) (start $init)
    (elem declare func $mine_down $mine_tail)"#;
const CALL_B: &str = "(call $down (i32.sub (local.get 0) (i32.const 1)))";
const TAIL_B: &str = "(return_call $tail (i32.sub (local.get 0) (i32.const 1)))";

const RING: &str = r#"(module (type $f (func (param i32) (result i32))) IMPORTS (memory 1)
        (func $mine_down (export "down") (param i32) (result i32)
            (if (result i32) (local.get 0)
                (then (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
                    (i32.add (i32.const 1) CALLEE))
                (else (i32.const 0))))
        (func $mine_tail (export "tail") (param i32) (result i32)
            (if (result i32) (local.get 0)
                (then (i32.store (i32.const 4) (i32.add (i32.load (i32.const 4)) (i32.const 1))) TAIL)
                (else (i32.const 7))))
        (func (export "calls") (result i32) (i32.load (i32.const 0)))
        (func (export "tails") (result i32) (i32.load (i32.const 4))))"#;

#[test]
fn nested_entries_of_the_owner_go_through_and_tail_calls_do_not_grow_the_stack() {
    let ns = namespace();
    let (a, b) = ring(&ns);
    assert!(!domain(&a).is_same(&domain(&b)));
    assert_eq!(a.typed_func::<(i32,), i32>("down").unwrap().call((500,)).unwrap(), 500);
    let count = |cell: &StrongCrateRef, name: &str| cell.typed_func::<(), i32>(name).unwrap().call(()).unwrap();
    assert_eq!((count(&a, "calls"), count(&b, "calls")), (250, 250));
    // Each frame would take at least 16 bytes: a thousand times more than the stack has.
    let deep = 500_000_000;
    assert_eq!(a.typed_func::<(i32,), i32>("tail").unwrap().call((deep,)).unwrap(), 7);
    assert_eq!((count(&a, "tails"), count(&b, "tails")), (deep / 2, deep / 2));
    assert!(domain(&a).owner().is_none() && domain(&b).owner().is_none());
}

#[test]
fn a_host_function_may_call_back_into_the_cell_that_called_it() {
    let ns = namespace();
    let weak = Arc::downgrade(&ns);
    let again = move |n: i32| -> i32 {
        let cell = weak.upgrade().unwrap().get_crate("a").unwrap();
        assert!(domain(&cell).is_held_by_current());
        1 + cell.typed_func::<(i32,), i32>("down").unwrap().call((n - 1,)).unwrap()
    };
    ns.define("h", "again", again).unwrap();
    let a = load(
        &ns,
        "a",
        r#"(module (import "h" "again" (func $again (param i32) (result i32))) (memory 1)
            (func (export "down") (param i32) (result i32)
                (if (result i32) (local.get 0) (then (call $again (local.get 0))) (else (i32.const 0)))))"#,
    );
    assert_eq!(a.typed_func::<(i32,), i32>("down").unwrap().call((20,)).unwrap(), 20);
    assert!(domain(&a).owner().is_none());
}

const FAILS: &str = r#"(module (import "h" "panics" (func $panics)) (import "h" "fails" (func $fails))
    (memory 1)
    (func (export "unreachable") unreachable)
    (func (export "bounds") (drop (i32.load (i32.const -4))))
    (func $deep (export "deep") (call $deep))
    (func (export "deep_arguments") (param i64 i64 i64 i64 i64 i64 i64 i64 i64 i64) (call $deep))
    (func (export "panics") (call $panics))
    (func (export "fails") (call $fails))
    (func (export "spin") (loop $l (br $l)))
    (func (export "fine") (result i32) (i32.const 5)))"#;

fn fails(ns: &CrateNamespace) -> StrongCrateRef {
    ns.define("h", "panics", || -> () { std::panic::resume_unwind(Box::new("from a host function")) }).unwrap();
    ns.define("h", "fails", || -> Result<(), std::fmt::Error> { Err(std::fmt::Error) }).unwrap();
    load(ns, "a", FAILS)
}

fn is_free_and_works(cell: &StrongCrateRef) {
    assert!(domain(cell).owner().is_none(), "the gate is still held");
    let cell = cell.clone();
    thread::spawn(move || assert_eq!(cell.typed_func::<(), i32>("fine").unwrap().call(()).unwrap(), 5)).join().unwrap();
}

#[test]
fn a_trap_inside_leaves_the_gate() {
    let ns = namespace();
    let a = fails(&ns);
    let outer = load(
        &ns,
        "outer",
        r#"(module (import "a" "unreachable" (func $u)) (import "a" "deep" (func $d))
            (import "a" "deep_arguments" (func $da (param i64 i64 i64 i64 i64 i64 i64 i64 i64 i64))) (memory 1)
            (func (export "unreachable") (call $u)) (func (export "deep") (call $d))
            (func (export "deep_arguments") (call $da (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)
                (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0)))
            (func (export "fine") (result i32) (i32.const 5)))"#,
    );
    for _ in 0..20 {
        for (name, code) in [
            ("unreachable", TrapCode::Unreachable),
            ("bounds", TrapCode::MemoryOutOfBounds),
            ("deep", TrapCode::StackOverflow),
            ("fails", TrapCode::HostError),
        ] {
            let trap = a.typed_func::<(), ()>(name).unwrap().call(()).unwrap_err();
            assert_eq!(trap.code(), code);
            assert_eq!(trap.frames().next().unwrap().wasm.unwrap().cell, "a");
            is_free_and_works(&a);
        }
        for (name, code) in [
            ("unreachable", TrapCode::Unreachable),
            ("deep", TrapCode::StackOverflow),
            ("deep_arguments", TrapCode::StackOverflow),
        ] {
            let trap = outer.typed_func::<(), ()>(name).unwrap().call(()).unwrap_err();
            assert_eq!(trap.code(), code);
            is_free_and_works(&a);
            is_free_and_works(&outer);
        }
        let trap = outer.typed_func::<(), ()>("unreachable").unwrap().call(()).unwrap_err();
        let cells: Vec<_> = trap.frames().map(|f| f.wasm.expect("gates are no frames").cell.to_string()).collect();
        assert_eq!(cells, ["a", "outer"]);
    }
}

#[test]
fn the_stack_may_end_at_any_instruction_of_the_routine() {
    let ns = namespace();
    let a = load(
        &ns,
        "a",
        r#"(module (memory 1) (func (export "few") (param i32) (result i32) (local.get 0))
            (func (export "many") (param i64 i64 i64 i64 i64 i64 i64 i64 i64 i64) (result i32) (i32.const 3)))"#,
    );
    // Stateless, so every level of the recursion is an outermost entry at another place of the stack.
    let wat = |pad: usize| {
        let locals = "(local i64)".repeat(pad);
        let spill: String = (0..pad)
            .map(|i| {
                format!("(local.set {} (i64.add (local.get {}) (i64.extend_i32_u (local.get 0))))", i + 1, i.max(1))
            })
            .collect();
        let sum: String = (0..pad).map(|i| format!("(drop (i64.eqz (local.get {})))", i + 1)).collect();
        format!(
            r#"(module (import "a" "few" (func $few (param i32) (result i32)))
            (import "a" "many" (func $many (param i64 i64 i64 i64 i64 i64 i64 i64 i64 i64) (result i32)))
            (func $down (export "down") (param i32) (result i32) {locals} {spill}
                (drop (call $few (local.get 0)))
                (drop (call $many (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)
                    (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)))
                (i32.add (call $down (i32.add (local.get 0) (i32.const 1))) (i32.const 1)) {sum}))"#
        )
    };
    for pad in 0..12 {
        let cell = load(&ns, &format!("down{pad}"), &wat(pad));
        let trap = cell.typed_func::<(i32,), i32>("down").unwrap().call((0,)).unwrap_err();
        assert_eq!(trap.code(), TrapCode::StackOverflow);
        assert!(domain(&a).owner().is_none(), "{pad}");
        assert_eq!(a.typed_func::<(i32,), i32>("few").unwrap().call((4,)).unwrap(), 4);
    }
}

#[test]
fn a_panic_inside_leaves_the_gate() {
    let ns = namespace();
    let a = fails(&ns);
    for _ in 0..20 {
        let panics = a.typed_func::<(), ()>("panics").unwrap();
        let payload = catch_unwind(AssertUnwindSafe(|| panics.call(()))).unwrap_err();
        assert_eq!(*payload.downcast::<&str>().unwrap(), "from a host function");
        is_free_and_works(&a);
        // SAFETY: the function's signature; the cell stays loaded.
        let raw: extern "C-unwind" fn() = unsafe { a.entry("panics").unwrap() };
        catch_unwind(AssertUnwindSafe(|| raw())).unwrap_err();
        is_free_and_works(&a);
    }
}

#[test]
fn a_panic_that_a_host_function_further_out_catches_leaves_the_gates_in_between_only() {
    let ns = namespace();
    let a = fails(&ns);
    let inner = a.clone();
    let catches = move || {
        // SAFETY: the function's signature; the cell stays loaded.
        let raw: extern "C-unwind" fn() = unsafe { inner.entry("panics").unwrap() };
        catch_unwind(AssertUnwindSafe(|| raw())).unwrap_err();
        assert!(inner.typed_func::<(), ()>("unreachable").unwrap().call(()).is_err());
        assert!(domain(&inner).owner().is_none());
    };
    ns.define("g", "catches", catches).unwrap();
    let outer = load(
        &ns,
        "outer",
        r#"(module (import "g" "catches" (func $c)) (memory 1) (func (export "run") (call $c)
            (i32.store (i32.const 0) (i32.const 1))) (func (export "fine") (result i32) (i32.const 5)))"#,
    );
    outer.typed_func::<(), ()>("run").unwrap().call(()).unwrap();
    is_free_and_works(&outer);
    is_free_and_works(&a);
}

#[test]
fn a_kill_leaves_the_gate_wherever_it_finds_the_task() {
    let ns = namespace();
    let a = fails(&ns);
    for round in 0..20 {
        let (cell, (tell, told)) = (a.clone(), mpsc::channel());
        let victim = thread::spawn(move || {
            tell.send(runtime_port::platform().tasks().attach().unwrap().id.get()).unwrap();
            cell.typed_func::<(), ()>("spin").unwrap().call(()).unwrap_err().code()
        });
        let id = told.recv().unwrap();
        while domain(&a).owner().is_none() {
            thread::yield_now();
        }
        // One that waits meanwhile can be killed too, and gets out of line.
        let (cell, (tell, told)) = (a.clone(), mpsc::channel());
        let waiter = thread::spawn(move || {
            tell.send(runtime_port::platform().tasks().attach().unwrap().id.get()).unwrap();
            cell.typed_func::<(), i32>("fine").unwrap().call(()).map_err(|t| t.code())
        });
        let waiting = told.recv().unwrap();
        if round % 2 == 0 {
            kill_task(waiting).unwrap();
            assert_eq!(waiter.join().unwrap(), Err(TrapCode::Killed));
            kill_task(id).unwrap();
        } else {
            kill_task(id).unwrap();
            assert_eq!(waiter.join().unwrap(), Ok(5));
        }
        assert_eq!(victim.join().unwrap(), TrapCode::Killed);
        is_free_and_works(&a);
    }
}

#[test]
fn calls_that_would_wait_in_a_circle_trap_and_name_it() {
    let ns = namespace();
    let turn = Arc::new(std::sync::Barrier::new(2));
    let (meet, met) = (turn.clone(), Arc::new(AtomicBool::new(false)));
    ns.define("h", "meet", move || {
        if !met.load(Ordering::SeqCst) {
            meet.wait();
        }
    })
    .unwrap();
    load(
        &ns,
        "a0",
        r#"(module (memory (export "m") 1) (func (export "poke") (i32.store (i32.const 0) (i32.const 1))))"#,
    );
    load(
        &ns,
        "b0",
        r#"(module (memory (export "m") 1) (func (export "poke") (i32.store (i32.const 0) (i32.const 1))))"#,
    );
    let wat = |mine: &str, other: &str| {
        format!(
            r#"(module (import "h" "meet" (func $meet)) (import "{mine}" "m" (memory 1)) (import "{other}" "poke" (func $poke))
                (func (export "run") (call $meet) (call $poke)))"#
        )
    };
    let a = load(&ns, "a", &wat("a0", "b0"));
    let b = load(&ns, "b", &wat("b0", "a0"));
    let run = |cell: StrongCrateRef| thread::spawn(move || cell.typed_func::<(), ()>("run").unwrap().call(()));
    let (one, two) = (run(a.clone()), run(b.clone()));
    let results = [one.join().unwrap(), two.join().unwrap()];
    let refused: Vec<_> = results.iter().filter_map(|r| r.as_ref().err()).collect();
    assert_eq!(refused.len(), 1, "one is refused, the other goes on");
    assert_eq!(refused[0].code(), TrapCode::Deadlock);
    let text = refused[0].downcast_ref::<namespace_bridge::GateError>().unwrap().to_string();
    assert!(text.contains("`a0`") && text.contains("`b0`") && text.contains("is inside"), "{text}");
    assert!(domain(&a).owner().is_none() && domain(&b).owner().is_none());
}

#[test]
fn stateless_and_concurrent_cells_let_everybody_in_at_once() {
    for memory in ["", "(memory 1 1 shared)"] {
        let ns = namespace();
        let both = Arc::new(std::sync::Barrier::new(2));
        ns.define("h", "meet", move || {
            both.wait();
        })
        .unwrap();
        let cell = load(
            &ns,
            "a",
            &format!(r#"(module (import "h" "meet" (func $meet)) {memory} (func (export "run") (call $meet)))"#),
        );
        assert!(cell.instance().unwrap().domain().is_none());
        thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| cell.typed_func::<(), ()>("run").unwrap().call(()).unwrap());
            }
        });
    }
}

#[test]
fn an_indefinite_wait_inside_of_a_gate_is_refused() {
    let ns = namespace();
    load(
        &ns,
        "shared",
        r#"(module (memory 1 1 shared) (func (export "wait") (param i64) (result i32)
            (memory.atomic.wait32 (i32.const 0) (i32.const 0) (local.get 0))))"#,
    );
    let gated = load(
        &ns,
        "gated",
        r#"(module (import "shared" "wait" (func $wait (param i64) (result i32))) (memory 1)
            (func (export "wait") (param i64) (result i32) (call $wait (local.get 0))))"#,
    );
    let wait = gated.typed_func::<(i64,), i32>("wait").unwrap();
    let trap = wait.call((-1,)).unwrap_err();
    assert_eq!(trap.code(), TrapCode::Deadlock);
    assert!(trap.to_string().contains("deadlock"), "{trap}");
    assert!(trap.downcast_ref::<namespace_bridge::GateError>().unwrap().to_string().contains("memory.atomic.wait"));
    assert_eq!(wait.call((1000,)).unwrap(), 2);
    assert!(domain(&gated).owner().is_none());
}

#[test]
fn domains_can_be_joined_while_a_caller_is_inside_of_one_or_both() {
    let ns = namespace();
    let weak = Arc::downgrade(&ns);
    let join = move |_: &Caller| {
        let ns = weak.upgrade().unwrap();
        load(&ns, "joiner", r#"(module (import "a" "m" (memory 1)) (import "b" "m" (memory 1)))"#);
        ns.unload("joiner").unwrap();
    };
    ns.define("h", "join", join).unwrap();
    let module = |call: &str, import: &str| {
        format!(
            r#"(module (import "h" "join" (func $join)) {import} (memory (export "m") 1)
                (func (export "run") {call} (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))))
                (func (export "n") (result i32) (i32.load (i32.const 0))))"#
        )
    };
    let b = load(&ns, "b", &module("(call $join)", ""));
    let a = load(&ns, "a", &module("(call $b)", r#"(import "b" "run" (func $b))"#));
    assert!(!domain(&a).is_same(&domain(&b)));
    let waiting = {
        let run = b.typed_func::<(), ()>("run").unwrap();
        a.typed_func::<(), ()>("run").unwrap().call(()).unwrap();
        assert!(domain(&a).is_same(&domain(&b)));
        assert!(domain(&a).owner().is_none());
        thread::spawn(move || run.call(()).unwrap())
    };
    waiting.join().unwrap();
    a.typed_func::<(), ()>("run").unwrap().call(()).unwrap();
    assert_eq!(b.typed_func::<(), i32>("n").unwrap().call(()).unwrap(), 3);
    assert!(domain(&b).owner().is_none());
}
