//! Wasm cells, compiled, linked and run in ring 0.

use super::{
    Check, Outcome, catch, expect, expect_eq,
    tasks::{join, start},
};
use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
};
use core::fmt::Display;
use namespace_bridge::{CrateNamespace, HostError, LoadOptions, LoadedCrate, Trap, V128, Val};
use runtime_port::{bare_metal::memory::frame_use, platform};
use spin::Mutex;
use wasm_cell::trap::TrapCode;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("a_cell_is_compiled_and_called", a_cell_is_compiled_and_called),
    ("a_cell_calls_the_host_and_through_its_table", a_cell_calls_the_host_and_through_its_table),
    ("a_memory_grows_in_place_up_to_its_maximum", a_memory_grows_in_place_up_to_its_maximum),
    ("floats_vectors_and_several_results_cross_the_boundary", floats_vectors_and_several_results_cross_the_boundary),
    ("one_cell_links_against_another", one_cell_links_against_another),
    ("every_trap_is_an_error_twice_in_a_row", every_trap_is_an_error_twice_in_a_row),
    ("a_panic_of_the_host_unwinds_through_a_cell", a_panic_of_the_host_unwinds_through_a_cell),
    ("an_invalid_module_is_an_error", an_invalid_module_is_an_error),
    ("a_memory_beyond_the_machine_is_an_error", a_memory_beyond_the_machine_is_an_error),
    ("unloading_returns_all_frames", unloading_returns_all_frames),
];

const ARITHMETIC: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/arithmetic.wasm"));
/// One export for each way to trap.
pub const TRAPS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/traps.wasm"));
const DEPENDENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/dependent.wasm"));
const TOO_LARGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/too_large.wasm"));

/// An error as text.
pub fn text<E: Display>(error: E) -> String {
    error.to_string()
}

/// A namespace with the host's functions.
pub fn namespace() -> Result<Arc<CrateNamespace>, String> {
    let namespace = CrateNamespace::new("checks", None);
    namespace.define("host", "add", |a: i32, b: i32| a.wrapping_add(b)).map_err(text)?;
    let fail = || -> Result<(), HostError> { Err("expected by this check".into()) };
    namespace.define("host", "fail", fail).map_err(text)?;
    Ok(namespace)
}

/// Loads a module as a cell.
pub fn load(namespace: &CrateNamespace, name: &str, bytes: &[u8]) -> Result<Arc<LoadedCrate>, String> {
    namespace.load_wasm(name, bytes, LoadOptions::default()).map_err(text)
}

fn a_cell_is_compiled_and_called() -> Outcome {
    let cell = load(&*namespace()?, "arithmetic", ARITHMETIC)?;
    let fib = cell.typed_func::<(i32,), i32>("fib").map_err(text)?;
    expect_eq("fib(20)", fib.call((20,)).map_err(text)?, 6765)
}

fn a_cell_calls_the_host_and_through_its_table() -> Outcome {
    let cell = load(&*namespace()?, "arithmetic", ARITHMETIC)?;
    let apply = cell.typed_func::<(i32, i32), i32>("apply").map_err(text)?;
    expect_eq("square", apply.call((0, 12)).map_err(text)?, 144)?;
    expect_eq("double", apply.call((1, 12)).map_err(text)?, 24)?;
    let add = cell.typed_func::<(i32, i32), i32>("add_in_host").map_err(text)?;
    for i in 0..1000 {
        expect_eq("sum", add.call((i, 5)).map_err(text)?, i + 5)?;
    }
    let calls = cell.typed_func::<(), i32>("calls").map_err(text)?;
    expect_eq("the cell's global", calls.call(()).map_err(text)?, 1000)
}

fn a_memory_grows_in_place_up_to_its_maximum() -> Outcome {
    let cell = load(&*namespace()?, "arithmetic", ARITHMETIC)?;
    let byte = cell.typed_func::<(i32,), i32>("byte_at").map_err(text)?;
    let grow = cell.typed_func::<(i32,), i32>("grow").map_err(text)?;
    let fill = cell.typed_func::<(i32, i32, i32), ()>("fill").map_err(text)?;
    expect_eq("a byte of the data segment", byte.call((8,)).map_err(text)?, i32::from(b'p'))?;
    expect("a byte behind the end", byte.call((65536,)).is_err())?;
    expect_eq("pages before", grow.call((2,)).map_err(text)?, 1)?;
    expect_eq("a fresh byte", byte.call((65536,)).map_err(text)?, 0)?;
    fill.call((65530, 0x77, 100_000)).map_err(text)?;
    expect_eq("a filled byte", byte.call((165_529,)).map_err(text)?, 0x77)?;
    expect_eq("growth beyond the maximum", grow.call((1,)).map_err(text)?, -1)?;
    expect_eq("the data segment afterwards", byte.call((13,)).map_err(text)?, i32::from(b's'))
}

fn floats_vectors_and_several_results_cross_the_boundary() -> Outcome {
    let cell = load(&*namespace()?, "arithmetic", ARITHMETIC)?;
    let swap = cell.typed_func::<(i64, f64), (f64, i64)>("swap").map_err(text)?;
    expect_eq("swapped", swap.call((-7, 2.5)).map_err(text)?, (2.5, -7))?;
    let dot = cell.typed_func::<(V128, V128), i32>("dot").map_err(text)?;
    let lanes = |n: [u32; 4]| V128(n.iter().rev().fold(0, |v, lane| v << 32 | u128::from(*lane)));
    expect_eq("dot product", dot.call((lanes([1, 2, 3, 4]), lanes([10, 20, 30, 40]))).map_err(text)?, 300)?;
    let mut result = [Val::I32(0)];
    cell.func("fib").map_err(text)?.call(&[Val::I32(10)], &mut result).map_err(text)?;
    expect_eq("a call with values", result, [Val::I32(55)])
}

fn one_cell_links_against_another() -> Outcome {
    let namespace = namespace()?;
    let missing = load(&namespace, "dependent", DEPENDENT).err();
    expect("the missing import is named", missing.is_some_and(|e| e.contains("arithmetic") && e.contains("fib")))?;
    load(&namespace, "arithmetic", ARITHMETIC)?;
    let dependent = load(&namespace, "dependent", DEPENDENT)?;
    let sum = dependent.typed_func::<(i32,), i32>("sum_of_fib").map_err(text)?;
    expect_eq("sum of fib(0..10)", sum.call((10,)).map_err(text)?, 88)?;
    expect("a cell in use was unloaded", namespace.unload("arithmetic").is_err())?;
    namespace.unload("dependent").map_err(text)?;
    namespace.unload("arithmetic").map_err(text)
}

fn every_trap_is_an_error_twice_in_a_row() -> Outcome {
    let cases = [
        ("unreachable", TrapCode::Unreachable),
        ("load_out_of_bounds", TrapCode::MemoryOutOfBounds),
        ("store_far_out_of_bounds", TrapCode::MemoryOutOfBounds),
        ("fill_out_of_bounds", TrapCode::MemoryOutOfBounds),
        ("table_out_of_bounds", TrapCode::TableOutOfBounds),
        ("indirect_out_of_bounds", TrapCode::TableOutOfBounds),
        ("indirect_to_null", TrapCode::IndirectCallToNull),
        ("indirect_of_another_type", TrapCode::BadSignature),
        ("division_overflow", TrapCode::IntegerOverflow),
        ("truncation_overflow", TrapCode::IntegerOverflow),
        ("division_by_zero", TrapCode::IntegerDivisionByZero),
        ("remainder_by_zero", TrapCode::IntegerDivisionByZero),
        ("conversion_of_nan", TrapCode::BadConversionToInteger),
        ("stack_overflow", TrapCode::StackOverflow),
        ("misaligned_atomic", TrapCode::MisalignedAtomic),
        ("null_reference", TrapCode::NullReference),
        ("wait_on_unshared_memory", TrapCode::ExpectedSharedMemory),
        ("host_error", TrapCode::HostError),
    ];
    let cell = load(&*namespace()?, "traps", TRAPS)?;
    for (export, code) in cases {
        let function = cell.typed_func::<(), ()>(export).map_err(text)?;
        for time in 1..=2 {
            let trap: Trap = function.call(()).err().ok_or_else(|| format!("`{export}` did not trap"))?;
            expect_eq(&format!("`{export}`, time {time}"), trap.code(), code)?;
            if code != TrapCode::HostError {
                expect_eq(&format!("cell of `{export}`"), trap.cell(), Some("traps"))?;
                expect(&format!("`{export}` has no function"), trap.function().is_some())?;
            }
        }
    }
    Ok(())
}

fn a_panic_of_the_host_unwinds_through_a_cell() -> Outcome {
    let namespace = CrateNamespace::new("checks", None);
    let witness = Arc::new(());
    let held = witness.clone();
    let add = move |a: i32, b: i32| {
        let _held = held.clone();
        assert!(a != 13, "expected by this check: {a} and {b}");
        a + b
    };
    namespace.define("host", "add", add).map_err(text)?;
    let cell = load(&namespace, "arithmetic", ARITHMETIC)?;
    let function = cell.typed_func::<(i32, i32), i32>("add_in_host").map_err(text)?;
    for _ in 0..2 {
        let caught = catch(|| function.call((13, 4)).is_ok()).err();
        let message = caught.as_ref().and_then(|reason| reason.message());
        expect_eq("the panic's message", message, Some("expected by this check: 13 and 4"))?;
    }
    expect_eq("shares held by abandoned frames", Arc::strong_count(&witness), 2)?;
    expect_eq("a call afterwards", function.call((3, 4)).map_err(text)?, 7)
}

fn an_invalid_module_is_an_error() -> Outcome {
    let namespace = namespace()?;
    for cut in [0, 4, 8, 20, ARITHMETIC.len() / 2, ARITHMETIC.len() - 1] {
        expect("a truncated module was loaded", cut == 8 || load(&namespace, "cut", &ARITHMETIC[..cut]).is_err())?;
    }
    let error = load(&namespace, "text", b"(module)").err().unwrap_or_default();
    expect(&format!("no offset in `{error}`"), error.contains("offset"))
}

fn a_memory_beyond_the_machine_is_an_error() -> Outcome {
    let namespace = namespace()?;
    let before = namespace.crate_count();
    let options = LoadOptions::default().memory_limit(2 << 40);
    expect("1 TiB of memory was committed", namespace.load_wasm("too_large", TOO_LARGE, options).is_err())?;
    expect_eq("cells", namespace.crate_count(), before)?;
    load(&namespace, "arithmetic", ARITHMETIC).map(drop)
}

fn unloading_returns_all_frames() -> Outcome {
    let namespace = namespace()?;
    let round = || -> Result<_, String> {
        let (namespace, outcome) = (namespace.clone(), Arc::new(Mutex::new(Outcome::Ok(()))));
        let told = outcome.clone();
        // In a task of its own: stale words on this task's stack may look like addresses of what was unloaded.
        let load_and_unload = move || {
            let twenty_times = || {
                for _ in 0..20 {
                    load(&namespace, "traps", TRAPS)?;
                    load(&namespace, "arithmetic", ARITHMETIC)?;
                    namespace.unload("traps").map_err(text)?;
                    namespace.unload("arithmetic").map_err(text)?;
                }
                Ok(())
            };
            let done = twenty_times();
            *told.lock() = done;
        };
        join([start("loads", load_and_unload)?])?;
        outcome.lock().clone()?;
        namespace_bridge::reclaim();
        Ok((frame_use(), platform().memory().statistics()))
    };
    round()?; // lets pools and the heap reach their size
    let before = round()?;
    expect_eq("frames and reservations", round()?, before)
}
