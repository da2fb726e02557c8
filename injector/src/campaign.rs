//! Running a campaign: which faults, in how many tasks, and what is told meanwhile.

use crate::baseline::Baseline;
use crate::corrupt::Corruption;
use crate::guest::Guest;
use crate::heap::Allocations;
use crate::kill::Kills;
use crate::kind::Kind;
use crate::point::{Counted, Points};
use crate::random::Random;
use crate::refuse::Refusals;
use crate::report::Report;
use crate::verdict::{Outcome, Verdict};
use crate::world::{SetupError, World, setup};
use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use kernel_config::task::DEFAULT_STACK;
use runtime_port::platform;
use spin::Mutex;

/// A campaign.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all randomness comes from.
    pub seed: u64,
    /// Number of the first fault.
    pub first: u64,
    /// How many faults.
    pub count: u64,
    /// What goes wrong.
    pub kind: Kind,
    /// Tasks that inject at the same time, each in a namespace of its own.
    pub tasks: u32,
    /// Bytes of stack of each task.
    pub stack: usize,
    /// Whether to end after the first fault that is lost: what it left behind would be blamed on the next ones.
    pub stop_when_lost: bool,
}

impl Plan {
    /// `count` faults of a kind in one task.
    pub fn new(kind: Kind, seed: u64, count: u64) -> Plan {
        Plan { seed, first: 0, count, kind, tasks: 1, stack: DEFAULT_STACK / 4, stop_when_lost: false }
    }
}

/// Runs a campaign to its end. `observe` is told of every fault. What is there before and after, when no task is left that could
/// use anything, is compared to the byte.
///
/// On a port that cannot spawn tasks, one runs on the caller's stack.
///
/// # Errors
/// The campaign cannot be prepared here, or left something behind.
pub fn run(plan: &Plan, observe: Observer) -> Result<Report, SetupError> {
    let tasks = plan.tasks.max(1);
    let prepared = (0..tasks).map(|task| in_task(plan, task, prepare).and_then(Task::join));
    let mut worlds = prepared.collect::<Result<Vec<_>, SetupError>>()?;
    let before = baselines(&worlds)?;
    let running = worlds.drain(..).enumerate().map(|(task, mut world)| {
        in_task(plan, task as u32, move |plan, task| {
            let report = run_in_task(plan, task, &mut world, observe);
            Ok((report, world))
        })
    });
    // All of them are started before the first is waited for.
    let running: Vec<_> = running.collect();
    let mut report = Report::default();
    let mut failed = None;
    for task in running {
        match task.and_then(Task::join) {
            Ok((part, world)) => {
                part.map_or_else(|e| failed = Some(e), |part| report.merge(part));
                worlds.push(world);
            }
            Err(e) => failed = Some(e),
        }
    }
    if let Some(e) = failed {
        return Err(e);
    }
    // What a fault that was lost left behind was said already.
    if report.total().lost == 0 {
        for (before, after) in before.iter().zip(baselines(&worlds)?) {
            before.compare(&after).map_err(SetupError)?;
        }
    }
    Ok(report)
}

/// What there is when all tasks have ended.
fn baselines(worlds: &[World]) -> Result<Vec<Baseline>, SetupError> {
    // Each may free what the others wait for.
    worlds.iter().try_for_each(|world| world.settled().map(drop)).map_err(SetupError)?;
    worlds.iter().map(|world| world.settled().map_err(SetupError)).collect()
}

/// A world in which everything was made once that is made once and kept.
fn prepare(plan: &Plan, task: u32) -> Result<World, SetupError> {
    let world = World::new(&format!("injector {task}"))?;
    drop(State::new(plan, &world)?);
    Ok(world)
}

type Slot<R> = Arc<Mutex<Option<Result<R, SetupError>>>>;

/// A task that does something for the campaign.
struct Task<R> {
    /// `None`: it was done on the caller's stack.
    id: Option<u64>,
    result: Slot<R>,
}

fn in_task<R: Send + 'static>(
    plan: &Plan,
    task: u32,
    work: impl FnOnce(&Plan, u32) -> Result<R, SetupError> + Send + 'static,
) -> Result<Task<R>, SetupError> {
    let (its_plan, result) = (plan.clone(), Slot::default());
    let (its_result, work) = (result.clone(), Arc::new(Mutex::new(Some(work))));
    let its_work = work.clone();
    let body = move || {
        let work = its_work.lock().take();
        *its_result.lock() = work.map(|work| work(&its_plan, task));
    };
    match platform().tasks().spawn(&format!("injector {task}"), plan.stack, Box::new(body)) {
        Ok(id) => Ok(Task { id: Some(id), result }),
        Err(e) if plan.tasks > 1 => Err(setup("task")(&e)),
        Err(_) => {
            let work = work.lock().take();
            *result.lock() = work.map(|work| work(plan, task));
            Ok(Task { id: None, result })
        }
    }
}

impl<R> Task<R> {
    fn join(self) -> Result<R, SetupError> {
        if let Some(id) = self.id {
            platform().tasks().join(id).map_err(|e| setup("task")(&e))?;
        }
        let result = self.result.lock().take();
        result.unwrap_or_else(|| Err(SetupError("a task of the campaign ended without a result".into())))
    }
}

/// Who is told of every fault, with its number.
pub type Observer = fn(u64, &Verdict);

/// The faults of one task: every `tasks`-th.
fn run_in_task(plan: &Plan, task: u32, world: &mut World, observe: Observer) -> Result<Report, SetupError> {
    let mut state = State::new(plan, world)?;
    // Tasks that help stay to the end.
    world.rest();
    let mut report = Report::default();
    // More would be the same ones again.
    let count = state.total().map_or(plan.count, |total| plan.count.min(total));
    let numbers = (plan.first..plan.first + count).skip(task as usize).step_by(plan.tasks.max(1) as usize);
    for number in numbers {
        let mut random = Random::of(plan.seed, number);
        let verdict = state.inject(world, number, &mut random);
        observe(number, &verdict);
        let lost = matches!(verdict.outcome, Outcome::Lost(_));
        report.count(plan.kind, number, verdict);
        if lost && plan.stop_when_lost {
            return Ok(report);
        }
        if lost {
            // What it left behind is its own, not the next ones'.
            world.rest();
        }
    }
    state.finish(world).map_err(SetupError)?;
    Ok(report)
}

/// What a kind of fault keeps between faults.
enum State {
    Guest(Guest),
    Point(Points),
    Corruption(Corruption),
    Kill(Kills),
    Refusal(Refusals),
    Heap(Allocations),
}

impl State {
    fn new(plan: &Plan, world: &World) -> Result<State, SetupError> {
        let alone = plan.tasks <= 1;
        match plan.kind {
            Kind::Guest => Guest::new(world, alone).map(State::Guest),
            Kind::Instruction => Points::new(world, alone, Counted::Instructions).map(State::Point),
            Kind::Call => Points::new(world, alone, Counted::Calls).map(State::Point),
            Kind::Access => Points::new(world, alone, Counted::Accesses).map(State::Point),
            Kind::Refusal if alone => Refusals::new(world).map(State::Refusal),
            Kind::Heap if alone => Allocations::new(world).map(State::Heap),
            Kind::Kill if alone => Kills::new(world).map(State::Kill),
            kind if alone => Corruption::new(kind).map(State::Corruption),
            _ => Err(SetupError("this kind of fault needs the system for itself: one task".into())),
        }
    }

    /// How many different faults there are, where they are counted.
    fn total(&self) -> Option<u64> {
        match self {
            State::Refusal(refusals) => Some(refusals.total()),
            State::Heap(allocations) => Some(allocations.total()),
            State::Guest(_) | State::Point(_) | State::Corruption(_) | State::Kill(_) => None,
        }
    }

    fn inject(&mut self, world: &mut World, number: u64, random: &mut Random) -> Verdict {
        match self {
            State::Guest(guest) => guest.inject(world, random),
            State::Point(points) => points.inject(world, random),
            State::Corruption(corruption) => corruption.inject(world, random),
            State::Kill(kills) => kills.inject(world, random),
            State::Refusal(refusals) => refusals.inject(world, number),
            State::Heap(allocations) => allocations.inject(world, number),
        }
    }

    fn finish(&mut self, world: &World) -> Result<(), String> {
        match self {
            State::Guest(guest) => guest.finish(world),
            State::Point(points) => points.finish(world),
            State::Kill(kills) => kills.finish(world),
            State::Corruption(_) | State::Refusal(_) | State::Heap(_) => Ok(()),
        }
    }
}
