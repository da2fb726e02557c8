//! What differs between two versions of a module, as a person sees it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use namespace_bridge::{LoadOptions, ModuleDiff, compile_module};

fn diff(old: &str, new: &str) -> ModuleDiff {
    let module = |text| compile_module("cell", &wat::parse_str(text).unwrap(), &LoadOptions::default()).unwrap();
    ModuleDiff::between(&module(old), &module(new))
}

fn names<T>(items: &[T], name: impl Fn(&T) -> &String) -> Vec<&str> {
    items.iter().map(|i| name(i).as_str()).collect()
}

const NAMED: &str = r#"(module
    (import "a" "f" (func $f)) (import "a" "g" (func $g)) (memory (export "memory") 1) (table 2 funcref)
    (global $count (mut i32) (i32.const 1))
    (func $one (param i32) (result i32) (call $two (local.get 0)))
    (func $two (param i32) (result i32) (i32.add (local.get 0) (i32.const 2)))
    (func $three (call $f))
    (func $four (export "four") (call $three) (global.set $count (i32.const 3)))
    (elem (i32.const 0) $one $two) (data (i32.const 0) "abc"))"#;

/// `NAMED` with `from` made `to`.
fn after(from: &str, to: &str) -> ModuleDiff {
    assert!(NAMED.contains(from), "{from}");
    diff(NAMED, &NAMED.replacen(from, to, 1))
}

#[test]
fn equal_modules_have_no_differences() {
    let diff = diff(NAMED, NAMED);
    assert!(diff.is_empty());
    assert_eq!((diff.functions.unchanged, diff.functions.bodies_compared), (4, true));
    assert_eq!(diff.to_string(), "functions: 4 unchanged\n");
}

#[test]
fn functions_are_added_removed_changed_and_retyped_by_name() {
    let d = after("(func $two", "(func $new (result i64) (i64.const 1)) (func $two");
    assert_eq!((names(&d.functions.added, |i| &i.name), d.functions.unchanged), (vec!["new"], 4));
    assert_eq!(d.functions.added[0].content, "func () -> (i64)");
    let d = after("(i32.const 2))", "(i32.const 5))");
    assert_eq!((d.functions.changed.as_slice(), d.functions.unchanged), (&["two".to_string()][..], 3));
    let retyped =
        NAMED.replace("(func $three", "(func $three (param f32)").replace("(call $three", "(call $three (f32.const 1)");
    let d = diff(NAMED, &retyped);
    assert_eq!(d.functions.changed, ["four"]);
    assert_eq!(names(&d.functions.retyped, |c| &c.name), ["three"]);
    let d = diff(&NAMED.replace("(func $three", "(func $gone (param i64)) (func $three"), NAMED);
    assert_eq!((names(&d.functions.removed, |i| &i.name), d.functions.unchanged), (vec!["gone"], 4));
}

#[test]
fn a_call_of_another_function_is_a_change_although_the_code_is_the_same() {
    let d = after("(func $three (call $f))", "(func $three (call $g))");
    assert_eq!(d.functions.changed, ["three"]);
}

#[test]
fn numbers_alone_are_no_change() {
    let d = after("(import \"a\" \"f\" (func $f))", "(import \"a\" \"new\" (func)) (import \"a\" \"f\" (func $f))");
    assert_eq!(d.functions.unchanged, 4);
    assert_eq!(names(&d.imports.added, |i| &i.name), ["a.new"]);
    assert_eq!(d.imports.unchanged, 2);
    assert!(d.elements.is_empty(), "the same functions have other numbers");
}

#[test]
fn functions_without_names_correspond_by_what_they_do_and_by_their_place() {
    let old = "(module (func (param i32)) (func (result i64) (i64.const 1)) (func (result i32) (i32.const 1)) (func (param f32)))";
    let new = "(module (func (param i32)) (func (result i32) (i32.const 9)) (func (param f32)) (func (result i64) (i64.const 1)))";
    let d = diff(old, new);
    assert_eq!((d.functions.unchanged, d.functions.changed.as_slice()), (3, &[][..]));
    assert_eq!((d.functions.added.len(), d.functions.removed.len()), (1, 1));
    let in_place = "(module (func (param i32)) (func (result i64) (i64.const 2)) (func (result i32) (i32.const 1)) (func (param f32)))";
    assert_eq!(diff(old, in_place).functions.changed, ["function 1"]);
}

#[test]
fn everything_else_is_compared_too() {
    let d = after("(memory (export \"memory\") 1)", "(memory (export \"memory\") 2) (memory 1)");
    assert_eq!(
        (names(&d.memories.changed, |c| &c.name), names(&d.memories.added, |i| &i.name)),
        (vec!["memory"], vec!["memory 1"])
    );
    assert_eq!(names(&d.exports.changed, |c| &c.name), ["memory"]);
    let d = after("(i32.const 1))", "(i32.const 7))");
    assert_eq!(
        (&*d.globals.changed[0].from, &*d.globals.changed[0].to),
        ("global (mut i32) = 1", "global (mut i32) = 7")
    );
    assert_eq!(after("(table 2 funcref)", "(table 3 funcref)").tables.changed.len(), 1);
    assert_eq!(after("$one $two)", "$two $one)").elements.changed[0].to, "other functions");
    assert_eq!(after("\"abc\"", "\"abd\"").data.changed[0].to, "other contents");
    assert_eq!(after("\"abc\"", "\"abcd\"").data.changed[0].to, "4 bytes at 0 of memory 0");
    assert_eq!(after("(export \"four\")", "(export \"vier\")").exports.removed[0].name, "four");
    assert_eq!(after("(elem", "(start $four) (elem").start.added[0].content, "four");
}

#[test]
fn it_is_shown_with_what_differs_only() {
    let d = diff(
        NAMED,
        &NAMED.replace("(i32.const 2))", "(i32.const 5))").replace("(func $three", "(func $extra) (func $three"),
    );
    assert_eq!(d.to_string(), "functions: 1 added, 1 changed, 3 unchanged\n  + extra  func () -> ()\n  ~ two\n");
    let d = after("\"abc\"", "\"abd\"");
    assert_eq!(
        d.to_string(),
        "functions: 4 unchanged\ndata segments: 1 changed, 0 unchanged\n  ~ data 0  3 bytes at 0 of memory 0 → other contents\n"
    );
}
