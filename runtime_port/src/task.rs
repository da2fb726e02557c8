//! Tasks: the current one, its stack, its local slots; spawning, waiting, waking, interrupting.

mod stopped;

#[cfg(any(feature = "hosted", feature = "bare_metal"))]
pub(crate) use stopped::is_on_own_stack;
pub use stopped::{Inspect, RED_ZONE, StoppedTask, inspect_current};

use crate::platform::{Platform, platform};
use alloc::{boxed::Box, string::String, sync::Arc};
use core::sync::atomic::AtomicU32;

/// Number of pointer-sized local slots that the runtime above may use in every task.
pub const LOCAL_SLOTS: usize = 12;

/// Per-task record the port keeps for the runtime above. Its address is stable while the task lives.
#[derive(Debug)]
#[repr(C)]
pub struct TaskLocals {
    /// Free for the runtime above; zero at the start of a task. Only the task itself and exception handlers that
    /// interrupted it touch them.
    pub slots: [core::cell::Cell<usize>; LOCAL_SLOTS],
    /// Lowest address wasm code may use of the task's stack; 0 until the task is attached.
    pub stack_limit: core::cell::Cell<usize>,
    /// Highest address of the task's stack.
    pub stack_top: core::cell::Cell<usize>,
    /// Set when someone asked the task to stop; checked where it is safe to.
    pub kill_requested: AtomicU32,
    /// The task's number, unique while the system runs.
    pub id: core::cell::Cell<u64>,
    /// Not 0 while the task's allocations may use the reserve ([`crate::heap::without_failing`]). Only the task itself touches it.
    pub reserve_use: core::cell::Cell<u32>,
}

/// How machine code finds the record of the task that it runs on: a word, and a distance to add to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskPointer {
    /// The word at `fs:0`, which holds the thread's base itself (ELF handling for thread-local storage, 3.4.6). The distance is the
    /// same for all threads.
    ThreadBase(i32),
    /// The word at `gs:offset`: each processor has one.
    PerProcessor {
        /// Where the word is.
        offset: i32,
        /// From its value to the record.
        distance: i32,
    },
    /// The word at an address: there is one processor.
    Word {
        /// Where the word is.
        address: usize,
        /// From its value to the record.
        distance: i32,
    },
}

/// Why a task operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// No task could be created.
    #[error("cannot spawn a task: {0}")]
    Spawn(String),
    /// The task has ended.
    #[error("task {0} has ended")]
    Ended(u64),
    /// The current stack cannot be prepared for running cells.
    #[error("cannot prepare the task's stack: {0}")]
    Stack(String),
}

/// What a port does with tasks.
pub trait TaskPort: Sync {
    /// Locals of the current task. Fast: on the path of every guarded call.
    fn current(&self) -> &TaskLocals;

    /// How machine code finds what [`current`](TaskPort::current) gives, the same for all tasks while the system runs. `None`: only by
    /// calling it, which makes calls of cells with mutable state slower.
    fn task_pointer(&self) -> Option<TaskPointer> {
        None
    }

    /// Prepares the current task for running cells: alternate stack for exceptions, the yellow zone below
    /// `stack_limit` made inaccessible. Idempotent and fast when done already.
    fn attach(&self) -> Result<&TaskLocals, TaskError>;

    /// Starts a task with a stack of at least `stack` bytes. `f` runs on it; a panic that leaves `f` ends the task only.
    fn spawn(&self, name: &str, stack: usize, f: Box<dyn FnOnce() + Send>) -> Result<u64, TaskError>;

    /// Waits until the task has ended.
    fn join(&self, id: u64) -> Result<(), TaskError>;

    /// Interrupts a task wherever it is: its exception handlers run with `Exception::Interrupt`.
    fn interrupt(&self, id: u64) -> Result<(), TaskError>;

    /// Sets a task's `kill_requested` and interrupts it, now and again until the word is 0: the first interrupt may find the
    /// task where it cannot stop.
    fn request_kill(&self, id: u64) -> Result<(), TaskError>;

    /// Calls `f` for every task that has attached and lives; tasks neither come nor go meanwhile. Returns `false`, without a
    /// call, when the port cannot tell: then nothing that a task may be using is ever freed.
    fn for_each(&self, f: &mut dyn FnMut(&TaskLocals)) -> bool {
        let _ = f;
        false
    }

    /// Has every task that is attached and that `with` wants look at itself ([`Inspect::inspect`]) as soon as it can, the current
    /// one before this returns; waits for nobody. The others may do it later, or never if another inspection comes first or they
    /// end before. Returns `false`, without a call, when the port cannot: then nothing that a task may be using is ever freed.
    ///
    /// What a task stored or loaded before it looks is visible to it, as is what the caller stored before.
    fn inspect(&self, with: &Arc<dyn Inspect>) -> bool {
        let _ = with;
        false
    }

    /// Returns after every running task has passed a full memory barrier: the costly side of an asymmetric fence, so that
    /// the tasks' frequent side needs none. A port with several processors must interrupt the others.
    fn barrier(&self) {
        core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    }

    /// Number of processors that tasks can run on at once.
    fn processors(&self) -> usize {
        1
    }

    /// Lets others run.
    fn yield_now(&self);

    /// Sleeps while `*word == expected`, until woken or until `timeout_ns` nanoseconds have passed (`None`: no limit).
    /// Returns `false` on a timeout. May wake spuriously.
    fn wait(&self, word: &AtomicU32, expected: u32, timeout_ns: Option<u64>) -> bool;

    /// Wakes up to `count` tasks that sleep on `word`; returns how many.
    fn wake(&self, word: &AtomicU32, count: u32) -> usize;
}

/// Locals of the current task.
#[inline]
pub fn current() -> &'static TaskLocals {
    platform().tasks().current()
}

/// The way to the current task's locals, found once: a call of the port, or, with the hosted port, an inlined read of a
/// thread local, which saves the call (1.6 ns).
#[derive(Clone, Copy)]
pub struct CurrentTask {
    tasks: &'static dyn TaskPort,
    #[cfg(feature = "hosted")]
    hosted: bool,
}

impl CurrentTask {
    /// The way for the port in use.
    pub fn of(platform: &'static dyn Platform) -> CurrentTask {
        CurrentTask {
            tasks: platform.tasks(),
            #[cfg(feature = "hosted")]
            hosted: core::ptr::addr_eq(platform, &crate::hosted::HOSTED),
        }
    }

    /// Locals of the current task.
    #[inline(always)]
    pub fn get(&self) -> &'static TaskLocals {
        #[cfg(feature = "hosted")]
        if self.hosted {
            let locals = crate::hosted::task::locals();
            if locals.id.get() != 0 {
                return locals;
            }
        }
        self.tasks.current()
    }
}

impl core::fmt::Debug for CurrentTask {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("CurrentTask")
    }
}

/// The stack of the current task, if the task has attached: from what the port keeps for itself up to the top. Does nothing but
/// read the task's record.
pub(crate) fn own_stack() -> Option<core::ops::Range<usize>> {
    #[cfg(feature = "hosted")]
    let locals = crate::hosted::task::locals();
    #[cfg(not(feature = "hosted"))]
    let locals = crate::platform::installed()?.tasks().current();
    let limit = locals.stack_limit.get();
    let below = kernel_config::task::YELLOW_ZONE + kernel_config::task::RED_RESERVE + kernel_config::memory::PAGE_SIZE;
    (limit != 0).then(|| limit.saturating_sub(below)..locals.stack_top.get())
}

/// The stack pointer here: inside the caller's frame if inlined, otherwise just below it.
#[inline(always)]
pub fn stack_pointer() -> usize {
    let rsp: usize;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags)) };
    rsp
}
