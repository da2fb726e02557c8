//! Calls and traps on compiled modules, linked by hand.

mod host;
mod linked;

use linked::{Import, Linked, host};

use super::*;
use crate::typed::Func;
use crate::val::Val;
use alloc::{format, string::String, string::ToString, sync::Arc, vec, vec::Vec};
use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use wasm_cell::types::FuncType;

#[test]
fn typed_calls_pass_arguments_and_results() {
    let cell = Linked::new(
        r#"(module
            (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
            (func (export "mix") (param i32 f64 i64 f32) (result f64)
                (f64.add (f64.add (f64.convert_i32_s (local.get 0)) (local.get 1))
                    (f64.add (f64.convert_i64_s (local.get 2)) (f64.promote_f32 (local.get 3)))))
            (func (export "swap") (param i32 i64) (result i64 i32) (local.get 1) (local.get 0))
            (func (export "nothing")))"#,
        vec![],
    );
    assert_eq!(cell.typed::<(i32, i32), i32>("add").call((2, 40)).unwrap(), 42);
    assert_eq!(cell.typed::<(u32, u32), u32>("add").call((u32::MAX, 2)).unwrap(), 1);
    assert_eq!(cell.typed::<(i32, f64, i64, f32), f64>("mix").call((1, 2.5, -3, 0.25)).unwrap(), 0.75);
    assert_eq!(cell.typed::<(i32, i64), (i64, i32)>("swap").call((7, 8)).unwrap(), (8, 7));
    cell.typed::<(), ()>("nothing").call(()).unwrap();
    let error = cell.func("add").typed::<(i64, i32), i32>().unwrap_err().to_string();
    assert!(error.contains("(i32, i32) -> (i32)") && error.contains("(i64, i32) -> (i32)"), "{error}");
}

/// A function that returns its parameters in reverse.
fn reversing(types: &[&str]) -> String {
    let results: Vec<&str> = types.iter().rev().copied().collect();
    let body: String = (0..types.len()).rev().map(|i| format!("(local.get {i}) ")).collect();
    format!(r#"(func (export "f") (param {}) (result {}) {body})"#, types.join(" "), results.join(" "))
}

#[test]
fn any_signature_can_be_called_with_values() {
    let all = ["i32", "f64", "v128", "i64", "f32", "externref"];
    for n in [0, 1, 2, 5, 6, 7, 8, 9, 13, 16, 17, 40, 200, 1000] {
        let types: Vec<&str> = (0..n).map(|i| all[(i * i + i / 3) % all.len()]).collect();
        let cell = Linked::new(&format!("(module {})", reversing(&types)), vec![]);
        let args: Vec<Val> = types
            .iter()
            .enumerate()
            .map(|(i, t)| match *t {
                "i32" => Val::I32(-(i as i32)),
                "i64" => Val::I64(i as i64 * -0x1_0000_0001),
                "f32" => Val::F32((i as f32 + 0.5).to_bits()),
                "f64" => Val::F64((i as f64 - 0.25).to_bits()),
                "v128" => Val::V128(u128::MAX / (i as u128 + 2)),
                _ => Val::ExternRef(crate::ExternRef::new(i as u64)),
            })
            .collect();
        let mut results = vec![Val::I32(0); n];
        for _ in 0..3 {
            cell.func("f").call(&args, &mut results).unwrap();
            results.reverse();
            assert_eq!(results, args);
        }
    }
}

#[test]
fn sixteen_typed_arguments_and_results() {
    let types = ["i64"; 16];
    let cell = Linked::new(&format!("(module {})", reversing(&types)), vec![]);
    type Ints = (i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64, i64);
    let f = cell.typed::<Ints, Ints>("f");
    let out = f.call((1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)).unwrap();
    let (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p) = out;
    assert_eq!([a, b, c, d, e, f, g, h], [16, 15, 14, 13, 12, 11, 10, 9]);
    assert_eq!([i, j, k, l, m, n, o, p], [8, 7, 6, 5, 4, 3, 2, 1]);
}

#[test]
fn wrong_arguments_are_refused_by_type() {
    let cell = Linked::new(r#"(module (func (export "f") (param i32) (result i32) (local.get 0)))"#, vec![]);
    let mut one = [Val::I32(0)];
    let error = cell.func("f").call(&[Val::I64(1)], &mut one).unwrap_err();
    assert_eq!(error.to_string(), "the function takes (i32) -> (i32), but was given (i64)");
    assert!(matches!(cell.func("f").call(&[], &mut one), Err(CallError::Arguments { .. })));
    assert!(matches!(cell.func("f").call(&[Val::I32(1)], &mut []), Err(CallError::Results { .. })));
}

const TRAPS: &str = r#"(module
    (memory 1)
    (table 2 funcref)
    (func $inner (export "inner") unreachable)
    (func $middle (call $inner))
    (func (export "unreachable") (call $middle))
    (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
    (func (export "div") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
    (func (export "trunc") (param f32) (result i32) (i32.trunc_f32_s (local.get 0)))
    (func $deep (export "deep") (param i32) (result i32)
        (if (result i32) (local.get 0)
            (then (i32.add (i32.const 1) (call $deep (i32.sub (local.get 0) (i32.const 1)))))
            (else unreachable)))
    (func $forever (export "forever") (param i32) (result i32)
        (i32.add (i32.const 1) (call $forever (i32.add (local.get 0) (i32.const 1))))))"#;

#[test]
fn every_kind_of_trap_returns_with_code_function_and_offset() {
    let cell = Linked::new(TRAPS, vec![]);
    let trap = cell.typed::<(), ()>("unreachable").call(()).unwrap_err();
    assert_eq!(trap.code(), TrapCode::Unreachable);
    let names: Vec<String> = trap.frames().filter_map(|f| Some(f.wasm?.name.into_owned())).collect();
    assert_eq!(names, ["inner", "middle", "unreachable"]);
    assert_eq!((trap.cell(), trap.function(), trap.depth()), (Some("test"), Some(0), 3));
    let offsets: Vec<u32> = trap.frames().filter_map(|f| f.wasm?.wasm_offset).collect();
    assert!(offsets.len() == 3 && offsets.is_sorted(), "{offsets:?}");
    assert!(format!("{trap:#}").contains("test!inner at wasm offset"), "{trap:#}");

    let load = cell.typed::<(i32,), i32>("load");
    assert_eq!(load.call((65532,)).unwrap(), 0);
    for at in [65533, 65536, -4, i32::MIN] {
        let trap = load.call((at,)).unwrap_err();
        assert_eq!(trap.code(), TrapCode::MemoryOutOfBounds);
        assert_eq!(trap.origin().unwrap().name, "load");
        assert!(trap.wasm_offset().is_some());
    }
    let div = cell.typed::<(i32, i32), i32>("div");
    assert_eq!(div.call((7, -2)).unwrap(), -3);
    assert_eq!(div.call((7, 0)).unwrap_err().code(), TrapCode::IntegerDivisionByZero);
    assert_eq!(div.call((i32::MIN, -1)).unwrap_err().code(), TrapCode::IntegerOverflow);
    let trunc = cell.typed::<(f32,), i32>("trunc");
    assert_eq!(trunc.call((f32::NAN,)).unwrap_err().code(), TrapCode::BadConversionToInteger);
    assert_eq!(trunc.call((3e9,)).unwrap_err().code(), TrapCode::IntegerOverflow);
}

#[test]
fn functions_whose_code_stands_in_place_of_calls_have_frames() {
    let text = r#"(module (import "h" "f" (func $host)) (memory 1)
        (func $load (param i32) (result i32) (i32.load offset=4 (local.get 0)))
        (func $say (call $host))
        (func (export "fault") (param i32) (result i32) (i32.add (call $load (local.get 0)) (i32.const 1)))
        (func (export "tell") (call $say) (call $say)))"#;
    let cell = Linked::new(text, vec![host(|| Err::<(), _>(String::from("no")))]);
    let fault = cell.typed::<(i32,), i32>("fault").call((65533,)).unwrap_err();
    let tell = cell.typed::<(), ()>("tell").call(()).unwrap_err();
    for (trap, expected) in [(fault, [("load", 1), ("fault", 3)]), (tell, [("say", 2), ("tell", 4)])] {
        let wasm: Vec<_> = trap.frames().filter_map(|f| f.wasm).collect();
        let found: Vec<_> = wasm.iter().map(|f| (&*f.name, f.function.unwrap())).collect();
        assert_eq!(found, expected, "{trap:#}");
        assert_eq!(trap.depth(), 2, "{trap:#}");
        assert_eq!((trap.origin().unwrap().name, trap.function()), (expected[0].0.into(), Some(expected[0].1)));
        // Each is where its own body is.
        let metadata = wasm[0].code().metadata();
        for frame in &wasm {
            assert_eq!(metadata.func_of(frame.wasm_offset.unwrap()), frame.function, "{trap:#}");
        }
    }
}

#[test]
fn deep_traps_count_all_frames_and_keep_the_innermost() {
    let cell = Linked::new(TRAPS, vec![]);
    let trap = cell.typed::<(i32,), i32>("deep").call((5000,)).unwrap_err();
    assert_eq!(trap.depth(), 5001);
    assert_eq!(trap.frames().count(), BACKTRACE_FRAMES);
    assert!(format!("{trap:#}").contains(&format!("and {} more", 5001 - BACKTRACE_FRAMES)));
}

/// Functions whose frames have about this many bytes, which recurse for ever.
fn recursion(bytes: usize) -> String {
    let locals = vec!["v128"; bytes / 16].join(" ");
    let n = bytes / 16;
    let load: String = (0..n).map(|i| format!("(local.set {} (v128.load (local.get 0)))", i + 1)).collect();
    let store: String = (0..n).map(|i| format!("(v128.store (local.get 0) (local.get {}))", i + 1)).collect();
    let locals = if n > 0 { format!("(local {locals})") } else { String::new() };
    format!(
        r#"(module (memory 1) (func $f (export "f") (param i32) (result i32) {locals} {load}
            (i32.add (i32.const 1) (call $f (i32.const 0))) {store}))"#
    )
}

fn overflow_many_times() {
    for bytes in [0, 1000, 5000, 100_000] {
        let cell = Linked::new(&recursion(bytes), vec![]);
        let f = cell.typed::<(i32,), i32>("f");
        for _ in 0..20 {
            let trap = f.call((0,)).unwrap_err();
            assert_eq!(trap.code(), TrapCode::StackOverflow, "{trap:#}");
            assert!(trap.depth() > 5, "{trap:#}");
            assert_eq!(trap.origin().unwrap().name, "f");
        }
    }
}

#[test]
fn stack_overflow_is_a_trap_on_every_task_any_number_of_times() {
    overflow_many_times();
    let handles: Vec<_> = (0..4).map(|_| std::thread::spawn(overflow_many_times)).collect();
    handles.into_iter().for_each(|h| h.join().unwrap());
}

struct CountDrop<'a>(&'a AtomicUsize);

impl Drop for CountDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_trap_below_native_frames_runs_their_destructors() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    let inner = Linked::new(TRAPS, vec![]);
    for (name, code) in [("unreachable", TrapCode::Unreachable), ("forever", TrapCode::StackOverflow)] {
        let func = inner.func(name);
        // SAFETY: a function without parameters and results ignores an argument and leaves the result undefined; the cell
        // outlives the calls.
        let raw: extern "C-unwind" fn(i32) -> i32 = unsafe { func.entry().unwrap() };
        let outer = Linked::new(
            r#"(module (import "h" "call" (func $call)) (func (export "run") (call $call)))"#,
            vec![host(move || {
                let _guard = CountDrop(&DROPPED);
                raw(0);
            })],
        );
        let run = outer.typed::<(), ()>("run");
        for _ in 0..10 {
            let before = DROPPED.load(Ordering::SeqCst);
            let trap = run.call(()).unwrap_err();
            assert_eq!(trap.code(), code);
            assert_eq!(DROPPED.load(Ordering::SeqCst), before + 1);
            assert_eq!(trap.origin().unwrap().cell, "test");
        }
    }
}

#[test]
fn backtraces_name_native_frames_and_the_platform_names_wasm_ones() {
    let inner = Linked::new(TRAPS, vec![]);
    // SAFETY: the function's signature; the cell outlives the calls.
    let raw: extern "C-unwind" fn() = unsafe { inner.func("unreachable").entry().unwrap() };
    let trap = catch_trap(|| raw()).unwrap_err();
    let text = format!("{trap:#}");
    assert!(text.contains("test!inner at wasm offset") && text.contains("(native)"), "{text}");
    let pc = trap.frames().next().unwrap().pc;
    let symbol = runtime_port::backtrace::resolve(pc - 1).unwrap();
    assert_eq!((symbol.module.as_deref(), symbol.name.as_str()), (Some("test"), "inner"));
}

#[test]
fn catch_trap_catches_what_closures_call_by_raw_entries() {
    let cell = Linked::new(TRAPS, vec![]);
    // SAFETY: the signature is the function's, and the cell outlives the calls.
    let load: extern "C-unwind" fn(i32) -> i32 = unsafe { cell.func("load").entry().unwrap() };
    assert_eq!(catch_trap(|| load(0)).unwrap(), 0);
    let dropped = AtomicUsize::new(0);
    let trap = catch_trap(|| {
        let _guard = CountDrop(&dropped);
        load(-1)
    });
    assert_eq!(trap.unwrap_err().code(), TrapCode::MemoryOutOfBounds);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

#[test]
fn a_raw_entry_outside_of_any_catch_unwinds_with_the_trap_as_payload() {
    let cell = Linked::new(TRAPS, vec![]);
    // SAFETY: as above.
    let f: extern "C-unwind" fn() = unsafe { cell.func("unreachable").entry().unwrap() };
    let payload = catch_unwind(|| f()).unwrap_err();
    assert_eq!(payload.downcast_ref::<Trap>().unwrap().code(), TrapCode::Unreachable);
}

#[test]
fn a_function_that_is_gone_traps_in_its_caller() {
    let ty = Arc::new(FuncType::new([], []));
    // SAFETY: the routine follows any signature.
    let gone = unsafe { Func::new(gone_routine(), ty, Arc::new(())) };
    let trap = gone.typed::<(), ()>().unwrap().call(()).unwrap_err();
    assert_eq!(trap.code(), TrapCode::FunctionGone);
    let cell = Linked::new(
        r#"(module (import "h" "f" (func $f)) (func (export "run") (call $f)))"#,
        vec![Import::Address(gone_routine())],
    );
    let trap = cell.typed::<(), ()>("run").call(()).unwrap_err();
    assert_eq!(trap.code(), TrapCode::FunctionGone);
    assert_eq!(trap.origin().unwrap().name, "run");
}

#[test]
fn floating_point_control_is_restored_at_the_catch() {
    fn control(set: Option<u32>) -> u32 {
        let mut now = 0u32;
        // SAFETY: reads and writes MXCSR, with all exceptions masked.
        unsafe {
            core::arch::asm!("stmxcsr [{}]", in(reg) &mut now);
            if let Some(v) = set {
                core::arch::asm!("ldmxcsr [{}]", in(reg) &v);
            }
        }
        now
    }
    extern "C-unwind" fn spoil() {
        control(Some(0x1f80 | 0x8040 | 0x6000));
    }
    let cell = Linked::new(
        r#"(module (import "n" "spoil" (func $spoil)) (func (export "run") (call $spoil) unreachable))"#,
        vec![Import::Address(spoil as *const () as usize)],
    );
    let before = control(None);
    assert!(cell.typed::<(), ()>("run").call(()).is_err());
    assert_eq!(control(None) & !0x3f, before & !0x3f);
}

#[test]
fn traps_in_all_tasks_at_once() {
    let cell = Linked::new(TRAPS, vec![]);
    std::thread::scope(|s| {
        for t in 0..8 {
            let (load, deep) = (cell.typed::<(i32,), i32>("load"), cell.typed::<(i32,), i32>("deep"));
            s.spawn(move || {
                for i in 0..500 {
                    assert_eq!(load.call((-1 - i,)).unwrap_err().code(), TrapCode::MemoryOutOfBounds);
                    assert_eq!(deep.call((t * 10,)).unwrap_err().depth(), t as usize * 10 + 1);
                }
            });
        }
    });
}
