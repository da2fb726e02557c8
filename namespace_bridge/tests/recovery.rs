//! What happens to cells that fail: the log, policies, poisoning and its clearing.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::recovery::ClosedCell;
use namespace_bridge::swap::SwapError;
use namespace_bridge::types_registry::registered_types;
use namespace_bridge::{
    CrateNamespace, FaultEntry, FaultType, LoadOptions, Policy, PolicyError, RecoveryAction, RecoveryState,
    StrongCrateRef, Trap, TypedFunc, fault_log, kill_task, recovery, text_index::TEXT,
};
use runtime_port::task;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use wasm_cell::trap::TrapCode;

/// The log and the cells that wait are the whole process's: one test at a time, with an empty log.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(|e| e.into_inner());
    fault_log::clear();
    guard
}

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    ns.load_wasm(name, &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn faults_of(cell: &str) -> Vec<FaultEntry> {
    fault_log::entries().into_iter().filter(|e| e.cell == cell).collect()
}

/// Counts its calls in a global and in memory, and fails when it is told to.
const COUNTER: &str = r#"(module
    (memory 1)
    (global $n (mut i32) (i32.const 0))
    (func $bump (export "bump") (result i32)
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (i32.add (global.get $n) (i32.mul (i32.const 100) (i32.load (i32.const 0)))))
    (func $fail (export "fail") (param i32) (result i32)
        (drop (call $bump))
        (i32.div_s (i32.const 1) (local.get 0)))
    (func (export "trap") unreachable))"#;

struct Counter {
    bump: TypedFunc<(), i32>,
    fail: TypedFunc<(i32,), i32>,
}

impl Counter {
    fn of(cell: &StrongCrateRef) -> Counter {
        Counter { bump: cell.typed_func("bump").unwrap(), fail: cell.typed_func("fail").unwrap() }
    }
}

fn code<R: std::fmt::Debug>(result: Result<R, Trap>) -> TrapCode {
    result.unwrap_err().code()
}

#[test]
fn faults_are_recorded_once_per_place_and_counted() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let cell = load(&ns, "logged", COUNTER);
    let (fail, trap) = (Counter::of(&cell).fail, cell.typed_func::<(), ()>("trap").unwrap());
    let before = runtime_port::time::Instant::now().as_nanos();
    for _ in 0..5 {
        fail.call((0,)).unwrap_err();
    }
    let last = trap.call(()).unwrap_err();
    let after = runtime_port::time::Instant::now().as_nanos();
    let faults = faults_of("logged");
    assert_eq!(faults.len(), 2);
    let [division, unreachable] = &faults[..] else { panic!() };
    assert_eq!(division.fault_type, FaultType::Trap(TrapCode::IntegerDivisionByZero));
    assert_eq!((division.count, unreachable.count), (5, 1));
    assert_eq!((&*division.function_name, division.function, division.version), ("fail", Some(1), 1));
    assert_eq!(unreachable.wasm_offset, last.wasm_offset());
    assert_eq!(division.action_taken, RecoveryAction::None);
    assert_eq!(division.task, task::current().id.get());
    for e in &faults {
        assert!(before <= e.first && e.first <= e.last && e.last <= after + 1_000_000, "{e:?} {before} {after}");
    }
    assert!(division.to_string().starts_with("logged!fail (version 1): integer divide by zero at wasm offset 0x"));
    assert_eq!(fault_log::get_last_entry().unwrap().function_name, "trap");
    // What is unloaded is still known.
    drop((cell, fail, trap, last));
    ns.unload("logged").unwrap();
    assert_eq!(faults_of("logged").len(), 2);
    assert_eq!(fault_log::log_handled_fault("logged"), 2);
    assert_eq!(fault_log::remove_unhandled_exceptions().len(), 0);
    assert_eq!(fault_log::clear(), 2);
    assert!(fault_log::entries().is_empty());
}

#[test]
fn the_log_keeps_what_was_counted_last_when_it_is_full() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let functions: String = (0..1000).map(|i| format!(r#"(func (export "f{i}") unreachable)"#)).collect();
    let cell = load(&ns, "many", &format!("(module {functions})"));
    let lost = fault_log::lost();
    for i in 0..1000 {
        cell.typed_func::<(), ()>(&format!("f{i}")).unwrap().call(()).unwrap_err();
    }
    let faults = faults_of("many");
    assert_eq!(fault_log::lost() - lost + faults.len() as u64, 1000);
    assert!(faults.len() > 200 && faults.len() <= fault_log::CAPACITY, "{}", faults.len());
    assert_eq!(faults.last().unwrap().function_name, "f999");
}

#[test]
fn a_fault_below_a_host_function_is_recorded_once() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let inner = load(&ns, "inner", COUNTER).typed_func::<(), ()>("trap").unwrap();
    ns.define("env", "pass_on", move || inner.call(())).unwrap();
    let text = r#"(module (import "env" "pass_on" (func $f)) (func (export "run") (call $f)))"#;
    let trap = load(&ns, "outer", text).typed_func::<(), ()>("run").unwrap().call(()).unwrap_err();
    assert_eq!(trap.code(), TrapCode::Unreachable);
    assert_eq!((faults_of("inner").len(), faults_of("outer").len()), (1, 0));
}

#[test]
fn a_panic_is_recorded_for_the_cell_that_native_code_called() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    ns.define("env", "panics", || -> i32 { panic!("on purpose") }).unwrap();
    let text = r#"(module (import "env" "panics" (func $f (result i32))) (global $n (mut i32) (i32.const 0))
        (func (export "run") (result i32)
            (global.set $n (i32.add (global.get $n) (i32.const 1)))
            (if (i32.eq (global.get $n) (i32.const 1)) (then (return (call $f)))) (global.get $n)))"#;
    let run = load(&ns, "panicky", text).typed_func::<(), i32>("run").unwrap();
    ns.set_policy("panicky", Policy::reset()).unwrap();
    for _ in 0..3 {
        let payload = catch_unwind(AssertUnwindSafe(|| run.call(()))).unwrap_err();
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"on purpose"));
    }
    let faults = faults_of("panicky");
    assert_eq!(faults.len(), 3, "one per instance");
    for f in &faults {
        assert_eq!((f.fault_type, &*f.function_name, f.count), (FaultType::Panic, "run", 1));
        assert_eq!(f.action_taken, RecoveryAction::Reset);
    }
}

#[test]
fn without_a_policy_the_state_stays_and_the_cell_serves() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let c = Counter::of(&load(&ns, "plain", COUNTER));
    assert_eq!(c.bump.call(()).unwrap(), 101);
    assert_eq!(code(c.fail.call((0,))), TrapCode::IntegerDivisionByZero);
    assert_eq!(c.bump.call(()).unwrap(), 303);
    assert_eq!((ns.policy("plain"), ns.recovery_state("plain")), (Policy::propagate(), RecoveryState::Serving));
}

#[test]
fn reset_gives_a_fresh_instance_behind_the_same_entries() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let cell = load(&ns, "service", COUNTER);
    let user = load(
        &ns,
        "user",
        r#"(module (import "service" "bump" (func $bump (result i32))) (table (export "t") 1 funcref)
            (elem (i32.const 0) $bump)
            (func (export "direct") (result i32) (call $bump))
            (func (export "indirect") (result i32) (call_indirect (result i32) (i32.const 0))))"#,
    );
    ns.set_policy("service", Policy::reset()).unwrap();
    let c = Counter::of(&cell);
    // SAFETY: the function's signature.
    let raw: extern "C-unwind" fn() -> i32 = unsafe { cell.entry("bump").unwrap() };
    let direct = user.typed_func::<(), i32>("direct").unwrap();
    let indirect = user.typed_func::<(), i32>("indirect").unwrap();
    for round in 1..=4 {
        assert_eq!(c.bump.call(()).unwrap(), 101, "round {round}");
        assert_eq!(direct.call(()).unwrap(), 202);
        assert_eq!(indirect.call(()).unwrap(), 303);
        assert_eq!(raw(), 404);
        let now = ns.get_crate("service").unwrap();
        assert_eq!(now.version(), round);
        // The failing caller gets its `Err`, the same as without a policy.
        let trap = c.fail.call((0,)).unwrap_err();
        assert_eq!((trap.code(), trap.cell()), (TrapCode::IntegerDivisionByZero, Some("service")));
        assert!(now.is_unloaded() && !ns.get_crate("service").unwrap().is_unloaded());
    }
    let faults = faults_of("service");
    assert_eq!(faults.len(), 4);
    assert!(faults.iter().all(|f| f.action_taken == RecoveryAction::Reset && f.count == 1));
    // Edges have moved: the fresh cell is in use, and goes when its user has gone.
    let fresh = ns.get_crate("service").unwrap();
    assert_eq!(fresh.dependents().len(), 1);
    assert!(user.crates_i_depend_on().iter().all(|c| Arc::ptr_eq(c, &fresh)));
    assert!(ns.unload("service").is_err());
    drop(user);
    ns.unload("user").unwrap();
    ns.unload("service").unwrap();
    assert_eq!(code(c.bump.call(())), TrapCode::FunctionGone);
    assert!(matches!(ns.reset("service"), Err(PolicyError::NotFound { .. })));
    // The policy stays with the name.
    let c = Counter::of(&load(&ns, "service", COUNTER));
    c.fail.call((0,)).unwrap_err();
    assert_eq!(c.bump.call(()).unwrap(), 101);
}

#[test]
fn a_thousand_resets_leave_nothing_behind() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let c = Counter::of(&load(&ns, "service", COUNTER));
    ns.set_policy("service", Policy::reset()).unwrap();
    let counts = || (namespace_bridge::reclaim(), ns.crate_count(), ns.symbol_count(), TEXT.len(), registered_types());
    let mut before = None;
    for i in 0..1000 {
        c.fail.call((0,)).unwrap_err();
        assert_eq!(c.bump.call(()).unwrap(), 101);
        if i == 10 {
            before = Some(counts());
        }
    }
    assert_eq!(before, Some(counts()));
    assert_eq!(ns.get_crate("service").unwrap().version(), 1001);
}

#[test]
fn recovery_waits_until_nobody_is_inside() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let slot: Arc<Mutex<Option<Counter>>> = Arc::default();
    let counter = slot.clone();
    let (tell, seen) = mpsc::channel();
    ns.define("env", "reenter", move || {
        let guard = counter.lock().unwrap();
        let c = guard.as_ref().unwrap();
        tell.send(code(c.fail.call((0,)))).unwrap();
        // This task itself is inside: the cell is closed.
        let trap = c.bump.call(()).unwrap_err();
        assert_eq!(trap.downcast_ref::<ClosedCell>().unwrap().cell.as_ref(), "nested");
        tell.send(trap.code()).unwrap();
    })
    .unwrap();
    let text = COUNTER.replace("(module", r#"(module (import "env" "reenter" (func $reenter))"#).replace(
        r#"(func (export "trap") unreachable)"#,
        r#"(func (export "outer") (result i32) (drop (call $bump)) (call $reenter) (call $bump))"#,
    );
    let cell = load(&ns, "nested", &text);
    ns.set_policy("nested", Policy::reset()).unwrap();
    *slot.lock().unwrap() = Some(Counter::of(&cell));
    let outer = cell.typed_func::<(), i32>("outer").unwrap();
    // The call that was inside ends in the old instance, with its state.
    assert_eq!(outer.call(()).unwrap(), 303);
    assert_eq!(seen.recv().unwrap(), TrapCode::IntegerDivisionByZero);
    assert_eq!(seen.recv().unwrap(), TrapCode::Poisoned);
    assert_eq!(ns.recovery_state("nested"), RecoveryState::Poisoned);
    // Nobody is inside now, so the next call finds a fresh instance.
    assert_eq!(Counter::of(&cell_of(&ns, "nested")).bump.call(()).unwrap(), 101);
    assert_eq!(ns.recovery_state("nested"), RecoveryState::Serving);
}

/// The cell, whatever its state.
fn cell_of(ns: &CrateNamespace, name: &str) -> StrongCrateRef {
    ns.get_crate(name).unwrap()
}

#[test]
fn recovery_waits_for_other_tasks() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let (entered, is_inside) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    let may_leave = Mutex::new(may_leave);
    ns.define("env", "pause", move || {
        entered.send(()).unwrap();
        may_leave.lock().unwrap().recv().unwrap();
    })
    .unwrap();
    // With a shared memory, so that two tasks can be inside at once.
    let head = r#"(module (import "env" "pause" (func $pause)) (memory 1 1 shared)"#;
    let text = COUNTER.replace("(module", head).replace(
        r#"(func (export "trap") unreachable)"#,
        r#"(func (export "slow") (result i32) (drop (call $bump)) (call $pause) (call $bump))"#,
    );
    let cell = load(&ns, "busy", &text);
    ns.set_policy("busy", Policy::reset()).unwrap();
    let (c, slow) = (Counter::of(&cell), cell.typed_func::<(), i32>("slow").unwrap());
    let other = thread::spawn(move || slow.call(()).unwrap());
    is_inside.recv().unwrap();
    assert_eq!(code(c.fail.call((0,))), TrapCode::IntegerDivisionByZero);
    for _ in 0..3 {
        assert_eq!(code(c.bump.call(())), TrapCode::Poisoned);
        assert_eq!((ns.recovery_state("busy"), recovery::run()), (RecoveryState::Poisoned, 1));
    }
    leave.send(()).unwrap();
    assert_eq!(other.join().unwrap(), 303);
    assert_eq!(c.bump.call(()).unwrap(), 101);
    assert_eq!(recovery::run(), 0);
}

#[test]
fn a_fallback_takes_over_the_entries() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let cell = load(&ns, "main", COUNTER);
    let spare = r#"(module (func (export "bump") (result i32) (i32.const -7))
        (func (export "fail") (param i32) (result i32) (local.get 0))"#;
    let error = ns.set_policy("main", Policy::swap_to("spare")).unwrap_err().to_string();
    assert_eq!(error, "cell `main`: there is no cell `spare` to fall back to");
    load(&ns, "spare", &format!("{spare})"));
    let error = ns.set_policy("main", Policy::swap_to("spare")).unwrap_err().to_string();
    assert_eq!(error, "cell `main`: fallback `spare` lacks `trap` of type () -> ()");
    ns.unload("spare").unwrap();
    load(&ns, "spare", &format!(r#"{spare} (func (export "trap")))"#));
    ns.set_policy("main", Policy::swap_to("spare")).unwrap();
    let user = load(
        &ns,
        "user",
        r#"(module (import "main" "bump" (func $b (result i32))) (func (export "run") (result i32) (call $b)))"#,
    );
    let run = user.typed_func::<(), i32>("run").unwrap();
    let c = Counter::of(&cell);
    assert_eq!(run.call(()).unwrap(), 101);
    assert_eq!(code(c.fail.call((0,))), TrapCode::IntegerDivisionByZero);
    assert_eq!((run.call(()).unwrap(), c.bump.call(()).unwrap(), c.fail.call((0,)).unwrap()), (-7, -7, 0));
    assert_eq!(ns.recovery_state("main"), RecoveryState::Replaced { by: "spare".into() });
    assert_eq!(faults_of("main")[0].action_taken, RecoveryAction::Swapped);
    // Two cells cannot stand in for each other.
    assert!(matches!(ns.set_policy("spare", Policy::swap_to("main")), Err(PolicyError::NoFallback { .. })));
    // Back, with the state it had.
    assert!(ns.clear_poison("main").unwrap() && !ns.clear_poison("main").unwrap());
    assert_eq!(run.call(()).unwrap(), 303);
    // The fallback goes: the next failure takes the cell out of service.
    ns.unload("spare").unwrap();
    assert_eq!(code(c.fail.call((0,))), TrapCode::IntegerDivisionByZero);
    assert_eq!(code(run.call(())), TrapCode::Quarantined);
    assert_eq!(faults_of("main")[0].action_taken, RecoveryAction::Failed);
}

#[test]
fn a_restart_waits_and_every_failure_in_a_row_doubles_the_pause() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let cell = load(&ns, "flaky", COUNTER);
    let (first, most) = (Duration::from_millis(20), Duration::from_secs(20));
    ns.set_policy("flaky", Policy::restart(first, most)).unwrap();
    let c = Counter::of(&cell);
    for i in 0..3u32 {
        c.fail.call((0,)).unwrap_err();
        let start = Instant::now();
        let trap = c.bump.call(()).unwrap_err();
        assert_eq!(trap.code(), TrapCode::Poisoned);
        assert!(trap.to_string().contains("cell `flaky` failed with `integer divide by zero`"), "{trap}");
        assert_eq!(trap.downcast_ref::<ClosedCell>().unwrap().failures, i + 1);
        let value = loop {
            match c.bump.call(()) {
                Ok(value) => break value,
                Err(trap) => assert_eq!(trap.code(), TrapCode::Poisoned),
            }
            thread::sleep(Duration::from_millis(1));
        };
        assert_eq!(value, 101);
        let pause = start.elapsed();
        assert!(pause >= first * (1 << i) - Duration::from_millis(5), "{i}: {pause:?}");
    }
}

#[test]
fn failures_in_a_window_lead_to_quarantine_until_cleared() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    for policy in [Policy::propagate(), Policy::reset()] {
        let cell = load(&ns, "sick", COUNTER);
        ns.set_policy("sick", policy.clone().quarantine_after(3, Duration::from_secs(60))).unwrap();
        let c = Counter::of(&cell);
        for _ in 0..3 {
            assert_eq!(code(c.fail.call((0,))), TrapCode::IntegerDivisionByZero);
        }
        assert_eq!(ns.recovery_state("sick"), RecoveryState::Quarantined);
        let trap = c.bump.call(()).unwrap_err();
        assert_eq!(trap.code(), TrapCode::Quarantined);
        assert!(trap.to_string().starts_with("cell is quarantined: cell `sick` failed"), "{trap}");
        assert_eq!(fault_log::get_last_entry().unwrap().action_taken, RecoveryAction::Quarantined);
        let before = if policy == Policy::propagate() { 404 } else { 202 };
        assert!(ns.clear_poison("sick").unwrap());
        assert_eq!(c.bump.call(()).unwrap(), before);
        (0..3).for_each(|_| drop(c.fail.call((0,))));
        assert_eq!(code(c.bump.call(())), TrapCode::Quarantined);
        ns.reset("sick").unwrap();
        assert_eq!(c.bump.call(()).unwrap(), 101);
        assert_eq!(ns.recovery_state("sick"), RecoveryState::Serving);
        ns.unload("sick").unwrap();
    }
    // Failures that lie further apart do not count together.
    let c = Counter::of(&load(&ns, "slow", COUNTER));
    ns.set_policy("slow", Policy::propagate().quarantine_after(2, Duration::from_millis(5))).unwrap();
    for _ in 0..4 {
        c.fail.call((0,)).unwrap_err();
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(ns.recovery_state("slow"), RecoveryState::Serving);
}

#[test]
fn a_cell_whose_state_others_use_is_not_reset_behind_their_back() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let text = COUNTER.replace("(memory 1)", r#"(memory (export "m") 1)"#);
    let c = Counter::of(&load(&ns, "owner", &text));
    load(&ns, "user", r#"(module (import "owner" "m" (memory 1)))"#);
    let error = ns.reset("owner").unwrap_err().to_string();
    assert_eq!(error, "cell `owner` cannot be reset: `user` uses `owner::m`");
    assert_eq!(c.bump.call(()).unwrap(), 101);
    ns.set_policy("owner", Policy::reset()).unwrap();
    c.fail.call((0,)).unwrap_err();
    assert_eq!(code(c.bump.call(())), TrapCode::Quarantined);
    assert_eq!(faults_of("owner")[0].action_taken, RecoveryAction::Failed);
    ns.clear_poison("owner").unwrap();
    assert_eq!(c.bump.call(()).unwrap(), 303);
}

#[test]
fn a_reset_whose_start_function_traps_takes_the_cell_out_of_service() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let starts = Arc::new(Mutex::new(0));
    let count = starts.clone();
    ns.define("env", "may_start", move || {
        let mut n = count.lock().unwrap();
        *n += 1;
        if *n == 2 { Err("not again") } else { Ok(()) }
    })
    .unwrap();
    let text = COUNTER.replace("(module", r#"(module (import "env" "may_start" (func $s)) (start $s)"#);
    let c = Counter::of(&load(&ns, "starter", &text));
    ns.set_policy("starter", Policy::reset()).unwrap();
    c.fail.call((0,)).unwrap_err();
    assert_eq!(code(c.bump.call(())), TrapCode::Quarantined);
    assert_eq!(ns.recovery_state("starter"), RecoveryState::Quarantined);
    ns.clear_poison("starter").unwrap();
    assert_eq!(c.bump.call(()).unwrap(), 202, "the old instance");
    c.fail.call((0,)).unwrap_err();
    assert_eq!(c.bump.call(()).unwrap(), 101);
    assert_eq!(*starts.lock().unwrap(), 3);
}

#[test]
fn a_kill_is_a_failure_of_the_cell_unless_the_policy_ignores_it() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let text = COUNTER.replace(r#"(func (export "trap") unreachable)"#, r#"(func (export "spin") (loop (br 0)))"#);
    for (policy, expected) in [(Policy::reset(), 101), (Policy::reset().ignoring(TrapCode::Killed), 202)] {
        let cell = load(&ns, "spinner", &text);
        ns.set_policy("spinner", policy).unwrap();
        let (c, spin) = (Counter::of(&cell), cell.typed_func::<(), ()>("spin").unwrap());
        c.bump.call(()).unwrap();
        let (tell, told) = mpsc::channel();
        let victim = thread::spawn(move || {
            runtime_port::platform().tasks().attach().unwrap();
            tell.send(task::current().id.get()).unwrap();
            code(spin.call(()))
        });
        let id = told.recv().unwrap();
        thread::sleep(Duration::from_millis(5));
        kill_task(id).unwrap();
        assert_eq!(victim.join().unwrap(), TrapCode::Killed);
        assert_eq!(c.bump.call(()).unwrap(), expected);
        ns.unload("spinner").unwrap();
    }
}

#[test]
fn an_unloaded_cell_that_was_out_of_service_is_gone() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let c = Counter::of(&load(&ns, "sick", COUNTER));
    ns.set_policy("sick", Policy::propagate().quarantine_after(1, Duration::from_secs(1))).unwrap();
    c.fail.call((0,)).unwrap_err();
    assert_eq!(code(c.bump.call(())), TrapCode::Quarantined);
    ns.unload("sick").unwrap();
    assert_eq!(code(c.bump.call(())), TrapCode::FunctionGone);
}

/// A gated cell whose failing function can be called by a task that holds its gate.
fn gated(ns: &CrateNamespace, name: &str, policy: Policy) -> (Counter, Arc<namespace_bridge::Domain>) {
    let cell = load(ns, name, COUNTER);
    ns.set_policy(name, policy).unwrap();
    (Counter::of(&cell), cell.instance().unwrap().domain().unwrap())
}

#[test]
fn recovery_replaces_no_state_under_a_task_that_holds_the_gate() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    load(&ns, "spare", COUNTER);
    let replaced = RecoveryState::Replaced { by: "spare".into() };
    for (policy, after) in [(Policy::reset(), RecoveryState::Serving), (Policy::swap_to("spare"), replaced)] {
        let (c, domain) = gated(&ns, "gated", policy);
        let cell = cell_of(&ns, "gated");
        assert_eq!(c.bump.call(()).unwrap(), 101);
        let guard = domain.acquire(None).unwrap();
        c.fail.call((0,)).unwrap_err();
        for _ in 0..3 {
            // Neither this task nor another one recovers meanwhile.
            assert_eq!(recovery::run(), 1);
            assert_eq!(thread::scope(|s| s.spawn(recovery::run).join().unwrap()), 1);
            assert_eq!(ns.recovery_state("gated"), RecoveryState::Poisoned);
            assert!(Arc::ptr_eq(&cell, &cell_of(&ns, "gated")) && !cell.is_unloaded());
        }
        drop((guard, cell));
        assert_eq!(recovery::run(), 0);
        assert_eq!(c.bump.call(()).unwrap(), 101);
        assert_eq!(ns.recovery_state("gated"), after);
        ns.unload("gated").unwrap();
    }
}

#[test]
fn a_reset_waits_for_who_is_inside_and_gives_up_in_time() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let (c, domain) = gated(&ns, "gated", Policy::propagate());
    assert_eq!(c.bump.call(()).unwrap(), 101);
    let guard = domain.acquire(None).unwrap();
    let inside = ns.reset("gated").unwrap_err();
    assert!(matches!(inside, PolicyError::Swap { source: SwapError::Inside { .. }, .. }), "{inside}");
    let reset = || ns.reset("gated").map(drop);
    let late = thread::scope(|s| s.spawn(reset).join().unwrap()).unwrap_err();
    assert!(matches!(late, PolicyError::Swap { source: SwapError::Quiesce { .. }, .. }), "{late}");
    assert_eq!(c.bump.call(()).unwrap(), 202, "the old instance serves");
    thread::scope(|s| {
        let reset = s.spawn(reset);
        while domain.owner().is_some_and(|inside| inside.waiting == 0) {
            thread::yield_now();
        }
        drop(guard);
        reset.join().unwrap().unwrap();
    });
    assert_eq!(c.bump.call(()).unwrap(), 101);
    assert_eq!(ns.get_crate("gated").unwrap().version(), 2);
}
