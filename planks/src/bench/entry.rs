//! What a stable entry costs: a call by it, beside the same call by the address of the function behind it and by a native pointer.

use super::load::{BenchError, row};
use super::measure::{Candidate, Effort};
use super::report::Row;
use namespace_bridge::{CrateNamespace, LoadOptions};
use std::hint::black_box;

/// Goal: a call by a stable entry, as a multiple of one by a native pointer.
const RATIO: f64 = 1.1;

/// A function of one argument, as native code sees it.
pub(super) type Next = extern "C-unwind" fn(i64) -> i64;

const NEXT: &str = r#"(module (func (export "next") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1))))"#;

/// What the wasm function does.
#[inline(never)]
extern "C-unwind" fn next(x: i64) -> i64 {
    black_box(x) + 1
}

/// Calls `f` by its pointer again and again.
#[inline(never)]
pub(super) fn repeat(f: Next, times: u64) -> i64 {
    (0..times).fold(0, |x, _| f(x))
}

/// Measures a call by a stable entry.
///
/// # Errors
/// The cell cannot be loaded.
#[allow(unsafe_code)]
pub fn measure(effort: Effort) -> Result<Row, BenchError> {
    let failed = |e: &dyn std::fmt::Display| BenchError::Swap(e.to_string());
    let namespace = CrateNamespace::new("bench", None);
    let wasm = wat::parse_str(NEXT)?;
    let cell = namespace.load_wasm("cell", &wasm, LoadOptions::default()).map_err(|e| failed(&e))?;
    // SAFETY: the function has this type, and the cell stays while it is called.
    let entry = unsafe { cell.entry::<Next>("next") }.map_err(|e| failed(&e))?;
    let body = cell.export("next").ok_or_else(|| failed(&"no export"))?.virt_addr.value();
    // SAFETY: the section of an exported function is its code, which native code can call: all it is given is in registers.
    let body = unsafe { std::mem::transmute::<usize, Next>(body) };
    let native: Next = next;
    let calls = |f: Next| {
        move |n: u64| {
            black_box(repeat(black_box(f), n));
        }
    };
    let candidates = vec![
        Candidate::batch("by a stable entry", calls(entry)),
        Candidate::batch("by a native pointer, native code", calls(native)),
        Candidate::batch("by the address of its code", calls(body)),
    ];
    let measured = row(candidates, effort, None);
    drop((cell, namespace));
    let goal = measured.samples.get(1).map(|(_, native)| native.median * RATIO);
    Ok(Row { name: "a call, nothing being swapped".into(), goal_ns: goal, ..measured })
}
