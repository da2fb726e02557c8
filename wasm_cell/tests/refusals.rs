//! Modules that are not compiled say why, where, and what to do.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{compiler, try_compile};
use wasm_cell::{CompileError, CompileOptions, Compiler};

fn compile_bytes(wasm: &[u8]) -> Result<wasm_cell::CellObject, CompileError> {
    compiler().compile(wasm, &CompileOptions::default())
}

#[test]
fn invalid_body_gives_offset_and_reason() {
    let wasm = wat::parse_str("(module (func (result i32) nop i64.const 1))").unwrap();
    let Err(CompileError::Invalid { offset, reason }) = compile_bytes(&wasm) else { panic!("accepted") };
    assert!(reason.contains("type mismatch"), "{reason}");
    // The `end` of the body, where the result is taken.
    assert_eq!(offset, wasm.len() as u64 - 1);
}

#[test]
fn the_reason_is_the_same_whatever_was_compiled_before() {
    let wasm = |wat: &str| wat::parse_str(wat).unwrap();
    let before = wasm("(module (type (func (param i64))) (type (func (param f32 f32))) (func (type 1)))");
    // The validator numbers the types that it has seen, and names them so.
    let wrong = wasm(
        "(module (type $t (func (param i32))) (func (param (ref null $t)) (drop (ref.eq (local.get 0) (local.get 0)))))",
    );
    let refused = |compiler: &Compiler| match compiler.compile(&wrong, &CompileOptions::default()) {
        Err(CompileError::Invalid { offset, reason }) => (offset, reason),
        other => panic!("{:?}", other.map(|_| ())),
    };
    let (first, second) = (compiler(), compiler());
    second.compile(&before, &CompileOptions::default()).unwrap();
    let (offset, reason) = refused(&first);
    assert!(reason.contains("(id "), "{reason}");
    assert_eq!(refused(&second), (offset, reason));
}

#[test]
fn truncated_and_random_bytes_are_invalid() {
    let wasm =
        wat::parse_str(r#"(module (memory 1) (func (export "f") (result i32) i32.const 1) (data (i32.const 0) "x"))"#)
            .unwrap();
    for len in 0..wasm.len() {
        match compile_bytes(&wasm[..len]) {
            // A module may end behind any section.
            Ok(_) => assert!(len >= 8),
            Err(CompileError::Invalid { offset, .. }) => assert!(offset <= len as u64),
            Err(e) => panic!("{len}: {e}"),
        }
    }
    for (i, byte) in (0..wasm.len()).flat_map(|i| [0x00, 0x7f, 0x80, 0xff].map(|b| (i, b))) {
        let mut bytes = wasm.clone();
        bytes[i] = byte;
        if let Ok(object) = compile_bytes(&bytes) {
            object.validate().unwrap();
        }
    }
}

fn feature_of(wat: &str) -> &'static str {
    match try_compile(wat) {
        Err(CompileError::UnsupportedFeature { feature, .. }) => feature,
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn refused_proposals_are_named() {
    assert_eq!(feature_of("(module (type (struct (field i32))))"), "gc");
    assert_eq!(feature_of("(module (type (sub (func))))"), "gc");
    assert_eq!(feature_of("(module (func (param i31ref)))"), "gc");
    assert_eq!(feature_of("(module (func (result i32) (i31.get_s (ref.i31 (i32.const 1)))))"), "gc");
    assert_eq!(feature_of("(module (func (drop (ref.test (ref func) (ref.null func)))))"), "gc");
    assert_eq!(feature_of("(module (tag))"), "exception-handling");
    assert_eq!(feature_of("(module (func (try_table)))"), "exception-handling");
    assert_eq!(feature_of("(component)"), "component-model");
}

#[test]
fn what_gc_adds_outside_its_types_is_accepted() {
    try_compile("(module (rec (type $a (func (param (ref null $b)))) (type $b (func (result (ref null $a))))) (func (type $a)))")
        .unwrap();
    try_compile("(module (global $a i32 (i32.const 1)) (global i32 (global.get $a)))").unwrap();
}

#[test]
fn feature_offset_is_where_it_is_first_needed() {
    let wasm = wat::parse_str("(module (func nop) (func (try_table)))").unwrap();
    let Err(CompileError::UnsupportedFeature { offset, .. }) = compile_bytes(&wasm) else { panic!("accepted") };
    assert_eq!(wasm[offset as usize], 0x1f, "opcode of try_table");
}

#[test]
fn invalid_module_with_a_refused_feature_behind_the_error_is_invalid() {
    let error = try_compile("(module (func (result i32) i64.const 1) (func (try_table)))").unwrap_err();
    assert!(matches!(error, CompileError::Invalid { .. }), "{error}");
}

fn limit_of(wasm: &[u8]) -> &'static str {
    match compile_bytes(wasm) {
        Err(CompileError::Limit { what, value, limit }) => {
            assert!(value > limit);
            what
        }
        Err(e) => panic!("{e}"),
        Ok(_) => panic!("accepted"),
    }
}

#[test]
fn limits_are_named() {
    let locals = format!("(module (func (local {})))", "i32 ".repeat(50_001));
    assert_eq!(limit_of(&wat::parse_str(locals).unwrap()), "locals of a function");
    let memories = format!("(module {})", "(memory 0)".repeat(101));
    assert_eq!(limit_of(&wat::parse_str(memories).unwrap()), "memories");
    let nested = [b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0".to_vec(), body_of_blocks(10_001)].concat();
    assert_eq!(limit_of(&nested), "nested blocks of a function");
    let exports = (0..100_001).map(|i| format!("(export \"{i}\" (func 0))")).collect::<String>();
    assert_eq!(limit_of(&wat::parse_str(format!("(module (func) {exports})")).unwrap()), "exports");
}

/// A code section with one body of `depth` nested blocks.
fn body_of_blocks(depth: usize) -> Vec<u8> {
    let mut body = vec![0];
    body.extend([2, 0x40].repeat(depth));
    body.extend([0x0b].repeat(depth + 1));
    let mut section = vec![1];
    section.extend(leb(body.len()));
    section.extend(body);
    let mut bytes = vec![10];
    bytes.extend(leb(section.len()));
    bytes.extend(section);
    bytes
}

fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = vec![];
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}

#[test]
fn small_bodies_that_make_huge_code_are_refused() {
    // A thousand results per call, thousands of branches that carry them.
    let results = "i32 ".repeat(1000);
    let body = "(br_if 0 (i32.const 0))".repeat(20_000);
    let error = try_compile(&format!(
        "(module (import \"m\" \"f\" (func $f (result {results}))) (func (result {results}) (call $f) {body}))"
    ))
    .unwrap_err();
    assert!(matches!(&error, CompileError::Codegen { function: 1, .. }), "{error}");
}

#[test]
fn modules_do_not_depend_on_the_types_of_those_before() {
    let used = compiler();
    for i in 0..300 {
        // Types that come again, types that are new, groups of types that refer to each other, modules that are not valid.
        let params = |n: usize| ["i32 ", "i64 ", "f32 "].map(|t| t.repeat(n % 7)).concat();
        let text = format!(
            "(module (type $a (func (param {} {}))) (rec (type $b (func (param (ref null $c)))) (type $c (func (result (ref null $b)))))
               (func (export \"f\") (type $c) ref.null $b) (func (type $a)) {})",
            params(i / 10),
            params(i % 3),
            if i % 5 == 4 { "(func (result i32) i64.const 1)" } else { "" },
        );
        let wasm = wat::parse_str(&text).unwrap();
        let alone = compile_bytes(&wasm);
        match used.compile(&wasm, &CompileOptions::default()) {
            Ok(object) => assert_eq!(object, alone.unwrap(), "{text}"),
            Err(error) => assert_eq!(error.to_string(), alone.unwrap_err().to_string(), "{text}"),
        }
    }
}

#[test]
fn compiler_goes_on_after_an_error() {
    let compiler = compiler();
    let good = wat::parse_str("(module (func (result i32) i32.const 1))").unwrap();
    let bad =
        wat::parse_str("(module (func (result i32) i32.const 1) (func (result i32) (block (i32.const 1))))").unwrap();
    let before = compiler.compile(&good, &CompileOptions::default()).unwrap();
    compiler.compile(&bad, &CompileOptions::default()).unwrap_err();
    assert_eq!(compiler.compile(&good, &CompileOptions::default()).unwrap(), before);
}
