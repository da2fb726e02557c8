//! Custom: functions of the embedder transfer state.

use super::*;
use namespace_bridge::swap::{StatePlan, TransferError};
use std::sync::atomic::{AtomicBool, Ordering};

const OLD: &str = r#"(module (memory (export "m") 1) (global $g (export "g") (mut i64) (i64.const 5))
    (func (export "get") (result i32) (i32.load (i32.const 0)))
    (func (export "set") (param i32) (i32.store (i32.const 0) (local.get 0))))"#;

const NEW: &str = r#"(module (memory 1) (func (export "get") (result i32) (i32.load (i32.const 4)))
    (func (export "set") (param i32) (i32.store (i32.const 4) (i32.mul (i32.const 10) (local.get 0)))))"#;

#[test]
fn a_closure_sees_both_versions_and_the_old_one_serves_meanwhile() {
    let ns = namespace();
    let cell = load(&ns, "a", OLD);
    cell.typed_func::<(i32,), ()>("set").unwrap().call((42,)).unwrap();
    let served = cell.typed_func::<(), i32>("get").unwrap();
    let plan = StatePlan::custom(move |context| {
        let get = context.old.typed_func::<(), i32>("get")?;
        let set = context.new.typed_func::<(i32,), ()>("set")?;
        set.call((get.call(())?,))?;
        // Through the stable entry the task reaches what is in service.
        assert_eq!(served.call(())?, 42);
        assert_eq!(context.old.memory(0).unwrap().bytes(), 65536);
        assert_eq!(context.old.global("g").unwrap().bits(), 5);
        Ok(())
    });
    ns.swap(replace("a", NEW).state(plan)).unwrap();
    assert_eq!(call(&ns, "a", "get"), 420);
}

#[test]
fn errors_traps_and_panics_of_a_closure_undo_the_swap() {
    let ns = namespace();
    load(&ns, "a", OLD).typed_func::<(i32,), ()>("set").unwrap().call((42,)).unwrap();
    let error = ns.swap(replace("a", NEW).state(StatePlan::custom(|_| Err("no".into())))).unwrap_err();
    assert!(matches!(&error, SwapError::Transfer { source: TransferError::Custom(_), .. }), "{error}");
    load(&ns, "bad", r#"(module (func (export "trap") unreachable))"#);
    // SAFETY: the function's type.
    let trap: extern "C-unwind" fn() = unsafe { ns.get_crate("bad").unwrap().entry("trap") }.unwrap();
    let error = ns
        .swap(replace("a", NEW).state(StatePlan::custom(move |_| {
            trap();
            Ok(())
        })))
        .unwrap_err();
    assert!(matches!(&error, SwapError::Transfer { source: TransferError::Trap(_), .. }), "{error}");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ns.swap(replace("a", NEW).state(StatePlan::custom(|_| panic!("on purpose"))))
    }));
    assert!(panicked.is_err());
    assert_eq!(call(&ns, "a", "get"), 42);
    // Nobody is locked out, and the next swap works.
    let ran = Arc::new(AtomicBool::new(false));
    let noted = ran.clone();
    ns.swap(replace("a", NEW).state(StatePlan::custom(move |_| {
        noted.store(true, Ordering::Relaxed);
        Ok(())
    })))
    .unwrap();
    assert!(ran.load(Ordering::Relaxed));
    assert_eq!(call(&ns, "a", "get"), 0);
}
