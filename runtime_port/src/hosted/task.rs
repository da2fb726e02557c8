//! Tasks as threads.
//!
//! The record of a task is a constant-initialised thread local without destructor, so reading it is one instruction.
//! What has to be undone when a thread ends (alternate stack, yellow zone, entry in the list) hangs on a second thread
//! local, made when the task attaches.

use super::inspect;
use super::memory::{errno, lock};
use super::stack::{AlternateStack, StackZone};
use super::trap::{inspect_signal, interrupt_signal};
use crate::task::{Inspect, LOCAL_SLOTS, TaskError, TaskLocals, TaskPointer, TaskPort, inspect_current};
use alloc::{boxed::Box, format, string::ToString, sync::Arc};
use core::cell::{Cell, OnceCell};
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use kernel_config::task::{RED_RESERVE, YELLOW_ZONE};
use std::collections::BTreeMap;
use std::sync::Mutex;

std::thread_local! {
    static LOCALS: TaskLocals = const { TaskLocals {
        slots: [const { Cell::new(0) }; LOCAL_SLOTS],
        stack_limit: Cell::new(0),
        stack_top: Cell::new(0),
        kill_requested: AtomicU32::new(0),
        id: Cell::new(0),
        reserve_use: Cell::new(0),
    } };
    /// The yellow zone, for the signal handler: start, end, and whether it is inaccessible now.
    static ZONE: (Cell<usize>, Cell<usize>, Cell<bool>) = const { (Cell::new(0), Cell::new(0), Cell::new(false)) };
    static MEMBER: Member = const { Member { id: Cell::new(0), stack: OnceCell::new() } };
}

/// More than the static thread-local storage of any program.
const STATIC_STORAGE: isize = 64 << 10;

static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// Tasks that were spawned or have attached, and live.
static TASKS: Mutex<BTreeMap<u64, Entry>> = Mutex::new(BTreeMap::new());

/// What others know of a task.
#[derive(Debug)]
struct Entry {
    thread: libc::pid_t,
    locals: Locals,
    asked: inspect::Asked,
    ended: Arc<AtomicU32>,
}

/// Address of a task's record; valid while the task's entry is listed.
#[derive(Debug)]
struct Locals(*const TaskLocals);

// SAFETY: it is followed only under the lock of `TASKS` while the entry, and so the thread, lives; of the record only
// words that are read or written at once are used from other threads.
unsafe impl Send for Locals {}

/// A thread's membership in [`TASKS`], ended by its destructor.
struct Member {
    id: Cell<u64>,
    stack: OnceCell<AttachedStack>,
}

struct AttachedStack {
    zone: StackZone,
    _alternate: AlternateStack,
}

/// The hosted task port.
#[derive(Debug)]
pub struct HostedTasks;

impl TaskPort for HostedTasks {
    fn current(&self) -> &TaskLocals {
        let locals = locals();
        if locals.id.get() == 0 {
            locals.id.set(NEXT_ID.fetch_add(1, Ordering::Relaxed));
        }
        locals
    }

    fn task_pointer(&self) -> Option<TaskPointer> {
        let base: usize;
        // SAFETY: the word at `fs:0` is readable in every thread (ELF handling for thread-local storage, 3.4.6).
        unsafe { core::arch::asm!("mov {}, fs:[0]", out(reg) base, options(nostack, readonly, preserves_flags)) };
        let distance = (core::ptr::from_ref(locals()) as usize).wrapping_sub(base) as isize;
        // Static storage lies right below the base, at one distance in all threads. A library that was opened later may have
        // been given memory anywhere.
        (-STATIC_STORAGE..0).contains(&distance).then_some(TaskPointer::ThreadBase(distance as i32))
    }

    fn attach(&self) -> Result<&TaskLocals, TaskError> {
        let locals = self.current();
        if locals.stack_limit.get() == 0 {
            attach_slowly(locals)?;
        } else if !ZONE.with(|z| z.2.get()) {
            close_yellow_zone()?;
        }
        Ok(locals)
    }

    fn spawn(&self, name: &str, stack: usize, f: Box<dyn FnOnce() + Send>) -> Result<u64, TaskError> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        let started = Arc::new(AtomicBool::new(false));
        let signal = started.clone();
        let parent = std::thread::current();
        let body = move || {
            locals().id.set(id);
            let listed = enlist(id);
            signal.store(true, Ordering::Release);
            parent.unpark();
            if listed.is_ok() {
                // The panic hook has reported the panic; it ends this task only.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
            }
        };
        let size = stack.saturating_add(YELLOW_ZONE + RED_RESERVE);
        let builder = std::thread::Builder::new().name(name.replace('\0', "")).stack_size(size);
        builder.spawn(body).map_err(|e| TaskError::Spawn(e.to_string()))?;
        while !started.load(Ordering::Acquire) {
            std::thread::park();
        }
        Ok(id)
    }

    fn join(&self, id: u64) -> Result<(), TaskError> {
        if id == 0 || id >= NEXT_ID.load(Ordering::Relaxed) {
            return Err(TaskError::Ended(id));
        }
        let Some(ended) = lock(&TASKS).get(&id).map(|e| e.ended.clone()) else { return Ok(()) };
        while ended.load(Ordering::Acquire) == 0 {
            self.wait(&ended, 0, None);
        }
        Ok(())
    }

    fn interrupt(&self, id: u64) -> Result<(), TaskError> {
        with_entry(id, |entry| interrupt_thread(id, entry.thread))
    }

    fn request_kill(&self, id: u64) -> Result<(), TaskError> {
        let requested = with_entry(id, |entry| {
            // SAFETY: the entry is listed, so the thread and its record live.
            unsafe { (*entry.locals.0).kill_requested.store(1, Ordering::Release) };
            interrupt_thread(id, entry.thread)
        });
        requested.and_then(|()| super::ticks::start().map_err(|e| TaskError::Spawn(e.to_string())))
    }

    fn for_each(&self, f: &mut dyn FnMut(&TaskLocals)) -> bool {
        for entry in lock(&TASKS).values() {
            // SAFETY: the entry is listed, so the thread and its record live.
            f(unsafe { &*entry.locals.0 });
        }
        true
    }

    fn inspect(&self, with: &Arc<dyn Inspect>) -> bool {
        let Some(signal) = inspect_signal() else { return false };
        let current = locals();
        let mut myself = false;
        let tasks = lock(&TASKS);
        let number = inspect::publish(with.clone());
        for (id, entry) in tasks.iter() {
            // SAFETY: the entry is listed, so the thread and its record live; the word is read at once.
            let limit = unsafe { AtomicUsize::from_ptr((*entry.locals.0).stack_limit.as_ptr()) };
            if limit.load(Ordering::Acquire) == 0 || !with.wants(*id) {
                continue;
            }
            match *id == current.id.get() {
                true => myself = true,
                // SAFETY: as above; the signal is the one for it.
                false => unsafe { entry.asked.ask(number, entry.thread, signal) },
            }
        }
        drop(tasks);
        if myself {
            inspect_current(&**with);
        }
        true
    }

    fn barrier(&self) {
        // Alone, a task needs no barrier against itself.
        if lock(&TASKS).len() > 1 && !membarrier() {
            // Without the system call: a change of protection interrupts every processor that runs this process.
            let _ = shoot_down();
        }
        core::sync::atomic::fence(Ordering::SeqCst);
    }

    fn processors(&self) -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    fn yield_now(&self) {
        std::thread::yield_now();
    }

    fn wait(&self, word: &AtomicU32, expected: u32, timeout_ns: Option<u64>) -> bool {
        let limit = timeout_ns.map(|ns| libc::timespec {
            tv_sec: (ns / 1_000_000_000) as libc::time_t,
            tv_nsec: (ns % 1_000_000_000) as libc::c_long,
        });
        let limit = limit.as_ref().map_or(core::ptr::null(), core::ptr::from_ref);
        let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: the word and the time are valid for the call.
        let r = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, limit) };
        r == 0 || errno() != libc::ETIMEDOUT
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> usize {
        let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        // SAFETY: the word is valid for the call.
        let r = unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, count) };
        usize::try_from(r).unwrap_or(0)
    }
}

/// The current thread's record, for as long as the thread runs.
#[inline(always)]
pub(crate) fn locals() -> &'static TaskLocals {
    // SAFETY: the thread local has no destructor, so it lives until the thread ends; the reference cannot leave the
    // thread because `TaskLocals` is not `Sync`.
    LOCALS.with(|l| unsafe { &*core::ptr::from_ref(l) })
}

/// Lists the current thread as task `id`, until it ends.
fn enlist(id: u64) -> Result<(), TaskError> {
    let enlisted = MEMBER.try_with(|member| {
        if member.id.replace(id) != 0 {
            return;
        }
        // SAFETY: no arguments, cannot fail.
        let thread = unsafe { libc::gettid() };
        let (locals, asked) = (Locals(locals()), inspect::Asked::current());
        lock(&TASKS).insert(id, Entry { thread, locals, asked, ended: Arc::new(AtomicU32::new(0)) });
    });
    enlisted.map_err(|_| TaskError::Ended(id))
}

/// `membarrier(2)`, registered on first use. Returns whether the kernel did it.
fn membarrier() -> bool {
    const PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
    static REGISTERED: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    // SAFETY: the call has no memory operands.
    let call = |command: libc::c_int| unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) } == 0;
    *REGISTERED.get_or_init(|| call(REGISTER_PRIVATE_EXPEDITED)) && call(PRIVATE_EXPEDITED)
}

/// Takes access from a page that was just written, which the kernel must tell every processor that runs this process.
fn shoot_down() -> Result<(), crate::memory::MemoryError> {
    use crate::memory::{PteFlags, create_mapping};
    let mut page = create_mapping(kernel_config::memory::PAGE_SIZE, PteFlags::VALID | PteFlags::WRITABLE)?;
    *page.as_type_mut::<u64>(0)? = 1;
    page.remap(PteFlags::VALID)
}

#[cold]
fn attach_slowly(locals: &TaskLocals) -> Result<(), TaskError> {
    let id = locals.id.get();
    enlist(id)?;
    let zone = StackZone::of_current_thread().map_err(TaskError::Stack)?;
    let alternate = AlternateStack::install().map_err(TaskError::Stack)?;
    zone.set_accessible(false).map_err(|e| TaskError::Stack(format!("mprotect failed (errno {e})")))?;
    ZONE.with(|z| {
        z.0.set(zone.start);
        z.1.set(zone.end);
        z.2.set(true);
    });
    locals.stack_top.set(zone.stack_top);
    {
        // Who lists the tasks either finds this one attached, or has unlocked before: then what it stored before it
        // listed them is visible from here on.
        let _tasks = lock(&TASKS);
        locals.stack_limit.set(zone.end);
    }
    let stack = AttachedStack { zone, _alternate: alternate };
    MEMBER.try_with(|m| m.stack.set(stack).is_ok()).map_err(|_| TaskError::Ended(id))?;
    Ok(())
}

/// Called by the signal handler for a fault that nobody claimed: if it lies in the current task's yellow zone, native
/// code needs more stack than the zone leaves it. The zone becomes ordinary stack, so that the code goes on, or
/// overflows into the thread's own guard and std reports it. The next `attach` closes the zone again.
pub(super) fn open_yellow_zone(fault: usize) -> bool {
    ZONE.with(|z| {
        let (start, end) = (z.0.get(), z.1.get());
        let opened = z.2.get() && (start..end).contains(&fault) && super::stack::set_accessible(start, end, true) == 0;
        if opened {
            z.2.set(false);
        }
        opened
    })
}

/// Lowest address of the current task's stack that may be read: the end of the yellow zone while that is closed. For signal
/// handlers.
pub(super) fn readable_from() -> usize {
    ZONE.with(|z| if z.2.get() { z.1.get() } else { z.0.get().saturating_sub(RED_RESERVE) })
}

/// Makes an opened zone inaccessible again, when the stack pointer is out of it.
#[cold]
fn close_yellow_zone() -> Result<(), TaskError> {
    ZONE.with(|z| {
        let (start, end) = (z.0.get(), z.1.get());
        if crate::task::stack_pointer() < end + RED_RESERVE {
            return Err(TaskError::Stack("less stack is left than a call needs".to_string()));
        }
        match super::stack::set_accessible(start, end, false) {
            0 => {
                z.2.set(true);
                Ok(())
            }
            e => Err(TaskError::Stack(format!("mprotect failed (errno {e})"))),
        }
    })
}

fn with_entry(id: u64, f: impl FnOnce(&Entry) -> Result<(), TaskError>) -> Result<(), TaskError> {
    lock(&TASKS).get(&id).map_or(Err(TaskError::Ended(id)), f)
}

/// Interrupts every task whose kill request is not done yet. Returns whether there is one.
pub(super) fn interrupt_requested() -> bool {
    let mut pending = false;
    for (id, entry) in lock(&TASKS).iter() {
        // SAFETY: the entry is listed, so the thread and its record live.
        if unsafe { (*entry.locals.0).kill_requested.load(Ordering::Acquire) } != 0 {
            pending = true;
            // It fails for a thread that is just ending, which needs no tick.
            let _ = interrupt_thread(*id, entry.thread);
        }
    }
    pending
}

/// Sends the interrupt signal. Under the lock of `TASKS`, so the thread has not ended and its number is its own.
fn interrupt_thread(id: u64, thread: libc::pid_t) -> Result<(), TaskError> {
    let signal = interrupt_signal().map_err(|e| TaskError::Spawn(e.to_string()))?;
    // SAFETY: plain call.
    match unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) } {
        0 => Ok(()),
        _ => Err(TaskError::Ended(id)),
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(stack) = self.stack.take() {
            // The thread library uses the stack again for another thread: it must be whole.
            ZONE.with(|z| z.2.set(false));
            let _ = stack.zone.set_accessible(true);
            // A destructor of another thread local that still calls cells finds a task that never attached.
            locals().stack_limit.set(0);
            locals().slots.iter().for_each(|s| s.set(0));
        }
        let entry = lock(&TASKS).remove(&self.id.get());
        if let Some(entry) = entry {
            entry.ended.store(1, Ordering::Release);
            HostedTasks.wake(&entry.ended, u32::MAX);
        }
    }
}
