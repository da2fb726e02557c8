//! Swaps at bad moments: under callers that trap, panic, are killed and move memory; from within loads and transfers; of cells whose types change,
//! that use each other, that have very many exports.

use super::*;
use namespace_bridge::kill_task;
use namespace_bridge::swap::{StatePlan, TransferError};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

/// Counts calls in memory before it goes wrong; `fill` moves a megabyte and looks that nobody else has.
fn going_wrong(version: i32) -> String {
    format!(
        r#"(module (import "env" "panics" (func $panics)) (memory 33)
        (func $count (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1))))
        (func (export "count") (result i64) (i64.load (i32.const 0)))
        (func (export "trap") (call $count) unreachable)
        (func (export "fault") (call $count) (drop (i32.load (i32.const -4))))
        (func (export "divide") (param i32) (result i32) (call $count) (i32.div_s (i32.const {version}) (local.get 0)))
        (func (export "panic") (call $count) (call $panics))
        (func (export "spin") (call $count) (i64.store (i32.const 8) (i64.const 1)) (loop $l (br $l)))
        (func (export "fill") (param i32) (result i32) (local $at i32)
            (call $count)
            (memory.fill (i32.const 65536) (local.get 0) (i32.const 1048576))
            (memory.copy (i32.const 1114112) (i32.const 65536) (i32.const 1048576))
            (i32.or
                (i32.ne (i32.load8_u (i32.const 1114112)) (local.get 0))
                (i32.ne (i32.load8_u (i32.const 2162687)) (local.get 0))))
        (func (export "version") (result i32) (i32.const {version})))"#
    )
}

#[test]
fn calls_that_trap_panic_are_killed_or_move_memory_are_counted_once_each_while_versions_change() {
    let ns = namespace();
    ns.define("env", "panics", || -> () { std::panic::resume_unwind(Box::new("a panic")) }).unwrap();
    let cell = load(&ns, "a", &going_wrong(0));
    let count = cell.typed_func::<(), i64>("count").unwrap();
    let (ns, stop, calls) = (&ns, AtomicBool::new(false), AtomicU64::new(0));
    let going = || !stop.load(Ordering::Relaxed);
    let counted = || calls.fetch_add(1, Ordering::Relaxed);
    thread::scope(|s| {
        let [trap, fault, panic, spin] =
            ["trap", "fault", "panic", "spin"].map(|f| cell.typed_func::<(), ()>(f).unwrap());
        let divide = cell.typed_func::<(i32,), i32>("divide").unwrap();
        let fill = cell.typed_func::<(i32,), i32>("fill").unwrap();
        s.spawn(move || {
            while going() {
                assert_eq!(code(trap.call(())), TrapCode::Unreachable);
                assert_eq!(code(fault.call(())), TrapCode::MemoryOutOfBounds);
                assert_eq!(code(divide.call((0,))), TrapCode::IntegerDivisionByZero);
                assert!(catch_unwind(AssertUnwindSafe(|| panic.call(()))).is_err());
                (0..4).for_each(|_| _ = counted());
            }
        });
        s.spawn(move || {
            for byte in (1..250).cycle().take_while(|_| going()) {
                assert_eq!(fill.call((byte,)).unwrap(), 0, "the memory is one call's at a time");
                counted();
            }
        });
        s.spawn(move || {
            while going() {
                let (spin, (tell, told)) = (spin.clone(), mpsc::channel());
                let victim = thread::spawn(move || {
                    tell.send(runtime_port::platform().tasks().attach().unwrap().id.get()).unwrap();
                    spin.call(()).unwrap_err().code()
                });
                let id = told.recv().unwrap();
                // It is killed after it has counted, and nobody else is inside then.
                let memory = ns.get_crate("a").unwrap().instance().unwrap().memory(0).unwrap().clone();
                let mut marked = [0; 8];
                while marked == [0; 8] {
                    thread::yield_now();
                    memory.read(8, &mut marked).unwrap();
                }
                memory.write(8, &[0; 8]).unwrap();
                kill_task(id).unwrap();
                assert_eq!(victim.join().unwrap(), TrapCode::Killed);
                counted();
            }
        });
        let mut swapped = 0;
        for version in 1..60 {
            let keep = version % 3 == 0;
            let request = replace("a", &going_wrong(version)).state(StatePlan::Adopt).keep_old(keep);
            ns.swap(request.deadline(std::time::Duration::from_secs(60))).unwrap();
            swapped += 1;
            assert_eq!(call(ns, "a", "version"), version);
            if keep {
                ns.rollback("a").unwrap();
                assert_eq!(call(ns, "a", "version"), version - 1);
            }
        }
        assert_eq!(swapped, 59);
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(count.call(()).unwrap() as u64, calls.load(Ordering::Relaxed));
}

#[test]
fn a_handle_of_a_function_whose_type_changes_traps_by_name_until_the_type_is_back() {
    let ns = namespace();
    let old = load(&ns, "a", &constant(1)).typed_func::<(), i32>("f").unwrap();
    // SAFETY: the function's type; nothing but catch_trap is around it.
    let raw: extern "C-unwind" fn() -> i32 = unsafe { ns.get_crate("a").unwrap().entry("f") }.unwrap();
    ns.swap(replace(
        "a",
        r#"(module (func (export "f") (param i64) (result i64) (i64.mul (local.get 0) (i64.const 2))))"#,
    ))
    .unwrap();
    assert_eq!(code(old.call(())), TrapCode::FunctionGone);
    assert_eq!(code(namespace_bridge::catch_trap(|| raw())), TrapCode::FunctionGone);
    let cell = ns.get_crate("a").unwrap();
    assert!(cell.typed_func::<(), i32>("f").is_err(), "a handle is checked when it is made");
    let new = cell.typed_func::<(i64,), i64>("f").unwrap();
    assert_eq!(new.call((21,)).unwrap(), 42);
    ns.swap(replace("a", &constant(3))).unwrap();
    assert_eq!((old.call(()).unwrap(), raw(), code(new.call((21,)))), (3, 3, TrapCode::FunctionGone));
    ns.rollback("a").unwrap();
    assert_eq!((code(old.call(())), new.call((21,)).unwrap()), (TrapCode::FunctionGone, 42));
}

#[test]
fn cells_that_came_to_use_each_other_are_swapped_and_unloaded() {
    let ns = namespace();
    let b = |n: i32, calls_a: bool| {
        let import = if calls_a { r#"(import "a" "f" (func $f (param i32) (result i32)))"# } else { "" };
        let rest = if calls_a { "(call $f (i32.sub (local.get 0) (i32.const 1)))" } else { "(i32.const 0)" };
        format!(
            r#"(module {import} (func (export "g") (param i32) (result i32)
            (if (result i32) (local.get 0) (then (i32.add (i32.const {n}) {rest})) (else (i32.const 0)))))"#
        )
    };
    let a = |n: i32| {
        format!(
            r#"(module (import "b" "g" (func $g (param i32) (result i32))) (func (export "f") (param i32) (result i32)
            (if (result i32) (local.get 0) (then (i32.add (i32.const {n}) (call $g (i32.sub (local.get 0) (i32.const 1)))))
                (else (i32.const 0)))))"#
        )
    };
    load(&ns, "b", &b(10, false));
    let f = load(&ns, "a", &a(1)).typed_func::<(i32,), i32>("f").unwrap();
    assert_eq!(f.call((4,)).unwrap(), 11);
    ns.swap(replace("b", &b(10, true))).unwrap();
    assert_eq!(f.call((4,)).unwrap(), 22, "each calls the other");
    ns.swap(replace("a", &a(2)).keep_old(false)).unwrap();
    ns.swap(replace("b", &b(20, true)).keep_old(false)).unwrap();
    assert_eq!(f.call((4,)).unwrap(), 44);
    ns.swap(replace("a", &a(3)).and(replace("b", &b(30, true)))).unwrap();
    assert_eq!(f.call((4,)).unwrap(), 66, "both at once");
    ns.rollback("a").unwrap();
    assert_eq!(f.call((4,)).unwrap(), 44);
    assert!(ns.unload("a").is_err() && ns.unload("b").is_err());
    ns.swap(replace("b", &b(1, false))).unwrap();
    assert_eq!(f.call((4,)).unwrap(), 3);
    ns.unload("a").unwrap();
    ns.unload("b").unwrap();
    assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0));
}

#[test]
fn ten_thousand_exports_go_over_in_one_store_and_by_hundreds_of_dependents() {
    const EXPORTS: usize = 10_000;
    let version = |n: usize| {
        let functions = (0..EXPORTS).map(|i| format!(r#"(func (export "f{i}") (result i32) (i32.const {}))"#, i * n));
        format!("(module {})", functions.collect::<String>())
    };
    let ns = namespace();
    let cell = load(&ns, "a", &version(1));
    let handles: Vec<_> = (0..EXPORTS).map(|i| cell.typed_func::<(), i32>(&format!("f{i}")).unwrap()).collect();
    drop(cell);
    for i in 0..200 {
        let user = format!(
            r#"(module (import "a" "f{}" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#,
            i * 50
        );
        load(&ns, &format!("user{i}"), &user);
    }
    let report = ns.swap(replace("a", &version(2))).unwrap();
    assert_eq!((report.stores, report.cells[0].dependents.len()), (1, 200));
    assert!(handles.iter().enumerate().all(|(i, f)| f.call(()).unwrap() as usize == 2 * i));
    assert!((0..200).all(|i| call(&ns, &format!("user{i}"), "g") as usize == 100 * i));
    ns.rollback("a").unwrap();
    assert!(handles.iter().enumerate().all(|(i, f)| f.call(()).unwrap() as usize == i));
}

#[test]
fn a_start_function_may_have_other_cells_swapped_but_not_what_is_being_swapped_itself() {
    let ns = namespace();
    load(&ns, "other", &constant(1));
    load(&ns, "a", &constant(1));
    let (weak, outcomes) = (Arc::downgrade(&ns), Arc::new(Mutex::new(Vec::new())));
    let noted = outcomes.clone();
    let host = move || {
        let ns = weak.upgrade().unwrap();
        let mut noted = noted.lock().unwrap();
        noted.push(ns.swap(replace("other", &constant(2))).map(drop));
        noted.push(ns.swap(replace("a", &constant(9))).map(drop));
        noted.push(ns.rollback("a").map(drop));
    };
    ns.define("env", "host", host).unwrap();
    let starts = |n: i32| {
        format!(
            r#"(module (import "env" "host" (func $h)) (start $s) (func $s (call $h))
            (memory 1) (func (export "f") (result i32) (i32.const {n})))"#
        )
    };
    ns.swap(replace("a", &starts(5))).unwrap();
    let seen = std::mem::take(&mut *outcomes.lock().unwrap());
    assert!(
        matches!(
            &seen[..],
            [Ok(()), Err(SwapError::Busy { .. }), Err(SwapError::Busy { .. } | SwapError::NoPrevious { .. })]
        ),
        "{seen:?}"
    );
    assert_eq!((call(&ns, "a", "f"), call(&ns, "other", "f")), (5, 2));
    // The same while a cell is loaded: nobody can find it yet.
    ns.unload("a").unwrap();
    load(&ns, "a", &starts(6));
    let seen = std::mem::take(&mut *outcomes.lock().unwrap());
    assert!(matches!(&seen[..], [Ok(()), Err(_), Err(_)]), "{seen:?}");
    assert_eq!(call(&ns, "a", "f"), 6);
}

#[test]
fn what_a_transfer_does_to_the_namespace_meanwhile_is_seen_by_the_commit() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    load(&ns, "other", &constant(1));
    let weak = Arc::downgrade(&ns);
    let plan = StatePlan::custom(move |_| {
        let ns = weak.upgrade().unwrap();
        load(
            &ns,
            "user",
            r#"(module (import "a" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#,
        );
        ns.swap(replace("other", &constant(2)))?;
        assert!(matches!(ns.rollback("a"), Err(SwapError::Busy { .. } | SwapError::NoPrevious { .. })));
        Ok(())
    });
    ns.swap(replace("a", &constant(2)).state(plan)).unwrap();
    assert_eq!((call(&ns, "user", "g"), call(&ns, "other", "f")), (2, 2));
    // What was linked meanwhile to an export that the new version lacks.
    let weak = Arc::downgrade(&ns);
    let plan = StatePlan::custom(move |_| {
        let user = r#"(module (import "other" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#;
        load(&weak.upgrade().unwrap(), "late", user);
        Ok(())
    });
    let outcome = ns.swap(replace("other", "(module)").state(plan));
    let late = ns.get_crate("late").unwrap().typed_func::<(), i32>("g").unwrap();
    match outcome {
        Ok(_) => assert_eq!(code(late.call(())), TrapCode::FunctionGone),
        Err(e) => assert!(late.call(()).is_ok_and(|n| n == 2), "{e}"),
    }
}

#[test]
fn memories_that_grow_between_and_during_swaps_are_adopted_with_all_their_pages() {
    let ns = namespace();
    let text = |shared: &str, min: u32| {
        format!(
            r#"(module (memory {min} 64 {shared})
            (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
            (func (export "size") (result i32) (memory.size))
            (func (export "touch") (i32.atomic.store8 (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1)) (i32.const 7))))"#
        )
    };
    // One with a gate.
    load(&ns, "own", &text("", 1));
    let grow = ns.get_crate("own").unwrap().typed_func::<(i32,), i32>("grow").unwrap();
    for pages in 1..32 {
        assert_eq!(grow.call((1,)).unwrap(), pages);
        let report = ns.swap(replace("own", &text("", 1)).state(StatePlan::Adopt)).unwrap();
        assert_eq!((report.cells[0].bytes_adopted, call(&ns, "own", "size")), (65536 * (pages as u64 + 1), pages + 1));
    }
    ns.swap(replace("own", &text("", 32)).state(StatePlan::Adopt)).unwrap();
    let refused = problems(ns.swap(replace("own", &text("", 33)).state(StatePlan::Adopt)).unwrap_err());
    assert!(matches!(&refused[..], [SwapProblem::CannotAdopt { .. }]), "{refused:?}");
    // One without, under tasks that grow it.
    let cell = load(&ns, "shared", &text("shared", 1));
    let (grow, touch) = (cell.typed_func::<(i32,), i32>("grow").unwrap(), cell.typed_func::<(), ()>("touch").unwrap());
    drop(cell);
    thread::scope(|s| {
        let growing = s.spawn(move || {
            let grown = (0..1000).filter(|_| grow.call((1,)).unwrap() >= 0).count();
            touch.call(()).unwrap();
            grown
        });
        while !growing.is_finished() {
            ns.swap(replace("shared", &text("shared", 1)).state(StatePlan::Adopt).keep_old(false)).unwrap();
        }
        assert_eq!(growing.join().unwrap(), 63, "no page is lost, and none counted twice");
    });
    assert_eq!(call(&ns, "shared", "size"), 64);
}

#[test]
fn two_tasks_that_swap_and_roll_back_one_cell_leave_one_whole_version() {
    let ns = namespace();
    let text = |n: i32| {
        format!(
            r#"(module (memory 1) (func (export "f") (result i32)
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (i32.const {n}))
            (func (export "n") (result i32) (i32.load (i32.const 0))))"#
        )
    };
    let f = load(&ns, "a", &text(0)).typed_func::<(), i32>("f").unwrap();
    let committed = AtomicU64::new(0);
    let calls = thread::scope(|s| {
        for task in 0..2 {
            let (ns, committed) = (&ns, &committed);
            s.spawn(move || {
                for k in 0..100 {
                    let outcome = match k % 3 {
                        2 => ns.rollback("a").map(drop),
                        _ => ns.swap(replace("a", &text(2 * k + task)).state(StatePlan::Adopt)).map(drop),
                    };
                    match outcome {
                        Ok(()) => committed.fetch_add(1, Ordering::Relaxed),
                        Err(SwapError::Busy { .. } | SwapError::Changed { .. } | SwapError::NoPrevious { .. }) => 0,
                        Err(e) => panic!("{e}"),
                    };
                }
            });
        }
        s.spawn(|| (0..5000).filter(|_| f.call(()).is_ok()).count()).join().unwrap()
    });
    assert_eq!((call(&ns, "a", "n") as usize, calls), (5000, 5000));
    assert!(committed.load(Ordering::Relaxed) > 0);
    assert_eq!(f.call(()).unwrap(), call(&ns, "a", "f"));
    assert!(ns.old_versions().len() <= 1);
}

#[test]
fn a_rollback_that_fails_can_be_tried_again() {
    let ns = namespace();
    let text = |n: i32| {
        format!(
            r#"(module (memory 1) (func (export "f") (result i32) (i32.const {n}))
            (func (export "plank_save") (result i64) (i64.const 0x400000008))
            (func (export "plank_restore") (param i32 i32) (result i32) (i32.load8_u (i32.const 0)))
            (func (export "set") (param i32) (i32.store8 (i32.const 0) (local.get 0))))"#
        )
    };
    let first = load(&ns, "a", &text(1));
    let set = first.typed_func::<(i32,), ()>("set").unwrap();
    // The version that is to come back refuses the state.
    set.call((9,)).unwrap();
    ns.swap(replace("a", &text(2)).state(StatePlan::Export)).unwrap();
    for _ in 0..3 {
        let refused = ns.rollback("a").unwrap_err();
        assert!(matches!(&refused, SwapError::Transfer { source: TransferError::Code(9), .. }), "{refused}");
        assert_eq!((call(&ns, "a", "f"), ns.get_crate("a").unwrap().version()), (2, 2));
    }
    // A swap lets go of it; the one before the swap is what a rollback brings back now.
    ns.swap(replace("a", &text(3))).unwrap();
    ns.rollback("a").unwrap();
    assert_eq!(call(&ns, "a", "f"), 2);
}
