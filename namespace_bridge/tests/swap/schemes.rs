//! Ways in which a call could be lost, doubled or torn, or something leak, that need more than one thing to happen at once.

use super::*;
use namespace_bridge::swap::{DeferredSwap, StatePlan};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Has state; its function `f` calls the host in the middle of a change to it.
fn asks(step: i32, then: &str) -> String {
    format!(
        r#"(module (import "env" "host" (func $host)) {then} (memory 1)
        (func (export "f") (param i32) (result i32) (local $n i32)
            (local.set $n (i32.load (i32.const 0))) (call $host)
            (i32.store (i32.const 0) (i32.add (local.get $n) (i32.const {step})))
            (i32.load (i32.const 0)))
        (func (export "get") (result i32) (i32.load (i32.const 0))))"#
    )
}

fn adopting(name: &str, text: &str) -> SwapRequest {
    replace(name, text).state(StatePlan::Adopt)
}

type Deferred = Arc<Mutex<Vec<Result<Option<DeferredSwap>, SwapError>>>>;

/// Defines the host function: the first time it is called, it asks for these swaps.
fn asking(ns: &Arc<CrateNamespace>, requests: Vec<SwapRequest>, then: fn()) -> Deferred {
    let outcomes = Deferred::default();
    let (weak, noted, asked) = (Arc::downgrade(ns), outcomes.clone(), AtomicBool::new(false));
    let host = move || {
        if !asked.swap(true, Ordering::SeqCst) {
            let ns = weak.upgrade().unwrap();
            for request in &requests {
                noted.lock().unwrap().push(ns.swap(request.clone()).map(|report| report.deferred));
            }
            then();
        }
    };
    ns.define("env", "host", host).unwrap();
    outcomes
}

fn happened(deferred: &Option<DeferredSwap>) -> bool {
    deferred.as_ref().unwrap().outcome().is_some_and(|outcome| outcome.is_ok())
}

#[test]
fn while_a_swap_waits_for_the_task_to_leave_others_of_the_name_are_refused_and_of_other_names_done() {
    let ns = namespace();
    load(&ns, "b", &constant(1));
    let requests = vec![
        adopting("a", &asks(10, "")),
        adopting("a", &asks(100, "")),
        replace("b", &constant(2)),
        adopting("a", "(module)"),
    ];
    let seen = asking(&ns, requests, || {});
    let f = load(&ns, "a", &asks(1, "")).typed_func::<(i32,), i32>("f").unwrap();
    assert_eq!(f.call((0,)).unwrap(), 1);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert!(
        matches!(&seen[..], [Ok(first), Err(SwapError::Busy { .. }), Ok(None), Err(SwapError::Busy { .. })] if happened(first)),
        "{seen:?}"
    );
    assert_eq!((f.call((0,)).unwrap(), call(&ns, "b", "f")), (11, 2));
    ns.rollback("a").unwrap();
    assert_eq!(f.call((0,)).unwrap(), 12);
}

#[test]
fn a_deferred_swap_happens_once_however_the_task_leaves() {
    for how in ["(unreachable)", "(call $panics)"] {
        let ns = namespace();
        ns.define("env", "panics", || -> () { panic!("expected by this test") }).unwrap();
        let old = asks(1, r#"(import "env" "panics" (func $panics))"#)
            .replace("(i32.store (i32.const 0) (i32.add", &format!("{how} (i32.store (i32.const 0) (i32.add"));
        let seen = asking(&ns, vec![adopting("a", &asks(10, ""))], || {});
        let f = load(&ns, "a", &old).typed_func::<(i32,), i32>("f").unwrap();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| f.call((0,))));
        assert!(!matches!(ended, Ok(Ok(_))), "{how}");
        let seen = std::mem::take(&mut *seen.lock().unwrap());
        assert!(matches!(&seen[..], [Ok(first)] if happened(first)), "{how}: {seen:?}");
        assert_eq!((f.call((0,)).unwrap(), ns.get_crate("a").unwrap().version()), (10, 2), "{how}");
    }
}

#[test]
fn a_swap_of_two_cells_asked_for_from_inside_of_both_happens_when_both_are_left() {
    let ns = namespace();
    // `outer` calls `a`, which asks; each has state of its own.
    let outer = |k: i32| {
        format!(
            r#"(module (import "a" "f" (func $f (param i32) (result i32))) (memory 1)
            (func (export "f") (param i32) (result i32) (local $n i32)
                (local.set $n (i32.load (i32.const 0))) (local.set 0 (call $f (local.get 0)))
                (i32.store (i32.const 0) (i32.add (local.get $n) (i32.const {k})))
                (i32.add (i32.mul (i32.const 1000) (i32.load (i32.const 0))) (local.get 0))))"#
        )
    };
    let seen = asking(&ns, vec![adopting("a", &asks(10, "")).and(adopting("outer", &outer(10)))], || {});
    load(&ns, "a", &asks(1, ""));
    let f = load(&ns, "outer", &outer(1)).typed_func::<(i32,), i32>("f").unwrap();
    assert_eq!(f.call((0,)).unwrap(), 1001, "both ended in the versions in which they began");
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert!(matches!(&seen[..], [Ok(first)] if happened(first)), "{seen:?}");
    assert_eq!(f.call((0,)).unwrap(), 11_011);
}

#[test]
fn who_waits_at_the_gate_of_a_cell_that_is_removed_is_told_so() {
    let ns = namespace();
    let (was_entered, leave) = host_that_waits(&ns);
    let f = load(&ns, "a", &asks(1, "")).typed_func::<(i32,), i32>("f").unwrap();
    let domain = ns.get_crate("a").unwrap().instance().unwrap().domain().unwrap();
    let waiting = |n: usize| {
        while domain.owner().is_none_or(|owner| owner.waiting < n) {
            thread::sleep(Duration::from_millis(1));
        }
    };
    thread::scope(|s| {
        let inside = s.spawn(|| f.call((0,)).unwrap());
        was_entered.recv().unwrap();
        // The swap first, so that it has its turn first.
        let swap = s.spawn(|| ns.swap(SwapRequest::remove("a").deadline(Duration::from_secs(60))).map(drop));
        waiting(1);
        let late = s.spawn(|| code(f.call((0,))));
        waiting(2);
        leave.send(()).unwrap();
        assert_eq!(inside.join().unwrap(), 1);
        swap.join().unwrap().unwrap();
        assert_eq!(late.join().unwrap(), TrapCode::FunctionGone);
    });
    assert_eq!(ns.crate_count(), 1, "the host's definitions");
}

#[test]
fn of_cells_that_changed_together_none_comes_back_when_one_has_gone_or_changed_since() {
    let ns = namespace();
    let both = |n: i32| replace("a", &constant(n)).and(replace("b", &constant(n)));
    load(&ns, "a", &constant(1));
    load(&ns, "b", &constant(1));
    ns.swap(both(2)).unwrap();
    ns.unload("b").unwrap();
    let gone = ns.rollback("a").unwrap_err();
    assert!(matches!(gone, SwapError::NoPrevious { .. } | SwapError::Changed { .. }), "{gone}");
    assert_eq!(call(&ns, "a", "f"), 2);
    load(&ns, "b", &constant(2));
    ns.swap(both(3)).unwrap();
    ns.swap(replace("a", &constant(4))).unwrap();
    // What `a` was before is its version 3, alone; `b` cannot go back without what `a` was then.
    assert!(matches!(ns.rollback("b").unwrap_err(), SwapError::NoPrevious { .. }));
    ns.rollback("a").unwrap();
    assert_eq!((call(&ns, "a", "f"), call(&ns, "b", "f")), (3, 3));
    assert_eq!(ns.clear_unloaded_crate_cache(), 1);
    assert!(ns.old_versions().is_empty());
}

#[test]
fn a_table_of_three_cells_functions_follows_each_and_says_who_is_gone() {
    let ns = namespace();
    load(
        &ns,
        "table",
        r#"(module (table (export "t") 3 funcref) (type $f (func (result i32)))
        (func (export "call") (param i32) (result i32) (call_indirect (type $f) (local.get 0))))"#,
    );
    let member = |at: usize, n: i32| {
        format!(
            r#"(module (import "table" "t" (table 3 funcref)) (elem (i32.const {at}) $f) (type $f (func (result i32)))
            (func $f (export "f") (result i32) (i32.const {n}))
            (func (export "next") (result i32) (call_indirect (type $f) (i32.const {}))))"#,
            (at + 1) % 3
        )
    };
    for (at, name) in ["a", "b", "c"].iter().enumerate() {
        load(&ns, name, &member(at, 1 + at as i32));
    }
    let through = ns.get_crate("table").unwrap().typed_func::<(i32,), i32>("call").unwrap();
    let all = || [0, 1, 2].map(|at| through.call((at,)).map_err(|trap| trap.to_string()));
    let next = || {
        ["a", "b", "c"].map(|cell| ns.get_crate(cell).map(|c| c.typed_func::<(), i32>("next").unwrap().call(()).ok()))
    };
    assert_eq!((all(), next()), ([Ok(1), Ok(2), Ok(3)], [Some(Some(2)), Some(Some(3)), Some(Some(1))]));
    let two = replace("a", &member(0, 10)).and(replace("c", &member(2, 30)));
    ns.swap(two.clone().fail_at(namespace_bridge::swap::SwapStep::Commit)).unwrap_err();
    assert_eq!(all(), [Ok(1), Ok(2), Ok(3)]);
    ns.swap(two).unwrap();
    assert_eq!((all(), next()), ([Ok(10), Ok(2), Ok(30)], [Some(Some(2)), Some(Some(30)), Some(Some(10))]));
    ns.swap(SwapRequest::remove("b")).unwrap();
    let [one, gone, three] = all();
    assert!(
        one == Ok(10) && three == Ok(30) && gone.as_ref().is_err_and(|e| e.contains("`f` of cell `b` is gone")),
        "{gone:?}"
    );
    assert_eq!(next(), [Some(None), None, Some(Some(10))]);
    // One of the name that does not touch the table: the reference there is that of its function.
    ns.swap(SwapRequest::add("b").with_wasm(&wasm(&constant(20)))).unwrap();
    assert_eq!(all(), [Ok(10), Ok(20), Ok(30)]);
}

#[test]
fn a_cell_that_others_use_is_removed_by_force_only_and_serves_them_when_it_is_back() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    load(&ns, "user", r#"(module (import "a" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#);
    let refused = problems(ns.swap(SwapRequest::remove("a")).unwrap_err());
    assert!(matches!(&refused[..], [SwapProblem::InUse { users, .. }] if users.contains("`user`")), "{refused:?}");
    let g = ns.get_crate("user").unwrap().typed_func::<(), i32>("g").unwrap();
    assert_eq!(g.call(()).unwrap(), 1);
    ns.swap(SwapRequest::remove("a").force(true)).unwrap();
    assert!(g.call(()).unwrap_err().to_string().contains("`f` of cell `a` is gone"));
    ns.rollback("a").unwrap();
    assert_eq!(g.call(()).unwrap(), 1);
    ns.swap(SwapRequest::remove("a").force(true).keep_old(false)).unwrap();
    assert_eq!(code(g.call(())), TrapCode::FunctionGone);
    ns.swap(SwapRequest::add("a").with_wasm(&wasm(&constant(3)))).unwrap();
    assert_eq!(g.call(()).unwrap(), 3);
    // It is in use again.
    assert!(ns.unload("a").is_err());
    let refused = problems(ns.rollback("a").unwrap_err());
    assert!(matches!(&refused[..], [SwapProblem::InUse { .. }]), "{refused:?}");
    ns.unload("user").unwrap();
    ns.unload("a").unwrap();
}

#[test]
fn a_cell_is_not_added_under_a_name_that_stands_for_another() {
    let ns = namespace();
    let cell = load(&ns, "a", &constant(1));
    ns.add_alias("alpha", &cell).unwrap();
    let add = |name: &str| SwapRequest::add(name).with_wasm(&wasm(&constant(2)));
    for request in [add("alpha"), add("b").and(add("alpha")), add("b").and(replace("a", &constant(3)).named("alpha"))] {
        let refused = problems(ns.swap(request).unwrap_err());
        assert!(matches!(&refused[..], [SwapProblem::NameTaken { .. }]), "{refused:?}");
        assert_eq!((ns.crate_count(), call(&ns, "alpha", "f")), (1, 1));
    }
    let twice = problems(ns.swap(add("b").and(add("b"))).unwrap_err());
    assert!(matches!(&twice[..], [SwapProblem::Twice { .. }]), "{twice:?}");
}

#[test]
fn what_a_new_version_imports_is_swapped_or_taken_away_by_a_start_function_of_the_request() {
    let ns = namespace();
    load(&ns, "lib", &constant(1));
    load(&ns, "a", &constant(0));
    let host = |ns: &Arc<CrateNamespace>, action: fn(&CrateNamespace)| {
        let weak = Arc::downgrade(ns);
        let _ = ns.undefine("env", "host");
        ns.define("env", "host", move || action(&weak.upgrade().unwrap())).unwrap();
    };
    let a = r#"(module (import "lib" "f" (func $f (result i32))) (import "env" "host" (func $h)) (import "b" "f" (func $b (result i32)))
        (start $s) (func $s (call $h)) (func (export "f") (result i32) (i32.add (call $f) (call $b))))"#;
    let b = r#"(module (import "a" "f" (func $a (result i32))) (func (export "f") (result i32) (i32.const 100)) (func (export "g") (result i32) (call $a)))"#;
    let request = || replace("a", a).and(SwapRequest::add("b").with_wasm(&wasm(b)));
    host(&ns, |ns| ns.unload_force("lib").unwrap());
    let error = ns.swap(request()).unwrap_err();
    assert!(matches!(error, SwapError::Changed { .. }), "{error}");
    assert_eq!((call(&ns, "a", "f"), ns.get_crate("b").is_none()), (0, true));
    load(&ns, "lib", &constant(1));
    host(&ns, |ns| drop(ns.swap(replace("lib", &constant(5))).unwrap()));
    ns.swap(request()).unwrap();
    assert_eq!((call(&ns, "a", "f"), call(&ns, "b", "g")), (105, 105));
    let users = ns.get_crate("lib").unwrap().dependents();
    assert!(users.iter().any(|(user, _)| &*user.crate_name == "a"), "the edge is to the version that serves");
}

#[test]
fn a_cell_may_import_from_itself_and_from_a_new_one_under_its_old_name() {
    let ns = namespace();
    let own = |n: i32| {
        format!(
            r#"(module (import "a" "f" (func $own (param i32) (result i32))) (func (export "f") (param i32) (result i32)
            (if (result i32) (local.get 0) (then (call $own (i32.const 0))) (else (i32.const {n})))))"#
        )
    };
    ns.swap(SwapRequest::add("a").with_wasm(&wasm(&own(1)))).unwrap();
    let f = ns.get_crate("a").unwrap().typed_func::<(i32,), i32>("f").unwrap();
    ns.swap(replace("a", &own(2))).unwrap();
    assert_eq!(f.call((1,)).unwrap(), 2);
    // `x` takes the place of `a` and its name too; `b` imports by the old one, and `x` from `b`.
    let x = r#"(module (import "b" "f" (func $b (result i32))) (func (export "f") (param i32) (result i32) (if (result i32) (local.get 0) (then (call $b)) (else (i32.const 7)))))"#;
    let b = r#"(module (import "a" "f" (func $a (param i32) (result i32))) (func (export "f") (result i32) (call $a (i32.const 0))))"#;
    let renamed = replace("a", x).named("x").reexport_new_symbols_as_old(true);
    ns.swap(renamed.and(SwapRequest::add("b").with_wasm(&wasm(b)))).unwrap();
    assert_eq!((f.call((1,)).unwrap(), call(&ns, "b", "f")), (7, 7));
    assert_eq!(ns.get_crate("a").unwrap().crate_name, ns.get_crate("x").unwrap().crate_name);
}

#[test]
fn users_of_what_a_forced_version_took_away_are_those_of_the_next_one_that_has_it() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    load(&ns, "user", r#"(module (import "a" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#);
    let g = ns.get_crate("user").unwrap().typed_func::<(), i32>("g").unwrap();
    let users = || ns.get_crate("a").unwrap().dependents().len();
    for without in ["(module)", r#"(module (func (export "f") (result i64) (i64.const 1)))"#] {
        for keep in [true, false] {
            ns.swap(replace("a", without).force(true).keep_old(keep)).unwrap();
            assert_eq!((code(g.call(())), users()), (TrapCode::FunctionGone, 0));
            // Nothing is lost any more by a version without it.
            ns.swap(replace("a", r#"(module (func (export "other")))"#).keep_old(keep)).unwrap();
            if keep {
                ns.rollback("a").unwrap();
                assert_eq!((code(g.call(())), users()), (TrapCode::FunctionGone, 0));
            }
            ns.swap(replace("a", &constant(4))).unwrap();
            assert_eq!((g.call(()).unwrap(), users()), (4, 1));
            assert!(ns.unload("a").is_err());
            let refused = problems(ns.swap(replace("a", without)).unwrap_err());
            assert_eq!(refused.len(), 1, "{refused:?}");
        }
        ns.swap(replace("a", without).force(true)).unwrap();
        ns.rollback("a").unwrap();
        assert_eq!((g.call(()).unwrap(), users()), (4, 1), "what was forced can be undone");
    }
}
