//! Calls across the border of a cell, and how soon there is something to call.

use super::line::NOTHING;
use super::{Goal, Line, Side, With};
use crate::bench::call_sites::Next;
use crate::bench::gate::GATED_ADD;
use crate::bench::interpreter::Interpreter;
use crate::bench::load::{ADD, BenchError, CALLS, Failures, PEER};
use crate::bench::measure::Candidate;
use crate::bench::rival::Rival;
use crate::bench::subject::{AddFn, Subject};
use crate::bench::{native, reload};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes of the object file that is loaded.
const OBJECT_BYTES: usize = 300_000;

type Part = fn(&With<'_>, &str, &str, Option<Goal>) -> Result<Line, BenchError>;

/// Measures what is wanted of these lines.
pub(super) fn measure(
    with: &With<'_>,
    progress: &mut dyn FnMut(&str),
    add: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    let parts: [(&str, &str, Option<Goal>, Part); 7] = [
        ("call.stateless", "native → cell, stateless, by pointer", Goal::at_most(2.0), |w, k, n, g| {
            pointer(w, k, n, g, ADD)
        }),
        ("call.gated", "native → cell, gated, by pointer", Goal::at_most(6.0), |w, k, n, g| {
            pointer(w, k, n, g, GATED_ADD)
        }),
        ("call.typed", "native → cell, stateless, typed: traps are caught", None, typed),
        ("call.native", "cell → native function, in a loop", Goal::at_most(1.8), to_native),
        ("call.cell", "cell → cell, swappable, in a loop", Goal::at_most(1.75), to_cell),
        ("load.callable", "bytes → callable, one function", Goal::at_most(25_000.0), callable),
        ("load.object", "load of a compiled object of 300 kB", Goal::at_most(60_000.0), object),
    ];
    for (key, what, goal, part) in parts.into_iter().filter(|(key, what, ..)| with.plan.wants(key, what)) {
        progress(what);
        add(part(with, key, what, goal)?);
    }
    Ok(())
}

/// Calls by plain function pointers. Wasmtime and wasmi have none, so theirs are typed calls.
fn pointer(with: &With<'_>, key: &str, what: &str, goal: Option<Goal>, wat: &str) -> Result<Line, BenchError> {
    let wasm = wat::parse_str(wat)?;
    add_line(with, key, what, goal, Subject::new().plain_caller(&wasm)?, &wasm)
}

fn typed(with: &With<'_>, key: &str, what: &str, goal: Option<Goal>) -> Result<Line, BenchError> {
    let wasm = wat::parse_str(ADD)?;
    add_line(with, key, what, goal, Subject::new().caller(&wasm)?, &wasm)
}

fn add_line(
    with: &With<'_>,
    key: &str,
    what: &str,
    goal: Option<Goal>,
    ours: impl FnMut(u64),
    wasm: &[u8],
) -> Result<Line, BenchError> {
    let native: AddFn = add;
    let sides = vec![
        (Side::Planks, Candidate::batch("", ours)),
        (Side::Wasmtime, Candidate::batch("", with.rival.caller(wasm)?)),
        (Side::Wasmi, Candidate::batch("", Interpreter::new().caller(wasm)?)),
        (Side::Native, Candidate::batch("", move |n| add_often(black_box(native), n))),
    ];
    Ok(Line::interleaved(key, what, goal, sides, with.plan.effort))
}

/// What the cell's function does.
#[inline(never)]
extern "C-unwind" fn add(a: i32, b: i32) -> i32 {
    a.wrapping_add(b)
}

fn add_often(f: AddFn, times: u64) {
    for i in 0..times {
        black_box(f(i as i32, 1));
    }
}

fn to_native(with: &With<'_>, key: &str, what: &str, goal: Option<Goal>) -> Result<Line, BenchError> {
    let wasm = wat::parse_str(CALLS)?;
    let ours = Subject::new().native_caller(&wasm, next)?;
    let theirs = (with.rival.host_caller(&wasm)?, Interpreter::new().host_caller(&wasm)?);
    Ok(loops(with, key, what, goal, ours, theirs))
}

fn to_cell(with: &With<'_>, key: &str, what: &str, goal: Option<Goal>) -> Result<Line, BenchError> {
    let (wasm, peer) = (wat::parse_str(CALLS)?, wat::parse_str(PEER)?);
    let ours = Subject::new().peer_caller(&wasm, &peer)?;
    let theirs = (with.rival.peer_caller(&wasm, &peer)?, Interpreter::new().peer_caller(&wasm, &peer)?);
    Ok(loops(with, key, what, goal, ours, theirs))
}

/// The same loop on every side: each turn calls a function that adds one.
fn loops(
    with: &With<'_>,
    key: &str,
    what: &str,
    goal: Option<Goal>,
    ours: impl FnMut(u64),
    (rival, interpreter): (impl FnMut(u64), impl FnMut(u64)),
) -> Line {
    let native: Next = next;
    let native = move |n| _ = black_box(repeat(black_box(native), n));
    let sides = vec![
        (Side::Planks, Candidate::batch("", ours)),
        (Side::Wasmtime, Candidate::batch("", rival)),
        (Side::Wasmi, Candidate::batch("", interpreter)),
        (Side::Native, Candidate::batch("", native)),
    ];
    Line::interleaved(key, what, goal, sides, with.plan.effort)
}

/// What the imported function does.
#[inline(never)]
extern "C-unwind" fn next(x: i64) -> i64 {
    x.wrapping_add(1)
}

/// Calls `f` by its pointer again and again.
#[inline(never)]
fn repeat(f: Next, times: u64) -> i64 {
    (0..times).fold(0, |x, _| f(x))
}

/// Compiled, instantiated, its function looked up; what was made also goes.
fn callable(with: &With<'_>, key: &str, what: &str, goal: Option<Goal>) -> Result<Line, BenchError> {
    let wasm = wat::parse_str(ADD)?;
    let failures = Failures::default();
    // One thread is wasmtime's best for so little.
    let (subject, rival, interpreter) = (Subject::new(), Rival::one_thread()?, Interpreter::new());
    let sides = vec![
        (Side::Planks, failures.candidate("", || subject.cold(&distinct(&wasm)))),
        (Side::Wasmtime, failures.candidate("", || rival.cold(&distinct(&wasm)))),
        (Side::Wasmi, failures.candidate("", || interpreter.cold(&distinct(&wasm)))),
    ];
    let line = Line::interleaved(key, what, goal, sides, with.plan.effort);
    failures.none()?;
    Ok(line)
}

/// The module with a custom section that nobody has seen: this system does not compile again what is still there.
fn distinct(wasm: &[u8]) -> Vec<u8> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    // Id 0, nine bytes, an empty name.
    [wasm, &[0, 9, 0], &NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes()].concat()
}

/// From a compiled module's bytes to callable; what was made also goes.
fn object(with: &With<'_>, key: &str, what: &str, goal: Option<Goal>) -> Result<Line, BenchError> {
    const TRIED: usize = 400;
    // Functions of the generated module are alike, so its object grows with their number.
    let each = Subject::object(&reload::generated(TRIED)?)?.len() / TRIED;
    let wasm = reload::generated(OBJECT_BYTES / each.max(1))?;
    let (elf, serialized) = (Subject::object(&wasm)?, with.rival.object(&wasm)?);
    let file = native::Scratch::new("object.cwasm", &serialized).map_err(BenchError::Native)?;
    let failures = Failures::default();
    let subject = Subject::new();
    let sides = vec![
        (Side::Planks, failures.candidate("", || subject.load_object(&elf))),
        (Side::Wasmtime, failures.candidate("", || with.rival.load_object(file.path()))),
    ];
    let line = Line::interleaved(key, what, goal, sides, with.plan.effort);
    failures.none()?;
    Ok(line.without(Side::Wasmi, "it has no compiled form").without(Side::Native, NOTHING))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_modules_have_the_same_bytes_and_all_are_valid() {
        let wasm = wat::parse_str(ADD).unwrap();
        let (a, b) = (distinct(&wasm), distinct(&wasm));
        assert!(a != b);
        let subject = Subject::new();
        subject.cold(&a).unwrap();
        subject.cold(&b).unwrap();
    }
}
