//! The deadlines of sleeping tasks: a binary heap whose members know their place, so that any can leave early.
//!
//! Room for every task is made when the task is created; entering and leaving allocate nothing.

use super::record::TaskRef;
use alloc::vec::Vec;

/// Not among the deadlines.
const NOWHERE: usize = usize::MAX;

/// The heap, the earliest deadline first.
pub(super) struct Deadlines(Vec<TaskRef>);

impl Deadlines {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// Makes room for this many tasks; `false` when there is no memory for them.
    pub(super) fn reserve(&mut self, tasks: usize) -> bool {
        self.0.try_reserve(tasks.saturating_sub(self.0.len())).is_ok()
    }

    pub(super) fn insert(&mut self, task: TaskRef, deadline: u64) {
        debug_assert!(self.0.len() < self.0.capacity());
        task.deadline.set(deadline);
        self.0.push(task);
        self.place(self.0.len() - 1, task);
        self.rise(self.0.len() - 1);
    }

    /// Takes a task out if it is in.
    pub(super) fn remove(&mut self, task: TaskRef) {
        let at = task.deadline_index.replace(NOWHERE);
        if at == NOWHERE {
            return;
        }
        if let Some(last) = self.0.pop()
            && last != task
        {
            self.place(at, last);
            self.rise(at);
            self.sink(last.deadline_index.get());
        }
    }

    /// The first task, if its deadline is not later than `now`.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<TaskRef> {
        let first = self.0.first().copied().filter(|t| t.deadline.get() <= now)?;
        self.remove(first);
        Some(first)
    }

    fn place(&mut self, at: usize, task: TaskRef) {
        self.0[at] = task;
        task.deadline_index.set(at);
    }

    fn swap(&mut self, a: usize, b: usize) {
        let (in_a, in_b) = (self.0[a], self.0[b]);
        self.place(a, in_b);
        self.place(b, in_a);
    }

    fn rise(&mut self, mut at: usize) {
        while at > 0 && self.0[at].deadline < self.0[(at - 1) / 2].deadline {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn sink(&mut self, mut at: usize) {
        let earlier = |heap: &Vec<TaskRef>, a: usize, b: usize| match heap.get(b) {
            Some(other) if other.deadline < heap[a].deadline => b,
            _ => a,
        };
        loop {
            let first = earlier(&self.0, earlier(&self.0, at, 2 * at + 1), 2 * at + 2);
            if first == at {
                return;
            }
            self.swap(at, first);
            at = first;
        }
    }
}
