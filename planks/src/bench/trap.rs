//! `planks bench trap`: what a trap costs from the faulting instruction to the caller's `Err`, and what readiness for it costs a
//! call that does not trap.

use super::bare_signal;
use super::load::{BenchError, Failures, row};
use super::measure::{Candidate, Effort, above_its_second, above_last, interleaved};
use super::report::Row;
use super::rival::Rival;
use super::subject::Subject;
use super::unwinding::{Unwinder, resume_and_catch};
use std::hint::black_box;

/// Goal: an explicit trap to `Err`, its catch right above.
const EXPLICIT_NS: f64 = 60.0;
/// Goal: each wasm frame between an explicit trap and its catch.
const FRAME_NS: f64 = 2.0;
/// Goal: a guard-page trap, as a multiple of the bare signal's way to a handler and back.
const FAULT_RATIO: f64 = 1.1;
/// Goal: what a catch adds to a call.
const CATCH_NS: f64 = 2.0;

/// Goal: each frame with a destructor between a panic and its catch.
const UNWIND_NS: f64 = 100.0;

/// Wasm frames between trap and catch in the row that counts them.
const FRAMES: u32 = 50;
/// Native frames between panic and catch in the row that counts them.
const NATIVE_FRAMES: u32 = 20;

/// Traps `n` frames deep, and does not.
const TRAPS: &str = r#"(module (memory 1)
    (func $down (export "down") (param i32) (result i32)
        (if (result i32) (i32.eqz (local.get 0))
            (then unreachable)
            (else (i32.add (i32.const 1) (call $down (i32.sub (local.get 0) (i32.const 1)))))))
    (func (export "fault") (param i32) (result i32) (i32.load (local.get 0)))
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))"#;

/// Measures every row whose name contains `only`.
///
/// # Errors
/// Something that should run is refused.
pub fn rows(effort: Effort, only: &str, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, BenchError> {
    type Part = fn(&[u8], Effort) -> Result<Row, BenchError>;
    let parts: [(&str, Part); 6] = [
        ("explicit trap to Err, its catch right above", explicit),
        ("each wasm frame between an explicit trap and its catch", per_frame),
        ("out-of-bounds load to Err", fault),
        ("what a catch adds to a call through a plain function pointer", catch),
        ("what a typed call adds to a call through a plain function pointer", typed),
        ("unwinding with destructors, per frame, warm", unwinding),
    ];
    let wasm = wat::parse_str(TRAPS)?;
    let mut rows = Vec::new();
    for (name, part) in parts.into_iter().filter(|(name, _)| name.contains(only)) {
        progress(name);
        rows.push(Row { name: name.into(), ..part(&wasm, effort)? });
    }
    Ok(rows)
}

fn explicit(wasm: &[u8], effort: Effort) -> Result<Row, BenchError> {
    let candidates = vec![
        Candidate::batch("planks, backtrace included", Subject::new().at_depth(wasm, 0)?),
        Candidate::batch("wasmtime, backtrace included", Rival::new()?.at_depth(wasm, 0)?),
        Candidate::batch("wasmtime without backtraces", Rival::without_backtraces()?.at_depth(wasm, 0)?),
        Candidate::batch("wasmtime without signals, backtraces", Rival::without_signals()?.at_depth(wasm, 0)?),
    ];
    Ok(row(candidates, effort, Some(EXPLICIT_NS)))
}

fn per_frame(wasm: &[u8], effort: Effort) -> Result<Row, BenchError> {
    let pair = |deep, shallow| [Candidate::batch("deep", deep), Candidate::batch("shallow", shallow)];
    let rival = Rival::new()?;
    let mut pairs = [
        pair(Subject::new().at_depth(wasm, FRAMES)?, Subject::new().at_depth(wasm, 0)?),
        pair(rival.at_depth(wasm, FRAMES)?, rival.at_depth(wasm, 0)?),
    ];
    let each = above_its_second(&mut pairs, effort).into_iter().map(|s| s.part(FRAMES));
    let samples = ["planks, call and trap", "wasmtime, call and trap"].into_iter().zip(each).collect();
    Ok(Row { name: String::new(), samples, goal_ns: Some(FRAME_NS) })
}

/// An exception raised under frames with a destructor each and caught above them, less the same without such frames.
fn unwinding(_: &[u8], effort: Effort) -> Result<Row, BenchError> {
    let failures = Failures::default();
    let through = |mut unwinder: Unwinder, depth: u32| {
        failures.batch("", move |n| {
            let unwound = (0..n).try_for_each(|_| unwinder.unwind(black_box(depth.into())).map(drop));
            unwound.map_err(BenchError::Unwinding)
        })
    };
    let compiled = |depth: u32| {
        Candidate::each("", move || {
            black_box(resume_and_catch(black_box(depth.into())));
        })
    };
    let libgcc = || Unwinder::libgcc().map_err(BenchError::Unwinding);
    let mut pairs = [
        [through(Unwinder::own(), NATIVE_FRAMES), through(Unwinder::own(), 0)],
        [through(libgcc()?, NATIVE_FRAMES), through(libgcc()?, 0)],
        [compiled(NATIVE_FRAMES), compiled(0)],
    ];
    let each = above_its_second(&mut pairs, effort).into_iter().map(|s| s.part(NATIVE_FRAMES));
    let names = ["planks", "libgcc, the same frames", "planks, frames of compiled Rust"];
    let samples = names.into_iter().zip(each).collect();
    drop(pairs);
    failures.none_in(Row { name: String::new(), samples, goal_ns: Some(UNWIND_NS) })
}

fn fault(wasm: &[u8], effort: Effort) -> Result<Row, BenchError> {
    let failures = Failures::default();
    let bare = bare_signal::Page::new().map_err(BenchError::Signal)?;
    let mut candidates = vec![
        Candidate::batch("planks, backtrace included", Subject::new().faulter(wasm)?),
        failures.batch("a bare signal and back", |n| bare.round_trips(n).map_err(BenchError::Signal)),
        Candidate::batch("wasmtime, backtrace included", Rival::new()?.faulter_alone(wasm)?),
        Candidate::batch("wasmtime without backtraces", Rival::without_backtraces()?.faulter_alone(wasm)?),
    ];
    let samples = interleaved(&mut candidates, effort);
    let names: Vec<_> = candidates.iter().map(|c| c.name).collect();
    drop(candidates);
    let goal_ns = samples.get(1).map(|bare| bare.median * FAULT_RATIO);
    failures.none_in(Row { name: String::new(), samples: names.into_iter().zip(samples).collect(), goal_ns })
}

fn catch(wasm: &[u8], effort: Effort) -> Result<Row, BenchError> {
    let (catching, plain) = (Subject::new().catching_caller(wasm)?, Subject::new().plain_caller(wasm)?);
    let mut candidates = [Candidate::batch("planks, catch_trap", catching), Candidate::batch("plain", plain)];
    Ok(difference(&mut candidates, effort, Some(CATCH_NS)))
}

fn typed(wasm: &[u8], effort: Effort) -> Result<Row, BenchError> {
    let (typed, plain) = (Subject::new().caller(wasm)?, Subject::new().plain_caller(wasm)?);
    let mut candidates = [
        Candidate::batch("planks, typed call", typed),
        Candidate::batch("wasmtime, typed call", Rival::new()?.caller(wasm)?),
        Candidate::batch("plain", plain),
    ];
    Ok(difference(&mut candidates, effort, None))
}

fn difference(candidates: &mut [Candidate<'_>], effort: Effort, goal_ns: Option<f64>) -> Row {
    let samples = above_last(candidates, effort);
    Row { name: String::new(), samples: candidates.iter().map(|c| c.name).zip(samples).collect(), goal_ns }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_row_runs() {
        let effort = Effort { rounds: 1, slice: Duration::from_micros(50) };
        let rows = rows(effort, "", |_| {}).unwrap();
        assert!(rows.iter().all(|row| !row.samples.is_empty()), "{rows:?}");
    }
}
