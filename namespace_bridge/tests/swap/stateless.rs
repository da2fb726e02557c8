//! Cells without state: nobody waits, nobody notices.

use super::*;
use namespace_bridge::swap::Fate;

#[test]
fn a_new_version_serves_handles_pointers_importers_and_symbols() {
    let ns = namespace();
    let old = load(&ns, "a", &constant(1));
    load(&ns, "user", r#"(module (import "a" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#);
    let handle = old.typed_func::<(), i32>("f").unwrap();
    // SAFETY: the function's type.
    let pointer: extern "C-unwind" fn() -> i32 = unsafe { old.entry("f") }.unwrap();
    assert_eq!((handle.call(()).unwrap(), pointer(), call(&ns, "user", "g")), (1, 1, 1));
    let report = ns.swap(replace("a", &constant(2))).unwrap();
    assert_eq!((handle.call(()).unwrap(), pointer(), call(&ns, "user", "g"), call(&ns, "a", "f")), (2, 2, 2, 2));
    let [cell] = &report.cells[..] else { panic!() };
    assert_eq!((cell.old_version, cell.new_version, cell.fate), (Some(1), Some(2), Fate::Cached));
    assert_eq!(cell.dependents.iter().map(|d| &**d).collect::<Vec<_>>(), ["user"]);
    assert_eq!(report.stores, 1);
    let new = ns.get_crate("a").unwrap();
    assert_eq!(new.version(), 2);
    // SAFETY: as above.
    let same: extern "C-unwind" fn() -> i32 = unsafe { new.entry("f") }.unwrap();
    assert_eq!(same as usize, pointer as usize);
    assert_eq!(ns.get_symbol("a::f").upgrade().unwrap().parent_crate.upgrade().unwrap().version(), 2);
}

#[test]
fn a_function_that_a_later_version_adds_is_there_and_stays_through_versions_without_it() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    let two =
        r#"(module (func (export "f") (result i32) (i32.const 2)) (func (export "g") (result i32) (i32.const 20)))"#;
    let report = ns.swap(replace("a", two)).unwrap();
    assert_eq!(report.cells[0].added, ["g"]);
    let g = ns.get_crate("a").unwrap().typed_func::<(), i32>("g").unwrap();
    assert_eq!(g.call(()).unwrap(), 20);
    let report = ns.swap(replace("a", &constant(3))).unwrap();
    assert_eq!((report.cells[0].removed.clone(), report.stores), (vec!["g".to_string()], 2));
    assert_eq!(call(&ns, "a", "f"), 3);
    let gone = g.call(()).unwrap_err();
    assert_eq!(gone.code(), TrapCode::FunctionGone);
    assert!(gone.to_string().contains("function `g` of cell `a` is gone"), "{gone}");
    ns.swap(replace("a", two)).unwrap();
    assert_eq!((g.call(()).unwrap(), call(&ns, "a", "f")), (20, 2));
}

#[test]
fn a_function_with_many_arguments_on_the_stack_is_swapped_too() {
    let ns = namespace();
    let sum = |k: i32| {
        let params = "(param i64 f64 i64 i64 i64 i64 i64 i64 f64 i64 i64)";
        format!(
            r#"(module (func (export "f") {params} (result i64 f64) (i64.add (i64.add (local.get 9) (local.get 10))
            (i64.const {k})) (f64.add (local.get 1) (local.get 8))))"#
        )
    };
    type Args = (i64, f64, i64, i64, i64, i64, i64, i64, f64, i64, i64);
    let cell = load(&ns, "a", &sum(1));
    let f = cell.typed_func::<Args, (i64, f64)>("f").unwrap();
    let args = (1, 2.0, 3, 4, 5, 6, 7, 8, 9.0, 10, 11);
    assert_eq!(f.call(args).unwrap(), (22, 11.0));
    ns.swap(replace("a", &sum(2))).unwrap();
    assert_eq!(f.call(args).unwrap(), (23, 11.0));
}

#[test]
fn frames_of_a_replaced_version_say_so() {
    let ns = namespace();
    let asked = Arc::downgrade(&ns);
    ns.define("env", "swap", move || {
        asked.upgrade().unwrap().swap(replace("a", &constant(2))).unwrap();
    })
    .unwrap();
    let text = r#"(module (import "env" "swap" (func $swap))
        (func $f (export "f") (result i32) (call $swap) unreachable))"#;
    let f = load(&ns, "a", text).typed_func::<(), i32>("f").unwrap();
    let trap = f.call(()).unwrap_err();
    assert_eq!(trap.code(), TrapCode::Unreachable);
    assert!(trap.to_string().contains("a@1!f"), "{trap}");
    assert_eq!(f.call(()).unwrap(), 2);
    assert_eq!(ns.old_versions().iter().map(|v| v.name.to_string()).collect::<Vec<_>>(), ["a@1"]);
    assert_eq!(ns.clear_unloaded_crate_cache(), 1);
    assert!(ns.old_versions().is_empty());
}

#[test]
fn the_report_says_what_was_compiled_and_on_request_what_differs() {
    let ns = namespace();
    let text = |k: i32, more: &str| {
        format!(
            r#"(module (func $same (export "same") (param i32) (result i32) (i32.mul (local.get 0) (i32.const 3)))
            (func $other (export "other") (result i32) (call $same (i32.const 5)))
            (func $f (export "f") (result i32) (i32.const {k})) {more})"#
        )
    };
    load(&ns, "a", &text(1, ""));
    let next = text(2, r#"(func $g (export "g"))"#);
    let would = ns.swap_dry_run(replace("a", &next).explain(true)).unwrap();
    let report = ns.swap(replace("a", &next).explain(true)).unwrap();
    for report in [&would, &report] {
        let diff = report.cells[0].diff.as_ref().unwrap();
        assert_eq!((&diff.functions.changed[..], diff.functions.unchanged), (&["f".to_string()][..], 2));
        assert_eq!(diff.functions.added.iter().map(|f| &*f.name).collect::<Vec<_>>(), ["g"]);
    }
    let reuse = would.cells[0].reuse.as_ref().unwrap();
    assert_eq!((reuse.compiled, reuse.reused), (2, 2));
    assert!(would.phases.compile > core::time::Duration::ZERO);
    let quiet = ns.swap(replace("a", &text(3, ""))).unwrap();
    assert!(quiet.cells[0].diff.is_none() && quiet.cells[0].reuse.is_some());
}
