//! Swaps that are asked for from inside of the cell, and waits for those who are.

use super::*;
use namespace_bridge::swap::{FromInside, StatePlan, SwapReport};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// Has state, and calls the host in the middle of a change to it.
fn cell(step: i32) -> String {
    format!(
        r#"(module (import "env" "host" (func $host)) (memory 1)
        (func (export "bump") (result i32) (local $n i32)
            (local.set $n (i32.load (i32.const 0))) (call $host)
            (i32.store (i32.const 0) (i32.add (local.get $n) (i32.const {step}))) (i32.load (i32.const 0)))
        (func (export "get") (result i32) (i32.load (i32.const 0))))"#
    )
}

type Asked = Arc<Mutex<Vec<Result<SwapReport, SwapError>>>>;

fn asking(ns: &Arc<CrateNamespace>, from_inside: FromInside) -> Asked {
    let asked = Asked::default();
    let (weak, results) = (Arc::downgrade(ns), asked.clone());
    ns.define("env", "host", move || {
        let mut results = results.lock().unwrap();
        if results.is_empty() {
            let request = replace("a", &cell(10)).state(StatePlan::Adopt).from_inside(from_inside);
            results.push(weak.upgrade().unwrap().swap(request));
        }
    })
    .unwrap();
    asked
}

#[test]
fn asked_from_inside_the_swap_happens_when_the_task_leaves() {
    let ns = namespace();
    let asked = asking(&ns, FromInside::Defer);
    let bump = load(&ns, "a", &cell(1)).typed_func::<(), i32>("bump").unwrap();
    assert_eq!(bump.call(()).unwrap(), 1, "the call ends in the version in which it began");
    let asked = asked.lock().unwrap().pop().unwrap().unwrap();
    let outcome = asked.deferred.unwrap().outcome().expect("the task has left");
    assert_eq!(outcome.as_ref().as_ref().unwrap().cells[0].new_version, Some(2));
    assert_eq!(ns.get_crate("a").unwrap().version(), 2);
    assert_eq!(call(&ns, "a", "get"), 1);
}

#[test]
fn asked_from_inside_a_refusal_is_possible() {
    let ns = namespace();
    let asked = asking(&ns, FromInside::Refuse);
    let bump = load(&ns, "a", &cell(1)).typed_func::<(), i32>("bump").unwrap();
    assert_eq!(bump.call(()).unwrap(), 1);
    let refused = asked.lock().unwrap().pop().unwrap().unwrap_err();
    assert!(matches!(refused, SwapError::Inside { .. }), "{refused}");
    assert_eq!(ns.get_crate("a").unwrap().version(), 1);
}

#[test]
fn a_swap_waits_for_who_is_inside_and_says_who_it_is_when_that_takes_too_long() {
    let ns = namespace();
    let (was_entered, leave) = host_that_waits(&ns);
    let bump = load(&ns, "a", &cell(1)).typed_func::<(), i32>("bump").unwrap();
    thread::scope(|s| {
        let inside = s.spawn(|| bump.call(()).unwrap());
        was_entered.recv().unwrap();
        let adopt = || replace("a", &cell(10)).state(StatePlan::Adopt);
        let error = ns.swap(adopt().deadline(Duration::from_millis(20))).unwrap_err();
        assert!(matches!(error, SwapError::Quiesce { .. }), "{error}");
        assert!(error.to_string().contains("is inside"), "{error}");
        assert_eq!(ns.get_crate("a").unwrap().version(), 1);
        let (ns, request) = (&ns, adopt().deadline(Duration::from_secs(60)));
        let swap = s.spawn(move || ns.swap(request).unwrap());
        leave.send(()).unwrap();
        assert_eq!(inside.join().unwrap(), 1);
        swap.join().unwrap();
        leave.send(()).unwrap();
        assert_eq!(bump.call(()).unwrap(), 11);
        was_entered.recv().unwrap();
    });
}

#[test]
fn two_swaps_of_one_name_do_not_mix() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    let weak = Arc::downgrade(&ns);
    let plan = StatePlan::custom(move |_| {
        let error = weak.upgrade().unwrap().swap(replace("a", &constant(3))).unwrap_err();
        assert!(matches!(error, SwapError::Busy { .. }), "{error}");
        Ok(())
    });
    ns.swap(replace("a", &constant(2)).state(plan)).unwrap();
    assert_eq!(call(&ns, "a", "f"), 2);
}

#[test]
fn a_cell_that_is_unloaded_while_its_swap_is_prepared_is_not_replaced() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    let weak = Arc::downgrade(&ns);
    let plan = StatePlan::custom(move |_| {
        weak.upgrade().unwrap().unload("a").unwrap();
        Ok(())
    });
    let error = ns.swap(replace("a", &constant(2)).state(plan)).unwrap_err();
    assert!(matches!(error, SwapError::Changed { .. }), "{error}");
    assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0));
    load(&ns, "a", &constant(4));
    assert_eq!(call(&ns, "a", "f"), 4);
}
