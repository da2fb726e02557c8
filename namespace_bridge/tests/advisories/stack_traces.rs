//! Walking a stack whose frames have been replaced by tail calls, or are being made or taken down.

use super::{load, namespace};
use namespace_bridge::{Caller, Trap};
use wasm_cell::trap::TrapCode;

/// Functions that tail-call with growing and shrinking stack arguments, in the end the host or a trap.
const TAILS: &str = r#"(module
    (import "host" "look" (func $look (param i32) (result i32)))
    (func $six (param i32 i32 i32 i32 i32 i32) (result i32) (return_call $look (local.get 5)))
    (func $twelve (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
        (return_call $six (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 11)))
    (func $nine (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
        (return_call $twelve (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5)
            (local.get 6) (local.get 7) (local.get 8) (i32.const 0) (i32.const 0) (local.get 8)))
    (func (export "outer") (param i32) (result i32)
        (i32.add (i32.const 1) (call $nine (i32.const 1) (i32.const 2) (i32.const 3) (i32.const 4) (i32.const 5)
            (i32.const 6) (i32.const 7) (i32.const 8) (local.get 0))))
    (func $stop (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
    (func (export "trap") (param i32) (result i32)
        (i32.add (i32.const 1) (call $stop_by_tail (local.get 0))))
    (func $stop_by_tail (param i32) (result i32)
        (return_call $stop (local.get 0) (local.get 0) (local.get 0) (local.get 0) (local.get 0) (local.get 0)
            (local.get 0) (local.get 0)))
    (func (export "spin") (param i32) (result i32)
        (if (i32.eqz (local.get 0)) (then (return_call $stop_by_tail (i32.const 0))))
        (return_call 6 (i32.sub (local.get 0) (i32.const 1)))))"#;

/// Names of the functions in a trap's backtrace.
fn names(trap: &Trap) -> Vec<u32> {
    trap.frames().filter_map(|f| f.wasm?.function).collect()
}

#[test]
fn a_host_function_reached_by_tail_calls_may_trap_panic_and_look_at_the_stack() {
    let ns = namespace();
    ns.define("host", "look", |caller: &Caller, x: i32| -> Result<i32, std::fmt::Error> {
        assert_eq!(caller.cell(), Some("tails"));
        let frames = std::backtrace::Backtrace::force_capture().to_string();
        assert!(!frames.is_empty());
        match x {
            0 => Err(std::fmt::Error),
            1 => std::panic::resume_unwind(Box::new("away")),
            _ => Ok(x),
        }
    })
    .unwrap();
    let cell = load(&ns, "tails", TAILS);
    let outer = cell.typed_func::<(i32,), i32>("outer").unwrap();
    for _ in 0..50 {
        assert_eq!(outer.call((5,)).unwrap(), 6);
        let trap = outer.call((0,)).unwrap_err();
        assert_eq!(trap.code(), TrapCode::HostError);
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| outer.call((1,)).is_ok()));
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"away"));
    }
}

#[test]
fn a_trap_behind_tail_calls_names_the_function_that_trapped_and_those_that_wait() {
    let ns = namespace();
    ns.define("host", "look", |x: i32| x).unwrap();
    let cell = load(&ns, "tails", TAILS);
    let trap = cell.typed_func::<(i32,), i32>("trap").unwrap().call((1,)).unwrap_err();
    assert_eq!(trap.code(), TrapCode::Unreachable);
    // The function that made the tail call has no frame any more.
    assert_eq!(names(&trap), [5, 6], "{trap}");
    let trap = cell.typed_func::<(i32,), i32>("spin").unwrap().call((100_000,)).unwrap_err();
    assert_eq!(trap.code(), TrapCode::Unreachable);
}
