//! Killing a task's call: at every instruction, from another task, wherever it is.

#![expect(clippy::unwrap_used, reason = "tests")]

mod step;

use namespace_bridge::{
    Caller, CrateNamespace, LoadOptions, StrongCrateRef, Trap, catch_trap, kill, kill_task, text_index::TEXT,
};
use runtime_port::task;
use std::hint::black_box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use step::{Count, kill_at};
use wasm_cell::trap::TrapCode;

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    ns.load_wasm(name, &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Kills `call` at every instruction of wasm code, and at some of the native ones. After each, `call` must be right.
fn kill_everywhere(name: &str, native_stride: usize, expected: i64, call: impl Fn() -> Result<i64, Trap>) {
    assert_eq!(call().unwrap(), expected, "{name}");
    let mut instructions = 0;
    loop {
        let s = kill_at(Count::Wasm, instructions, &call);
        assert_eq!(s.lost_registers, 0, "{name}: instruction {instructions} at {:x?}", s.killed_at);
        let Some(pc) = s.killed_at else {
            assert_eq!(s.result.unwrap(), expected, "{name}: not killed");
            break;
        };
        let at = || format!("{name}: instruction {instructions} at {pc:#x}, {}", place(pc));
        let trap = s.result.expect_err(&at());
        assert_eq!(trap.code(), TrapCode::Killed, "{}", at());
        assert_eq!(trap.frames().next().unwrap().pc, pc, "{}", at());
        assert!(trap.origin().is_some(), "{}", at());
        assert!(!kill::is_pending(), "{}", at());
        assert_eq!(call().unwrap_or_else(|e| panic!("{}: {e:#}", at())), expected, "{}", at());
        instructions += 1;
    }
    assert!(instructions > 10, "{name}: {instructions}");
    let mut native = 0;
    loop {
        let s = kill_at(Count::Native, native, &call);
        assert_eq!(s.lost_registers, 0, "{name}: native instruction {native} at {:x?}", s.killed_at);
        if s.killed_at.is_none() {
            break;
        }
        let code = match s.result {
            Err(trap) => trap.code(),
            // It came too late for this call.
            Ok(value) => {
                assert_eq!(value, expected, "{name}: native instruction {native}");
                call().expect_err(name).code()
            }
        };
        assert_eq!(code, TrapCode::Killed, "{name}: native instruction {native}");
        assert_eq!(call().unwrap(), expected, "{name}: after native instruction {native}");
        native += native_stride;
    }
    println!("{name}: killed at {instructions} wasm and {native}/{native_stride} native instructions");
}

fn place(pc: usize) -> String {
    let reader = TEXT.read();
    let Some(code) = reader.find(pc).and_then(|t| t.code().cloned()) else { return "native".into() };
    let offset = (pc - code.text().start) as u32;
    let function = code.metadata().func_at(offset);
    // SAFETY: text of a registered cell.
    let bytes = unsafe { std::slice::from_raw_parts(pc as *const u8, 12) };
    format!("text offset {offset:#x}, function {function:?}, {bytes:02x?}")
}

#[test]
fn at_every_instruction_of_calls_and_loops() {
    let ns = CrateNamespace::new("test", None);
    let cell = load(
        &ns,
        "calls",
        r#"(module (memory 1) (table 2 funcref) (elem (i32.const 0) $square)
            (func $square (param i64) (result i64) (i64.mul (local.get 0) (local.get 0)))
            (func $many (param $a i64) (param $b i64) (param $c i64) (param $d i64) (result i64)
                (local $x i64) (local $y i64) (local $z i64)
                (local.set $x (call $square (local.get $a)))
                (local.set $y (call $square (local.get $b)))
                (local.set $z (call_indirect (param i64) (result i64) (local.get $c) (i32.const 0)))
                (i64.store (i32.const 16) (local.get $z))
                (i64.add (i64.add (local.get $x) (i64.load (i32.const 16)))
                    (i64.add (i64.sub (local.get $y) (local.get $d)) (i64.div_s (local.get $c) (local.get $a)))))
            (func $fib (param i64) (result i64)
                (if (result i64) (i64.lt_s (local.get 0) (i64.const 2)) (then (local.get 0))
                    (else (i64.add (call $fib (i64.sub (local.get 0) (i64.const 1)))
                        (call $fib (i64.sub (local.get 0) (i64.const 2)))))))
            (func (export "run") (param i64) (result i64) (local $i i64) (local $sum i64)
                (loop
                    (local.set $sum (i64.add (local.get $sum)
                        (call $many (i64.const 2) (local.get $i) (i64.const 8) (i64.const 1))))
                    (br_if 0 (i64.lt_s (local.tee $i (i64.add (local.get $i) (i64.const 1))) (local.get 0))))
                (i64.add (local.get $sum) (call $fib (i64.const 4)))))"#,
    );
    let run = cell.typed_func::<(i64,), i64>("run").unwrap();
    kill_everywhere("calls", 1, 2 * (4 + 64 - 1 + 4) + 1 + 3, || run.call((2,)));
}

#[test]
fn at_every_instruction_of_frames_that_move() {
    let ns = CrateNamespace::new("test", None);
    let i64s = |n: usize| "i64 ".repeat(n);
    let args = |n: usize| (0..n).map(|i| format!("(i64.const {i}) ")).collect::<String>();
    let sum = |n: usize| (1..n).fold("(local.get 0)".to_string(), |s, i| format!("(i64.add {s} (local.get {i}))"));
    let text = format!(
        r#"(module
            (func $leaf (param {p9}) (result i64) {sum9})
            (func $shrink (param {p30}) (result i64) (local $keep i64)
                (local.set $keep (call $leaf {a9}))
                (return_call $leaf (local.get $keep) (local.get 29) (local.get 28) (local.get 27) (local.get 26)
                    (local.get 25) (local.get 24) (local.get 23) (local.get 22)))
            (func $grow (param {p9}) (result i64) (local $keep i64)
                (local.set $keep (call $leaf {a9}))
                (return_call $shrink {a29} (local.get $keep)))
            (func $start (param i64) (result i64) (return_call $grow {a9}))
            (func $same (param i64) (result i64) (return_call $start (local.get 0)))
            (func $values (param i64) (result {p12}) {a12})
            (func $take (param {p12}) (result i64) {sum12})
            (func (export "run") (param i64) (result i64)
                (i64.add (call $same (local.get 0)) (call $take (call $values (local.get 0))))))"#,
        p9 = i64s(9),
        p12 = i64s(12),
        p30 = i64s(30),
        a9 = args(9),
        a12 = args(12),
        a29 = args(29),
        sum9 = sum(9),
        sum12 = sum(12),
    );
    let run = load(&ns, "moves", &text).typed_func::<(i64,), i64>("run").unwrap();
    kill_everywhere("moves", 5, 36 + 36 + (22..29).sum::<i64>() + 66, || run.call((1,)));
}

#[test]
fn at_every_instruction_of_large_frames() {
    let ns = CrateNamespace::new("test", None);
    for bytes in [5_000, 100_000] {
        let n = bytes / 16;
        let locals = "v128 ".repeat(n);
        // Nothing may be folded: all of them are live across a call.
        let stores: String = (0..n).step_by(n / 8).map(|i| format!("(local.set {} (call $value))", i + 1)).collect();
        let sums: String = (0..n)
            .step_by(n / 8)
            .map(|i| format!("(local.set $s (i64.add (local.get $s) (i64x2.extract_lane 0 (local.get {}))))", i + 1))
            .collect();
        let text = format!(
            r#"(module (func $value (result v128) (v128.const i64x2 5 6))
                (func (export "run") (param i64) (result i64) (local {locals}) (local $s i64)
                    {stores} {sums} (local.get $s)))"#
        );
        let run = load(&ns, &format!("large{bytes}"), &text).typed_func::<(i64,), i64>("run").unwrap();
        let expected = (0..n).step_by(n / 8).count() as i64 * 5;
        kill_everywhere("large frames", 9, expected, || run.call((1,)));
    }
}

#[test]
fn at_every_instruction_around_host_functions_other_cells_and_bulk_operations() {
    let ns = CrateNamespace::new("test", None);
    ns.define("env", "add", |a: i64, b: i64| a + b).unwrap();
    ns.define("env", "many", |_: &Caller, a: i64, b: i64, c: i64, d: i64, e: i64, f: i64, g: i64, h: i64| {
        (h, g + f, a + b + c + d + e)
    })
    .unwrap();
    load(
        &ns,
        "other",
        r#"(module (func (export "twice") (param i64) (result i64) (i64.add (local.get 0) (local.get 0))))"#,
    );
    let cell = load(
        &ns,
        "around",
        r#"(module
            (import "env" "add" (func $add (param i64 i64) (result i64)))
            (import "env" "many" (func $many (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64 i64 i64)))
            (import "other" "twice" (func $twice (param i64) (result i64)))
            (memory 1 50000) (table 4 1000 funcref) (elem declare func $twice) (data $d "abcdefgh")
            (func (export "run") (param i64) (result i64) (local $s i64)
                (local.set $s (call $add (local.get 0) (i64.const 1)))
                (local.set $s (call $twice (local.get $s)))
                (i64.add (i64.add (call $many (local.get $s) (i64.const 2) (i64.const 3) (i64.const 4) (i64.const 5)
                    (i64.const 6) (i64.const 7) (i64.const 8))))
                (memory.fill (i32.const 0) (i32.const 1) (i32.const 5000))
                (memory.copy (i32.const 6000) (i32.const 0) (i32.const 4000))
                (memory.init $d (i32.const 6000) (i32.const 1) (i32.const 7))
                (drop (memory.grow (i32.const 1)))
                (drop (table.grow (ref.null func) (i32.const 0)))
                (table.fill (i32.const 0) (ref.func $twice) (i32.const 3))
                (i64.add (i64.load8_u (i32.const 6000)))
                (i64.add (call_indirect (param i64) (result i64) (i64.const 10) (i32.const 1)))))"#,
    );
    let run = cell.typed_func::<(i64,), i64>("run").unwrap();
    kill_everywhere("around", 499, (4 + 2 + 3 + 4 + 5) + 13 + 8 + 98 + 20, || run.call((1,)));
}

/// A cell whose code is called by raw entries, with frames that move and registers that must be restored.
const INNER: &str = r#"(module
    (func $square (param i64) (result i64) (i64.mul (local.get 0) (local.get 0)))
    (func $wide (param i64 i64 i64 i64 i64 i64 i64 i64 i64 i64) (result i64)
        (i64.add (call $square (local.get 9)) (local.get 8)))
    (func $keeps (param i64 i64 i64) (result i64) (local $x i64) (local $y i64)
        (local.set $x (call $square (local.get 0)))
        (local.set $y (call $square (local.get 1)))
        (i64.add (i64.add (local.get $x) (local.get $y)) (i64.sub (call $square (local.get 2)) (local.get 0))))
    (func $small (result i64) (i64.const 5))
    (func $grows (param i64) (result i64) (local $x i64)
        (local.set $x (call $keeps (local.get 0) (i64.const 2) (i64.const 3)))
        (return_call $wide (local.get $x) (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1) (i64.const 1)
            (i64.const 1) (i64.const 1) (i64.const 7) (local.get 0)))
    (func (export "inner") (param i64) (result i64)
        (i64.add (call $grows (local.get 0)) (call $small))))"#;

const INNER_OF_4: i64 = 16 + 7 + 5;

type Raw = extern "C-unwind" fn(i64) -> i64;

/// Notes that its destructor ran, with the values its frame had.
struct Guard<'a>(&'a AtomicI64, [i64; 6]);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        assert_eq!(self.1, [1, 2, 3, 4, 5, 6]);
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn call_guarded(raw: Raw, alive: &AtomicI64, x: i64) -> i64 {
    let one = black_box(1);
    alive.fetch_add(1, Ordering::SeqCst);
    let guard = Guard(alive, [one, one + 1, one + 2, one + 3, one + 4, one + 5]);
    let result = raw(x);
    black_box(guard.1[5]);
    result
}

#[test]
fn at_every_instruction_below_native_frames_whose_destructors_run() {
    let ns = CrateNamespace::new("test", None);
    let inner = load(&ns, "inner", INNER);
    // SAFETY: the signature is that of the function, and the cell lives.
    let raw: Raw = unsafe { inner.func("inner").unwrap().entry().unwrap() };
    let alive = Arc::new(AtomicI64::new(0));
    let counter = alive.clone();
    ns.define("env", "back", move |x: i64| call_guarded(raw, &counter, x)).unwrap();
    let text = r#"(module (import "env" "back" (func $back (param i64) (result i64)))
        (func (export "run") (param i64) (result i64) (i64.add (call $back (local.get 0)) (call $back (i64.const 4)))))"#;
    let run = load(&ns, "outer", text).typed_func::<(i64,), i64>("run").unwrap();
    kill_everywhere("host function in between", 97, 2 * INNER_OF_4, || {
        let result = run.call((4,));
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        result
    });
    kill_everywhere("catch_trap", 97, INNER_OF_4, || {
        let result = catch_trap(|| call_guarded(raw, &alive, 4));
        assert_eq!(alive.load(Ordering::SeqCst), 0);
        result
    });
}

#[test]
fn at_every_instruction_of_a_raw_call_outside_of_any_catch() {
    let ns = CrateNamespace::new("test", None);
    let inner = load(&ns, "inner", INNER);
    // SAFETY: the signature is that of the function, and the cell lives.
    let raw: Raw = unsafe { inner.func("inner").unwrap().entry().unwrap() };
    let typed = inner.typed_func::<(i64,), i64>("inner").unwrap();
    assert_eq!(typed.call((4,)).unwrap(), INNER_OF_4);
    let alive = AtomicI64::new(0);
    for k in 0.. {
        let s = kill_at(Count::Wasm, k, || catch_unwind(AssertUnwindSafe(|| call_guarded(raw, &alive, 4))));
        assert_eq!((s.lost_registers, alive.load(Ordering::SeqCst)), (0, 0), "instruction {k}");
        if s.killed_at.is_none() {
            assert!(k > 40);
            break;
        }
        let payload = s.result.unwrap_err();
        assert_eq!(payload.downcast_ref::<Trap>().unwrap().code(), TrapCode::Killed);
        assert!(!kill::is_pending());
        assert_eq!(typed.call((4,)).unwrap(), INNER_OF_4);
    }
}

/// Runs `f` on another thread, kills it when it has had the time to get going, and gives what it returned.
fn kill_running<R: Send + 'static>(delay: Duration, f: impl FnOnce() -> R + Send + 'static) -> R {
    let (tell, told) = mpsc::channel();
    let victim = thread::spawn(move || {
        task::current();
        runtime_port::platform().tasks().attach().unwrap();
        tell.send(task::current().id.get()).unwrap();
        f()
    });
    let id = told.recv().unwrap();
    thread::sleep(delay);
    kill_task(id).unwrap();
    victim.join().unwrap()
}

const LOOPS: &str = r#"(module (import "env" "swallow" (func $swallow))
    (memory 4096)
    (memory $shared 1 1 shared)
    (func (export "spin") (loop (br 0)))
    (func (export "calls") (loop (call $swallow) (br 0)))
    (func (export "fills") (loop (memory.fill (i32.const 0) (i32.const 7) (i32.const 0x10000000)) (br 0)))
    (func (export "copies") (loop (memory.copy (i32.const 1) (i32.const 0) (i32.const 0xfffffff)) (br 0)))
    (func (export "grows") (loop (drop (memory.grow (i32.const 0))) (br 0)))
    (func (export "waits") (drop (memory.atomic.wait32 $shared (i32.const 0) (i32.const 0) (i64.const -1))))
    (func (export "recurses") (loop (call $deep (i32.const 1000)) (br 0)))
    (func $deep (param i32) (if (local.get 0) (then (call $deep (i32.sub (local.get 0) (i32.const 1))))))
    (func (export "fine") (result i32) (i32.const 42)))"#;

#[test]
fn endless_loops_are_killed_from_another_task() {
    let ns = CrateNamespace::new("test", None);
    let swallowed = Arc::new(AtomicU32::new(0));
    let count = swallowed.clone();
    ns.define("env", "swallow", move || {
        // A host function that tries again whatever happens.
        count.fetch_add(1, Ordering::Relaxed);
        let _ = catch_unwind(|| black_box(1));
    })
    .unwrap();
    let cell = load(&ns, "loops", LOOPS);
    let fine = cell.typed_func::<(), i32>("fine").unwrap();
    for name in ["spin", "calls", "fills", "copies", "grows", "waits", "recurses"] {
        for delay in [1, 20] {
            let endless = cell.typed_func::<(), ()>(name).unwrap();
            let again = fine.clone();
            let start = Instant::now();
            let (killed, next) =
                kill_running(Duration::from_millis(delay), move || (endless.call(()).unwrap_err(), again.call(())));
            assert_eq!(killed.code(), TrapCode::Killed, "{name}");
            assert_eq!(next.unwrap(), 42, "{name}");
            assert!(start.elapsed() < Duration::from_secs(5), "{name}");
        }
    }
    assert!(swallowed.load(Ordering::Relaxed) > 0);
}

#[test]
fn a_kill_outlasts_what_host_functions_catch() {
    let ns = CrateNamespace::new("test", None);
    let inner =
        load(&ns, "spinner", r#"(module (func (export "spin") (param i64) (result i64) (loop (br 0)) unreachable))"#);
    // SAFETY: the signature is that of the function, and the cell lives.
    let raw: Raw = unsafe { inner.func("spin").unwrap().entry().unwrap() };
    let typed = inner.typed_func::<(i64,), i64>("spin").unwrap();
    let (codes, seen) = mpsc::channel();
    ns.define("env", "catch_raw", move || {
        let _ = catch_unwind(|| raw(1)).unwrap_err();
        // The next entry is refused at once.
        codes.send(typed.call((1,)).unwrap_err().code()).unwrap();
    })
    .unwrap();
    let text = r#"(module (import "env" "catch_raw" (func $catch)) (global $after (mut i32) (i32.const 0))
        (func (export "run") (call $catch) (global.set $after (i32.const 1)) (loop (br 0)))
        (func (export "after") (result i32) (global.get $after)))"#;
    let outer = load(&ns, "outer", text);
    let run = outer.typed_func::<(), ()>("run").unwrap();
    let trap = kill_running(Duration::from_millis(20), move || run.call(()).unwrap_err());
    assert_eq!(trap.code(), TrapCode::Killed);
    assert_eq!(seen.recv().unwrap(), TrapCode::Killed);
    assert_eq!(outer.typed_func::<(), i32>("after").unwrap().call(()).unwrap(), 0);
}

#[test]
fn a_kill_between_calls_ends_the_next_one_unless_withdrawn() {
    let ns = CrateNamespace::new("test", None);
    let cell = load(&ns, "fine", r#"(module (func (export "f") (result i32) (i32.const 42)))"#);
    let f = cell.typed_func::<(), i32>("f").unwrap();
    assert_eq!(f.call(()).unwrap(), 42);
    let me = task::current().id.get();
    kill_task(me).unwrap();
    assert!(kill::is_pending());
    assert_eq!(f.call(()).unwrap_err().code(), TrapCode::Killed);
    assert!(!kill::is_pending());
    assert_eq!(f.call(()).unwrap(), 42);
    kill_task(me).unwrap();
    assert!(kill::withdraw() && !kill::withdraw());
    assert_eq!(f.call(()).unwrap(), 42);
    assert!(kill_task(u64::MAX).is_err());
}

#[test]
fn a_killed_host_function_stops_when_it_looks() {
    let ns = CrateNamespace::new("test", None);
    ns.define("env", "work", || {
        while !kill::is_pending() {
            thread::yield_now();
        }
    })
    .unwrap();
    let text = r#"(module (import "env" "work" (func $work)) (func (export "run") (call $work)))"#;
    let run = load(&ns, "worker", text).typed_func::<(), ()>("run").unwrap();
    let trap = kill_running(Duration::from_millis(5), move || run.call(()).unwrap_err());
    assert_eq!(trap.code(), TrapCode::Killed);
    assert_eq!(trap.cell(), Some("worker"));
}

#[test]
fn tasks_killed_at_random_times_leave_each_other_alone() {
    let ns = CrateNamespace::new("test", None);
    ns.define("env", "add", |a: i64, b: i64| a + b).unwrap();
    let text = r#"(module (import "env" "add" (func $add (param i64 i64) (result i64)))
        (memory 2)
        (func $work (export "work") (param $n i64) (result i64) (local $s i64)
            (loop
                (memory.fill (i32.const 0) (i32.const 3) (i32.const 600))
                (local.set $s (call $add (local.get $s) (i64.load8_u (i32.const 599))))
                (br_if 0 (i64.ne (local.tee $n (i64.sub (local.get $n) (i64.const 1))) (i64.const 0))))
            (local.get $s)))"#;
    let cell = load(&ns, "worker", text);
    let (stop, kills) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (tell, told) = mpsc::channel();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            let work = cell.typed_func::<(i64,), i64>("work").unwrap();
            let (stop, kills, tell) = (stop.clone(), kills.clone(), tell.clone());
            thread::spawn(move || {
                runtime_port::platform().tasks().attach().unwrap();
                tell.send(task::current().id.get()).unwrap();
                while !stop.load(Ordering::Relaxed) {
                    match work.call((300,)) {
                        Ok(sum) => assert_eq!(sum, 900),
                        Err(trap) => {
                            assert_eq!(trap.code(), TrapCode::Killed, "{trap:#}");
                            kills.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    let ids: Vec<u64> = (0..3).map(|_| told.recv().unwrap()).collect();
    for i in 0..3000u64 {
        kill_task(ids[(i % 3) as usize]).unwrap();
        thread::sleep(Duration::from_micros(i * 7919 % 120));
    }
    stop.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|w| w.join().unwrap());
    assert!(kills.load(Ordering::Relaxed) > 1000, "{kills:?}");
}
