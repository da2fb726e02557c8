//! A list threaded through the records of tasks: nothing is allocated, and any member can leave at once.

use super::record::TaskRef;

/// The list. A record is in one list at a time; who holds the lists sees to that.
#[derive(Debug)]
pub(super) struct TaskList {
    ends: Option<(TaskRef, TaskRef)>,
}

impl TaskList {
    pub(super) const fn new() -> Self {
        Self { ends: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    pub(super) fn first(&self) -> Option<TaskRef> {
        self.ends.map(|(first, _)| first)
    }

    pub(super) fn push_back(&mut self, task: TaskRef) {
        task.next.set(None);
        task.previous.set(self.ends.map(|(_, last)| last));
        if let Some((_, last)) = self.ends {
            last.next.set(Some(task));
        }
        self.ends = Some((self.ends.map_or(task, |(first, _)| first), task));
    }

    pub(super) fn push_front(&mut self, task: TaskRef) {
        task.previous.set(None);
        task.next.set(self.ends.map(|(first, _)| first));
        if let Some((first, _)) = self.ends {
            first.previous.set(Some(task));
        }
        self.ends = Some((task, self.ends.map_or(task, |(_, last)| last)));
    }

    /// Takes out a member.
    pub(super) fn remove(&mut self, task: TaskRef) {
        let (previous, next) = (task.previous.take(), task.next.take());
        if let Some(previous) = previous {
            previous.next.set(next);
        }
        if let Some(next) = next {
            next.previous.set(previous);
        }
        self.ends = self.ends.and_then(|(first, last)| {
            let first = if first == task { next } else { Some(first) };
            let last = if last == task { previous } else { Some(last) };
            first.zip(last)
        });
    }

    pub(super) fn pop_front(&mut self) -> Option<TaskRef> {
        self.first().inspect(|task| self.remove(*task))
    }
}
