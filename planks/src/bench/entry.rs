//! What a stable entry costs: a call by it, beside the same call by the address of the function behind it and by a native pointer.

use super::load::BenchError;
use super::measure::{Candidate, Clock, Effort, Sample, figures, quotients};
use super::report::Row;
use namespace_bridge::swap::SwapRequest;
use namespace_bridge::{CrateNamespace, LoadOptions};
use std::hint::black_box;
use std::time::Duration;

/// Goal: a call by a stable entry, as a multiple of one by a native pointer.
const RATIO: f64 = 1.1;

/// Many short rounds: what else the machine does meets few of them.
const EFFORT: Effort = Effort { rounds: 401, slice: Duration::from_micros(100) };

/// Swaps before the last measurement.
const SWAPS: i64 = 8;

/// A function of one argument, as native code sees it.
pub(super) type Next = extern "C-unwind" fn(i64) -> i64;

/// A version of the cell: its function adds a number.
fn version(number: i64) -> String {
    format!(r#"(module (func (export "next") (param i64) (result i64) (i64.add (local.get 0) (i64.const {number}))))"#)
}

/// What the wasm function does.
#[inline(never)]
extern "C-unwind" fn next(x: i64) -> i64 {
    x.wrapping_add(1)
}

/// Calls `f` by its pointer again and again.
#[inline(never)]
pub(super) fn repeat(f: Next, times: u64) -> i64 {
    (0..times).fold(0, |x, _| f(x))
}

/// Measures a call by a stable entry of a function that does next to nothing: whatever else a function does hides more of it. The ratio to the
/// goal is that of figures of the same round.
///
/// # Errors
/// The cell cannot be loaded or swapped.
#[allow(unsafe_code)]
pub fn measure() -> Result<Row, BenchError> {
    let failed = |e: &dyn std::fmt::Display| BenchError::Swap(e.to_string());
    let namespace = CrateNamespace::new("bench", None);
    let wasm = wat::parse_str(version(1))?;
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
    let mut candidates = [
        Candidate::batch("by a stable entry", calls(entry)),
        Candidate::batch("by a native pointer, native code", calls(native)),
        Candidate::batch("by the address of its code", calls(body)),
    ];
    let mut found = figures(&mut candidates, EFFORT, Clock::Thread);
    drop((candidates, cell));
    for number in 2..=SWAPS + 1 {
        let wasm = wat::parse_str(version(number))?;
        namespace.swap(SwapRequest::new("cell").with_wasm(&wasm).keep_old(false)).map_err(|e| failed(&e))?;
    }
    let mut candidate = [Candidate::batch("by the same entry, after 8 swaps", calls(entry))];
    found.extend(figures(&mut candidate, EFFORT, Clock::Thread));
    let goal = match &found[..] {
        [ours, native, ..] => {
            // The reference is what the ratio of the same rounds makes of it.
            let ratio = Sample::of(quotients(ours, native)).median;
            Some(Sample::of(ours.clone()).median / ratio * RATIO)
        }
        _ => None,
    };
    let names = [
        "by a stable entry",
        "by a native pointer, native code",
        "by the address of its code",
        "by the same entry, after 8 swaps",
    ];
    let samples = names.into_iter().zip(found.into_iter().map(Sample::of)).collect();
    Ok(Row { name: "a call, nothing being swapped".into(), samples, goal_ns: goal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_measured_before_and_after_swaps() {
        let row = measure().unwrap();
        assert_eq!(row.samples.len(), 4);
        assert!(row.goal_ns.is_some_and(|goal| goal > 0.0));
    }
}
