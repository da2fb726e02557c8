//! `planks bench load`: what it costs to load a module, to call it, and to get out of it.

use super::measure::{Candidate, Clock, Effort, Sample, figures_of_one, interleaved};
use super::report::Row;
use super::rival::{Rival, RivalError};
use super::subject::{Subject, SubjectError};
use std::cell::RefCell;

/// Goal: wasm bytes to callable, one function.
const COLD_LOAD_NS: f64 = 60_000.0;
/// Goal: another instance of a compiled module with one page of memory, and its end.
const WARM_LOAD_NS: f64 = 10_000.0;

/// Goals: compilation, in wasmtime's time.
const COMPILE_RATIO: f64 = 0.75;
const COMPILE_TOGETHER_RATIO: f64 = 0.8;

/// One function.
pub(super) const ADD: &str =
    r#"(module (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))"#;

/// One function and one page of memory.
pub(super) const PAGE: &str = r#"(module (memory (export "memory") 1)
    (func (export "bump") (param i32) (result i32)
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (local.get 0)))
        (i32.load (i32.const 0))))"#;

/// Calls an imported function `n` times; traps in two ways.
pub(super) const CALLS: &str = r#"(module (import "peer" "next" (func $next (param i64) (result i64)))
    (memory 1)
    (func (export "repeat") (param $n i64) (result i64) (local $x i64)
        (loop $again
            (local.set $x (call $next (local.get $x)))
            (br_if $again (i64.ne (i64.const 0) (local.tee $n (i64.sub (local.get $n) (i64.const 1))))))
        (local.get $x))
    (func (export "explicit") unreachable)
    (func (export "fault") (param i32) (result i32) (i32.load (local.get 0))))"#;

/// What `peer.next` is when a cell provides it.
pub(super) const PEER: &str =
    r#"(module (func (export "next") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1))))"#;

/// Why a benchmark could not run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// This system refused something.
    #[error("planks: {0}")]
    Subject(#[from] SubjectError),
    /// Wasmtime refused something.
    #[error("wasmtime: {0}")]
    Rival(#[from] RivalError),
    /// The interpreter refused something.
    #[error("wasmi: {0}")]
    Interpreter(#[from] wasmi::Error),
    /// The system refused a handler or a page.
    #[error("a bare signal: {0}")]
    Signal(std::io::Error),
    /// The C compiler refused a kernel.
    #[error("native code: {0}")]
    Native(std::io::Error),
    /// Two sides computed different things.
    #[error("kernel `{kernel}`: the sides disagree: {sums:?}")]
    Disagree {
        /// Name of the kernel.
        kernel: &'static str,
        /// What each side computed.
        sums: Vec<u32>,
    },
    /// There is no libgcc, or an exception was not handled.
    #[error("unwinding: {0}")]
    Unwinding(std::io::Error),
    /// The module has no function that could change.
    #[error("the module defines no function")]
    NothingToChange,
    /// A change of one function made others be compiled than those that may hold its body.
    #[error("changes of functions that {changed} hold made {compiled} functions be compiled")]
    ChangedMore {
        /// Functions that were changed or name one that was.
        changed: u32,
        /// Functions that were compiled.
        compiled: u32,
    },
    /// A swap was refused, or a storm found something that must not be.
    #[error("swap: {0}")]
    Swap(String),
    /// A benchmark's own module.
    #[error("a module of the benchmark: {0}")]
    Text(#[from] wat::Error),
}

/// Measures every row, except compilation of a large module.
///
/// # Errors
/// Something that should run is refused.
pub fn rows(effort: Effort, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, BenchError> {
    type Part = fn(Effort) -> Result<Row, BenchError>;
    let parts: [(&str, Part); 8] = [
        ("one-function module, bytes to callable", cold),
        ("another instance of a compiled module with one page of memory, and its end", warm),
        ("the same with one call that writes to the memory", warm_and_written),
        ("typed call, native to cell and back", call),
        ("call of a host closure from a cell", host_call),
        ("call of another cell's function from a cell", peer_call),
        ("explicit trap to Err", explicit_trap),
        ("memory fault to Err", memory_fault),
    ];
    let mut rows = Vec::new();
    for (name, part) in parts {
        progress(name);
        rows.push(Row { name: name.into(), ..part(effort)? });
    }
    Ok(rows)
}

/// The row of these candidates.
pub(super) fn row(mut candidates: Vec<Candidate<'_>>, effort: Effort, goal_ns: Option<f64>) -> Row {
    let samples = interleaved(&mut candidates, effort);
    Row { name: String::new(), samples: candidates.iter().map(|c| c.name).zip(samples).collect(), goal_ns }
}

/// The last failure of candidates that can fail.
#[derive(Default)]
pub(super) struct Failures(RefCell<Option<BenchError>>);

impl Failures {
    pub(super) fn candidate<'a, E: Into<BenchError>>(
        &'a self,
        name: &'static str,
        mut op: impl FnMut() -> Result<(), E> + 'a,
    ) -> Candidate<'a> {
        Candidate::each(name, move || {
            if let Err(e) = op() {
                *self.0.borrow_mut() = Some(e.into());
            }
        })
    }

    pub(super) fn batch<'a>(
        &'a self,
        name: &'static str,
        mut op: impl FnMut(u64) -> Result<(), BenchError> + 'a,
    ) -> Candidate<'a> {
        Candidate::batch(name, move |n| {
            if let Err(e) = op(n) {
                *self.0.borrow_mut() = Some(e);
            }
        })
    }

    /// `row`, if nothing failed while it was measured.
    pub(super) fn none_in(self, row: Row) -> Result<Row, BenchError> {
        self.none().map(|()| row)
    }

    /// Nothing failed so far, or what did.
    pub(super) fn none(&self) -> Result<(), BenchError> {
        self.0.borrow_mut().take().map_or(Ok(()), Err)
    }
}

fn cold(effort: Effort) -> Result<Row, BenchError> {
    let failures = Failures::default();
    let wasm = wat::parse_str(ADD)?;
    let subject = Subject::new();
    let (default, one_thread) = (Rival::new()?, Rival::one_thread()?);
    let candidates = vec![
        failures.candidate("planks, unload included", || subject.cold(&wasm)),
        failures.candidate("wasmtime", || default.cold(&wasm)),
        failures.candidate("wasmtime, one thread", || one_thread.cold(&wasm)),
    ];
    let row = row(candidates, effort, Some(COLD_LOAD_NS));
    failures.none_in(row)
}

fn warm(effort: Effort) -> Result<Row, BenchError> {
    let failures = Failures::default();
    let wasm = wat::parse_str(PAGE)?;
    let subject = Subject::new();
    let module = subject.compile(&wasm)?;
    let (on_demand, pooled) = (Rival::new()?, Rival::pooling()?);
    let (a, b) = (on_demand.prepare(&wasm)?, pooled.prepare(&wasm)?);
    let candidates = vec![
        failures.candidate("planks, unload included", || subject.warm(&module)),
        failures.candidate("wasmtime, on demand", || on_demand.warm(&a)),
        failures.candidate("wasmtime, pooling", || pooled.warm(&b)),
    ];
    let row = row(candidates, effort, Some(WARM_LOAD_NS));
    failures.none_in(row)
}

fn warm_and_written(effort: Effort) -> Result<Row, BenchError> {
    let failures = Failures::default();
    let wasm = wat::parse_str(PAGE)?;
    let subject = Subject::new();
    let module = subject.compile(&wasm)?;
    let (on_demand, pooled) = (Rival::new()?, Rival::pooling()?);
    let (a, b) = (on_demand.prepare(&wasm)?, pooled.prepare(&wasm)?);
    let candidates = vec![
        failures.candidate("planks, unload included", || subject.warm_and_written(&module)),
        failures.candidate("wasmtime, on demand", || on_demand.warm_and_written(&a)),
        failures.candidate("wasmtime, pooling", || pooled.warm_and_written(&b)),
    ];
    let row = row(candidates, effort, None);
    failures.none_in(row)
}

fn call(effort: Effort) -> Result<Row, BenchError> {
    let wasm = wat::parse_str(ADD)?;
    let (ours, theirs) = (Subject::new().caller(&wasm)?, Rival::new()?.caller(&wasm)?);
    let candidates = vec![Candidate::batch("planks", ours), Candidate::batch("wasmtime", theirs)];
    Ok(row(candidates, effort, None))
}

fn host_call(effort: Effort) -> Result<Row, BenchError> {
    let wasm = wat::parse_str(CALLS)?;
    let (ours, theirs) = (Subject::new().host_caller(&wasm)?, Rival::new()?.host_caller(&wasm)?);
    let candidates = vec![Candidate::batch("planks", ours), Candidate::batch("wasmtime", theirs)];
    Ok(row(candidates, effort, None))
}

fn peer_call(effort: Effort) -> Result<Row, BenchError> {
    let (wasm, peer) = (wat::parse_str(CALLS)?, wat::parse_str(PEER)?);
    let (ours, theirs) = (Subject::new().peer_caller(&wasm, &peer)?, Rival::new()?.peer_caller(&wasm, &peer)?);
    let candidates = vec![Candidate::batch("planks", ours), Candidate::batch("wasmtime", theirs)];
    Ok(row(candidates, effort, None))
}

fn explicit_trap(effort: Effort) -> Result<Row, BenchError> {
    let wasm = wat::parse_str(CALLS)?;
    let ours = Subject::new().trapper(&wasm)?;
    let with = Rival::new()?.trapper(&wasm)?;
    let without = Rival::without_backtraces()?.trapper(&wasm)?;
    let candidates = vec![
        Candidate::batch("planks, backtrace included", ours),
        Candidate::batch("wasmtime, backtrace included", with),
        Candidate::batch("wasmtime without backtraces", without),
    ];
    Ok(row(candidates, effort, None))
}

fn memory_fault(effort: Effort) -> Result<Row, BenchError> {
    let wasm = wat::parse_str(CALLS)?;
    let ours = Subject::new().faulter(&wasm)?;
    let with = Rival::new()?.faulter(&wasm)?;
    let without = Rival::without_backtraces()?.faulter(&wasm)?;
    let candidates = vec![
        Candidate::batch("planks, backtrace included", ours),
        Candidate::batch("wasmtime, backtrace included", with),
        Candidate::batch("wasmtime without backtraces", without),
    ];
    Ok(row(candidates, effort, None))
}

/// Measures compilation of a given module on one thread and on all processors, each candidate `rounds` times in turns.
///
/// # Errors
/// A compiler refuses the module.
pub fn compile_rows(name: &str, wasm: &[u8], rounds: usize) -> Result<[Row; 2], BenchError> {
    let (many, one) = (Rival::new()?, Rival::one_thread()?);
    let alone = Subject::compiler_alone()?;
    let failures = Failures::default();
    let mut candidates = [
        failures.candidate("", || Subject::compile_with(&alone, wasm)),
        failures.candidate("", || one.compile_only(wasm)),
        failures.candidate("", || Subject::compile_only(wasm)),
        failures.candidate("", || many.compile_only(wasm)),
    ];
    let mut samples = figures_of_one(&mut candidates, rounds, Clock::Wall).into_iter().map(Sample::of);
    drop(candidates);
    let [ours, theirs, ours_together, theirs_together] =
        std::array::from_fn(|_| samples.next().expect("a sample for each candidate"));
    failures.none()?;
    let megabytes = wasm.len() as f64 / 1e6;
    let row = |threads: &str, ours: Sample, theirs: Sample, goal: f64| Row {
        name: format!("compilation of {name} ({megabytes:.1} MB), {threads}"),
        samples: vec![("planks", ours), ("wasmtime", theirs)],
        goal_ns: Some(goal * theirs.median),
    };
    Ok([
        row("one thread", ours, theirs, COMPILE_RATIO),
        row("all processors", ours_together, theirs_together, COMPILE_TOGETHER_RATIO),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_row_runs_on_both_sides() {
        let effort = Effort { rounds: 1, slice: Duration::from_micros(50) };
        let mut measured = rows(effort, |_| {}).unwrap();
        measured.extend(compile_rows("sample", &wat::parse_str(CALLS).unwrap(), 1).unwrap());
        for row in measured {
            assert!(row.samples.len() >= 2 && row.samples.iter().all(|(_, s)| s.median > 0.0), "{row:?}");
        }
    }
}
