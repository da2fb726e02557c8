//! Panics that a guest or a careless caller could reach: every attempt gets an error.

use super::{call, load, namespace};
use namespace_bridge::{CallError, LoadOptions, Val};
use wasm_cell::trap::TrapCode;
use wasm_cell::types::{GlobalType, MemoryType, TableType, ValType};

#[test]
fn calls_with_arguments_of_any_kind_and_number_are_checked() {
    let ns = namespace();
    let cell = load(
        &ns,
        "f",
        r#"(module (func (export "f") (param i32 f64 v128 externref funcref) (result v128 externref)
            (local.get 2) (local.get 3)))"#,
    );
    let f = cell.func("f").unwrap();
    let good = [Val::I32(1), Val::F64(0), Val::V128(7), Val::ExternRef(None), Val::FuncRef(None)];
    let mut results = [Val::I32(0), Val::I32(0)];
    f.call(&good, &mut results).unwrap();
    assert_eq!(results[0], Val::V128(7));
    for n in 0..good.len() {
        assert!(matches!(f.call(&good[..n], &mut results), Err(e) if !matches!(e, CallError::Trap(_))));
        let mut bad = good;
        bad[n] = if n == 0 { Val::I64(1) } else { Val::I32(1) };
        assert!(f.call(&bad, &mut results).is_err(), "argument {n}");
    }
    assert!(f.call(&good, &mut []).is_err());
    assert!(f.call(&good, &mut [Val::I32(0); 3]).is_err());
}

#[test]
fn sizes_that_nobody_can_have_are_refused_with_an_error() {
    let ns = namespace();
    let options = LoadOptions::default();
    for text in [
        "(module (memory 65536))",
        "(module (memory i64 0x1000000000000))",
        "(module (memory i64 0xffffffffffff))",
        "(module (memory 65536 (pagesize 65536)))",
        "(module (table 0xffffffff funcref))",
        "(module (table i64 0xffffffffffffffff funcref))",
        "(module (table i64 0x1000000000000000 externref))",
    ] {
        if let Ok(bytes) = wat::parse_str(text) {
            // A 4 GiB memory may be had; everything else is an error.
            if ns.load_wasm("size", &bytes, options.clone()).is_ok() {
                assert!(text.contains("memory 65536"), "{text}");
                ns.unload("size").unwrap();
            }
        }
    }
    let memory = MemoryType { min: u64::MAX, max: None, shared: false, is64: true, page_size_log2: 16 };
    assert!(ns.define_memory("h", "m", memory, &options).is_err());
    let memory = MemoryType { min: 1, max: Some(0), ..memory };
    let _ = ns.define_memory("h", "n", memory, &options);
    let table = TableType { min: u64::MAX, max: None, is64: true, element: namespace_funcref() };
    assert!(ns.define_table("h", "t", table, &options).is_err());
    let global = GlobalType { content: ValType::I32, mutable: true };
    assert!(ns.define_global("h", "g", global, Val::I64(0)).is_err());
}

fn namespace_funcref() -> wasm_cell::types::RefType {
    wasm_cell::types::RefType { nullable: true, heap: wasm_cell::types::HeapType::Func }
}

#[test]
fn growing_beyond_every_limit_says_no() {
    let ns = namespace();
    let cell = load(
        &ns,
        "grow",
        r#"(module (memory $a 1) (memory $b i64 1) (table $t 1 funcref) (table $u i64 1 externref)
            (func (export "a") (param i32) (result i32) (memory.grow $a (local.get 0)))
            (func (export "b") (param i64) (result i64) (memory.grow $b (local.get 0)))
            (func (export "t") (param i32) (result i32) (table.grow $t (ref.null func) (local.get 0)))
            (func (export "u") (param i64) (result i64) (table.grow $u (ref.null extern) (local.get 0)))
            (func (export "fill") (param i64 i64) (table.fill $u (local.get 0) (ref.null extern) (local.get 1)))
            (func (export "copy") (param i64 i64 i64) (memory.copy $b $b (local.get 0) (local.get 1) (local.get 2))))"#,
    );
    for x in [-1, i32::MIN, 0x10000] {
        assert_eq!(call(&cell, "a", &[Val::I32(x)]), Ok(Val::I32(-1)));
    }
    for x in [-1, i32::MIN] {
        assert_eq!(call(&cell, "t", &[Val::I32(x)]), Ok(Val::I32(-1)));
    }
    for x in [-1, i64::MIN, 1 << 48, 1 << 61, i64::MAX] {
        assert_eq!(call(&cell, "b", &[Val::I64(x)]), Ok(Val::I64(-1)));
        assert_eq!(call(&cell, "u", &[Val::I64(x)]), Ok(Val::I64(-1)));
        assert_eq!(call(&cell, "fill", &[Val::I64(x), Val::I64(1)]), Err(TrapCode::TableOutOfBounds));
        assert_eq!(call(&cell, "fill", &[Val::I64(1), Val::I64(x)]), Err(TrapCode::TableOutOfBounds));
        let copy = call(&cell, "copy", &[Val::I64(x), Val::I64(0), Val::I64(1)]);
        assert_eq!(copy, Err(TrapCode::MemoryOutOfBounds));
        let copy = call(&cell, "copy", &[Val::I64(0), Val::I64(1), Val::I64(x)]);
        assert_eq!(copy, Err(TrapCode::MemoryOutOfBounds));
    }
}

#[test]
fn names_of_any_kind_are_only_names() {
    let ns = namespace();
    for name in ["", "\0", "a\u{202e}b", "::", "a::", "../..", "%s%n", "\u{1b}[2J"] {
        let text = format!(
            r#"(module (func (export "{0}") (result i32) i32.const 1))"#,
            name.chars().map(|c| format!("\\u{{{:x}}}", c as u32)).collect::<String>()
        );
        let cell = load(&ns, name, &text);
        assert_eq!(call(&cell, name, &[]), Ok(Val::I32(1)));
        drop(cell);
        ns.unload(name).unwrap();
    }
    let long = "x".repeat(90_000);
    let text = format!(r#"(module (func (export "{long}")))"#);
    let cell = load(&ns, "long", &text);
    assert!(call(&cell, &long, &[]).is_ok());
}
