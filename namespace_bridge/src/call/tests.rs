//! Calls, traps and host functions on compiled modules, linked by hand.

use super::*;
use crate::host::{HostFunc, IntoHostFunc, Thunk};
use crate::text_index::{self, TextRegistration};
use crate::typed::{Func, TypedFunc, WasmParams, WasmResults};
use crate::val::Val;
use crate::{CellModule, LoadedCode};
use alloc::{format, string::String, string::ToString, sync::Arc, vec, vec::Vec};
use runtime_port::memory::{AllocatedPages, MappedPages, PteFlags};
use runtime_port::unwind::UnwindRegistration;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use wasm_cell::metadata::ExportItem;
use wasm_cell::types::FuncType;
use wasm_cell::{CompileOptions, Compiler, CompilerSettings};

/// A module at an address, with what it imports bound to code addresses. Dropped in order.
pub(crate) struct Linked {
    _unwind: UnwindRegistration,
    _text: TextRegistration,
    code: Arc<LoadedCode>,
    _thunks: Vec<Thunk>,
    pages: Arc<(MappedPages, MappedPages)>,
    _memories: Vec<Arc<[u64; 2]>>,
}

/// What an import of a test module is bound to.
pub(crate) enum Import {
    Host(HostFunc),
    Address(usize),
}

pub(crate) fn host<P, R>(f: impl IntoHostFunc<P, R>) -> Import {
    Import::Host(f.into_host_func())
}

impl Linked {
    pub(crate) fn new(wat: &str, imports: Vec<Import>) -> Linked {
        let wasm = wat::parse_str(wat).unwrap();
        let compiler = Compiler::new(CompilerSettings::default()).unwrap();
        let object = compiler.compile(&wasm, &CompileOptions::default()).unwrap();
        let image = object.metadata.image;
        let layout = object.metadata.layout.clone();
        let data_at = image.data_offset as usize;
        let reservation = AllocatedPages::reserve(image.total as usize).unwrap();
        let (code, data) = reservation.split(data_at).unwrap();
        let mut code = MappedPages::map(code, PteFlags::VALID | PteFlags::WRITABLE).unwrap();
        let mut data = MappedPages::map(data, PteFlags::VALID | PteFlags::WRITABLE).unwrap();
        code.as_slice_mut::<u8>(0, object.text.len()).unwrap().copy_from_slice(&object.text);
        code.as_slice_mut::<u8>(image.rodata_offset as usize, object.rodata.len())
            .unwrap()
            .copy_from_slice(&object.rodata);
        code.remap(PteFlags::VALID | PteFlags::EXECUTABLE).unwrap();
        let mut put = |at: u32, word: usize| *data.as_type_mut::<u64>(at as usize).unwrap() = word as u64;
        put(wasm_cell::abi::HEADER_RAISE as u32, raise_routine());
        let mut thunks = Vec::new();
        for (i, import) in imports.into_iter().enumerate() {
            let address = match import {
                Import::Address(a) => a,
                Import::Host(h) => {
                    assert_eq!(h.ty(), object.metadata.func_type(i as u32).unwrap());
                    // SAFETY: no importer.
                    let thunk = unsafe { Thunk::new(&h, h.ty().hash.id(0), core::ptr::null()) }.unwrap();
                    let address = thunk.address();
                    thunks.push(thunk);
                    address
                }
            };
            put(layout.func_import_slots[i], address);
        }
        let mut memories = Vec::new();
        for (i, at) in layout.memories.iter().enumerate() {
            let bytes = object.metadata.memories[i].ty.min << 16;
            let mut pages = AllocatedPages::reserve(kernel_config::memory::GUARDED_RESERVATION as usize).unwrap();
            let base = pages.start_address().value();
            if bytes > 0 {
                let (low, high) = pages.split(bytes as usize).unwrap();
                std::mem::forget(MappedPages::map(low, PteFlags::VALID | PteFlags::WRITABLE).unwrap());
                pages = high;
            }
            std::mem::forget(pages);
            let memory = Arc::new([base as u64, bytes]);
            put(*at, base);
            put(*at + 8, Arc::as_ptr(&memory) as usize);
            memories.push(memory);
        }
        let start = code.start_address().value();
        for (k, f) in object.metadata.escaped_funcs.iter().enumerate() {
            let defined = *f as usize - object.metadata.imported_funcs.len();
            put(layout.escaped_slots[k], start + object.metadata.funcs[defined].offset as usize);
        }
        let pages = Arc::new((code, data));
        let cell: Arc<str> = "test".into();
        let module = CellModule::new(&cell, object).unwrap();
        let code = LoadedCode::new(cell, 1, start..start + image.text_size as usize, module);
        let eh = start + image.eh_frame_offset as usize;
        // SAFETY: the pages stay mapped.
        let unwind = unsafe {
            UnwindRegistration::new(code.text(), eh..eh + image.eh_frame_size as usize, pages.clone()).unwrap()
        };
        Linked {
            _unwind: unwind,
            _text: text_index::register(code.clone()).unwrap(),
            code,
            _thunks: thunks,
            pages,
            _memories: memories,
        }
    }

    pub(crate) fn func(&self, name: &str) -> Func {
        let m = self.code.metadata();
        let export = m.exports.iter().find(|e| e.name == name).unwrap();
        let ExportItem::Func(f) = export.item else { panic!("{name} is no function") };
        let defined = m.funcs[f as usize - m.imported_funcs.len()];
        let entry = self.code.text().start + defined.offset as usize;
        // SAFETY: the function's code, mapped as long as the pages.
        unsafe { Func::new(entry, Arc::new(m.func_type(f).unwrap().clone()), self.pages.clone()) }
    }

    pub(crate) fn typed<P: WasmParams, R: WasmResults>(&self, name: &str) -> TypedFunc<P, R> {
        self.func(name).typed().unwrap()
    }
}

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

#[derive(Debug, thiserror::Error)]
#[error("exit with {0}")]
struct Exit(i32);

#[test]
fn host_closures_get_arguments_and_return_results() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let cell = Linked::new(
        r#"(module
            (import "h" "add" (func $add (param i32 i64) (result i64)))
            (import "h" "many" (func $many (param i32 i32 i32 i32 i32 i32 i32 f64 i64) (result f64)))
            (import "h" "pair" (func $pair (param v128 f32) (result f32 v128)))
            (import "h" "note" (func $note (param externref)))
            (func (export "add") (param i32 i64) (result i64) (call $add (local.get 0) (local.get 1)))
            (func (export "many") (result f64)
                (call $many (i32.const 1) (i32.const 2) (i32.const 3) (i32.const 4) (i32.const 5) (i32.const 6)
                    (i32.const 7) (f64.const 8) (i64.const 9)))
            (func (export "twice") (result f64) (f64.add (call 5) (call 5)))
            (func (export "pair") (param v128 f32) (result f32 v128) (call $pair (local.get 0) (local.get 1)))
            (func (export "note") (param externref) (call $note (local.get 0))))"#,
        vec![
            host(|a: i32, b: i64| i64::from(a) + b),
            host(|a: i32, b: i32, c: i32, d: i32, e: i32, f: i32, g: i32, h: f64, i: u64| {
                f64::from(a + b * 2 + c * 3 + d * 4 + e * 5 + f * 6 + g * 7) + h * 8.0 + i as f64 * 9.0
            }),
            host(|v: u128, x: f32| (x * 2.0, v.rotate_left(64))),
            host(move |caller: &crate::Caller, r: Option<crate::ExternRef>| {
                assert!(caller.instance().is_none());
                counter.fetch_add(r.map_or(1000, |r| r.get() as usize), Ordering::SeqCst);
            }),
        ],
    );
    assert_eq!(cell.typed::<(i32, i64), i64>("add").call((-2, 5)).unwrap(), 3);
    let sum: f64 = (1..=9).map(|i| f64::from(i * i)).sum();
    assert_eq!(cell.typed::<(), f64>("many").call(()).unwrap(), sum);
    assert_eq!(cell.typed::<(), f64>("twice").call(()).unwrap(), 2.0 * sum);
    let v = 0x0123_4567_89ab_cdef_u128;
    assert_eq!(cell.typed::<(u128, f32), (f32, u128)>("pair").call((v, 1.5)).unwrap(), (3.0, v << 64));
    let note = cell.typed::<(Option<crate::ExternRef>,), ()>("note");
    note.call((None,)).unwrap();
    note.call((crate::ExternRef::new(5),)).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 1005);
}

#[test]
fn dynamic_host_functions_take_any_signature() {
    for n in [0, 3, 8, 9, 30] {
        let types: Vec<&str> = (0..n).map(|i| ["i32", "f64", "i64", "v128", "f32"][i % 5]).collect();
        let (params, results) = (types.join(" "), types.iter().rev().copied().collect::<Vec<_>>().join(" "));
        let gets: String = (0..n).map(|i| format!("(local.get {i}) ")).collect();
        let wat = format!(
            r#"(module (import "h" "f" (func $f (param {params}) (result {results})))
                (func (export "f") (param {params}) (result {results}) (call $f {gets})))"#
        );
        let of = |t: &&str| match *t {
            "i32" => wasm_cell::types::ValType::I32,
            "i64" => wasm_cell::types::ValType::I64,
            "f32" => wasm_cell::types::ValType::F32,
            "f64" => wasm_cell::types::ValType::F64,
            _ => wasm_cell::types::ValType::V128,
        };
        let params: Vec<_> = types.iter().map(of).collect();
        let ty = FuncType::new(params.clone(), params.iter().rev().copied().collect::<Vec<_>>());
        let reverse = HostFunc::dynamic(ty, |_, args, results| {
            results.iter_mut().zip(args.iter().rev()).for_each(|(r, a)| *r = *a);
            Ok(())
        });
        let cell = Linked::new(&wat, vec![Import::Host(reverse)]);
        // SAFETY: no function references among them.
        let args: Vec<Val> =
            params.iter().enumerate().map(|(i, t)| unsafe { Val::from_raw(i as u128 * 77 + 1, t) }).collect();
        let mut results = vec![Val::I32(0); n];
        for _ in 0..100 {
            cell.func("f").call(&args, &mut results).unwrap();
            results.reverse();
            assert_eq!(results, args);
        }
    }
}

#[test]
fn an_error_of_a_host_function_is_a_trap_that_carries_it() {
    let cell = Linked::new(
        r#"(module (import "h" "exit" (func $exit (param i32)))
            (func $leave (param i32) (call $exit (local.get 0)))
            (func (export "run") (param i32) (call $leave (local.get 0))))"#,
        vec![host(|code: i32| -> Result<(), Exit> {
            if code == 0 { Ok(()) } else { Err(Exit(code)) }
        })],
    );
    let run = cell.typed::<(i32,), ()>("run");
    run.call((0,)).unwrap();
    for i in 1..100 {
        let trap = run.call((i,)).unwrap_err();
        assert_eq!(trap.code(), TrapCode::HostError);
        assert_eq!(trap.downcast_ref::<Exit>().unwrap().0, i);
        let names: Vec<_> = trap.frames().map(|f| f.wasm.unwrap().name.into_owned()).collect();
        assert_eq!(names, ["leave", "run"]);
    }
}

#[test]
fn a_trap_that_a_host_function_passes_on_keeps_its_code_and_cause() {
    let inner = Linked::new(TRAPS, vec![]);
    let load = inner.typed::<(i32,), i32>("load");
    let outer = Linked::new(
        r#"(module (import "h" "f" (func $f (param i32) (result i32)))
            (func (export "run") (param i32) (result i32) (call $f (local.get 0))))"#,
        vec![host(move |at: i32| load.call((at,)))],
    );
    let run = outer.typed::<(i32,), i32>("run");
    assert_eq!(run.call((8,)).unwrap(), 0);
    let trap = run.call((-1,)).unwrap_err();
    assert_eq!(trap.code(), TrapCode::MemoryOutOfBounds);
    assert_eq!(trap.origin().unwrap().name, "run");
    assert_eq!(trap.cause().unwrap().origin().unwrap().name, "load");
    assert!(format!("{trap:#}").contains("\ncaused by: out of bounds memory access in test!load"), "{trap:#}");
}

#[test]
fn a_panic_of_a_host_function_crosses_wasm_and_leaves_the_cell_usable() {
    let cell = Linked::new(
        r#"(module (import "h" "f" (func $f (param i32)))
            (func (export "run") (param i32) (call $f (local.get 0))))"#,
        vec![host(|x: i32| -> () { std::panic::resume_unwind(alloc::boxed::Box::new(x)) })],
    );
    let run = cell.typed::<(i32,), ()>("run");
    for i in 0..20 {
        let payload = catch_unwind(AssertUnwindSafe(|| run.call((i,)))).unwrap_err();
        assert_eq!(*payload.downcast::<i32>().unwrap(), i);
        assert!(innermost(current_task()).is_null());
    }
}

#[test]
fn catches_nest_through_host_functions() {
    let inner = Linked::new(TRAPS, vec![]);
    let load = inner.typed::<(i32,), i32>("load");
    let outer = Linked::new(
        r#"(module (import "h" "try" (func $try (param i32) (result i32)))
            (func (export "run") (param i32) (result i32) (call $try (local.get 0)))
            (func (export "fail") (param i32) (result i32) (drop (call $try (local.get 0))) unreachable))"#,
        vec![host(move |at: i32| match load.call((at,)) {
            Ok(v) => v,
            Err(t) => 100 + t.code() as i32,
        })],
    );
    let run = outer.typed::<(i32,), i32>("run");
    assert_eq!(run.call((0,)).unwrap(), 0);
    assert_eq!(run.call((-1,)).unwrap(), 100 + TrapCode::MemoryOutOfBounds as i32);
    let fail = outer.typed::<(i32,), i32>("fail");
    assert_eq!(fail.call((-1,)).unwrap_err().code(), TrapCode::Unreachable);
}

#[test]
fn host_functions_run_close_to_the_stack_limit_and_cells_go_on_afterwards() {
    let small = Linked::new(r#"(module (func (export "f") (result i32) (i32.const 7)))"#, vec![]);
    let inner = small.typed::<(), i32>("f");
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let cell = Linked::new(
        r#"(module (import "h" "big" (func $big))
            (func $f (export "f") (param i32) (result i32)
                (call $big) (i32.add (i32.const 1) (call $f (i32.add (local.get 0) (i32.const 1))))))"#,
        vec![host(move || {
            let mut buffer = [0u8; 20_000];
            std::hint::black_box(&mut buffer);
            match inner.call(()) {
                Ok(7) => {}
                Err(t) if t.code() == TrapCode::StackOverflow => {
                    count.fetch_add(1, Ordering::SeqCst);
                }
                other => panic!("{other:?}"),
            }
        })],
    );
    let f = cell.typed::<(i32,), i32>("f");
    for _ in 0..5 {
        assert_eq!(f.call((0,)).unwrap_err().code(), TrapCode::StackOverflow);
    }
    assert!(refused.load(Ordering::SeqCst) > 0);
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
