//! C compiled by clang when the test runs, with several settings, gives what the same C gives natively.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{CallError, CrateNamespace, LoadOptions, StrongCrateRef, Val};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tests::packages::skip;
use wasm_cell::trap::TrapCode;

/// Settings of the compiler: none, optimised, with vectors and bulk memory, with 64-bit memory.
const SETTINGS: [&[&str]; 4] = [
    &["--target=wasm32", "-O0"],
    &["--target=wasm32", "-O2"],
    &["--target=wasm32", "-O3", "-msimd128", "-mbulk-memory", "-msign-ext", "-mnontrapping-fptoint", "-mmultivalue"],
    &["--target=wasm64", "-O2", "-Wl,-mwasm64"],
];

/// The fixture as a module; `None` without clang.
fn compile(fixture: &str, settings: &[&str]) -> Option<Vec<u8>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(fixture);
    let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{fixture}{}.wasm", settings.concat()));
    let fixed = ["-nostdlib", "-fno-builtin", "-Wl,--no-entry", "-Wl,--export-table", "-o"];
    let result = Command::new("clang").args(settings).args(fixed).arg(&output).arg(&source).output();
    match result {
        Err(e) => {
            skip(format!("clang cannot be run: {e}"));
            None
        }
        Ok(o) if !o.status.success() => {
            skip(format!("clang {settings:?} cannot compile for wasm: {}", String::from_utf8_lossy(&o.stderr)));
            None
        }
        Ok(_) => Some(std::fs::read(output).unwrap()),
    }
}

/// The fixture as a cell.
fn load(fixture: &str, settings: &[&str]) -> Option<(Arc<CrateNamespace>, StrongCrateRef)> {
    let wasm = compile(fixture, settings)?;
    let namespace = CrateNamespace::new("clang", None);
    let cell = namespace.load_wasm(fixture, &wasm, LoadOptions::default());
    Some((namespace.clone(), cell.unwrap_or_else(|e| panic!("{fixture} {settings:?}: {e}"))))
}

fn native_sort_sum(n: usize, descending: bool) -> i32 {
    let mut state = 12345u32;
    let mut values: Vec<i32> = (0..n)
        .map(|_| {
            state = state.wrapping_mul(1_103_515_245).wrapping_add(12345);
            (state >> 8) as i32 & 0xffff
        })
        .collect();
    values.sort_unstable();
    if descending {
        values.reverse();
    }
    values.iter().fold(0u32, |sum, v| sum.wrapping_mul(31).wrapping_add(*v as u32)) as i32
}

#[test]
fn sorting_through_function_pointers_gives_the_native_order() {
    for settings in SETTINGS {
        let Some((_namespace, cell)) = load("sort.c", settings) else { continue };
        let sort_sum = cell.typed_func::<(i32, i32), i32>("sort_sum").unwrap();
        for (n, descending) in [(0, false), (1, true), (100, false), (4096, false), (4096, true)] {
            let expected = native_sort_sum(n as usize, descending);
            assert_eq!(sort_sum.call((n, i32::from(descending))).unwrap(), expected, "{settings:?} {n}");
        }
    }
}

#[test]
fn a_call_through_a_bad_function_pointer_traps_and_the_cell_stays_usable() {
    for settings in SETTINGS {
        let Some((_namespace, cell)) = load("sort.c", settings) else { continue };
        let call = cell.func("call").unwrap();
        let mut results = [Val::I32(0)];
        let mut attempt = |pointer: i32| {
            // A pointer has the width of the memory's addresses.
            let pointer = if call.ty().params[0] == wasm_cell::types::ValType::I64 {
                Val::I64(i64::from(pointer))
            } else {
                Val::I32(pointer)
            };
            match call.call(&[pointer], &mut results) {
                Ok(()) => Ok(results[0]),
                Err(CallError::Trap(trap)) => Err(trap.code()),
                Err(other) => panic!("{other}"),
            }
        };
        assert_eq!(attempt(0), Err(TrapCode::IndirectCallToNull), "{settings:?}");
        assert_eq!(attempt(1 << 20), Err(TrapCode::TableOutOfBounds), "{settings:?}");
        assert_eq!(attempt(1), Ok(Val::I32(-1)), "{settings:?}");
    }
}

#[test]
fn numbers_come_out_as_natively() {
    for settings in SETTINGS {
        let Some((_namespace, cell)) = load("numbers.c", settings) else { continue };
        let pi = cell.typed_func::<(i32,), f64>("pi").unwrap();
        let native = (0..10_000).map(|i| (if i & 1 == 1 { -4.0 } else { 4.0 }) / f64::from(2 * i + 1)).sum::<f64>();
        assert_eq!(pi.call((10_000,)).unwrap().to_bits(), native.to_bits(), "{settings:?}");
        // 871 takes 178 steps (OEIS A006877).
        let collatz = cell.typed_func::<(u64,), u64>("collatz").unwrap();
        assert_eq!(collatz.call((1000,)).unwrap(), 871 << 32 | 178, "{settings:?}");
        let dot = cell.typed_func::<(i32,), f32>("dot").unwrap();
        let native = |n: i32| (0..4).flat_map(|l| (0..n).map(move |i| (i + l) * (n - 1 - i + l))).sum::<i32>();
        assert_eq!(dot.call((16,)).unwrap(), native(16) as f32, "{settings:?}");
        let bits = cell.typed_func::<(u32,), i32>("bits").unwrap();
        assert_eq!(bits.call((0x0010_8000,)).unwrap(), 2 * 10000 + 11 * 100 + 15, "{settings:?}");
    }
}

#[test]
fn overlapping_copies_come_out_as_natively() {
    for settings in SETTINGS.into_iter().filter(|s| s.contains(&"-mbulk-memory")) {
        let Some((_namespace, cell)) = load("copy.c", settings) else { continue };
        let mut text: Vec<u8> = (0..1024).map(|i| (i * 7) as u8).collect();
        text.copy_within(0..1000, 3);
        text[..3].fill(9);
        let native = text.iter().fold(0i32, |sum, b| sum.wrapping_mul(17).wrapping_add(i32::from(*b as i8)));
        let overlap = cell.typed_func::<(), i32>("overlap").unwrap();
        assert_eq!(overlap.call(()).unwrap(), native, "{settings:?}");
    }
}
