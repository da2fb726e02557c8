//! Addresses that nobody keeps a list of: they reach the new version, or trap and say what is gone.

use super::*;
use namespace_bridge::entries::GoneFunction;

/// Holds functions of others in its table.
const HOLDER: &str = r#"(module (table (export "t") 4 funcref) (type $f (func (result i32)))
    (func (export "go") (param i32) (result i32) (call_indirect (type $f) (local.get 0))))"#;

fn giver(f: i32, g: Option<i32>) -> String {
    let g = g.map_or(String::new(), |g| {
        format!(r#"(func $g (export "g") (result i32) (i32.const {g})) (elem (i32.const 1) $g)"#)
    });
    format!(
        r#"(module (import "holder" "t" (table 4 funcref)) (elem (i32.const 0) $f)
        (func $f (export "f") (result i32) (i32.const {f})) {g})"#
    )
}

#[test]
fn references_in_tables_of_others_reach_the_new_version_or_say_what_is_gone() {
    let ns = namespace();
    let go = load(&ns, "holder", HOLDER).typed_func::<(i32,), i32>("go").unwrap();
    load(&ns, "giver", &giver(1, Some(10)));
    assert_eq!((go.call((0,)).unwrap(), go.call((1,)).unwrap()), (1, 10));
    let table = ns.get_crate("holder").unwrap().instance().unwrap().table(0).unwrap().clone();
    let elements = (table.get(0), table.get(1));
    ns.swap(replace("giver", &giver(2, None))).unwrap();
    assert_eq!(go.call((0,)).unwrap(), 2);
    let gone = go.call((1,)).unwrap_err();
    assert_eq!(gone.code(), TrapCode::FunctionGone);
    let what = gone.downcast_ref::<GoneFunction>().unwrap();
    assert_eq!((&*what.cell, &*what.function), ("giver", "g"));
    assert_eq!((table.get(0), table.get(1)), elements, "references keep their identity");
    ns.swap(replace("giver", &giver(3, Some(30)))).unwrap();
    assert_eq!((go.call((0,)).unwrap(), go.call((1,)).unwrap()), (3, 30));
    assert_eq!((table.get(0), table.get(1)), elements);
}

#[test]
fn a_raw_pointer_to_a_vanished_function_says_so_outside_of_any_catch() {
    let ns = namespace();
    let cell = load(
        &ns,
        "a",
        r#"(module (func (export "f") (result i32) (i32.const 1)) (func (export "g") (result i32) (i32.const 2)))"#,
    );
    // SAFETY: the function's type; nothing is unloaded while it is called.
    let g: extern "C-unwind" fn() -> i32 = unsafe { cell.entry("g") }.unwrap();
    ns.swap(replace("a", &constant(3))).unwrap();
    let payload = std::panic::catch_unwind(|| g()).unwrap_err();
    let trap = payload.downcast::<Trap>().unwrap();
    assert!(trap.to_string().contains("function `g` of cell `a` is gone"), "{trap}");
}

#[test]
fn functions_without_a_name_in_a_static_of_native_code_follow() {
    static mut POINTERS: [Option<extern "C-unwind" fn(i32) -> i32>; 2] = [None; 2];
    let ns = namespace();
    let text = |k: i32| {
        format!(
            r#"(module (func (export "double") (param i32) (result i32) (i32.mul (local.get 0) (i32.const {k})))
            (func (export "add") (param i32) (result i32) (i32.add (local.get 0) (i32.const {k}))))"#
        )
    };
    let cell = load(&ns, "a", &text(2));
    // SAFETY: this test alone uses the static; the pointers are of these functions' type.
    unsafe { POINTERS = [Some(cell.entry("double").unwrap()), Some(cell.entry("add").unwrap())] };
    drop(cell);
    for k in [3, 4] {
        ns.swap(replace("a", &text(k))).unwrap();
        // SAFETY: as above.
        let [double, add] = unsafe { POINTERS };
        assert_eq!((double.unwrap()(10), add.unwrap()(10)), (10 * k, 10 + k));
    }
}

#[test]
fn two_exports_that_were_one_function_are_not_torn_apart_under_their_users() {
    let ns = namespace();
    load(&ns, "a", r#"(module (func $f (export "f") (export "g") (result i32) (i32.const 1)))"#);
    load(&ns, "user", r#"(module (import "a" "g" (func $g (result i32))) (func (export "h") (result i32) (call $g)))"#);
    let apart =
        r#"(module (func (export "f") (result i32) (i32.const 2)) (func (export "g") (result i32) (i32.const 3)))"#;
    let refused = problems(ns.swap(replace("a", apart)).unwrap_err());
    assert!(
        matches!(&refused[..], [SwapProblem::Split { what: "function", export, .. }] if export == "g"),
        "{refused:?}"
    );
    assert_eq!(call(&ns, "user", "h"), 1);
    // The other way round both follow.
    ns.unload("user").unwrap();
    ns.swap(replace("a", apart)).unwrap();
    load(&ns, "user", r#"(module (import "a" "g" (func $g (result i32))) (func (export "h") (result i32) (call $g)))"#);
    assert_eq!(call(&ns, "user", "h"), 3);
    let together = r#"(module (func (export "f") (export "g") (result i32) (i32.const 4)))"#;
    ns.swap(replace("a", together)).unwrap();
    assert_eq!((call(&ns, "user", "h"), call(&ns, "a", "f")), (4, 4));
}

#[test]
fn an_export_of_an_imported_function_can_take_the_place_of_an_own_one() {
    let ns = namespace();
    load(&ns, "lib", &constant(5));
    let f = load(&ns, "a", &constant(1)).typed_func::<(), i32>("f").unwrap();
    ns.swap(replace("a", r#"(module (import "lib" "f" (func $f (result i32))) (export "f" (func $f)))"#)).unwrap();
    assert_eq!((f.call(()).unwrap(), call(&ns, "a", "f")), (5, 5));
    ns.swap(replace("lib", &constant(6))).unwrap();
    assert_eq!(f.call(()).unwrap(), 6);
    // Who has linked to it since has the other cell's address, and would not come back.
    load(&ns, "user", r#"(module (import "a" "f" (func $g (result i32))) (func (export "h") (result i32) (call $g)))"#);
    let refused = problems(ns.swap(replace("a", &constant(7))).unwrap_err());
    assert!(matches!(&refused[..], [SwapProblem::Split { what: "function", .. }]), "{refused:?}");
}

/// Calls a function in a loop, keeping its address in a register all the time.
#[inline(never)]
fn call_in_a_loop(f: extern "C-unwind" fn(i32) -> i32, times: i32, changed_at: &mut Option<i32>) {
    for i in 0..times {
        if f(i) != 1 && changed_at.is_none() {
            *changed_at = Some(i);
        }
    }
}

#[test]
fn a_loop_that_keeps_the_pointer_in_a_register_sees_the_new_version_at_its_next_call() {
    let ns = namespace();
    let weak = Arc::downgrade(&ns);
    ns.define("env", "at", move |i: i32| {
        if i == 500 {
            let new = r#"(module (import "env" "at" (func (param i32))) (func (export "f") (param i32) (result i32) (i32.const 2)))"#;
            weak.upgrade().unwrap().swap(replace("a", new)).unwrap();
        }
    })
    .unwrap();
    let old = r#"(module (import "env" "at" (func $at (param i32)))
        (func (export "f") (param i32) (result i32) (call $at (local.get 0)) (i32.const 1)))"#;
    // SAFETY: the function's type.
    let f: extern "C-unwind" fn(i32) -> i32 = unsafe { load(&ns, "a", old).entry("f") }.unwrap();
    let mut changed_at = None;
    call_in_a_loop(f, 1000, &mut changed_at);
    assert_eq!(changed_at, Some(501));
}
