//! The swap storm in the kernel: tasks call without a pause, by every way there is, and are preempted wherever they are, while versions
//! swap and some of the swaps fail (docs/SWAPPING.md). Crate `injector` has it; the kernel adds that memory must be what it was.

use crate::{exit::Status, held::Held};
use alloc::{boxed::Box, format, string::String, sync::Arc};
use core::fmt::Write;
use injector::storm::{self, Plan, Report};
use namespace_bridge::{reclaim, retired};
use nano_core::storm_line::StormLine;
use runtime_port::{bare_metal::console::Console, platform, time::Instant};
use spin::Mutex;

/// Swaps that let pools, lists and the heap reach their size, before memory is measured.
const WARM_UP: u64 = 500;

/// Swaps between two lines about progress.
const PROGRESS: u64 = 4096;

/// Stack of the task that swaps, in bytes.
const STACK: usize = 1 << 20;

/// Runs the storm that the command line asks for. `None`: it asks for something else.
pub fn asked(line: &str) -> Option<Status> {
    let outcome = match StormLine::parse(line)? {
        Ok(line) => both(&line),
        Err(word) => Err(format!("`{word}` is no word of `storm=SWAPS seed=S callers=N`")),
    };
    // Output that fails is dropped: the status counts.
    Some(match outcome {
        Ok(()) => {
            let _ = writeln!(Console, "1 passed, 0 failed");
            Status::Success
        }
        Err(error) => {
            let _ = writeln!(Console, "error: {error}");
            let _ = writeln!(Console, "0 passed, 1 failed");
            Status::Failure
        }
    })
}

/// A short storm, and the one that is asked for; what the second leaves behind is an error.
fn both(line: &StormLine) -> Result<(), String> {
    let plan = Plan { callers: line.callers, ..Plan::new(line.seed, line.swaps) };
    one(Plan { swaps: WARM_UP, ..plan.clone() })?;
    let before = (settle(), Held::now());
    one(plan)?;
    let after = (settle(), Held::now());
    let _ = writeln!(Console, "before: {:?}\nafter:  {:?}", before.1, after.1);
    match before.0 != after.0 || before.1.has_grown_to(&after.1) {
        true => Err(format!("the storm left something behind; {} then {} versions wait", before.0, after.0)),
        false => Ok(()),
    }
}

/// Runs a storm in a task of its own, so that no address stays on the stack of the boot task.
fn one(plan: Plan) -> Result<(), String> {
    let slot: Arc<Mutex<Option<Result<Report, String>>>> = Arc::default();
    let (its, swaps, callers, start) = (slot.clone(), plan.swaps, plan.callers, Instant::now());
    let body = move || {
        let (mut done, mut said) = (0, 0);
        let report = storm::run(&plan, |more| {
            done += more;
            if done >= said + PROGRESS {
                said = done;
                let _ = writeln!(Console, "storm: {done} of {} swaps, {:?}", plan.swaps, Held::now());
            }
        });
        *its.lock() = Some(report.map_err(|e| format!("{e}")));
    };
    let tasks = platform().tasks();
    let id = tasks.spawn("storm", STACK, Box::new(body)).map_err(|e| format!("{e}"))?;
    tasks.join(id).map_err(|e| format!("{e}"))?;
    let report = slot.lock().take().ok_or("the task that swaps panicked")??;
    let (took, longest) = (start.elapsed(), report.slowest_commit);
    let _ = writeln!(
        Console,
        "storm: {} swaps ({} rollbacks), {} failed on request, {} calls by {callers} tasks ({} changed state, which counted {}; \
         {} pairs in order), {} wrong; longest commit {longest:?}; {took:?}",
        report.swaps,
        report.rollbacks,
        report.failed,
        report.calls,
        report.counted,
        report.count,
        report.pairs,
        report.wrongs
    );
    for what in &report.wrong {
        let _ = writeln!(Console, "  {what}");
    }
    if !report.is_clean() {
        return Err(format!("the storm found {} things that must not be", report.wrongs));
    }
    if report.swaps + report.failed != swaps || callers > 0 && (report.counted == 0 || report.pairs == 0) {
        return Err(String::from("not every swap was made, or nobody called meanwhile"));
    }
    Ok(())
}

/// Frees what nobody uses. Returns how many things wait all the same, after many looks.
fn settle() -> usize {
    for _ in 0..1000 {
        reclaim();
        if retired().is_empty() {
            break;
        }
        platform().tasks().yield_now();
    }
    retired().len()
}
