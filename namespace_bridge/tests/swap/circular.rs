//! New cells that import from each other, in one step.

use super::*;
use namespace_bridge::swap::{StatePlan, SwapStep};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Says whether a number is even, by way of `odd`; `n` is added to the answer of the last call.
fn even(n: i32) -> String {
    format!(
        r#"(module (import "odd" "f" (func $odd (param i32) (result i32))) (func (export "f") (param i32) (result i32)
        (if (result i32) (local.get 0) (then (call $odd (i32.sub (local.get 0) (i32.const 1)))) (else (i32.const {n})))))"#
    )
}

fn odd(n: i32) -> String {
    format!(
        r#"(module (import "even" "f" (func $even (param i32) (result i32))) (func (export "f") (param i32) (result i32)
        (if (result i32) (local.get 0) (then (call $even (i32.sub (local.get 0) (i32.const 1)))) (else (i32.const {n})))))"#
    )
}

fn add(name: &str, text: &str) -> SwapRequest {
    SwapRequest::add(name).with_wasm(&wasm(text))
}

fn ask(ns: &CrateNamespace, cell: &str, n: i32) -> i32 {
    ns.get_crate(cell).unwrap().typed_func::<(i32,), i32>("f").unwrap().call((n,)).unwrap()
}

#[test]
fn cells_that_need_each_other_come_change_and_go_together() {
    let ns = namespace();
    ns.swap(add("even", &even(1)).and(add("odd", &odd(0)))).unwrap();
    assert_eq!([0, 1, 2, 3].map(|n| ask(&ns, "even", n)), [1, 0, 1, 0]);
    let held = ns.get_crate("odd").unwrap().typed_func::<(i32,), i32>("f").unwrap();
    let new = || replace("odd", &odd(100)).and(replace("even", &even(200)));
    for step in SwapStep::ALL {
        assert!(matches!(ns.swap(new().fail_at(step)).unwrap_err(), SwapError::Injected { .. }));
        assert_eq!((ask(&ns, "even", 6), held.call((6,)).unwrap()), (1, 0), "{step}");
    }
    let report = ns.swap(new()).unwrap();
    assert_eq!((report.cells.len(), report.stores), (2, 2));
    assert_eq!((ask(&ns, "even", 6), held.call((6,)).unwrap()), (200, 100));
    let names = |cell: &str| {
        let depends_on = ns.get_crate(cell).unwrap().crates_i_depend_on();
        depends_on.iter().map(|c| (c.crate_name.to_string(), c.version())).collect::<Vec<_>>()
    };
    assert_eq!((names("even"), names("odd")), (vec![("odd".into(), 2)], vec![("even".into(), 2)]));
    ns.rollback("even").unwrap();
    assert_eq!((ask(&ns, "even", 6), held.call((6,)).unwrap()), (1, 0));
    assert_eq!((names("even"), names("odd")), (vec![("odd".into(), 1)], vec![("even".into(), 1)]));
    ns.rollback("odd").unwrap();
    assert_eq!((ask(&ns, "even", 6), held.call((6,)).unwrap()), (200, 100));
    // One alone, against the other as it is.
    ns.swap(replace("odd", &odd(7))).unwrap();
    assert_eq!((ask(&ns, "even", 1), ask(&ns, "even", 2)), (7, 200));
    assert!(ns.unload("odd").is_err() && ns.unload("even").is_err(), "each is in use");
    ns.swap(SwapRequest::remove("even").and(SwapRequest::remove("odd"))).unwrap();
    assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0));
    assert_eq!(code(held.call((6,))), TrapCode::FunctionGone);
    // There again, with the entries that they had.
    ns.swap(add("odd", &odd(8)).and(add("even", &even(9)))).unwrap();
    assert_eq!((held.call((6,)).unwrap(), ask(&ns, "even", 6)), (8, 9));
}

#[test]
fn a_failed_request_leaves_nothing_of_new_cells_that_need_each_other() {
    let ns = namespace();
    let both = || add("even", &even(1)).and(add("odd", &odd(0)));
    for step in SwapStep::ALL {
        ns.swap(both().fail_at(step)).unwrap_err();
        assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0), "{step}");
    }
    // One that does not have what the other needs.
    let other = r#"(module (import "even" "f" (func (param i32) (result i32))) (func (export "f") (param i64) (result i32) unreachable))"#;
    let found = problems(ns.swap(add("even", &even(1)).and(add("odd", other))).unwrap_err());
    assert!(matches!(&found[..], [SwapProblem::Link(e)] if e.to_string().contains("i64")), "{found:?}");
    assert_eq!(ns.crate_count(), 0);
    ns.swap(both()).unwrap();
    assert_eq!(ask(&ns, "odd", 5), 1);
}

/// Counts in its memory, and adds what the other one counted, which counts as well.
fn counts(other: &str, step: i32) -> String {
    format!(
        r#"(module (import "{other}" "read" (func $read (result i32))) (import "{other}" "count" (func $count (param i32)))
        (memory 1)
        (func (export "read") (result i32) (i32.load (i32.const 0)))
        (func $own (export "count") (param i32)
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const {step})))
            (if (local.get 0) (then (call $count (i32.sub (local.get 0) (i32.const 1))))))
        (func (export "f") (param i32) (result i32) (call $own (local.get 0))
            (i32.add (i32.mul (i32.const 1000) (i32.load (i32.const 0))) (call $read))))"#
    )
}

#[test]
fn state_of_cells_that_need_each_other_is_taken_over_and_given_back() {
    let ns = namespace();
    ns.swap(add("a", &counts("b", 1)).and(add("b", &counts("a", 1)))).unwrap();
    assert_eq!(ask(&ns, "a", 3), 2002);
    let new = || {
        let a = replace("a", &counts("b", 10)).state(StatePlan::Adopt);
        a.and(replace("b", &counts("a", 100)).state(StatePlan::Adopt))
    };
    for step in SwapStep::ALL {
        ns.swap(new().fail_at(step)).unwrap_err();
    }
    assert_eq!(ask(&ns, "a", 1), 3003);
    ns.swap(new()).unwrap();
    assert_eq!(ask(&ns, "a", 1), 13_103);
    ns.rollback("b").unwrap();
    assert_eq!(ask(&ns, "a", 1), 14_104, "what the new versions counted is there");
}

#[test]
fn memories_tables_and_globals_are_imported_in_a_circle() {
    let ns = namespace();
    // Each has a memory, a table, a global that varies and one that does not, and uses the other's. Values of globals depend on each other.
    let text = |other: &str, n: i32, base: &str| {
        format!(
            r#"(module (import "{other}" "memory" (memory $theirs 1)) (import "{other}" "table" (table $t 2 funcref))
            (import "{other}" "var" (global $var (mut i32))) (import "{other}" "first" (global $first i32))
            (import "{other}" "f" (func $theirs_f (result i32)))
            (memory $mine (export "memory") 1) (table $own (export "table") 2 funcref) (elem (table $own) (i32.const 0) func $f)
            (elem (table $t) (i32.const 1) func $f)
            (global $mutable (export "var") (mut i32) (i32.const {n}))
            (global (export "first") i32 (i32.const {n}))
            (global $second (export "second") i32 (i32.add (global.get $first) (i32.const 1)))
            {base}
            (type $t (func (result i32)))
            (func $f (export "f") (result i32) (i32.const {n}))
            (func (export "second_of") (result i32) (global.get $second))
            (func (export "write") (result i32)
                (i32.store $theirs (i32.const 0) (i32.const {n})) (global.set $var (i32.add (global.get $var) (i32.const {n})))
                (i32.load $mine (i32.const 0)))
            (func (export "var_of") (result i32) (global.get $mutable))
            (func (export "through") (result i32)
                (i32.add (call_indirect $t (type $t) (i32.const 0)) (i32.mul (i32.const 100) (call_indirect $own (type $t) (i32.const 1))))))"#
        )
    };
    // A chain through both: `third` of a is computed from `second` of b, which is computed from `first` of a.
    let chain = r#"(import "b" "second" (global $their_second i32))"#;
    let a = text("b", 1, r#"(global (export "third") i32 (i32.mul (global.get $their_second) (i32.const 10)))"#)
        .replacen("(memory $mine", &format!("{chain} (memory $mine"), 1)
        .replace(
            r#"(func (export "second_of")"#,
            r#"(func (export "third_of") (result i32) (global.get 5)) (func (export "second_of")"#,
        );
    let b = text("a", 2, "");
    let both = || add("a", &a).and(add("b", &b));
    for step in SwapStep::ALL {
        ns.swap(both().fail_at(step)).unwrap_err();
        assert_eq!(ns.crate_count(), 0);
    }
    ns.swap(both()).unwrap();
    assert_eq!((call(&ns, "a", "second_of"), call(&ns, "b", "second_of")), (3, 2));
    let third = ns.get_crate("a").unwrap().export("third").and_then(|s| match &s.item {
        namespace_bridge::SectionItem::Global(g) => Some(g.value()),
        _ => None,
    });
    assert!(matches!(third, Some(namespace_bridge::Val::I32(20))), "{third:?}");
    assert_eq!((call(&ns, "a", "write"), call(&ns, "b", "write")), (0, 1));
    assert_eq!((call(&ns, "a", "write"), call(&ns, "b", "var_of"), call(&ns, "a", "var_of")), (2, 4, 3));
    // Slot 0 of each table is its owner's function, slot 1 the other's.
    assert_eq!((call(&ns, "a", "through"), call(&ns, "b", "through")), (202, 101));
    let domain = |cell: &str| ns.get_crate(cell).unwrap().instance().unwrap().domain().unwrap();
    assert!(domain("a").is_same(&domain("b")), "they share state, so one task is inside of both");
}

#[test]
fn what_is_only_passed_on_is_found_and_refused_in_a_circle() {
    let ns = namespace();
    let pass = |from: &str, under: &str| {
        format!(r#"(module (import "{from}" "x" (func $x (result i32))) (export "x" (func $x)) {under})"#)
    };
    // c defines it, b passes it on, a passes that on and is what c needs.
    let c = r#"(module (import "a" "x" (func $a (result i32))) (func (export "x") (result i32) (i32.const 5))
        (func (export "f") (param i32) (result i32) (call $a)))"#;
    ns.swap(add("a", &pass("b", "")).and(add("b", &pass("c", ""))).and(add("c", c))).unwrap();
    assert_eq!((ask(&ns, "c", 0), call(&ns, "a", "x")), (5, 5));
    // Nobody defines it.
    let found = problems(ns.swap(add("p", &pass("q", "")).and(add("q", &pass("p", "")))).unwrap_err());
    let names = |p: &SwapProblem| matches!(p, SwapProblem::Cycle { exports } if exports.contains("`p::x`") && exports.contains("`q::x`"));
    assert!(found.iter().any(names), "{found:?}");
    // Nor this value.
    let value = |from: &str| {
        format!(r#"(module (import "{from}" "g" (global $g i32)) (global (export "g") i32 (global.get $g)))"#)
    };
    let refused = ns.swap(add("p", &value("q")).and(add("q", &value("p")))).unwrap_err().to_string();
    assert!(refused.contains("`p`") && refused.contains("`q`"), "{refused}");
    assert_eq!(ns.crate_count(), 3);
}

#[test]
fn start_functions_call_each_others_new_versions() {
    let ns = namespace();
    load(&ns, "lib", r#"(module (func (export "f") (param i32) (result i32) (i32.const 1)) (func (export "up")))"#);
    load(&ns, "app", r#"(module (func (export "f") (param i32) (result i32) (i32.const 0)))"#);
    // `app` starts by asking `lib`, whose start function has to have run; `lib` calls `app` only later.
    let app = r#"(module (import "lib" "f" (func $f (param i32) (result i32))) (global $got (mut i32) (i32.const 0))
        (start $s) (func $s (global.set $got (call $f (i32.const 0))))
        (func (export "f") (param i32) (result i32) (i32.add (global.get $got) (local.get 0))))"#;
    let lib = r#"(module (import "helper" "f" (func $f (param i32) (result i32))) (global $ready (mut i32) (i32.const 0)) (start $s)
        (func $s (global.set $ready (call $f (i32.const 40)))) (func (export "up"))
        (func (export "f") (param i32) (result i32) (if (result i32) (local.get 0) (then (call $f (i32.const 1))) (else (global.get $ready)))))"#;
    let helper = r#"(module (import "app" "f" (func $f (param i32) (result i32)))
        (func (export "f") (param i32) (result i32) (if (result i32) (i32.eq (local.get 0) (i32.const 40)) (then (i32.const 42)) (else (call $f (i32.const 7))))))"#;
    ns.swap(replace("app", app).and(replace("lib", lib)).and(add("helper", helper))).unwrap();
    assert_eq!((ask(&ns, "app", 0), ask(&ns, "lib", 1)), (42, 49));
}

#[test]
fn callers_of_cells_that_need_each_other_see_whole_steps() {
    let ns = namespace();
    // Every answer names the version of both.
    let text = |other: &str, n: i32| {
        format!(
            r#"(module (import "{other}" "n" (func $n (result i32))) (func (export "n") (result i32) (i32.const {n}))
            (func (export "f") (param i32) (result i32) (i32.add (i32.mul (i32.const 100000) (i32.const {n})) (call $n))))"#
        )
    };
    ns.swap(add("a", &text("b", 1)).and(add("b", &text("a", 1)))).unwrap();
    let [a, b] = ["a", "b"].map(|c| ns.get_crate(c).unwrap().typed_func::<(i32,), i32>("f").unwrap());
    let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|s| {
        for f in [&a, &b] {
            let (stop, calls) = (&stop, &calls);
            s.spawn(move || {
                let mut last = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = f.call((0,)).unwrap();
                    let (mine, theirs) = (answer / 100_000, answer % 100_000);
                    // A call that began before a step may see the other cell after it, never the other way round.
                    assert!(mine >= last && theirs >= mine, "{mine} {theirs} after {last}");
                    last = theirs;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for n in 2..200 {
            ns.swap(replace("a", &text("b", n)).and(replace("b", &text("a", n))).keep_old(n % 3 == 0)).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(calls.load(Ordering::Relaxed) > 0);
    assert_eq!(a.call((0,)).unwrap(), 199 * 100_001);
}
