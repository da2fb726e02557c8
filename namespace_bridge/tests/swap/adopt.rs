//! Adopt: memories, tables and globals are taken over in place.

use super::*;
use namespace_bridge::swap::{StatePlan, TransferError};

/// Counts in memory and in a global; `step` is what a version adds.
fn counter(step: i32, extra: &str) -> String {
    format!(
        r#"(module (memory (export "m") 1 4) (global $sp (mut i32) (i32.const 65536)) (global $n (mut i64) (i64.const 0))
        (data (i32.const 16) "read only")
        (func (export "bump") (result i32)
            (global.set $n (i64.add (global.get $n) (i64.const 1)))
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const {step})))
            (i32.load (i32.const 0)))
        (func (export "calls") (result i64) (global.get $n)) {extra})"#
    )
}

#[test]
fn memory_and_globals_go_on_with_the_values_they_have() {
    let ns = namespace();
    let cell = load(&ns, "a", &counter(1, ""));
    let bump = cell.typed_func::<(), i32>("bump").unwrap();
    assert_eq!((bump.call(()).unwrap(), bump.call(()).unwrap()), (1, 2));
    let base = cell.instance().unwrap().memory(0).unwrap().base();
    let report = ns.swap(replace("a", &counter(10, "")).state(StatePlan::Adopt)).unwrap();
    assert_eq!((bump.call(()).unwrap(), bump.call(()).unwrap()), (12, 22));
    let new = ns.get_crate("a").unwrap();
    assert_eq!(new.typed_func::<(), i64>("calls").unwrap().call(()).unwrap(), 4);
    assert_eq!(new.instance().unwrap().memory(0).unwrap().base(), base);
    assert_eq!((report.cells[0].bytes_adopted, report.cells[0].bytes_copied), (65536, 0));
}

#[test]
fn who_imports_the_memory_of_an_adopting_version_goes_on_with_it() {
    let ns = namespace();
    load(&ns, "a", &counter(1, ""));
    load(
        &ns,
        "user",
        r#"(module (import "a" "m" (memory 1)) (func (export "see") (result i32) (i32.load (i32.const 0))))"#,
    );
    assert_eq!(call(&ns, "a", "bump"), 1);
    let refused = problems(ns.swap(replace("a", &counter(10, ""))).unwrap_err());
    assert!(
        matches!(&refused[..], [SwapProblem::Split { what: "memory", users, .. }] if users == "`user`"),
        "{refused:?}"
    );
    ns.swap(replace("a", &counter(10, "")).state(StatePlan::Adopt)).unwrap();
    assert_eq!((call(&ns, "a", "bump"), call(&ns, "user", "see")), (11, 11));
    // The edge has moved: the new version is in use.
    assert!(ns.unload("a").is_err());
}

#[test]
fn all_differences_that_stand_against_adopting_are_named() {
    let ns = namespace();
    let one = r#"(module (memory 1) (table 3 funcref) (global $heap (export "__heap_base") i32 (i32.const 1024))
        (elem (i32.const 0) $f $g) (data (i32.const 8) "abc") (data (i32.const 20) "same")
        (func $f (export "f") (result i32) (i32.const 1)) (func $g (export "g") (result i32) (i32.const 2)))"#;
    let two = r#"(module (memory 1) (table 3 funcref) (global $heap (export "__heap_base") i32 (i32.const 2048))
        (elem (i32.const 0) $g $f $f) (data (i32.const 8) "abd") (data (i32.const 24) "same")
        (func $f (export "f") (result i32) (i32.const 1)) (func $g (export "g") (result i32) (i32.const 2)))"#;
    load(&ns, "a", one);
    let refused = problems(ns.swap(replace("a", two).state(StatePlan::Adopt)).unwrap_err());
    let [SwapProblem::CannotAdopt { differences, .. }] = &refused[..] else { panic!("{refused:?}") };
    let all = differences.join("\n");
    for part in [
        "data segment 0 has other contents",
        "data segment 1 goes to another place",
        "global `__heap_base` begins with another value",
        "index 0 of table 0 was `f` and is `g`",
        "index 1 of table 0 was `g` and is `f`",
        "index 2 of table 0 has a function now",
    ] {
        assert!(all.contains(part), "{part}: {all}");
    }
    assert_eq!(differences.len(), 6, "{all}");
    assert_eq!(call(&ns, "a", "g"), 2);
    assert_eq!(ns.get_crate("a").unwrap().version(), 1);
}

#[test]
fn function_pointers_in_adopted_data_reach_the_new_version() {
    let ns = namespace();
    let text = |k: i32| {
        format!(
            r#"(module (memory 1) (table 2 funcref) (elem (i32.const 0) $f $g) (type $t (func (result i32)))
            (func $f (export "f") (result i32) (i32.const {k})) (func $g (result i32) (i32.const {}))
            (func (export "keep") (result i32) (i32.store (i32.const 0) (i32.const 1)) (i32.const 0))
            (func (export "go") (result i32) (call_indirect (type $t) (i32.load (i32.const 0)))))"#,
            10 * k
        )
    };
    load(&ns, "a", &text(1));
    call(&ns, "a", "keep");
    assert_eq!(call(&ns, "a", "go"), 10);
    ns.swap(replace("a", &text(2)).state(StatePlan::Adopt)).unwrap();
    assert_eq!(call(&ns, "a", "go"), 20);
}

#[test]
fn a_version_may_mend_the_state_itself_and_nothing_of_it_stays_when_it_fails() {
    let ns = namespace();
    load(&ns, "a", &counter(1, ""));
    assert_eq!(call(&ns, "a", "bump"), 1);
    let mending = |end: &str| {
        format!(
            r#"(module (memory 1 4) (data (i32.const 16) "other text")
            (func (export "bump") (result i32) (i32.load (i32.const 100)))
            (func (export "plank_adopt") (result i32)
                (i32.store (i32.const 100) (i32.load (i32.const 0))) (i32.store (i32.const 0) (i32.const -1))
                (drop (memory.grow (i32.const 1))) {end}))"#
        )
    };
    let refused = ns.swap(replace("a", &mending("(i32.const 7)")).state(StatePlan::Adopt)).unwrap_err();
    assert!(
        matches!(&refused, SwapError::Transfer { by: "plank_adopt", source: TransferError::Code(7), .. }),
        "{refused}"
    );
    let trapped = ns.swap(replace("a", &mending("unreachable")).state(StatePlan::Adopt)).unwrap_err();
    assert!(matches!(&trapped, SwapError::Transfer { source: TransferError::Trap(_), .. }), "{trapped}");
    assert_eq!(call(&ns, "a", "bump"), 2);
    let memory = ns.get_crate("a").unwrap().instance().unwrap().memory(0).unwrap().clone();
    assert_eq!(memory.pages(), 1);
    ns.swap(replace("a", &mending("(i32.const 0)")).state(StatePlan::Adopt)).unwrap();
    assert_eq!(call(&ns, "a", "bump"), 2);
    assert_eq!(memory.pages(), 2);
}
