//! Export: bytes go from the old version to the new one.

use super::*;
use namespace_bridge::swap::{StatePlan, TransferError};

const OLD: &str = r#"(module (memory 1) (func (export "bump") (result i32)
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (i32.load (i32.const 0)))
    (func (export "plank_save") (result i64) (i64.const 0x400000000))
    (func (export "plank_restore") (param i32 i32) (result i32)
        (i32.store (i32.const 0) (i32.load (local.get 0))) (i32.const 0)))"#;

/// Keeps its number elsewhere, and as 64 bits.
const NEW: &str = r#"(module (memory 1 8) (global $started (mut i32) (i32.const 0)) (start $start) (func $start (global.set $started (i32.const 1)))
    (func (export "bump") (result i32)
        (i64.store (i32.const 64) (i64.add (i64.load (i32.const 64)) (i64.const 100))) (i32.wrap_i64 (i64.load (i32.const 64))))
    (func (export "plank_save") (result i32 i32)
        (i32.store (i32.const 128) (i32.wrap_i64 (i64.load (i32.const 64)))) (i32.const 128) (i32.const 4))
    (func (export "plank_restore") (param $at i32) (param $len i32) (result i32)
        (if (i32.ne (local.get $len) (i32.const 4)) (then (return (i32.const 9))))
        (if (i32.eqz (global.get $started)) (then unreachable))
        (i64.store (i32.const 64) (i64.load32_u (local.get $at)))
        (i32.const 0)))"#;

#[test]
fn what_the_old_version_saves_the_new_one_restores() {
    let ns = namespace();
    load(&ns, "a", OLD);
    assert_eq!((call(&ns, "a", "bump"), call(&ns, "a", "bump")), (1, 2));
    let report = ns.swap(replace("a", NEW).state(StatePlan::Export)).unwrap();
    assert_eq!((report.cells[0].bytes_copied, call(&ns, "a", "bump")), (4, 102));
    // State goes back by the same way.
    ns.rollback("a").unwrap();
    assert_eq!(call(&ns, "a", "bump"), 103);
    ns.rollback("a").unwrap();
    assert_eq!(call(&ns, "a", "bump"), 203);
}

#[test]
fn what_a_version_lacks_for_exporting_is_named() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    let refused = problems(ns.swap(replace("a", &constant(2)).state(StatePlan::Export)).unwrap_err());
    let [SwapProblem::CannotExport { lacks, .. }] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(lacks.len(), 4, "{lacks:?}");
}

#[test]
fn refusals_and_wild_ranges_leave_the_old_version_in_service() {
    let ns = namespace();
    let old = |save: &str| {
        format!(
            r#"(module (memory 1) (func (export "f") (result i32) (i32.const 1)) (func (export "plank_save") (result i64) {save}))"#
        )
    };
    let new = |restore: &str| {
        format!(
            r#"(module (memory 1) (func (export "f") (result i32) (i32.const 2))
            (func (export "plank_restore") (param i32 i32) (result i32) {restore}))"#
        )
    };
    let fails = |save: &str, restore: &str| {
        load(&ns, "a", &old(save));
        let error = ns.swap(replace("a", &new(restore)).state(StatePlan::Export)).unwrap_err();
        assert_eq!(call(&ns, "a", "f"), 1);
        ns.unload("a").unwrap();
        let SwapError::Transfer { by, source, .. } = error else { panic!("{error}") };
        (by, source)
    };
    let fine = "(i32.const 0)";
    assert!(matches!(fails("(i64.const 0xffffffff00000007)", fine), ("plank_save", TransferError::Code(7))));
    assert!(matches!(fails("(i64.const 0x100000ffff)", fine), ("plank_save", TransferError::Range { .. })));
    assert!(matches!(fails("unreachable", fine), ("plank_save", TransferError::Trap(_))));
    assert!(matches!(fails("(i64.const 0)", "(i32.const 3)"), ("plank_restore", TransferError::Code(3))));
    assert!(matches!(fails("(i64.const 0)", "unreachable"), ("plank_restore", TransferError::Trap(_))));
}

#[test]
fn code_that_runs_before_the_commit_reaches_its_own_functions_by_reference() {
    let ns = namespace();
    load(&ns, "a", OLD);
    call(&ns, "a", "bump");
    // `bump` is a function of the old version, too, and is called through a table while that one is in service.
    let new = r#"(module (memory 1) (table 1 funcref) (elem (i32.const 0) $bump) (type $t (func (result i32)))
        (func $bump (export "bump") (result i32)
            (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (i32.const 1000))) (i32.load (i32.const 8)))
        (func (export "plank_restore") (param i32 i32) (result i32)
            (drop (call_indirect (type $t) (i32.const 0))) (i32.const 0))
        (func (export "by_table") (result i32) (call_indirect (type $t) (i32.const 0))))"#;
    ns.swap(replace("a", new).state(StatePlan::Export)).unwrap();
    assert_eq!((call(&ns, "a", "bump"), call(&ns, "a", "by_table")), (2000, 3000));
    ns.swap(replace("a", &constant(5))).unwrap();
}

#[test]
fn a_version_that_comes_back_reaches_its_own_functions_by_reference_while_it_restores() {
    let ns = namespace();
    let text = |step: i32, restore: &str| {
        format!(
            r#"(module (memory 1) (table 1 funcref) (elem (i32.const 0) $bump) (type $t (func (result i32)))
            (func $bump (export "bump") (result i32)
                (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const {step}))) (i32.load (i32.const 0)))
            (func (export "plank_save") (result i64) (i64.const 0x400000000))
            (func (export "plank_restore") (param i32 i32) (result i32)
                (i32.store (i32.const 0) (i32.load (local.get 0))) (drop (call_indirect (type $t) (i32.const 0))) {restore}))"#
        )
    };
    load(&ns, "a", &text(1, "(i32.const 0)"));
    assert_eq!(call(&ns, "a", "bump"), 1);
    ns.swap(replace("a", &text(10, "(i32.const 0)")).state(StatePlan::Export)).unwrap();
    assert_eq!(call(&ns, "a", "bump"), 21);
    ns.rollback("a").unwrap();
    assert_eq!(call(&ns, "a", "bump"), 23);
    // A version that refuses its state when it comes back does not come back.
    ns.unload("a").unwrap();
    load(&ns, "a", &text(1, "(i32.const 5)"));
    ns.swap(replace("a", &text(10, "(i32.const 0)")).state(StatePlan::Export)).unwrap();
    let refused = ns.rollback("a").unwrap_err();
    assert!(matches!(&refused, SwapError::Transfer { source: TransferError::Code(5), .. }), "{refused}");
    assert_eq!(call(&ns, "a", "bump"), 20);
}
