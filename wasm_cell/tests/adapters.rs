//! Adapters carry arguments and results between the two conventions, and panics across.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::{Code, code_of, compile, compiler};
use wasm_cell::Adapter;
use wasm_cell::types::{FuncType, ValType};

/// Maps an adapter with its unwind info behind it.
fn map(adapter: &Adapter, target: *const u8) -> Code {
    let mut image = adapter.code.clone();
    image.extend_from_slice(&adapter.eh_frame);
    let code = Code::map(&image);
    code.put(adapter.literal_offset, target as u64);
    code.register_unwind(adapter.code.len() as u32);
    code
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Results {
    a: i32,
    b: i64,
    c: f32,
    d: f64,
    e: i32,
    f: i32,
}

const WAT: &str = r#"(module
  (type $t (func (param i32 i64 i32 i64 i32 i64 i32 i64 f32 f64) (result i32 i64 f32 f64 i32 i32)))
  (import "n" "f" (func $n (type $t)))
  (func (export "own") (type $t)
    (i32.add (local.get 0) (local.get 6))
    (i64.add (local.get 1) (local.get 7))
    (local.get 8) (local.get 9)
    (i32.sub (local.get 2) (local.get 4))
    (i32.wrap_i64 (i64.sub (local.get 3) (local.get 5))))
  (func (export "relay") (type $t)
    (call $n (local.get 0) (local.get 1) (local.get 2) (local.get 3) (local.get 4) (local.get 5) (local.get 6)
             (local.get 7) (local.get 8) (local.get 9))))"#;

type Native = extern "C-unwind" fn(*mut Results, i32, i64, i32, i64, i32, i64, i32, i64, f32, f64) -> *mut Results;

extern "C-unwind" fn native(
    out: *mut Results,
    a: i32,
    b: i64,
    c: i32,
    d: i64,
    e: i32,
    f: i64,
    g: i32,
    h: i64,
    x: f32,
    y: f64,
) -> *mut Results {
    if a == -1 {
        panic!("asked to");
    }
    let r = Results { a: a + g, b: b + h, c: x, d: y, e: c - e, f: (d - f) as i32 };
    // SAFETY: the adapter passes the address of its own struct.
    unsafe { out.write(r) };
    out
}

fn entry(export: &str) -> (Native, Vec<Code>) {
    let object = compile(WAT);
    let ty = object.metadata.types[0].clone();
    let compiler = compiler();
    let cell = Code::map_cell(&object);
    cell.register_unwind(object.metadata.image.eh_frame_offset);
    let to_native = map(&compiler.compile_wasm_to_native(&ty).unwrap(), native as *const u8);
    cell.put(object.metadata.image.data_offset + object.metadata.layout.func_import_slots[0], to_native.at(0) as u64);
    let to_wasm = map(&compiler.compile_native_to_wasm(&ty).unwrap(), cell.at(code_of(&object, export).0));
    // SAFETY: the adapter has this C signature.
    let f = unsafe { std::mem::transmute::<*mut u8, Native>(to_wasm.at(0)) };
    (f, vec![cell, to_native, to_wasm])
}

#[test]
fn many_arguments_and_results_travel_both_ways() {
    let expected = Results { a: 1 + 7, b: 2 + 8, c: 9.5, d: 10.25, e: 3 - 5, f: 4 - 6 };
    for export in ["own", "relay"] {
        let (f, _code) = entry(export);
        let mut out = Results::default();
        let returned = f(&mut out, 1, 2, 3, 4, 5, 6, 7, 8, 9.5, 10.25);
        assert_eq!(returned, &raw mut out);
        assert_eq!(out, expected, "{export}");
    }
}

#[test]
fn panic_crosses_adapters_and_wasm_frames() {
    let (f, _code) = entry("relay");
    for _ in 0..3 {
        let caught = std::panic::catch_unwind(|| {
            let mut out = Results::default();
            f(&mut out, -1, 2, 3, 4, 5, 6, 7, 8, 9.5, 10.25);
        });
        assert!(caught.is_err());
    }
}

#[test]
fn results_lie_as_in_c() {
    let ty = FuncType::new(vec![], vec![ValType::I32, ValType::I64, ValType::F32, ValType::V128, ValType::I32]);
    let (offsets, size, align) = wasm_cell::adapter::results_layout(&ty);
    assert_eq!((&*offsets, size, align), (&[0, 8, 16, 32, 48][..], 64, 16));
}

#[test]
fn vectors_and_single_results_travel() {
    let object = compile(
        r#"(module (func (export "f") (param i32 i32 i32 i32 i32 i32 i64) (result i64)
            (i64.add (local.get 6) (i64.extend_i32_s (local.get 5)))))"#,
    );
    let cell = Code::map_cell(&object);
    let adapter = compiler().compile_native_to_wasm(&object.metadata.types[0]).unwrap();
    let code = map(&adapter, cell.at(code_of(&object, "f").0));
    type F = extern "C-unwind" fn(i32, i32, i32, i32, i32, i32, i64) -> i64;
    // SAFETY: the adapter has this C signature.
    let f = unsafe { std::mem::transmute::<*mut u8, F>(code.at(0)) };
    assert_eq!(f(1, 2, 3, 4, 5, -6, 1 << 40), (1 << 40) - 6);
}
