//! Tasks: the one that the processor booted into.
//!
//! The record of the current task is found through one word, so that more tasks change nothing for readers.
//! Starting further tasks needs a scheduler under this port; without one [`TaskPort::spawn`] says so.

use super::{memory::BareMemory, time};
use crate::{
    memory::{MemoryPort, PteFlags},
    task::{LOCAL_SLOTS, TaskError, TaskLocals, TaskPort, stack_pointer},
};
use alloc::{boxed::Box, format, string::String};
use core::{
    cell::Cell,
    ops::Range,
    sync::atomic::{AtomicPtr, AtomicU32, Ordering},
};
use kernel_config::{
    bare_metal::INTERRUPT_VECTOR,
    task::{RED_RESERVE, YELLOW_ZONE},
};

/// A task's record.
struct TaskRecord {
    locals: TaskLocals,
    /// Lowest address of the stack; 0 while it is unknown.
    stack_bottom: Cell<usize>,
    /// Whether the yellow zone is inaccessible.
    zone_closed: Cell<bool>,
}

// SAFETY: a record is only touched by its own task and by exception handlers that interrupted it.
unsafe impl Sync for TaskRecord {}

static BOOT: TaskRecord = TaskRecord {
    locals: TaskLocals {
        slots: [const { Cell::new(0) }; LOCAL_SLOTS],
        stack_limit: Cell::new(0),
        stack_top: Cell::new(0),
        kill_requested: AtomicU32::new(0),
        id: Cell::new(1),
    },
    stack_bottom: Cell::new(0),
    zone_closed: Cell::new(false),
};

static CURRENT: AtomicPtr<TaskRecord> = AtomicPtr::new((&raw const BOOT).cast_mut());

fn current() -> &'static TaskRecord {
    // SAFETY: always points to a live record; the boot task's never ends.
    unsafe { &*CURRENT.load(Ordering::Relaxed) }
}

impl TaskRecord {
    fn yellow_zone(&self) -> Range<usize> {
        let start = self.stack_bottom.get() + RED_RESERVE;
        start..start + YELLOW_ZONE
    }

    /// Makes the yellow zone inaccessible, for the first time or after native code needed it.
    #[cold]
    fn close_yellow_zone(&self) -> Result<(), TaskError> {
        if self.stack_bottom.get() == 0 {
            return Err(TaskError::Stack(String::from("the boot code did not say where the stack is")));
        }
        let zone = self.yellow_zone();
        if stack_pointer() < zone.end + RED_RESERVE {
            return Err(TaskError::Stack(String::from("less stack is left than a call needs")));
        }
        // SAFETY: the zone is part of our stack, mapped through this port, and below everything in use.
        unsafe { BareMemory.protect(zone.start, zone.len(), PteFlags::empty()) }
            .map_err(|e| TaskError::Stack(format!("the yellow zone: {e}")))?;
        self.zone_closed.set(true);
        self.locals.stack_limit.set(zone.end);
        Ok(())
    }
}

/// For a fault that nobody claimed: if it lies in the current task's yellow zone, native code needs more stack than the
/// zone leaves it. The zone becomes ordinary stack, so that the code goes on; the next `attach` closes it again.
pub(super) fn open_yellow_zone(fault: usize) -> bool {
    let task = current();
    let zone = task.yellow_zone();
    let opened = task.zone_closed.get()
        && zone.contains(&fault)
        // SAFETY: the zone is part of the task's stack, mapped through this port.
        && unsafe { BareMemory.protect(zone.start, zone.len(), PteFlags::VALID | PteFlags::WRITABLE) }.is_ok();
    if opened {
        task.zone_closed.set(false);
    }
    opened
}

/// Notes the stack of the boot task.
///
/// # Safety
/// Called by the boot task while it runs on this stack, which lies in pages mapped through [`BareMemory`] and stays.
pub unsafe fn init_boot_task(stack: Range<usize>) {
    BOOT.stack_bottom.set(stack.start);
    BOOT.locals.stack_top.set(stack.end);
}

/// The port's tasks.
#[derive(Debug)]
pub struct BareTasks;

impl TaskPort for BareTasks {
    fn current(&self) -> &TaskLocals {
        &current().locals
    }

    fn attach(&self) -> Result<&TaskLocals, TaskError> {
        let task = current();
        if !task.zone_closed.get() {
            task.close_yellow_zone()?;
        }
        Ok(&task.locals)
    }

    fn spawn(&self, name: &str, _stack: usize, _f: Box<dyn FnOnce() + Send>) -> Result<u64, TaskError> {
        Err(TaskError::Spawn(format!("`{name}`: this port runs a single task, the one it booted")))
    }

    fn join(&self, id: u64) -> Result<(), TaskError> {
        match id == current().locals.id.get() {
            true => Err(TaskError::Spawn(String::from("a task cannot wait for its own end"))),
            false => Err(TaskError::Ended(id)),
        }
    }

    fn interrupt(&self, id: u64) -> Result<(), TaskError> {
        if id != current().locals.id.get() {
            return Err(TaskError::Ended(id));
        }
        // SAFETY: the kernel has a gate for this vector, which leads to `trap::dispatch`.
        unsafe { core::arch::asm!("int {}", const INTERRUPT_VECTOR) };
        Ok(())
    }

    fn request_kill(&self, id: u64) -> Result<(), TaskError> {
        if id != current().locals.id.get() {
            return Err(TaskError::Ended(id));
        }
        current().locals.kill_requested.store(1, Ordering::Release);
        self.interrupt(id)
    }

    fn for_each(&self, f: &mut dyn FnMut(&TaskLocals)) -> bool {
        let task = current();
        if task.locals.stack_limit.get() != 0 {
            f(&task.locals);
        }
        true
    }

    fn yield_now(&self) {
        core::hint::spin_loop();
    }

    fn wait(&self, word: &AtomicU32, expected: u32, timeout_ns: Option<u64>) -> bool {
        let deadline = timeout_ns.map(|ns| time::now_ns().saturating_add(ns));
        while word.load(Ordering::Acquire) == expected {
            if deadline.is_some_and(|d| time::now_ns() >= d) {
                return false;
            }
            core::hint::spin_loop();
        }
        true
    }

    fn wake(&self, _word: &AtomicU32, _count: u32) -> usize {
        // The caller runs, so nobody sleeps.
        0
    }
}
