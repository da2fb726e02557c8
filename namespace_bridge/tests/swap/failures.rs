//! A swap that fails at any step: the old version serves, nothing remains, the next swap works.

use super::*;
use namespace_bridge::swap::{StatePlan, SwapStep};
use namespace_bridge::{reclaim, text_index::TEXT};

const OLD: &str = r#"(module (import "lib" "f" (func $f (result i32))) (memory 1)
    (func (export "bump") (result i32) (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (call $f))) (i32.load (i32.const 0)))
    (func (export "plank_save") (result i64) (i64.const 0x400000000))
    (func (export "plank_restore") (param i32 i32) (result i32) (i32.store (i32.const 0) (i32.load (local.get 0))) (i32.const 0)))"#;

#[test]
fn at_every_step_a_failure_leaves_the_old_version_in_service_and_the_next_swap_works() {
    let new = OLD.replace("(call $f)", "(i32.mul (call $f) (i32.const 100))");
    let late = r#"(module (import "env" "demand" (func $d (result i32))) (func (export "x") (result i32) (call $d)))"#;
    for plan in [StatePlan::Fresh, StatePlan::Adopt, StatePlan::Export, StatePlan::custom(|_| Ok(()))] {
        for step in SwapStep::ALL {
            let ns = namespace();
            let provided = wasm(&constant(1));
            ns.add_provider(Arc::new(move |name: &str| {
                (name == "env").then(|| namespace_bridge::CellSource::Wasm(provided.clone()))
            }));
            load(&ns, "lib", &constant(1));
            let bump = load(&ns, "a", OLD).typed_func::<(), i32>("bump").unwrap();
            load(
                &ns,
                "user",
                r#"(module (import "a" "bump" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#,
            );
            assert_eq!(bump.call(()).unwrap(), 1);
            let counts = || (ns.crate_count(), ns.symbol_count(), ns.get_crate("lib").unwrap().dependents().len());
            let before = counts();
            let request = || {
                let late = late.replace("demand", "f");
                replace("a", &new)
                    .state(plan.clone())
                    .and(replace("lib", &constant(2)))
                    .and(SwapRequest::add("late").with_wasm(&wasm(&late)))
            };
            let error = ns.swap(request().fail_at(step)).unwrap_err();
            assert!(matches!(error, SwapError::Injected { step: at } if at == step), "{error}");
            assert_eq!(counts(), before, "{plan:?} at {step}");
            assert_eq!((bump.call(()).unwrap(), call(&ns, "user", "g")), (2, 3), "{plan:?} at {step}");
            assert!(ns.old_versions().is_empty());
            ns.swap(request()).unwrap();
            let expected = match plan {
                StatePlan::Adopt | StatePlan::Export => 203,
                _ => 200,
            };
            assert_eq!(bump.call(()).unwrap(), expected, "{plan:?} at {step}");
            assert_eq!(call(&ns, "late", "x"), 1);
        }
    }
    // Other tests run beside this one, so only what is theirs may be left.
    reclaim();
    assert!(TEXT.len() < 1000);
}

#[test]
fn a_start_function_that_traps_leaves_the_old_version_in_service() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    let error = ns
        .swap(replace(
            "a",
            r#"(module (start $s) (func $s unreachable) (func (export "f") (result i32) (i32.const 2)))"#,
        ))
        .unwrap_err();
    assert!(matches!(&error, SwapError::Transfer { by: "start", .. }), "{error}");
    assert_eq!(call(&ns, "a", "f"), 1);
}

#[test]
fn references_that_a_failed_version_gave_away_trap_and_nothing_else_changes() {
    let ns = namespace();
    let go = load(
        &ns,
        "holder",
        r#"(module (table (export "t") 2 funcref) (type $f (func (result i32)))
        (func (export "go") (param i32) (result i32) (call_indirect (type $f) (local.get 0))))"#,
    );
    let go = go.typed_func::<(i32,), i32>("go").unwrap();
    let text = |n: i32, start: &str| {
        format!(
            r#"(module (import "holder" "t" (table 2 funcref)) (elem (i32.const 0) $f $internal) {start}
            (func $f (export "f") (result i32) (i32.const {n})) (func $internal (result i32) (i32.const 1{n})))"#
        )
    };
    load(&ns, "a", &text(1, ""));
    assert_eq!((go.call((0,)).unwrap(), go.call((1,)).unwrap()), (1, 11));
    ns.swap(replace("a", &text(2, "(start $s) (func $s unreachable)"))).unwrap_err();
    // Active segments were applied before the start function trapped; the references are those of the functions, whichever version serves.
    assert_eq!((go.call((0,)).unwrap(), go.call((1,)).unwrap()), (1, 11));
    ns.swap(replace("a", &text(3, ""))).unwrap();
    assert_eq!((go.call((0,)).unwrap(), go.call((1,)).unwrap()), (3, 13));
}

#[test]
fn a_dry_run_tells_what_would_change_and_changes_nothing() {
    let ns = namespace();
    load(
        &ns,
        "a",
        r#"(module (func (export "f") (result i32) (i32.const 1)) (func (export "g")) (func (export "h") (param i32)))"#,
    );
    load(&ns, "user", r#"(module (import "a" "f" (func (result i32))))"#);
    let new = r#"(module (func (export "f") (result i32) (i32.const 2)) (func (export "h") (param i64)) (func (export "i")))"#;
    let report = ns.swap_dry_run(replace("a", new)).unwrap();
    let cell = &report.cells[0];
    assert_eq!(
        (&cell.added[..], &cell.removed[..], &cell.retyped[..]),
        (&["i".into()][..], &["g".into()][..], &["h".into()][..])
    );
    assert_eq!(cell.dependents.iter().map(|d| &**d).collect::<Vec<_>>(), ["user"]);
    assert_eq!((call(&ns, "a", "f"), ns.get_crate("a").unwrap().version()), (1, 1));
    let without = r#"(module (func (export "h") (param i64)))"#;
    assert!(matches!(
        &problems(ns.swap_dry_run(replace("a", without)).unwrap_err())[..],
        [SwapProblem::MissingExport { .. }]
    ));
    // By force, the user traps by name.
    ns.swap(replace("a", without).force(true)).unwrap();
    assert!(ns.get_crate("a").unwrap().export("f").is_none());
}

#[test]
fn what_was_loaded_on_demand_for_a_swap_that_fails_is_unloaded_again() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    ns.add_provider(Arc::new(|name: &str| {
        let text = match name {
            "first" => r#"(module (import "second" "f" (func $f (result i32))) (export "f" (func $f)))"#.to_string(),
            "second" => constant(4),
            _ => return None,
        };
        Some(namespace_bridge::CellSource::Wasm(wasm(&text)))
    }));
    let new = r#"(module (import "first" "f" (func $f (result i32))) (func (export "f") (result i32) (call $f)))"#;
    ns.swap(replace("a", new).fail_at(SwapStep::Commit)).unwrap_err();
    assert_eq!(ns.crate_count(), 1);
    ns.swap(replace("a", new)).unwrap();
    assert_eq!((ns.crate_count(), call(&ns, "a", "f")), (3, 4));
}
