//! Which task runs: the ready queues, who waits on what, who sleeps how long.
//!
//! Priorities; the tasks of one priority take turns, one tick each unless a policy gives them more. A ready task that got nothing for
//! [`STARVATION_NS`] runs for one tick: it may hold a spinning lock that a more urgent task waits for. Nothing here allocates
//! but [`Scheduler::admit`], so interrupts may call it.

use super::{
    deadlines::Deadlines,
    list::TaskList,
    record::{Priority, TaskRef, TaskState, Woken},
};
use alloc::vec::Vec;
use kernel_config::bare_metal::{PRIORITIES, STARVATION_NS};

/// Lists of waiting tasks; a word's address says which one.
const BUCKETS: usize = 64;

/// Why the scheduler is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Occasion {
    /// The current task gives the processor up, or cannot go on.
    Yield,
    /// A more urgent task may have become ready.
    Wakeup,
    /// The timer.
    Tick,
}

/// State of the scheduler.
pub(super) struct Scheduler {
    /// Tasks that have not ended, by ascending number. Without the idle task.
    tasks: Vec<TaskRef>,
    ready: [TaskList; PRIORITIES],
    /// Bit n: `ready[n]` is not empty.
    ready_levels: u32,
    waiting: [TaskList; BUCKETS],
    deadlines: Deadlines,
    /// Tasks that have ended and left their stack.
    ended: TaskList,
    idle: Option<TaskRef>,
    /// A task has become ready that is more urgent than the current one.
    urgent: bool,
}

fn bucket(word: usize) -> usize {
    (word >> 2 ^ word >> 9 ^ word >> 17) % BUCKETS
}

impl Scheduler {
    pub(super) const fn new() -> Self {
        Self {
            tasks: Vec::new(),
            ready: [const { TaskList::new() }; PRIORITIES],
            ready_levels: 0,
            waiting: [const { TaskList::new() }; BUCKETS],
            deadlines: Deadlines::new(),
            ended: TaskList::new(),
            idle: None,
            urgent: false,
        }
    }

    /// Whether tasks can be switched.
    pub(super) fn is_started(&self) -> bool {
        self.idle.is_some()
    }

    /// Names the task that runs when no other can.
    pub(super) fn set_idle(&mut self, idle: TaskRef) {
        self.idle = Some(idle);
    }

    /// Lists a task, which has the highest number so far. Returns `false`, with nothing done, when there is no memory.
    pub(super) fn admit(&mut self, task: TaskRef) -> bool {
        if self.tasks.try_reserve(1).is_err() || !self.deadlines.reserve(self.tasks.len() + 1) {
            return false;
        }
        self.tasks.push(task);
        true
    }

    /// The tasks that have not ended.
    pub(super) fn tasks(&self) -> &[TaskRef] {
        &self.tasks
    }

    /// The task of this number, if it has not ended.
    pub(super) fn find(&self, id: u64) -> Option<TaskRef> {
        self.tasks.binary_search_by_key(&id, |t| t.locals.id.get()).ok().and_then(|i| self.tasks.get(i)).copied()
    }

    /// Queues a task for the processor; `current` has it now.
    pub(super) fn make_ready(&mut self, task: TaskRef, current: TaskRef, now: u64) {
        self.urgent |= Some(current) == self.idle || task.priority.get() > current.priority.get();
        self.queue(task, now, false);
    }

    fn queue(&mut self, task: TaskRef, now: u64, in_front: bool) {
        let level = usize::from(task.priority.get().number());
        task.state.set(TaskState::Ready);
        task.ready_since.set(now);
        match in_front {
            true => self.ready[level].push_front(task),
            false => self.ready[level].push_back(task),
        }
        self.ready_levels |= 1 << level;
    }

    fn dequeue(&mut self, task: TaskRef) {
        let level = usize::from(task.priority.get().number());
        self.ready[level].remove(task);
        if self.ready[level].is_empty() {
            self.ready_levels &= !(1 << level);
        }
    }

    /// Whether a more urgent task is ready; asked once.
    pub(super) fn take_urgent(&mut self) -> bool {
        core::mem::take(&mut self.urgent)
    }

    /// Changes how urgent a task is.
    pub(super) fn set_priority(&mut self, task: TaskRef, priority: Priority, current: TaskRef, now: u64) {
        if task.state.get() == TaskState::Ready {
            self.dequeue(task);
            task.priority.set(priority);
            self.make_ready(task, current, now);
        } else {
            task.priority.set(priority);
            self.urgent |= task == current && self.highest().is_some_and(|h| h > priority.number());
        }
    }

    /// Notes that the running task sleeps on a word (0: on none), until the deadline if there is one.
    pub(super) fn block(&mut self, task: TaskRef, word: usize, deadline: Option<u64>) {
        task.state.set(TaskState::Blocked);
        task.word.set(word);
        task.woken.set(Woken::ByOthers);
        self.waiting[bucket(word)].push_back(task);
        if let Some(deadline) = deadline {
            self.deadlines.insert(task, deadline);
        }
    }

    /// Lets a blocked task go on.
    pub(super) fn unblock(&mut self, task: TaskRef, woken: Woken, current: TaskRef, now: u64) {
        self.waiting[bucket(task.word.get())].remove(task);
        self.deadlines.remove(task);
        task.woken.set(woken);
        match task == current {
            // It is on its way to the switch, which it then does not need.
            true => task.state.set(TaskState::Running),
            false => self.make_ready(task, current, now),
        }
    }

    /// Lets up to `count` sleepers on a word go on, those that came first. Returns how many.
    pub(super) fn wake(&mut self, word: usize, count: u32, current: TaskRef, now: u64) -> usize {
        let mut woken = 0;
        let mut next = self.waiting[bucket(word)].first();
        while let Some(task) = next.filter(|_| woken < count as usize) {
            next = task.next.get();
            if task.word.get() == word {
                self.unblock(task, Woken::ByOthers, current, now);
                woken += 1;
            }
        }
        woken
    }

    /// Lets the tasks go on whose time has come.
    pub(super) fn expire(&mut self, current: TaskRef, now: u64) {
        while let Some(task) = self.deadlines.pop_due(now) {
            self.unblock(task, Woken::ByTimeout, current, now);
        }
    }

    /// The task that is to run now. The current one is put where its state says.
    pub(super) fn pick(&mut self, current: TaskRef, occasion: Occasion, now: u64) -> TaskRef {
        self.urgent = false;
        let starved = if occasion == Occasion::Tick { self.starved(current, now) } else { None };
        let turn_ends = occasion != Occasion::Tick || current.charge_tick();
        match current.state.get() {
            TaskState::Running if Some(current) == self.idle => {}
            TaskState::Running => {
                let own = current.priority.get().number();
                let goes_on = match (self.highest(), occasion) {
                    (None, _) => true,
                    (Some(highest), Occasion::Wakeup) => highest <= own,
                    (Some(highest), _) => highest < own || highest == own && !turn_ends,
                };
                if goes_on && starved.is_none() {
                    return current;
                }
                // Who was only interrupted keeps the rest of its turn.
                self.queue(current, now, occasion == Occasion::Wakeup);
            }
            TaskState::Ended => self.bury(current, now),
            TaskState::Ready | TaskState::Blocked => {}
        }
        let next = starved.or_else(|| self.highest().and_then(|level| self.ready[usize::from(level)].first()));
        let next = match next {
            Some(task) => {
                self.dequeue(task);
                task
            }
            None => self.idle.unwrap_or(current),
        };
        next.state.set(TaskState::Running);
        next
    }

    /// Takes an ended task off the list; who waits for its end goes on.
    fn bury(&mut self, task: TaskRef, now: u64) {
        self.tasks.retain(|t| *t != task);
        self.wake(end_of(task), u32::MAX, task, now);
        self.ended.push_back(task);
    }

    /// An ended task whose record and stack nobody uses any more.
    pub(super) fn pop_ended(&mut self) -> Option<TaskRef> {
        self.ended.pop_front()
    }

    /// The highest priority that has a ready task.
    fn highest(&self) -> Option<u8> {
        self.ready_levels.checked_ilog2().map(|level| level as u8)
    }

    /// A task that has been ready for too long. The first of each queue has been for longest.
    fn starved(&self, current: TaskRef, now: u64) -> Option<TaskRef> {
        let highest = self.highest()?;
        // Those of the highest level have their turns, unless the task that runs is above them all.
        let have_turns = Some(current) == self.idle || highest >= current.priority.get().number();
        let passed_over = if have_turns { self.ready_levels & !(1 << highest) } else { self.ready_levels };
        let levels = (0..PRIORITIES).filter(|level| passed_over >> level & 1 == 1);
        let firsts = levels.filter_map(|level| self.ready[level].first());
        firsts
            .filter(|task| now.saturating_sub(task.ready_since.get()) > STARVATION_NS)
            .min_by_key(|t| t.ready_since.get())
    }
}

/// The address on which a task's end is waited for.
pub(super) fn end_of(task: TaskRef) -> usize {
    &raw const task.state as usize
}
