//! Running a campaign: which faults, in how many tasks, and what is told meanwhile.

use crate::corrupt::Corruption;
use crate::guest::Guest;
use crate::heap::Allocations;
use crate::kill::Kills;
use crate::kind::Kind;
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

/// Runs a campaign to its end. `observe` is told of every fault.
///
/// On a port that cannot spawn tasks, one runs on the caller's stack.
pub fn run(plan: &Plan, observe: Observer) -> Result<Report, SetupError> {
    if plan.tasks <= 1 {
        return match spawn(plan, 0, observe) {
            Ok(task) => task.join(),
            Err(_) => run_in_task(plan, 0, observe),
        };
    }
    let tasks = (0..plan.tasks).map(|task| spawn(plan, task, observe)).collect::<Vec<_>>();
    let mut report = Report::default();
    let mut failed = None;
    for task in tasks {
        match task.and_then(Task::join) {
            Ok(part) => report.merge(part),
            Err(e) => failed = Some(e),
        }
    }
    failed.map_or(Ok(report), Err)
}

type Slot = Arc<Mutex<Option<Result<Report, SetupError>>>>;

/// A task that injects.
struct Task {
    id: u64,
    result: Slot,
}

fn spawn(plan: &Plan, task: u32, observe: Observer) -> Result<Task, SetupError> {
    let (its_plan, result) = (plan.clone(), Slot::default());
    let its_result = result.clone();
    let body = move || {
        let result = run_in_task(&its_plan, task, observe);
        *its_result.lock() = Some(result);
    };
    let id = platform().tasks().spawn(&format!("injector {task}"), plan.stack, Box::new(body));
    Ok(Task { id: id.map_err(|e| setup("task")(&e))?, result })
}

impl Task {
    fn join(self) -> Result<Report, SetupError> {
        platform().tasks().join(self.id).map_err(|e| setup("task")(&e))?;
        let result = self.result.lock().take();
        result.unwrap_or_else(|| Err(SetupError("a task of the campaign ended without a result".into())))
    }
}

/// Who is told of every fault, with its number.
pub type Observer = fn(u64, &Verdict);

/// The faults of one task: every `tasks`-th.
fn run_in_task(plan: &Plan, task: u32, observe: Observer) -> Result<Report, SetupError> {
    let mut world = World::new(&format!("injector {task}"))?;
    let mut state = State::new(plan, &world)?;
    // Tasks that help stay to the end.
    world.rest();
    let mut report = Report::default();
    let numbers = (plan.first..plan.first + plan.count).skip(task as usize).step_by(plan.tasks.max(1) as usize);
    for number in numbers {
        let mut random = Random::of(plan.seed, number);
        let verdict = state.inject(&mut world, number, &mut random);
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
    state.finish(&world).map_err(SetupError)?;
    // The tasks that helped go first: what waits may wait for them.
    drop(state);
    if plan.tasks <= 1 {
        world.settle().map_err(SetupError)?;
    }
    Ok(report)
}

/// What a kind of fault keeps between faults.
enum State {
    Guest(Guest),
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
            Kind::Refusal if alone => Refusals::new(world).map(State::Refusal),
            Kind::Heap if alone => Allocations::new(world).map(State::Heap),
            Kind::Kill if alone => Kills::new(world).map(State::Kill),
            kind if alone => Corruption::new(kind).map(State::Corruption),
            _ => Err(SetupError("this kind of fault needs the system for itself: one task".into())),
        }
    }

    fn inject(&mut self, world: &mut World, number: u64, random: &mut Random) -> Verdict {
        match self {
            State::Guest(guest) => guest.inject(world, random),
            State::Corruption(corruption) => corruption.inject(world, random),
            State::Kill(kills) => kills.inject(world, random),
            State::Refusal(refusals) => refusals.inject(world, number, random),
            State::Heap(allocations) => allocations.inject(world, number),
        }
    }

    fn finish(&mut self, world: &World) -> Result<(), String> {
        match self {
            State::Guest(guest) => guest.finish(world),
            State::Kill(kills) => kills.finish(world),
            State::Corruption(_) | State::Refusal(_) | State::Heap(_) => Ok(()),
        }
    }
}
