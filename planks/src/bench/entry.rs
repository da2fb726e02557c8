//! What a stable entry costs: a call by it, beside the same call by the address of the function behind it, by a native pointer, and by one to a
//! single jump, which is the least that can stand between a caller and a function that may change.

use super::call_sites::{CallSite, Next, PLACES, empty, jump};
use super::load::BenchError;
use super::measure::{Candidate, Clock, Effort, Sample, figures, quotients};
use super::report::Row;
use namespace_bridge::swap::SwapRequest;
use namespace_bridge::{CrateNamespace, LoadOptions, StrongCrateRef};
use std::hint::black_box;
use std::time::Duration;

/// Goal: a call by a stable entry, as a multiple of one by a native pointer.
const RATIO: f64 = 1.1;

/// Many short rounds: what else the machine does meets few of them.
const EFFORT: Effort = Effort { rounds: 301, slice: Duration::from_micros(50) };

/// Swaps before the last measurement.
const SWAPS: i64 = 8;

/// A version of the cell: as many functions as there are places, each of which adds a number, and as many that work for about ten
/// nanoseconds: what one step of them computes the next one needs.
fn version(number: i64) -> String {
    let nothing = |place| {
        format!(
            r#"(func (export "next{place}") (param i64) (result i64) (i64.add (local.get 0) (i64.const {number})))"#
        )
    };
    let step = |inner, k| format!("(i64.add (i64.mul {inner} (i64.const {})) (i64.const {number}))", 1_000_003 + 2 * k);
    let steps = (0..9).fold("(local.get 0)".to_string(), step);
    let work = |place| format!(r#"(func (export "work{place}") (param i64) (result i64) {steps})"#);
    let functions: String = (0..PLACES).map(|place| nothing(place) + &work(place)).collect();
    format!("(module {functions})")
}

fn failed(e: &dyn std::fmt::Display) -> BenchError {
    BenchError::Swap(e.to_string())
}

/// Stable entry and code of a function.
#[allow(unsafe_code)]
fn addresses(cell: &StrongCrateRef, name: &str) -> Result<(Next, Next), BenchError> {
    // SAFETY: the function has this type, and the cell stays while it is called.
    let entry = unsafe { cell.entry::<Next>(name) }.map_err(|e| failed(&e))?;
    let code = cell.export(name).ok_or_else(|| failed(&"no export"))?.virt_addr.value();
    // SAFETY: the section of an exported function is its code, which native code can call: all it is given is in registers.
    Ok((entry, unsafe { std::mem::transmute::<usize, Next>(code) }))
}

/// Figures of each of these things, at all places: `of` gives its function at a place. Figures with the same index are of one round and place.
fn at_all_places<const N: usize>(
    first_loop: usize,
    of: impl Fn(usize) -> Result<[Next; N], BenchError>,
) -> Result<[Vec<f64>; N], BenchError> {
    let mut candidates = Vec::with_capacity(N * PLACES);
    for place in 0..PLACES {
        for (number, f) in of(place)?.into_iter().enumerate() {
            let site = CallSite::new(first_loop + number, place);
            candidates.push(Candidate::batch("", move |n| _ = black_box(site.call(f, n))));
        }
    }
    let mut all = [const { Vec::new() }; N];
    for (at, figures) in figures(&mut candidates, EFFORT, Clock::Thread).into_iter().enumerate() {
        all[at % N].extend(figures);
    }
    Ok(all)
}

/// The goal: what the ratio of figures of the same round and place makes of the reference.
fn goal(ours: &[f64], reference: &[f64]) -> f64 {
    Sample::of(ours.to_vec()).median / Sample::of(quotients(ours, reference)).median * RATIO
}

/// Measures calls of a function that does next to nothing, and of one of ordinary size.
///
/// # Errors
/// The cell cannot be loaded or swapped.
pub fn measure() -> Result<Vec<Row>, BenchError> {
    let namespace = CrateNamespace::new("bench", None);
    let wasm = wat::parse_str(version(1))?;
    let cell = namespace.load_wasm("cell", &wasm, LoadOptions::default()).map_err(|e| failed(&e))?;
    let of_cell = |name: &str, place: usize| addresses(&cell, &format!("{name}{place}"));
    let [entry, native, code, jump] = at_all_places(0, |place| {
        let (entry, code) = of_cell("next", place)?;
        Ok([entry, empty(place), code, jump(place)])
    })?;
    let [work, work_code] = at_all_places(4, |place| {
        let (entry, code) = of_cell("work", place)?;
        Ok([entry, code])
    })?;
    let mut entries = Vec::with_capacity(PLACES);
    for place in 0..PLACES {
        entries.push(of_cell("next", place)?.0);
    }
    drop(cell);
    for number in 2..=SWAPS + 1 {
        let wasm = wat::parse_str(version(number))?;
        namespace.swap(SwapRequest::new("cell").with_wasm(&wasm).keep_old(false)).map_err(|e| failed(&e))?;
    }
    let [after] = at_all_places(0, |place| Ok([entries[place]]))?;
    let goals = [goal(&entry, &native), goal(&work, &work_code)];
    let row = |name: &str, samples: Vec<(&'static str, Vec<f64>)>, goal| Row {
        name: name.into(),
        samples: samples.into_iter().map(|(name, figures)| (name, Sample::of(figures))).collect(),
        goal_ns: Some(goal),
    };
    let empty = vec![
        ("by a stable entry", entry),
        ("by a native pointer, native code", native),
        ("by a native pointer, and one jump", jump),
        ("by the address of its code", code),
        ("by the same entry, after 8 swaps", after),
    ];
    let ordinary = vec![("by a stable entry", work), ("by the address of its code", work_code)];
    Ok(vec![
        row("a call of an empty function, nothing being swapped", empty, goals[0]),
        row("a call of a function of ordinary size", ordinary, goals[1]),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_measured_before_and_after_swaps() {
        let rows = measure().unwrap();
        assert_eq!(rows.iter().map(|row| row.samples.len()).collect::<Vec<_>>(), [5, 2]);
        assert!(rows.iter().all(|row| row.goal_ns.is_some_and(|goal| goal > 0.0)));
    }
}
