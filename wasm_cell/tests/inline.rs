//! Small functions in place of calls: what the code does, what the tables say of it, how much of it there is.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use std::fmt::Write;
use support::{Code, code_of, compile, compiler};
use wasm_cell::metadata::Metadata;
use wasm_cell::reuse::{OldVersion, ReuseReport, ReuseTable};
use wasm_cell::trap::{TrapCode, TrapSite};
use wasm_cell::{CellObject, CompileOptions, Compiler, CompilerSettings, OptLevel};

/// Calls in the code of an exported function.
fn calls(object: &CellObject, export: &str) -> usize {
    let (offset, size) = code_of(object, export);
    let code = &object.text[offset as usize..(offset + size) as usize];
    Decoder::new(64, code, DecoderOptions::NONE).iter().filter(|i| i.mnemonic() == Mnemonic::Call).count()
}

const ARITHMETIC: &str = r#"(module
    (func $clamp (param i32 i32) (result i32)
        (if (i32.gt_s (local.get 0) (local.get 1)) (then (return (local.get 1))))
        (local.get 0))
    (func $count (param i32) (result i32) (local i32)
        (loop (local.set 1 (i32.add (local.get 1) (local.get 0)))
            (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
        (local.get 1))
    (func $swap (param i32 i64) (result i64 i32) (local.get 1) (local.get 0))
    (func $never (result i32) (unreachable))
    (func $fib (export "fib") (param i32) (result i32)
        (if (i32.lt_u (local.get 0) (i32.const 2)) (then (return (local.get 0))))
        (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1))) (call $fib (i32.sub (local.get 0) (i32.const 2)))))
    (func (export "clamp") (param i32 i32) (result i32)
        (i32.mul (call $clamp (local.get 0) (local.get 1)) (call $clamp (local.get 1) (i32.const 10))))
    (func (export "count") (param i32) (result i32) (local i32)
        (loop (local.set 1 (i32.add (local.get 1) (call $count (local.get 0))))
            (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
        (local.get 1))
    (func (export "swap") (param i32 i64) (result i64)
        (call $swap (local.get 0) (local.get 1)) (i64.extend_i32_u) (i64.shl))
    (func (export "dead") (param i32) (result i32)
        (block (result i32) (br_if 0 (i32.const 5) (local.get 0)) (drop) (call $never) (call $clamp (i32.const 1)))))"#;

#[test]
fn bodies_in_place_of_calls_do_what_the_calls_do() {
    let object = compile(ARITHMETIC);
    for name in ["clamp", "count", "swap"] {
        assert_eq!(calls(&object, name), 0, "{name}");
    }
    // Itself once: the calls in what was put in place of its own two, and one for each that was not.
    assert!(calls(&object, "fib") > 2);
    let code = Code::map_cell(&object);
    let at = |name| code.at(code_of(&object, name).0);
    type Binary = unsafe extern "C" fn(i32, i32) -> i32;
    // SAFETY: register-only signatures: the body is the native entry; it needs nothing of the data block.
    let (clamp, count, swap, fib, dead) = unsafe {
        (
            std::mem::transmute::<*mut u8, Binary>(at("clamp")),
            std::mem::transmute::<*mut u8, unsafe extern "C" fn(i32) -> i32>(at("count")),
            std::mem::transmute::<*mut u8, unsafe extern "C" fn(i32, i64) -> i64>(at("swap")),
            std::mem::transmute::<*mut u8, unsafe extern "C" fn(i32) -> i32>(at("fib")),
            std::mem::transmute::<*mut u8, unsafe extern "C" fn(i32) -> i32>(at("dead")),
        )
    };
    // SAFETY: as above.
    unsafe {
        assert_eq!((clamp(3, 20), clamp(30, 7), clamp(-5, 40)), (30, 49, -50));
        // The sum of the first `n` triangular numbers: locals of the body start at zero each time.
        assert_eq!((count(1), count(4), count(100)), (1, 20, 171_700));
        assert_eq!(swap(3, 5), 5 << 3);
        assert_eq!((fib(0), fib(1), fib(2), fib(20)), (0, 1, 1, 6765));
        assert_eq!(dead(1), 5);
    }
}

const TRAPPING: &str = r#"(module (import "h" "f" (func $host (param i32))) (memory 1)
    (func $load (param i32) (result i32) (i32.load offset=8 (local.get 0)))
    (func $div (param i32) (result i32) (i32.div_u (i32.const 9) (local.get 0)))
    (func $tell (param i32) (call $host (i32.add (local.get 0) (i32.const 1))))
    (func (export "run") (param i32) (result i32)
        (call $tell (local.get 0))
        (i32.add (call $load (local.get 0)) (call $div (i32.load (local.get 0))))))"#;

/// The function that a place lies in, and that of the call in whose place the code stands.
fn functions(meta: &Metadata, code_offset: u32, exact: bool) -> (Option<u32>, Option<u32>) {
    let place = meta.place(code_offset, exact).unwrap();
    (meta.func_of(place.wasm_offset), place.call.and_then(|call| meta.func_of(call)))
}

#[test]
fn trap_sites_and_return_addresses_know_function_and_caller() {
    for full_address_map in [false, true] {
        let options = CompileOptions { full_address_map, ..Default::default() };
        let object = compiler().compile(&wat::parse_str(TRAPPING).unwrap(), &options).unwrap();
        object.validate().unwrap();
        let meta = &object.metadata;
        let (run, size) = code_of(&object, "run");
        let within = |t: &&TrapSite| (run..run + size + 1).contains(&t.code_offset);
        let sites: Vec<_> = meta.traps.sites.iter().filter(within).collect();
        let of = |code| sites.iter().filter(move |t| t.code == code).map(|t| functions(meta, t.code_offset, true));
        let loads: Vec<_> = of(TrapCode::MemoryOutOfBounds).collect();
        assert!(loads.contains(&(Some(1), Some(4))), "{loads:?}");
        assert!(loads.contains(&(Some(4), None)), "{loads:?}");
        assert!(of(TrapCode::IntegerDivisionByZero).all(|f| f == (Some(2), Some(4))));
        assert_ne!(of(TrapCode::IntegerDivisionByZero).count(), 0);
        // The call of the host function, by its return address.
        let rows = meta.addresses.iter().filter(|a| (run..=run + size).contains(&a.code_offset));
        let calls: Vec<_> = rows.map(|a| functions(meta, a.code_offset, false)).collect();
        assert!(calls.contains(&(Some(3), Some(4))), "{calls:?}");
        // Every row is one of another table.
        for row in &meta.inlined {
            let known = |offset| meta.addresses.binary_search_by_key(&offset, |a| a.code_offset).is_ok();
            let site = meta.traps.lookup(row.code_offset).is_some();
            assert!(site || known(row.code_offset) || known(row.code_offset + 1));
        }
        assert_eq!(CellObject::from_elf(&object.to_elf().unwrap()).unwrap(), object);
    }
}

const BEHIND_A_CALL: &str = r#"(module (import "h" "f" (func $host)) (memory 1)
    (func $load (result i32) (i32.load (i32.const 64)))
    (func (export "run") (result i32)
        (loop $again (result i32)
            (call $host)
            (br_if $again (call $load))
            (i32.const 0))))"#;

#[test]
fn what_returns_to_an_address_is_told_from_what_traps_there() {
    for full_address_map in [false, true] {
        let options = CompileOptions { full_address_map, ..Default::default() };
        let object = compiler().compile(&wat::parse_str(BEHIND_A_CALL).unwrap(), &options).unwrap();
        let meta = &object.metadata;
        let (run, size) = code_of(&object, "run");
        let is_both = |t: &&TrapSite| {
            let called = meta.addresses.binary_search_by_key(&t.code_offset, |a| a.code_offset).is_ok();
            called && (run..run + size).contains(&t.code_offset) && t.code == TrapCode::MemoryOutOfBounds
        };
        let site = meta.traps.sites.iter().find(is_both).unwrap().code_offset;
        if !full_address_map {
            assert_eq!(functions(meta, site, false), (Some(2), None));
        }
        assert_eq!(functions(meta, site, true), (Some(1), Some(2)));
        assert!(!meta.returns_to_inlined(site));
    }
}

#[test]
fn nothing_is_put_in_place_of_calls_without_optimisation() {
    let settings = CompilerSettings { opt_level: OptLevel::None, ..Default::default() };
    let wasm = wat::parse_str(ARITHMETIC).unwrap();
    let object = Compiler::new(settings).unwrap().compile(&wasm, &CompileOptions::default()).unwrap();
    assert_eq!(calls(&object, "clamp"), 2);
    assert!(object.metadata.inlined.is_empty());
}

/// A module with a small function and one that calls it `n` times.
fn callers(n: usize) -> Vec<u8> {
    let small = "(i32.store offset=4 (local.get 0) (i32.add (i32.load (local.get 0)) (i32.const 77777)))".repeat(3);
    let mut text = format!("(module (memory 1) (func $small (param i32) {small}) (func (export \"run\") (param i32)");
    (0..n).for_each(|_| text.push_str("(call $small (local.get 0))"));
    text.push_str("))");
    wat::parse_str(text).unwrap()
}

#[test]
fn code_grows_with_the_module_and_not_with_what_it_calls() {
    let compiler = Compiler::new(CompilerSettings::default()).unwrap();
    let size = |wasm: &[u8]| compiler.compile(wasm, &CompileOptions::default()).unwrap().text.len();
    for n in [1_000, 10_000, 50_000] {
        let wasm = callers(n);
        assert!(size(&wasm) < 8 * wasm.len() + 4096, "{n}: {} from {}", size(&wasm), wasm.len());
    }
    // A long chain, each calling the next twice.
    let mut chain = String::from("(module (func $f0 (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))");
    for i in 1..5_000 {
        let last = i - 1;
        let call = format!("(call $f{last} (i32.xor (local.get 0) (i32.const {i})))");
        write!(chain, "(func $f{i} (param i32) (result i32) (i32.add {call} {call}))").unwrap();
    }
    chain.push(')');
    let wasm = wat::parse_str(chain).unwrap();
    assert!(size(&wasm) < 16 * wasm.len(), "{} from {}", size(&wasm), wasm.len());
}

fn next(old: &str, new: &str) -> (CellObject, ReuseReport) {
    let (compiler, options) = (compiler(), CompileOptions { full_address_map: true, ..Default::default() });
    let old = compiler.compile(&wat::parse_str(old).unwrap(), &options).unwrap();
    let new = wat::parse_str(new).unwrap();
    let (object, report) = compiler.compile_reusing(&new, &options, Some(OldVersion::of(&old))).unwrap();
    // The same layout of the data block, and nothing to take over.
    let nothing = OldVersion { reuse: &ReuseTable::default(), ..OldVersion::of(&old) };
    assert!(object == compiler.compile_reusing(&new, &options, Some(nothing)).unwrap().0);
    (object, report)
}

#[test]
fn a_changed_small_function_is_compiled_with_those_that_hold_it() {
    assert_eq!(next(TRAPPING, TRAPPING).1.compiled, 0);
    let report = next(TRAPPING, &TRAPPING.replace("offset=8", "offset=16")).1;
    assert_eq!((report.compiled, report.reused), (2, 3 - 1));
    // What moves takes the places of what it holds along, each by its own distance.
    let grown = TRAPPING.replace("(memory 1)", "(memory 1) (global (mut i64) (i64.const 0x123456789abc))");
    let between = grown.replace("(func $tell", "(func $more (result i64) (i64.const 0x123456789abc)) (func $tell");
    assert_eq!(next(TRAPPING, &between).1.compiled, 1);
    // One that is too large now is called.
    let large = "(drop (i32.div_u (i32.const 1) (local.get 0)))".repeat(20);
    let large = TRAPPING
        .replace("(param i32) (result i32) (i32.div_u", &format!("(param i32) (result i32) {large} (i32.div_u"));
    let (object, report) = next(TRAPPING, &large);
    assert_eq!(report.compiled, 2);
    assert!(calls(&object, "run") > 1);
    // What somebody holds refers to, others may hold too.
    assert_eq!(next(TRAPPING, &TRAPPING.replace("(i32.const 1))))", "(i32.const 2))))")).1.compiled, 2);
}
