//! The scheduling policy: how urgent each task is, and how long its turns are.
//!
//! The dispatcher (`runtime_port::bare_metal::task`) always runs the most urgent task that is ready, and lets those of one
//! priority take turns; it takes no advice while it does. A task of the highest priority looks every [`PERIOD`] at what each task did
//! and has the policy say what that means. So a policy is asked with interrupts on and no lock held, and while it thinks, fails or
//! hangs tasks run by what it said last.

use super::Component;
use alloc::{boxed::Box, string::String, vec::Vec};
use core::{
    num::NonZeroU8,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use namespace_bridge::TypedFunc;
use runtime_port::{
    bare_metal::task::{self, Priority, TaskOptions},
    task::TaskError,
    time::sleep,
};

/// Time between two looks.
pub const PERIOD: Duration = Duration::from_millis(20);

/// What the kernel's own services have, and no policy gives.
const RESERVED: Priority = Priority::HIGHEST;

/// What a task did since the last look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Behaviour {
    /// Its priority as its owner wants it.
    pub base: u8,
    /// Its priority now.
    pub priority: u8,
    /// Ticks that found the processor on it.
    pub ran: u32,
    /// Ticks in all.
    pub period: u32,
}

/// What is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// How urgent the task is.
    pub priority: Priority,
    /// Ticks of its turns.
    pub slice: NonZeroU8,
}

/// Says how tasks are scheduled.
pub trait SchedulingPolicy {
    /// About a task that did this.
    fn advise(&self, task: &Behaviour) -> Advice;
}

/// The native default: as the owner wants it, turns of one tick.
#[derive(Debug)]
pub struct Fixed;

impl SchedulingPolicy for Fixed {
    fn advise(&self, task: &Behaviour) -> Advice {
        Advice { priority: Priority::new(task.base).unwrap_or(Priority::NORMAL), slice: NonZeroU8::MIN }
    }
}

/// The cell `scheduling`: `advise(base, priority, ran, period)` gives the priority in the low eight bits of its result and the ticks of a turn in
/// the next eight; the rest is zero.
pub struct ByCell;

type Advise = TypedFunc<(i32, i32, i32, i32), i32>;

/// The component.
pub static COMPONENT: Component<Advise> = Component::new("scheduling", |cell| cell.typed_func("advise"));

impl SchedulingPolicy for ByCell {
    fn advise(&self, task: &Behaviour) -> Advice {
        let (ran, period) = (task.ran as i32, task.period as i32);
        let question = |advise: &Advise| advise.call((i32::from(task.base), i32::from(task.priority), ran, period));
        COMPONENT.ask(question, sense).unwrap_or_else(|| Fixed.advise(task))
    }
}

fn sense(answer: i32) -> Result<Advice, String> {
    let wrong = || alloc::format!("advice {answer:#x}: not a priority below {} and a turn", RESERVED.number());
    let [priority, slice, 0, 0] = answer.to_le_bytes() else { return Err(wrong()) };
    let priority = Priority::new(priority).filter(|p| *p < RESERVED).ok_or_else(wrong)?;
    Ok(Advice { priority, slice: NonZeroU8::new(slice).ok_or_else(wrong)? })
}

/// Starts the task that looks, once.
pub fn start() -> Result<(), TaskError> {
    static STARTED: AtomicBool = AtomicBool::new(false);
    if STARTED.swap(true, Ordering::Relaxed) {
        return Ok(());
    }
    let options = TaskOptions { name: "scheduling", stack: 128 << 10, priority: Priority::HIGHEST };
    let look = || {
        let mut history = History::default();
        loop {
            sleep(PERIOD);
            look(&ByCell, &mut history);
        }
    };
    task::spawn(&options, Box::new(look)).map(drop)
}

/// What was known at the last look.
#[derive(Debug, Default)]
pub struct History {
    ticks: u64,
    /// Ticks of each task by its number.
    tasks: Vec<(u64, u64)>,
}

/// Asks the policy about every task, and does what it says.
pub fn look(policy: &dyn SchedulingPolicy, history: &mut History) {
    let ticks = task::ticks();
    let period = u32::try_from(ticks - history.ticks).unwrap_or(u32::MAX);
    let mut tasks: Vec<(u64, u64, Behaviour)> = Vec::new();
    // Room is made before: nothing is allocated while tasks stand still. Tasks beyond it wait for the next look.
    let mut count = 0;
    task::inspect(&mut |_| count += 1);
    if period == 0 || tasks.try_reserve(count).is_err() {
        return;
    }
    task::inspect(&mut |t| {
        if tasks.len() < tasks.capacity() {
            let (base, priority) = (t.base.number(), t.priority.number());
            tasks.push((t.id, t.ran, Behaviour { base, priority, ran: 0, period }));
        }
    });
    for (id, ran, behaviour) in &mut tasks {
        if behaviour.base == RESERVED.number() {
            continue;
        }
        let earlier = history.tasks.binary_search_by_key(id, |(id, _)| *id).ok().map_or(0, |at| history.tasks[at].1);
        behaviour.ran = u32::try_from(*ran - earlier).unwrap_or(u32::MAX);
        let advice = policy.advise(behaviour);
        // A task that has ended since needs none.
        let _ = task::advise(*id, advice.priority, advice.slice);
    }
    history.ticks = ticks;
    history.tasks.clear();
    if history.tasks.try_reserve(tasks.len()).is_ok() {
        history.tasks.extend(tasks.into_iter().map(|(id, ran, _)| (id, ran)));
    }
}
