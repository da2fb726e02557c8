//! Requests that only add, only remove, or rename.

use super::*;

#[test]
fn cells_are_added_in_one_step_whatever_the_order_they_are_named_in() {
    let ns = namespace();
    let app = r#"(module (import "lib" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#;
    let request =
        SwapRequest::add("app").with_wasm(&wasm(app)).and(SwapRequest::add("lib").with_wasm(&wasm(&constant(7))));
    let report = ns.swap(request).unwrap();
    assert!(report.cells.iter().all(|c| c.old_version.is_none() && c.new_version == Some(1)));
    assert_eq!(call(&ns, "app", "g"), 7);
    // Taken back, nothing is there any more.
    ns.rollback("app").unwrap();
    assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0));
    ns.rollback("lib").unwrap();
    assert_eq!((ns.crate_count(), call(&ns, "app", "g")), (2, 7));
}

#[test]
fn cells_are_removed_in_one_step_unless_others_use_them() {
    let ns = namespace();
    load(&ns, "lib", &constant(7));
    let app = load(
        &ns,
        "app",
        r#"(module (import "lib" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#,
    );
    let g = app.typed_func::<(), i32>("g").unwrap();
    let refused = problems(ns.swap(SwapRequest::remove("lib")).unwrap_err());
    assert!(matches!(&refused[..], [SwapProblem::InUse { .. }]), "{refused:?}");
    ns.swap(SwapRequest::remove("lib").and(SwapRequest::remove("app"))).unwrap();
    assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0));
    assert_eq!(code(g.call(())), TrapCode::FunctionGone);
    ns.rollback("lib").unwrap();
    assert_eq!(g.call(()).unwrap(), 7);
}

#[test]
fn a_removed_cell_that_is_not_kept_is_gone_and_its_name_free() {
    let ns = namespace();
    let f = load(&ns, "a", &constant(7)).typed_func::<(), i32>("f").unwrap();
    ns.swap(SwapRequest::remove("a").keep_old(false)).unwrap();
    assert_eq!(code(f.call(())), TrapCode::FunctionGone);
    assert!(matches!(ns.rollback("a").unwrap_err(), SwapError::NoPrevious { .. }));
    load(&ns, "a", &constant(8));
    assert_eq!(call(&ns, "a", "f"), 8);
}

#[test]
fn a_cell_gets_another_name_and_its_users_follow() {
    let ns = namespace();
    load(&ns, "old", &constant(1));
    load(
        &ns,
        "user",
        r#"(module (import "old" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#,
    );
    let report = ns.swap(replace("old", &constant(2)).named("new")).unwrap();
    assert_eq!(report.cells[0].renamed_from.as_deref(), Some("old"));
    assert_eq!((call(&ns, "user", "g"), call(&ns, "new", "f")), (2, 2));
    assert!(ns.get_crate("old").is_none() && ns.get_symbol("old::f").upgrade().is_none());
    assert!(ns.unload("new").is_err(), "the user counts");
    ns.rollback("new").unwrap();
    assert_eq!((call(&ns, "user", "g"), call(&ns, "old", "f")), (1, 1));
    assert!(ns.get_crate("new").is_none());
}

#[test]
fn new_symbols_are_there_under_the_old_name_too_on_request() {
    let ns = namespace();
    let two = |n: i32| {
        format!(
            r#"(module (func (export "f") (result i32) (i32.const {n})) (func (export "unused") (result i32) (i32.const 1{n})))"#
        )
    };
    load(&ns, "old", &two(1));
    ns.swap(replace("old", &two(2)).named("new").reexport_new_symbols_as_old(true)).unwrap();
    for symbol in ["old::f", "old::unused", "new::f", "new::unused"] {
        let section = ns.get_symbol(symbol).upgrade().unwrap_or_else(|| panic!("{symbol}"));
        assert_eq!(&*section.parent_crate.upgrade().unwrap().crate_name, "new");
    }
    // Who is loaded later links to the new version by the old name.
    load(
        &ns,
        "late",
        r#"(module (import "old" "unused" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#,
    );
    assert_eq!(call(&ns, "late", "g"), 12);
    ns.swap(replace("new", &two(3))).unwrap();
    assert_eq!(ns.get_symbol("old::f").upgrade().unwrap().parent_crate.upgrade().unwrap().version(), 3);
    assert_eq!(call(&ns, "late", "g"), 13);
    ns.unload("late").unwrap();
    ns.unload("new").unwrap();
    assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    load(&ns, "b", &constant(2));
    ns.define("env", "f", || 1i32).unwrap();
    let refused = |request: SwapRequest| problems(ns.swap(request).unwrap_err());
    assert!(matches!(&refused(SwapRequest::new("a"))[..], [SwapProblem::NoSource { .. }]));
    assert!(matches!(&refused(replace("a", &constant(3)).named("b"))[..], [SwapProblem::NameTaken { .. }]));
    assert!(matches!(
        &refused(SwapRequest::add("b").with_wasm(&wasm(&constant(3))))[..],
        [SwapProblem::NameTaken { .. }]
    ));
    assert!(matches!(&refused(replace("env", &constant(3)))[..], [SwapProblem::NotSwappable { .. }]));
    assert!(matches!(
        &refused(replace("a", &constant(3)).and(SwapRequest::remove("a")))[..],
        [SwapProblem::Twice { .. }]
    ));
    let circle = |of: &str| format!(r#"(module (import "{of}" "x" (func $x)) (export "x" (func $x)))"#);
    let both = replace("a", &circle("b")).and(replace("b", &circle("a")));
    assert!(refused(both).iter().any(|p| matches!(p, SwapProblem::Cycle { .. })));
    // Two cells exchange their names.
    ns.swap(replace("a", &constant(20)).named("b").and(replace("b", &constant(10)).named("a"))).unwrap();
    assert_eq!((call(&ns, "a", "f"), call(&ns, "b", "f")), (10, 20));
}
