//! The storm: tasks call without a pause while versions swap, some of the swaps made to fail at random steps.
//!
//! Each result proves which version ran, so the callers know whether it was one that served during the call. Cells with state count their calls
//! in several places; the sum at the end says whether a call was lost or ran twice. Two cells always change together; nobody may see the new
//! one and then the old other.

mod caller;
mod cells;
mod lane;

use crate::random::Random;
use crate::world::{SetupError, setup};
use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use caller::{Caller, Tally};
use cells::Cells;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use kernel_config::task::DEFAULT_STACK;
use lane::Lane;
use namespace_bridge::swap::{Phases, StatePlan, SwapError, SwapReport, SwapStep};
use runtime_port::platform;
use spin::Mutex;

/// A storm.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all randomness comes from.
    pub seed: u64,
    /// How many swaps.
    pub swaps: u64,
    /// Tasks that call.
    pub callers: u32,
    /// Whether one swap in four is made to fail.
    pub failures: bool,
    /// Bytes of stack of each task.
    pub stack: usize,
}

impl Plan {
    /// A storm of `swaps` swaps with two callers and failures.
    pub fn new(seed: u64, swaps: u64) -> Plan {
        Plan { seed, swaps, callers: 2, failures: true, stack: DEFAULT_STACK / 4 }
    }
}

/// What a storm did.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Swaps that happened, rollbacks included.
    pub swaps: u64,
    /// Rollbacks.
    pub rollbacks: u64,
    /// Swaps that were made to fail.
    pub failed: u64,
    /// Calls of callers.
    pub calls: u64,
    /// Calls that changed state.
    pub counted: u64,
    /// What the state says about those.
    pub count: u64,
    /// Pairs of calls whose order was judged.
    pub pairs: u64,
    /// Everything that must not be, the first few in words.
    pub wrong: Vec<String>,
    /// How much of it there was.
    pub wrongs: u64,
    /// Longest commit.
    pub slowest_commit: Duration,
    /// Sum over all swaps that happened.
    pub phases: Phases,
}

impl Report {
    /// Nothing lost, doubled, torn, or of a wrong version.
    pub fn is_clean(&self) -> bool {
        self.wrongs == 0 && self.counted == self.count
    }

    fn blame(&mut self, what: String) {
        self.wrongs += 1;
        if self.wrong.len() < 8 {
            self.wrong.push(what);
        }
    }

    fn happened(&mut self, report: &SwapReport) {
        self.swaps += 1;
        self.slowest_commit = self.slowest_commit.max(report.phases.commit);
        let (sum, p) = (&mut self.phases, report.phases);
        sum.prepare += p.prepare;
        sum.validate += p.validate;
        sum.quiesce += p.quiesce;
        sum.transfer += p.transfer;
        sum.commit += p.commit;
        sum.retire += p.retire;
    }
}

/// What all tasks of a storm share.
struct Shared {
    cells: Cells,
    plain: Lane,
    counter: Lane,
    pair: Lane,
    stop: AtomicBool,
}

/// Runs a storm to its end. `progress` is told how many swaps were made since it was told last.
///
/// # Errors
/// Cells or tasks cannot be made.
pub fn run(plan: &Plan, mut progress: impl FnMut(u64)) -> Result<Report, SetupError> {
    let shared = Arc::new(Shared {
        cells: Cells::load()?,
        plain: Lane::new(plan.swaps),
        counter: Lane::new(plan.swaps),
        pair: Lane::new(plan.swaps),
        stop: AtomicBool::new(false),
    });
    let mut tasks = Vec::new();
    for number in 0..plan.callers {
        match spawn(plan, number, &shared) {
            Ok(task) => tasks.push(task),
            Err(e) => {
                shared.stop.store(true, Ordering::Release);
                tasks.into_iter().for_each(|task| drop(join(task)));
                return Err(e);
            }
        }
    }
    let mut report = Report::default();
    let mut random = Random::of(plan.seed, u64::MAX);
    for number in 0..plan.swaps {
        swap(&shared, plan, &mut random, &mut report);
        if (number + 1).is_multiple_of(PROGRESS) {
            progress(PROGRESS);
        }
    }
    shared.stop.store(true, Ordering::Release);
    for task in tasks {
        let tally = join(task)?;
        report.calls += tally.calls;
        report.counted += tally.counted;
        report.pairs += tally.pairs;
        tally.wrong.into_iter().for_each(|what| report.blame(what));
    }
    report.count = shared.cells.count()?;
    if report.count != report.counted {
        let (calls, count) = (report.counted, report.count);
        report.blame(format!("{calls} calls changed the state, which counted {count}"));
    }
    Ok(report)
}

/// Swaps between two words about progress.
const PROGRESS: u64 = 256;

type Slot = Arc<Mutex<Option<Tally>>>;

fn spawn(plan: &Plan, number: u32, shared: &Arc<Shared>) -> Result<(u64, Slot), SetupError> {
    let (slot, its) = (Slot::default(), shared.clone());
    let result = slot.clone();
    let caller = Caller::new(Random::of(plan.seed, number.into()), &shared.cells)?;
    let body = move || {
        let tally = caller.run(&its);
        *result.lock() = Some(tally);
    };
    let id = platform().tasks().spawn(&format!("storm {number}"), plan.stack, Box::new(body));
    Ok((id.map_err(|e| setup("task")(&e))?, slot))
}

fn join((id, slot): (u64, Slot)) -> Result<Tally, SetupError> {
    platform().tasks().join(id).map_err(|e| setup("task")(&e))?;
    let tally = slot.lock().take();
    tally.ok_or_else(|| SetupError("a task of the storm ended without a result".into()))
}

/// One swap, of one of the cells with or without state, or of the two that change together.
fn swap(shared: &Shared, plan: &Plan, random: &mut Random, report: &mut Report) {
    let cells = &shared.cells;
    let (lane, names, state): (&Lane, &[&str], StatePlan) = match random.below(4) {
        0 => (&shared.plain, &["plain"], StatePlan::Fresh),
        1 => (&shared.counter, &["counter"], StatePlan::Adopt),
        2 => (&shared.counter, &["counter"], StatePlan::Export),
        _ => (&shared.pair, &["first", "second"], StatePlan::Fresh),
    };
    let can_go_back = lane.previous().is_some();
    if can_go_back && random.below(5) == 0 {
        let name = names.first().copied().unwrap_or_default();
        lane.begin(lane.previous().unwrap_or_default());
        match cells.namespace.rollback(name) {
            Ok(done) => {
                lane.end(true);
                report.rollbacks += 1;
                report.happened(&done);
            }
            Err(e) => {
                lane.abandon();
                report.blame(format!("rollback of `{name}`: {e}"));
            }
        }
        return;
    }
    let version = (lane.version() + 1 + random.below(cells::VERSIONS - 2)) % cells::VERSIONS;
    let keep = random.below(2) == 0;
    let request = cells.request(names, version).state(state).keep_old(keep).deadline(Duration::from_secs(60));
    if plan.failures && random.below(4) == 0 {
        let step = *random.pick(&SwapStep::ALL);
        match cells.namespace.swap(request.fail_at(step)) {
            Err(SwapError::Injected { step: at }) if at == step => report.failed += 1,
            other => report.blame(format!("a swap that was to fail at {step} ended with {other:?}")),
        }
        return;
    }
    lane.begin(version);
    match cells.namespace.swap(request) {
        Ok(done) => {
            lane.end(keep);
            report.happened(&done);
        }
        Err(e) => {
            lane.abandon();
            report.blame(format!("swap of {names:?}: {e}"));
        }
    }
}
