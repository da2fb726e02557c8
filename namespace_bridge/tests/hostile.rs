//! Traps at their worst: in very many tasks at once, at the limits of what a module may be, while versions come and go, and while destructors
//! run because of another one.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::swap::SwapRequest;
use namespace_bridge::{
    CrateNamespace, LoadOptions, StrongCrateRef, Trap, TypedFunc, catch_trap, fault_log, kill, kill_task,
};
use runtime_port::platform;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use wasm_cell::trap::TrapCode;

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    ns.load_wasm(name, &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Traps in every way that takes another path to the catch: branch, guard page, invalid opcode, null reference, stack.
const TRAPS: &str = r#"(module (memory (export "memory") 1) (table 1 funcref) (type $t (func))
    (func (export "unreachable") unreachable)
    (func (export "bounds") (drop (i32.load (i32.const -1))))
    (func (export "convert") (drop (i32.trunc_f32_s (f32.load (i32.const 0)))))
    (func (export "null") (call_indirect (type $t) (i32.const 0)))
    (func $deep (export "deep") (call $deep) (call $deep))
    (data (i32.const 0) "\00\00\c0\7f"))"#;

const CODES: [(&str, TrapCode); 5] = [
    ("unreachable", TrapCode::Unreachable),
    ("bounds", TrapCode::MemoryOutOfBounds),
    ("convert", TrapCode::BadConversionToInteger),
    ("null", TrapCode::IndirectCallToNull),
    ("deep", TrapCode::StackOverflow),
];

#[test]
fn a_thousand_tasks_trap_at_once() {
    const TASKS: usize = 1_000;
    // So few that no record of a fault has to go for another one.
    const OWN: usize = 10;
    let ns = CrateNamespace::new("hostile", None);
    // A cell each for some, one for the others, so that both what is shared and what is not is used at once.
    let shared = load(&ns, "shared", TRAPS);
    let own: Vec<_> = (0..OWN).map(|i| load(&ns, &format!("own {i}"), TRAPS)).collect();
    let start = Barrier::new(TASKS);
    thread::scope(|scope| {
        for task in 0..TASKS {
            let cell = own.get(task).unwrap_or(&shared);
            let start = &start;
            let body = move || {
                let functions = CODES.map(|(name, code)| (cell.typed_func::<(), ()>(name).unwrap(), code));
                start.wait();
                let mut kept = Vec::new();
                for round in 0..20 {
                    let (function, code) = &functions[(task + round) % functions.len()];
                    let trap = function.call(()).unwrap_err();
                    assert_eq!(trap.code(), *code);
                    assert_eq!(trap.cell(), Some(&*cell.crate_name));
                    kept.push((trap, *code));
                }
                // The traps of other tasks have not touched those of this one.
                for (trap, code) in kept {
                    assert_eq!((trap.code(), trap.cell()), (code, Some(&*cell.crate_name)));
                }
            };
            thread::Builder::new().stack_size(512 << 10).spawn_scoped(scope, body).unwrap();
        }
    });
    for (name, code) in CODES {
        assert_eq!(shared.typed_func::<(), ()>(name).unwrap().call(()).unwrap_err().code(), code);
    }
    let counted: u64 = fault_log::entries().iter().filter(|e| e.cell == "shared").map(|e| e.count).sum();
    assert_eq!(counted, ((TASKS - OWN) as u64) * 20 + CODES.len() as u64);
}

/// What a host function fails with.
#[derive(Debug)]
struct Exit(i32);

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}", self.0)
    }
}

impl std::error::Error for Exit {}

#[test]
fn traps_of_any_number_and_age_keep_what_they_hold() {
    let traps: Vec<Trap> = (0..100).map(|i| Trap::host(Box::new(Exit(i)))).collect();
    // The places of the first ones are free again while others live, and are taken by other tasks.
    let (first, rest): (Vec<_>, Vec<_>) = traps.into_iter().enumerate().partition(|(i, _)| i % 3 == 0);
    drop(first);
    thread::scope(|scope| {
        for task in 0..20 {
            scope.spawn(move || {
                for i in 0..1_000 {
                    let (one, other) = (Trap::host(Box::new(Exit(task))), Trap::host(Box::new(Exit(i))));
                    assert_eq!(one.downcast_ref::<Exit>().map(|e| e.0), Some(task));
                    drop(one);
                    let third = Trap::host(Box::new(Exit(task)));
                    assert_eq!(other.downcast_ref::<Exit>().map(|e| e.0), Some(i));
                    assert_eq!(third.downcast_ref::<Exit>().map(|e| e.0), Some(task));
                }
            });
        }
    });
    for (i, trap) in rest {
        assert_eq!(trap.downcast_ref::<Exit>().map(|e| e.0), Some(i as i32));
    }
}

#[test]
fn modules_at_the_limits_trap_like_others() {
    let ns = CrateNamespace::new("hostile", None);
    // Very many functions, of which the last one traps, called through all the others of a chain.
    let mut text = String::from("(module (func $f0 (param i32) (result i32) (i32.div_u (i32.const 1) (local.get 0)))");
    for i in 1..50_000 {
        match i % 100 {
            0 => write!(text, "(func $f{i} (param i32) (result i32) (call $f{} (local.get 0)))", i - 100).unwrap(),
            _ => write!(text, "(func $f{i} (param i32) (result i32) (local.get 0))").unwrap(),
        }
    }
    text += r#"(func (export "run") (param i32) (result i32) (call $f49900 (local.get 0))))"#;
    let run = load(&ns, "many", &text).typed_func::<(i32,), i32>("run").unwrap();
    assert_eq!(run.call((1,)).unwrap(), 1);
    let trap = run.call((0,)).unwrap_err();
    assert_eq!((trap.code(), trap.depth(), trap.function()), (TrapCode::IntegerDivisionByZero, 501, Some(0)));
    // A huge branch table, each of whose targets traps or not by its number.
    let targets = (0..30_000).map(|i| if i % 3 == 0 { "0 " } else { "1 " }).collect::<String>();
    let table = format!(
        r#"(module (func (export "run") (param i32) (result i32)
            (block (block (br_table {targets} 1 (local.get 0))) unreachable) (i32.const 5)))"#
    );
    let run = load(&ns, "table", &table).typed_func::<(i32,), i32>("run").unwrap();
    for i in [0, 1, 2, 3, 29_997, 29_998, 30_000, -1] {
        match run.call((i,)) {
            Ok(five) => assert_eq!((five, (0..30_000).contains(&i) && i % 3 == 0), (5, false), "{i}"),
            Err(trap) => assert_eq!((trap.code(), i % 3), (TrapCode::Unreachable, 0), "{i}"),
        }
    }
    // Blocks deep in each other, and a trap in the innermost with operands of all of them on the stack.
    let depth = 2_000;
    let deep = format!(
        r#"(module (memory 1) (func (export "run") (param i32) (result i32) {} (i32.load (local.get 0)) {}))"#,
        "(local.get 0) (block (result i32) ".repeat(depth),
        ") i32.add ".repeat(depth)
    );
    let run = load(&ns, "deep", &deep).typed_func::<(i32,), i32>("run").unwrap();
    assert_eq!(run.call((8,)).unwrap(), 8 * depth as i32);
    assert_eq!(run.call((-1,)).unwrap_err().code(), TrapCode::MemoryOutOfBounds);
    // Arguments and results that fill the stack between two traps.
    let (types, zeros) = ("i64 ".repeat(999), "(i64.const 0) ".repeat(999));
    let drops = "drop ".repeat(999);
    let wide = format!(
        r#"(module (func $wide (param i32) (param {types}) (result {types})
                (if (i32.eqz (local.get 0)) (then unreachable))
                (call $wide (i32.sub (local.get 0) (i32.const 1)) {zeros}))
            (func (export "run") (param i32) (call $wide (local.get 0) {zeros}) {drops}))"#
    );
    let run = load(&ns, "wide", &wide).typed_func::<(i32,), ()>("run").unwrap();
    for _ in 0..3 {
        assert_eq!(run.call((5,)).unwrap_err().code(), TrapCode::Unreachable);
        assert_eq!(run.call((1 << 30,)).unwrap_err().code(), TrapCode::StackOverflow);
    }
}

#[test]
fn start_functions_trap_while_versions_are_swapped_under_tasks_that_trap() {
    let ns = CrateNamespace::new("hostile", None);
    let version = |n: i32, traps: bool| {
        let end = if traps { "unreachable" } else { "" };
        let text = format!(
            r#"(module (global $n (mut i32) (i32.const 0))
            (func $start (global.set $n (i32.const {n})) {end}) (start $start)
            (func (export "get") (result i32) (global.get $n))
            (func (export "fail") (result i32) (drop (i32.div_u (i32.const 1) (i32.sub (global.get $n) (i32.const {n})))) (i32.const 0)))"#
        );
        wat::parse_str(text).unwrap()
    };
    let cell = ns.load_wasm("changing", &version(1, false), LoadOptions::default()).unwrap();
    let get = cell.typed_func::<(), i32>("get").unwrap();
    let fail = cell.typed_func::<(), i32>("fail").unwrap();
    drop(cell);
    let (done, calls, serving) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(1));
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    let oldest = serving.load(SeqCst) as i32;
                    let n = get.call(()).unwrap();
                    // One that is being committed may serve already.
                    assert!(n >= oldest && n % 2 == 1, "{n} after {oldest}");
                    assert_eq!(fail.call(()).unwrap_err().code(), TrapCode::IntegerDivisionByZero);
                    calls.fetch_add(1, SeqCst);
                }
            });
        }
        for n in 2..120 {
            let traps = n % 2 == 0;
            let result = ns.swap(SwapRequest::new("changing").with_wasm(&version(n, traps)));
            assert_eq!(result.is_err(), traps, "{n}: {result:?}");
            if !traps {
                serving.store(n as usize, SeqCst);
            }
        }
        while calls.load(SeqCst) < 100 {
            thread::yield_now();
        }
        done.store(true, SeqCst);
    });
    assert_eq!(get.call(()).unwrap(), 119);
}

/// Calls a function without end when it is dropped, and says what came of it.
struct Endless(TypedFunc<(), ()>, Arc<AtomicBool>, Arc<Mutex<Vec<TrapCode>>>);

impl Drop for Endless {
    fn drop(&mut self) {
        self.1.store(true, SeqCst);
        let code = self.0.call(()).unwrap_err().code();
        self.2.lock().unwrap().push(code);
    }
}

#[test]
fn a_task_that_is_killed_while_its_destructors_run_goes_on_with_them() {
    let ns = CrateNamespace::new("hostile", None);
    // Stateful, so that the destructor waits inside of a gate that unwinding has to leave.
    let looping = load(
        &ns,
        "looping",
        r#"(module (global $n (mut i64) (i64.const 0))
        (func (export "run") (loop (global.set $n (i64.add (global.get $n) (i64.const 1))) (br 0)))
        (func (export "stop") unreachable))"#,
    );
    let (inside, codes) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<TrapCode>>>::default());
    let endless = looping.typed_func::<(), ()>("run").unwrap();
    // SAFETY: the signature is that of the function, and the cell lives.
    let stop: extern "C-unwind" fn() = unsafe { looping.func("stop").unwrap().entry().unwrap() };
    let (its_inside, its_codes) = (inside.clone(), codes.clone());
    ns.define("env", "host", move || -> () {
        let _first = Endless(endless.clone(), its_inside.clone(), its_codes.clone());
        let _second = Endless(endless.clone(), its_inside.clone(), its_codes.clone());
        stop();
    })
    .unwrap();
    let outer = load(
        &ns,
        "outer",
        r#"(module (import "env" "host" (func $host)) (global $n (mut i32) (i32.const 0))
        (func (export "run") (global.set $n (i32.const 1)) (call $host))
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))"#,
    );
    for round in 1..=5 {
        let id = AtomicU64::new(0);
        inside.store(false, SeqCst);
        thread::scope(|scope| {
            let victim = scope.spawn(|| {
                id.store(platform().tasks().current().id.get(), SeqCst);
                let run = outer.typed_func::<(), ()>("run").unwrap();
                // The trap that unwinding began with is what is left at the end.
                let code = catch_trap(|| run.call(())).unwrap().unwrap_err().code();
                kill::withdraw();
                let add = outer.typed_func::<(i32, i32), i32>("add").unwrap();
                (code, add.call((2, 3)).unwrap())
            });
            while !inside.load(SeqCst) {
                thread::yield_now();
            }
            kill_task(id.load(SeqCst)).unwrap();
            assert_eq!(victim.join().unwrap(), (TrapCode::Unreachable, 5));
        });
        let ended = codes.lock().unwrap().clone();
        assert_eq!(ended, vec![TrapCode::Killed; 2 * round]);
    }
}
