//! Calls between native and wasm cells, by type.

use crate::compile::{cc, rustc_typed};
use crate::{invoke, load, namespace};
use namespace_bridge::{CallError, CrateNamespace, LoadOptions, Val, catch_trap};

const COUNTER: &str = r#"(module
    (global $n (mut i32) (i32.const 0))
    (func (export "inc") (param i32) (result i32)
        (global.set $n (i32.add (global.get $n) (local.get 0))) (global.get $n))
    (func (export "many") (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64)
        (i64.add (i64.mul (local.get 0) (i64.const 100)) (i64.sub (local.get 7) (local.get 6))))
    (func (export "fail") unreachable))"#;

fn wasm(ns: &CrateNamespace, name: &str, text: &str) -> namespace_bridge::StrongCrateRef {
    ns.load_wasm(name, &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

#[test]
fn wasm_calls_typed_exports_of_rust_by_every_convention() {
    for level in ["-Copt-level=0", "-Copt-level=3"] {
        let ns = namespace();
        let math = load(&ns, "math", &rustc_typed("math", &[level]));
        let user = wasm(
            &ns,
            "user",
            r#"(module
                (import "math" "add" (func $add (param i32 i32) (result i32)))
                (import "math" "mixed" (func $mixed (param i64 f64 f32 i32) (result f64)))
                (import "math" "many" (func $many (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64)))
                (import "math" "divide" (func $divide (param i32 i32) (result i32 i32)))
                (table funcref (elem $add))
                (type $binary (func (param i32 i32) (result i32)))
                (func (export "add") (param i32 i32) (result i32) (call $add (local.get 0) (local.get 1)))
                (func (export "indirect") (param i32 i32) (result i32)
                    (call_indirect (type $binary) (local.get 0) (local.get 1) (i32.const 0)))
                (func (export "mixed") (result f64)
                    (call $mixed (i64.const 1) (f64.const 2.5) (f32.const 0.25) (i32.const 7)))
                (func (export "many") (result i64)
                    (call $many (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)
                                (i64.const 5) (i64.const 6) (i64.const 7) (i64.const 8)))
                (func (export "divide") (param i32 i32) (result i32 i32) (call $divide (local.get 0) (local.get 1))))"#,
        );
        let call = |name: &str, args: &[Val]| invoke(&user, name, args).unwrap();
        assert_eq!(call("add", &[Val::I32(3), Val::I32(4)]), [Val::I32(7)]);
        assert_eq!(call("indirect", &[Val::I32(3), Val::I32(5)]), [Val::I32(8)]);
        assert_eq!(call("mixed", &[]), [Val::F64(10.75f64.to_bits())]);
        assert_eq!(call("many", &[]), [Val::I64(1 + 4 + 9 + 16 + 25 + 36 + 49 + 64)]);
        assert_eq!(call("divide", &[Val::I32(17), Val::I32(5)]), [Val::I32(3), Val::I32(2)]);
        // The same exports by handle, as those of a wasm cell.
        assert_eq!(math.typed_func::<(i32, i32), i32>("add").unwrap().call((20, 22)).unwrap(), 42);
        assert_eq!(invoke(&math, "divide", &[Val::I32(9), Val::I32(4)]).unwrap(), [Val::I32(2), Val::I32(1)]);
        let error = ns.unload("math").unwrap_err().to_string();
        assert!(error.contains("user") && error.contains("math::add"), "{error}");
        ns.unload("user").unwrap();
        ns.unload("math").unwrap();
    }
}

#[test]
fn a_type_that_does_not_fit_is_a_link_error_that_names_both_sides() {
    let ns = namespace();
    load(&ns, "math", &rustc_typed("math", &["-Copt-level=1"]));
    let text = r#"(module (import "math" "add" (func (param i32) (result i32)))
                          (import "math" "undescribed" (func (param i32) (result i32)))
                          (import "math" "subtract" (func)))"#;
    let error = ns.load_wasm("user", &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("expected func (i32) -> (i32), found func (i32, i32) -> (i32)"), "{error}");
    assert!(error.contains("`undescribed` without a type") && error.contains("cell_export!"), "{error}");
    assert!(error.contains("unknown import `math::subtract`"), "{error}");
}

#[test]
fn symbols_without_description_bind_only_when_the_loader_vouches_for_them() {
    let ns = namespace();
    load(&ns, "math", &rustc_typed("math", &["-Copt-level=1"]));
    let text = r#"(module (import "math" "undescribed" (func $f (param i32) (result i32)))
                          (func (export "call") (param i32) (result i32) (call $f (local.get 0)))
                          (func (export "ref") (result funcref) (ref.func $f)) (elem declare func $f))"#;
    let bytes = wat::parse_str(text).unwrap();
    // SAFETY: the fixture has this type.
    let options = unsafe { LoadOptions::default().assume_native_types() };
    for name in ["first", "second"] {
        let user = ns.load_wasm(name, &bytes, options.clone()).unwrap();
        assert_eq!(invoke(&user, "call", &[Val::I32(14)]).unwrap(), [Val::I32(42)]);
    }
    let error = ns.unload("math").unwrap_err().to_string();
    assert!(error.contains("first") && error.contains("second"), "{error}");
}

#[test]
fn native_cells_call_exports_of_wasm_cells_and_of_the_embedder_by_symbol() {
    for level in ["-Copt-level=0", "-Copt-level=3"] {
        let ns = namespace();
        ns.define("env", "twice", |x: i32| 2 * x).unwrap();
        wasm(&ns, "counter", COUNTER);
        let caller = load(&ns, "caller", &rustc_typed("caller", &[level]));
        let call = |name: &str, args: &[Val]| invoke(&caller, name, args);
        assert_eq!(call("inc_twice", &[Val::I32(4)]).unwrap(), [Val::I32(8)]);
        assert_eq!(call("call_many", &[Val::I64(3)]).unwrap(), [Val::I64(300)]);
        assert_eq!(call("call_twice", &[Val::I32(21)]).unwrap(), [Val::I32(42)]);
        // A trap unwinds the native frames between it and its catch.
        let error = call("call_fail", &[]).unwrap_err();
        assert!(matches!(&error, CallError::Trap(t) if t.to_string().contains("unreachable")), "{error}");
        assert_eq!(call("drops", &[]).unwrap(), [Val::I64(1)]);
        let depends: Vec<String> = caller.dependencies().iter().map(|(s, _)| s.name.to_string()).collect();
        assert!(depends.contains(&"counter::inc".into()) && depends.contains(&"env::twice".into()), "{depends:?}");
        assert!(ns.unload("counter").unwrap_err().to_string().contains("caller"));
        ns.unload_force("counter").unwrap();
        let error = call("inc_twice", &[Val::I32(4)]).unwrap_err().to_string();
        assert!(error.contains("inc"), "{error}");
    }
}

#[test]
fn panics_of_native_exports_unwind_through_wasm() {
    let ns = namespace();
    let math = load(&ns, "math", &rustc_typed("math", &["-Copt-level=3"]));
    let text = r#"(module (import "math" "fail" (func $fail (param i32) (result i32)))
                          (func (export "f") (param i32) (result i32) (i32.add (i32.const 1) (call $fail (local.get 0)))))"#;
    let user = wasm(&ns, "user", text);
    let f = user.typed_func::<(i32,), i32>("f").unwrap();
    assert_eq!(f.call((1,)).unwrap(), 2);
    let reason = runtime_port::unwind::catch_unwind_with_arg(|x| f.call((x,)).unwrap(), -1).unwrap_err();
    assert_eq!(reason.message(), Some("negative"));
    assert_eq!(math.typed_func::<(), i64>("drops").unwrap().call(()).unwrap(), 2);
    assert_eq!(catch_trap(|| f.call((5,)).unwrap()).unwrap(), 6);
}

#[test]
fn c_describes_its_exports_by_the_header_and_calls_wasm() {
    let include = format!("-I{}/../cell_export/include", env!("CARGO_MANIFEST_DIR"));
    for compiler in ["gcc", "clang", "g++", "clang++"] {
        let language = if compiler.contains("++") { "-xc" } else { "-std=c11" };
        let Some(object) = cc(compiler, "c_math.c", &["-O2", "-fPIC", "-Wall", "-Werror", language, &include]) else {
            continue;
        };
        let ns = namespace();
        wasm(&ns, "counter", COUNTER);
        let cell = load(&ns, "c_math", &object);
        assert_eq!(cell.typed_func::<(i32, i64), i32>("c_add").unwrap().call((1, 2)).unwrap(), 3);
        assert_eq!(cell.typed_func::<(), i32>("c_count").unwrap().call(()).unwrap(), 5);
        assert_eq!(invoke(&cell, "divide-with-rest", &[Val::I32(9), Val::I32(4)]).unwrap(), [Val::I32(2), Val::I32(1)]);
        let wrong = cc(compiler, "wrong_signature.c", &["-O2", "-fPIC", language, &include]).unwrap();
        let error = ns.load_native("wrong", &wrong, LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("i32(int)") && error.contains("write `i32(i32,i64)`"), "{error}");
    }
}
