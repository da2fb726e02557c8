//! The previous version comes back from the cache.

use super::*;
use namespace_bridge::swap::StatePlan;

#[test]
fn the_previous_version_comes_back_and_a_second_rollback_undoes_the_first() {
    let ns = namespace();
    let f = load(&ns, "a", &constant(1)).typed_func::<(), i32>("f").unwrap();
    load(&ns, "user", r#"(module (import "a" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#);
    ns.swap(replace("a", &constant(2))).unwrap();
    for version in [1, 2, 1] {
        let report = ns.rollback("a").unwrap();
        assert_eq!((f.call(()).unwrap(), call(&ns, "user", "g"), call(&ns, "a", "f")), (version, version, version));
        assert_eq!(report.cells[0].dependents.len(), 1);
        assert_eq!(ns.get_crate("a").unwrap().version() as i32, version);
        assert!(ns.unload("a").is_err(), "the user's edge is on the version in service");
    }
    // The next version is built on the one that came back.
    ns.swap(replace("a", &constant(3))).unwrap();
    assert_eq!((f.call(()).unwrap(), ns.get_crate("a").unwrap().version()), (3, 2));
    ns.rollback("a").unwrap();
    assert_eq!(f.call(()).unwrap(), 1);
}

fn counter(step: i32) -> String {
    format!(
        r#"(module (memory 1) (global $n (mut i32) (i32.const 0)) (func (export "bump") (result i32)
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const {step})))
        (i32.add (i32.load (i32.const 0)) (i32.mul (i32.const 1000) (global.get $n)))))"#
    )
}

#[test]
fn adopted_state_goes_back() {
    let ns = namespace();
    load(&ns, "a", &counter(1));
    assert_eq!(call(&ns, "a", "bump"), 1001);
    ns.swap(replace("a", &counter(10)).state(StatePlan::Adopt)).unwrap();
    assert_eq!(call(&ns, "a", "bump"), 2011);
    ns.rollback("a").unwrap();
    assert_eq!(call(&ns, "a", "bump"), 3012);
    ns.rollback("a").unwrap();
    assert_eq!(call(&ns, "a", "bump"), 4022);
}

#[test]
fn a_version_that_was_not_asked_for_its_state_has_it_when_it_comes_back() {
    let ns = namespace();
    load(&ns, "a", &counter(1));
    call(&ns, "a", "bump");
    ns.swap(replace("a", &counter(10))).unwrap();
    assert_eq!(call(&ns, "a", "bump"), 1010);
    ns.rollback("a").unwrap();
    assert_eq!(call(&ns, "a", "bump"), 2002);
}

#[test]
fn what_is_unloaded_or_replaced_without_keeping_does_not_come_back() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    assert!(matches!(ns.rollback("a").unwrap_err(), SwapError::NoPrevious { .. }));
    ns.swap(replace("a", &constant(2))).unwrap();
    ns.swap(replace("a", &constant(3)).keep_old(false)).unwrap();
    assert!(matches!(ns.rollback("a").unwrap_err(), SwapError::NoPrevious { .. }));
    ns.swap(replace("a", &constant(4))).unwrap();
    ns.unload("a").unwrap();
    assert!(matches!(ns.rollback("a").unwrap_err(), SwapError::NoPrevious { .. }));
    assert!(ns.old_versions().is_empty());
}

#[test]
fn a_version_whose_imports_are_gone_does_not_come_back() {
    let ns = namespace();
    load(&ns, "lib", &constant(1));
    let user = r#"(module (import "lib" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#;
    load(&ns, "user", user);
    ns.swap(replace("user", r#"(module (func (export "g") (result i32) (i32.const 9)))"#)).unwrap();
    // A version that only waits in the cache keeps nobody in service.
    ns.unload("lib").unwrap();
    let refused = problems(ns.rollback("user").unwrap_err());
    assert!(matches!(&refused[..], [SwapProblem::LostImport { symbol, .. }] if &**symbol == "lib::f"), "{refused:?}");
    assert_eq!(call(&ns, "user", "g"), 9);
}

#[test]
fn a_cached_version_follows_new_versions_of_what_it_imports() {
    let ns = namespace();
    load(&ns, "lib", &constant(1));
    load(
        &ns,
        "user",
        r#"(module (import "lib" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#,
    );
    ns.swap(replace("user", r#"(module (func (export "g") (result i32) (i32.const 9)))"#)).unwrap();
    ns.swap(replace("lib", &constant(2))).unwrap();
    ns.rollback("user").unwrap();
    assert_eq!(call(&ns, "user", "g"), 2);
    assert!(ns.unload("lib").is_err());
}
