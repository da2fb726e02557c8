//! The harness itself: what it must notice, and what it must survive.

use planks::wast::{FileReport, run_script};
use std::collections::BTreeMap;

fn report(script: &str) -> FileReport {
    run_script("test.wast", script, &BTreeMap::new())
}

/// The reason of the only failure, with its line.
fn failure(script: &str) -> (usize, String) {
    let r = report(script);
    assert_eq!((r.totals.failed, r.failures.len()), (1, 1), "{:?}", r.failures);
    (r.failures[0].line, r.failures[0].reason.clone())
}

const ADD: &str = r#"(module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (func (export "trap") unreachable)
    (func $deep (export "deep") (call $deep)))"#;

#[test]
fn a_wrong_result_fails_with_its_line_and_values() {
    let (line, reason) =
        failure(&format!("{ADD}\n(assert_return (invoke \"add\" (i32.const 1) (i32.const 2)) (i32.const 4))"));
    assert_eq!((line, reason.as_str()), (4, "expected i32 4, found i32 3"));
}

#[test]
fn a_missing_or_other_trap_fails() {
    for (assertion, says) in [
        ("(assert_trap (invoke \"add\" (i32.const 1) (i32.const 2)) \"unreachable\")", "returned"),
        ("(assert_trap (invoke \"trap\") \"integer overflow\")", "trapped: unreachable"),
        ("(assert_exhaustion (invoke \"trap\") \"call stack exhausted\")", "trapped: unreachable"),
        ("(assert_return (invoke \"trap\"))", "trapped: unreachable"),
        ("(invoke \"trap\")", "trapped: unreachable"),
        ("(assert_return (invoke \"nothing\"))", "nothing"),
        ("(assert_return (invoke \"add\" (i64.const 1)))", "i64"),
        ("(assert_return (get \"add\") (i32.const 1))", "no global"),
    ] {
        let (_, reason) = failure(&format!("{ADD} {assertion}"));
        assert!(reason.contains(says), "{assertion}: {reason}");
    }
}

#[test]
fn valid_modules_fail_negative_assertions() {
    for assertion in [
        "(assert_invalid (module (func)) \"type mismatch\")",
        "(assert_malformed (module quote \"(func)\") \"unexpected token\")",
        "(assert_malformed (module binary \"\\00asm\\01\\00\\00\\00\") \"magic header\")",
        "(assert_unlinkable (module (import \"spectest\" \"print\" (func))) \"unknown import\")",
        "(assert_unlinkable (module (import \"spectest\" \"print\" (func (param i32)))) \"unknown import\")",
        "(assert_unlinkable (module (import \"spectest\" \"nothing\" (func))) \"incompatible import type\")",
    ] {
        failure(assertion);
    }
}

#[test]
fn a_stack_overflow_is_a_trap_and_the_script_goes_on() {
    let r = report(&format!(
        "{ADD} (assert_exhaustion (invoke \"deep\") \"call stack exhausted\") (assert_return (invoke \"add\" (i32.const 1) (i32.const 2)) (i32.const 3))"
    ));
    assert_eq!((r.totals.passed, r.totals.failed), (2, 0), "{:?}", r.failures);
}

#[test]
fn a_failed_module_fails_what_needs_it_but_not_the_rest() {
    let r = report(
        r#"(module $bad (func (result i32)))
        (assert_return (invoke "f"))
        (module (func (export "f")))
        (assert_return (invoke "f"))
        (assert_return (invoke $bad "f"))"#,
    );
    assert_eq!((r.totals.passed, r.totals.failed), (1, 3), "{:?}", r.failures);
}

#[test]
fn refused_features_are_counted_by_name() {
    let r = report(
        r#"(module $m (type (struct)) (func (export "f")))
        (register "m" $m)
        (assert_return (invoke "f"))
        (module (import "m" "f" (func)))"#,
    );
    assert_eq!((r.totals.failed, r.totals.refused["gc"]), (0, 4), "{:?}", r.totals);
}

#[test]
fn definitions_are_instantiated_as_often_as_asked() {
    let r = report(
        r#"(module definition $M (global $g (mut i32) (i32.const 0))
            (func (export "next") (result i32) (global.set $g (i32.add (global.get $g) (i32.const 1))) (global.get $g)))
        (module instance $a $M)
        (module instance $b $M)
        (assert_return (invoke $a "next") (i32.const 1))
        (assert_return (invoke $a "next") (i32.const 2))
        (assert_return (invoke $b "next") (i32.const 1))"#,
    );
    assert_eq!((r.totals.passed, r.totals.failed), (3, 0), "{:?}", r.failures);
}

#[test]
fn threads_run_at_once_and_share_memory() {
    let r = report(
        r#"(module $Mem (memory (export "shared") 1 1 shared))
        (thread $T1 (shared (module $Mem))
          (register "mem" $Mem)
          (module (memory (import "mem" "shared") 1 1 shared)
            (func (export "wait") (result i32)
              (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))
          (assert_return (invoke "wait") (either (i32.const 0) (i32.const 1))))
        (thread $T2 (shared (module $Mem))
          (register "mem" $Mem)
          (module (memory (import "mem" "shared") 1 1 shared)
            (func (export "wake") (result i32)
              (i32.atomic.store (i32.const 0) (i32.const 1))
              (memory.atomic.notify (i32.const 0) (i32.const -1))))
          (assert_return (invoke "wake") (either (i32.const 0) (i32.const 1))))
        (wait $T1)
        (wait $T2)
        (assert_return (invoke "nothing"))"#,
    );
    assert_eq!((r.totals.passed, r.totals.failed), (2, 1), "{:?}", r.failures);
}

#[test]
fn unreadable_scripts_are_failures_of_the_file() {
    for script in ["(", "(assert_return", "\u{202e}", "(module quote \"\\ff\")", "))))", "(thread $x (wait $x))"] {
        assert!(report(script).totals.failed > 0, "{script}");
    }
    assert!(report(&"(".repeat(100_000)).totals.failed > 0);
    assert!(report(&"(thread $t ".repeat(100_000)).totals.failed > 0);
}

#[test]
fn an_exclusion_that_passes_or_names_nothing_is_a_failure() {
    let list: BTreeMap<usize, String> = [(1, "x".to_string()), (9, "y".to_string())].into();
    let r = run_script("t.wast", "(assert_malformed (module quote \"(\") \"x\")", &list);
    assert_eq!((r.totals.passed, r.totals.failed), (0, 2), "{:?}", r.failures);
    let list: BTreeMap<usize, String> = [(1, "x".to_string())].into();
    let r = run_script("t.wast", "(assert_malformed (module quote \"(func)\") \"x\")", &list);
    assert_eq!((r.totals.excluded, r.totals.failed), (1, 0), "{:?}", r.failures);
}
