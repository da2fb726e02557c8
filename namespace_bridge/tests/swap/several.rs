//! Several cells in one step.

use super::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

fn f(n: i64) -> String {
    format!(r#"(module (func (export "f") (result i64) (i64.const {n})))"#)
}

/// Has arguments in all registers and on the stack, and is called while its cell is closed.
fn g(n: i64) -> String {
    let params = "(param i64 i64 i64 i64 i64 i64 i64 f64 f64 f64 f64 f64 f64 f64 f64 f64)";
    format!(
        r#"(module (func (export "g") {params} (result i64)
        (if (i64.ne (i64.const 28) (i64.add (i64.add (i64.add (local.get 0) (local.get 1)) (i64.add (local.get 2) (local.get 3)))
            (i64.add (i64.add (local.get 4) (local.get 5)) (local.get 6)))) (then unreachable))
        (if (f64.ne (f64.const 45) (f64.add (f64.add (f64.add (f64.add (local.get 7) (local.get 8)) (f64.add (local.get 9) (local.get 10)))
            (f64.add (f64.add (local.get 11) (local.get 12)) (f64.add (local.get 13) (local.get 14)))) (local.get 15))) (then unreachable))
        (i64.const {n})))"#
    )
}

type G = (i64, i64, i64, i64, i64, i64, i64, f64, f64, f64, f64, f64, f64, f64, f64, f64);

#[test]
fn nobody_sees_the_new_f_and_then_the_old_g() {
    let ns = namespace();
    let call_f = load(&ns, "f", &f(0)).typed_func::<(), i64>("f").unwrap();
    let call_g = load(&ns, "g", &g(0)).typed_func::<G, i64>("g").unwrap();
    let (stop, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let seen = call_f.call(()).unwrap();
                    let args = (1, 2, 3, 4, 5, 6, 7, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0);
                    let then = call_g.call(args).unwrap();
                    assert!(then >= seen, "f of version {seen}, then g of version {then}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for version in 1..300 {
            let report = ns.swap(replace("f", &f(version)).and(replace("g", &g(version)))).unwrap();
            assert_eq!(report.stores, 2);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(calls.load(Ordering::Relaxed) > 0);
    assert_eq!(call_f.call(()).unwrap(), 299);
}

#[test]
fn new_versions_import_from_each_other_and_old_users_among_them_do_not_count() {
    let ns = namespace();
    load(&ns, "lib", r#"(module (func (export "f") (result i32) (i32.const 1)))"#);
    load(
        &ns,
        "app",
        r#"(module (import "lib" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#,
    );
    // The export has another name and another type now: each alone would be refused.
    let lib = r#"(module (func (export "h") (param i32) (result i32) (i32.add (local.get 0) (i32.const 10))))"#;
    let app = r#"(module (import "lib" "h" (func $h (param i32) (result i32))) (func (export "g") (result i32) (call $h (i32.const 5))))"#;
    assert_eq!(problems(ns.swap(replace("lib", lib)).unwrap_err()).len(), 1);
    assert_eq!(problems(ns.swap(replace("app", app)).unwrap_err()).len(), 1);
    assert_eq!(call(&ns, "app", "g"), 1);
    ns.swap(replace("app", app).and(replace("lib", lib))).unwrap();
    assert_eq!(call(&ns, "app", "g"), 15);
    // In one step they went, in one step they come back.
    let report = ns.rollback("lib").unwrap();
    assert_eq!((report.cells.len(), call(&ns, "app", "g")), (2, 1));
}

#[test]
fn a_start_function_calls_the_new_versions_that_come_with_it() {
    let ns = namespace();
    load(&ns, "lib", &constant(1));
    load(&ns, "app", r#"(module (func (export "got") (result i32) (i32.const 0)))"#);
    let app = r#"(module (import "lib" "f" (func $f (result i32))) (global $got (mut i32) (i32.const 0))
        (start $s) (func $s (global.set $got (call $f))) (func (export "got") (result i32) (global.get $got)))"#;
    ns.swap(replace("app", app).and(replace("lib", &constant(2)))).unwrap();
    assert_eq!(call(&ns, "app", "got"), 2);
}

#[test]
fn all_reasons_of_all_cells_are_given_at_once() {
    let ns = namespace();
    load(&ns, "a", &constant(1));
    load(&ns, "b", r#"(module (func (export "x") (param i32)) (func (export "y")))"#);
    load(
        &ns,
        "user",
        r#"(module (import "a" "f" (func (result i32))) (import "b" "x" (func (param i32))) (import "b" "y" (func)))"#,
    );
    let request = replace("a", r#"(module (import "nowhere" "n" (func)))"#)
        .and(replace("b", r#"(module (func (export "x") (param i64)))"#))
        .and(SwapRequest::new("c").with_wasm(&wasm("(module)")));
    let missing = problems(ns.swap(request.clone()).unwrap_err());
    assert!(matches!(&missing[..], [SwapProblem::NotFound { .. }]), "{missing:?}");
    load(&ns, "c", "(module)");
    let found = problems(ns.swap(request).unwrap_err());
    let count = |is: fn(&SwapProblem) -> bool| found.iter().filter(|p| is(p)).count();
    assert_eq!(count(|p| matches!(p, SwapProblem::Link(_))), 1, "{found:?}");
    assert_eq!(count(|p| matches!(p, SwapProblem::MissingExport { .. })), 2, "{found:?}");
    assert_eq!(count(|p| matches!(p, SwapProblem::Retyped { .. })), 1, "{found:?}");
    assert_eq!(found.len(), 4, "{found:?}");
}

#[test]
fn names_and_symbols_are_those_of_the_version_that_serves_however_many_cells_come_and_go_meanwhile() {
    use std::sync::atomic::{AtomicBool, Ordering};
    /// Ends the other thread, also when this one fails.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let ns = namespace();
    load(&ns, "a", &constant(1));
    ns.add_alias("alpha", &ns.get_crate("a").unwrap()).unwrap();
    let two = wasm(
        r#"(module (func (export "f") (result i32) (i32.const 2)) (func (export "g") (result i32) (i32.const 20)))"#,
    );
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        // Each load and unload makes what a swap has worked out stale.
        s.spawn(|| {
            for i in (0..7).cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
                let name = format!("other{i}");
                load(&ns, &name, &constant(i));
                assert_eq!(call(&ns, &name, "f"), i);
                ns.unload(&name).unwrap();
            }
        });
        let _stop = Stop(&stop);
        for i in 2..200 {
            let request = if i % 2 == 0 { SwapRequest::new("a").with_wasm(&two) } else { replace("a", &constant(1)) };
            ns.swap(request).unwrap();
            let cell = ns.get_crate("a").unwrap();
            assert_eq!(cell.version(), i);
            assert!(Arc::ptr_eq(&cell, &ns.get_crate("alpha").unwrap()));
            let version_of =
                |symbol: &str| ns.get_symbol(symbol).upgrade().map(|s| s.parent_crate.upgrade().unwrap().version());
            assert_eq!(version_of("a::f"), Some(i));
            assert_eq!(version_of("a::g"), (i % 2 == 0).then_some(i));
        }
    });
    assert_eq!((ns.crate_count(), ns.symbol_count()), (1, 1));
}
