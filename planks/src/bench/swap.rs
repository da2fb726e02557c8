//! `planks bench swap`: a storm of callers and swaps that must lose nothing, and what each step of a swap costs.

use super::load::BenchError;
use super::measure::Sample;
use super::report::Row;
use super::{entry, scan};
use injector::storm;
use namespace_bridge::swap::{StatePlan, SwapReport, SwapRequest};
use namespace_bridge::{CellModule, CrateNamespace, LoadOptions, compile_module};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Goal: the step in which everybody comes to the new version.
const COMMIT_NS: f64 = 1_000.0;
/// Goal: from the last caller inside to the first one in the new version, for any size of memory.
const ADOPT_NS: f64 = 50_000.0;
/// Goal: latency of calls during 1,000 swaps a second, as a multiple of that without swaps.
const LATENCY_RATIO: f64 = 2.0;

/// Swaps of a row about one step.
const SWAPS: usize = 400;

type Part = fn(&storm::Plan) -> Result<Vec<Row>, BenchError>;

/// Measures every row whose name contains `only`. Rows of one part are measured together.
///
/// # Errors
/// Something that should happen is refused; the storm lost, doubled or tore a call.
pub fn rows(plan: &storm::Plan, only: &str, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, BenchError> {
    // The entry first: a processor remembers of a jump that it once had several targets, and the storm's addresses are used again.
    let parts: [(&str, Part); 8] = [
        ("entry", entry_rows),
        ("storm", storm_rows),
        ("scan", scan_rows),
        ("commit", commit_rows),
        ("phases", phase_rows),
        ("rollback", rollback_rows),
        ("adopt", adopt_rows),
        ("latency", latency_rows),
    ];
    let mut rows = Vec::new();
    for (name, part) in parts.into_iter().filter(|(name, _)| name.contains(only) || only.is_empty()) {
        progress(name);
        rows.extend(part(plan)?);
    }
    Ok(rows)
}

fn failed(e: impl std::fmt::Display) -> BenchError {
    BenchError::Swap(e.to_string())
}

fn nanos(d: Duration) -> f64 {
    d.as_nanos() as f64
}

fn row(name: String, samples: Vec<(&'static str, Sample)>, goal_ns: Option<f64>) -> Row {
    Row { name, samples, goal_ns }
}

/// A call when nothing is swapped.
fn entry_rows(_: &storm::Plan) -> Result<Vec<Row>, BenchError> {
    entry::measure()
}

/// What a task inside of an old version costs who looks for it.
fn scan_rows(_: &storm::Plan) -> Result<Vec<Row>, BenchError> {
    Ok(vec![scan::measure()?])
}

/// Callers without a pause, swaps without a pause, one in four made to fail. The longest commit is one during which the processor was taken away: of 118,240
/// commits on two processors with two callers, three took more than 50 µs, all three with an involuntary context switch.
fn storm_rows(plan: &storm::Plan) -> Result<Vec<Row>, BenchError> {
    // Another one before, so that all code has been read from the disk and the heap has its size.
    run_storm(&storm::Plan { seed: plan.seed.wrapping_add(1), ..plan.clone() })?;
    let before = resident();
    let start = Instant::now();
    let report = run_storm(plan)?;
    let each = nanos(start.elapsed()) / plan.swaps.max(1) as f64;
    let grown = resident().zip(before).map_or(0, |(after, before)| after.saturating_sub(before));
    let name = format!(
        "storm: {} swaps ({} rollbacks), {} failed on request, {} calls by {} tasks ({} changed state, all counted; {} pairs in order), \
         {} KiB more resident than after the one before",
        report.swaps, report.rollbacks, report.failed, report.calls, plan.callers, report.counted, report.pairs, grown
    );
    let mean = |sum: Duration| nanos(sum) / report.swaps.max(1) as f64;
    let of = |median: f64, max: f64| Sample { median, min: median, max };
    let samples = vec![
        ("a swap, mean", of(each, each)),
        ("commit, mean and longest", of(mean(report.phases.commit), nanos(report.slowest_commit))),
    ];
    Ok(vec![row(name, samples, None)])
}

/// A storm in which nothing is lost, doubled or torn.
fn run_storm(plan: &storm::Plan) -> Result<storm::Report, BenchError> {
    let report = storm::run(plan, |_| {}).map_err(failed)?;
    if report.is_clean() {
        return Ok(report);
    }
    let found = report.wrong.join("\n  ");
    Err(BenchError::Swap(format!("the storm found {} things that must not be:\n  {found}", report.wrongs)))
}

/// KiB of memory in use.
fn resident() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split(' ').nth(1)?.parse::<usize>().ok()? * 4)
}

/// A namespace with versions of a cell and cells that import from it.
struct Bed {
    namespace: Arc<CrateNamespace>,
    versions: Vec<Arc<CellModule>>,
}

impl Bed {
    fn new(texts: &[String], dependents: usize) -> Result<Bed, BenchError> {
        let namespace = CrateNamespace::new("bench", None);
        let options = LoadOptions::default;
        let compile = |text: &String| compile_module("cell", &wat::parse_str(text)?, &options()).map_err(failed);
        let versions: Vec<_> = texts.iter().map(compile).collect::<Result<_, _>>()?;
        if let Some(first) = versions.first() {
            namespace.load_module("cell", first, options()).map_err(failed)?;
        }
        let user = wat::parse_str(
            r#"(module (import "cell" "f" (func $f (result i32))) (func (export "g") (result i32) (call $f)))"#,
        )?;
        for i in 0..dependents {
            namespace.load_wasm(&format!("user{i}"), &user, options()).map_err(failed)?;
        }
        Ok(Bed { namespace, versions })
    }

    fn swap(&self, number: usize, plan: StatePlan, keep: bool) -> Result<SwapReport, BenchError> {
        let version = &self.versions[number % self.versions.len()];
        let request = SwapRequest::new("cell").with_module(version).state(plan).keep_old(keep);
        self.namespace.swap(request).map_err(failed)
    }

    /// Swaps, and a figure of each report.
    fn figures(&self, swaps: usize, figure: impl Fn(&SwapReport) -> Duration) -> Result<Sample, BenchError> {
        let figures = (1..=swaps).map(|i| Ok(nanos(figure(&self.swap(i, StatePlan::Fresh, false)?))));
        Ok(Sample::of(figures.collect::<Result<_, BenchError>>()?))
    }
}

fn plain(k: usize) -> String {
    format!(r#"(module (func (export "f") (result i32) (i32.const {k})))"#)
}

/// The step itself, with few and with many dependents.
fn commit_rows(_: &storm::Plan) -> Result<Vec<Row>, BenchError> {
    let texts = [plain(1), plain(2)];
    let (few, many) = (Bed::new(&texts, 1)?, Bed::new(&texts, 2000)?);
    let commit = |report: &SwapReport| report.phases.commit;
    let many = many.figures(SWAPS, commit)?;
    let few = few.figures(SWAPS, commit)?;
    let name = "commit: version word, symbols, crate tree".into();
    Ok(vec![row(name, vec![("2,000 dependents", many), ("1 dependent", few)], Some(COMMIT_NS))])
}

/// The phases of a swap to a version that is compiled already.
fn phase_rows(_: &storm::Plan) -> Result<Vec<Row>, BenchError> {
    let bed = Bed::new(&[plain(1), plain(2)], 1)?;
    let reports: Vec<SwapReport> =
        (1..=SWAPS).map(|i| bed.swap(i, StatePlan::Fresh, false)).collect::<Result<_, _>>()?;
    let of = |figure: fn(&SwapReport) -> Duration| Sample::of(reports.iter().map(|r| nanos(figure(r))).collect());
    let samples = vec![
        ("all phases", of(|r| r.phases.total())),
        ("prepare (link, allocate)", of(|r| r.phases.prepare)),
        ("validate", of(|r| r.phases.validate)),
        ("quiesce", of(|r| r.phases.quiesce)),
        ("transfer", of(|r| r.phases.transfer)),
        ("commit", of(|r| r.phases.commit)),
        ("retire", of(|r| r.phases.retire)),
    ];
    Ok(vec![row("phases of a swap to a compiled version".into(), samples, None)])
}

fn rollback_rows(_: &storm::Plan) -> Result<Vec<Row>, BenchError> {
    let bed = Bed::new(&[plain(1), plain(2)], 1)?;
    bed.swap(1, StatePlan::Fresh, true)?;
    let mut figures = Vec::with_capacity(SWAPS);
    for _ in 0..SWAPS {
        let start = Instant::now();
        bed.namespace.rollback("cell").map_err(failed)?;
        figures.push(nanos(start.elapsed()));
    }
    Ok(vec![row("rollback, the whole of it".into(), vec![("planks", Sample::of(figures))], None)])
}

/// A memory of one page, and one of 1 GiB that is in use.
fn adopt_rows(_: &storm::Plan) -> Result<Vec<Row>, BenchError> {
    let text = |pages: usize, k: usize| {
        format!(
            r#"(module (memory {pages}) (func (export "f") (result i32)
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const {k}))) (i32.load (i32.const 0))))"#
        )
    };
    const GIB: usize = 16384;
    let measure = |pages: usize, touch: bool| -> Result<Sample, BenchError> {
        let bed = Bed::new(&[text(pages, 1), text(pages, 2)], 1)?;
        let memory = bed.namespace.get_crate("cell").and_then(|c| c.instance()?.memory(0).cloned());
        if let Some(memory) = memory.filter(|_| touch) {
            // Every page of the host is really there.
            (0..memory.bytes())
                .step_by(4096)
                .try_for_each(|at| memory.write(at, &[1]))
                .ok_or_else(|| failed("memory"))?;
        }
        let mut figures = Vec::with_capacity(SWAPS);
        for i in 1..=SWAPS {
            let phases = bed.swap(i, StatePlan::Adopt, i % 2 == 0)?.phases;
            figures.push(nanos(phases.quiesce + phases.transfer + phases.commit));
        }
        Ok(Sample::of(figures))
    };
    let large = measure(GIB, true)?;
    let small = measure(1, true)?;
    let name = "adopt: quiesce, transfer and commit together".into();
    Ok(vec![row(name, vec![("1 GiB of memory", large), ("64 KiB of memory", small)], Some(ADOPT_NS))])
}

/// Time of one latency measurement.
const SLICE: Duration = Duration::from_millis(400);
const ROUNDS: usize = 7;

/// Latency of calls of a stateless cell, with and without 1,000 swaps a second, in turns.
fn latency_rows(_: &storm::Plan) -> Result<Vec<Row>, BenchError> {
    let bed = Bed::new(&[plain(1), plain(2)], 1)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        without.push(latencies(&bed, false)?);
        with.push(latencies(&bed, true)?);
    }
    let of = |all: &[[f64; 2]], i: usize| Sample::of(all.iter().map(|l| l[i]).collect());
    let names = ["latency of a call, 50 %", "latency of a call, 99.9 %"];
    let rows = names.iter().enumerate().map(|(i, name)| {
        let (with, without) = (of(&with, i), of(&without, i));
        let goal = without.median * LATENCY_RATIO;
        row((*name).into(), vec![("1,000 swaps a second", with), ("no swaps", without)], Some(goal))
    });
    Ok(rows.collect())
}

/// The 50th and the 99.9th percentile.
fn latencies(bed: &Bed, swaps: bool) -> Result<[f64; 2], BenchError> {
    let cell = bed.namespace.get_crate("cell").ok_or_else(|| failed("no cell"))?;
    let f = cell.typed_func::<(), i32>("f").map_err(failed)?;
    drop(cell);
    let stop = AtomicBool::new(false);
    let mut times = thread::scope(|s| {
        let caller = s.spawn(|| {
            let mut times: Vec<u32> = Vec::with_capacity(1 << 24);
            while !stop.load(Ordering::Relaxed) && times.len() < times.capacity() {
                let start = Instant::now();
                let called = f.call(());
                times.push(start.elapsed().as_nanos() as u32);
                if called.is_err() {
                    return Err(failed("a call failed"));
                }
            }
            Ok(times)
        });
        let end = Instant::now() + SLICE;
        let mut number = 0;
        let mut swapped = Ok(());
        while Instant::now() < end && swapped.is_ok() {
            thread::sleep(Duration::from_millis(1));
            number += 1;
            if swaps {
                swapped = bed.swap(number, StatePlan::Fresh, false).map(drop);
            }
        }
        stop.store(true, Ordering::Relaxed);
        let times = caller.join().map_err(|_| failed("the caller panicked"))?;
        swapped.and(times)
    })?;
    times.sort_unstable();
    let at = |part: f64| times.get((times.len() as f64 * part) as usize).copied().unwrap_or_default().into();
    Ok([at(0.5), at(0.999)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_every_step_are_measured() {
        let plan = storm::Plan::new(1, 50);
        for part in ["commit", "phases", "rollback"] {
            let rows = rows(&plan, part, |_| {}).unwrap();
            assert!(rows.iter().all(|row| !row.samples.is_empty()), "{rows:?}");
        }
    }
}
