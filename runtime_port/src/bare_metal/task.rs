//! Tasks: preemptive, with fixed priorities.
//!
//! A switch exchanges what an exception entry has saved: [`on_tick`], [`on_yield`] and [`on_interrupt`] are called by the
//! kernel's entries with the interrupted [`Registers`] and leave there those of the task that is to go on; the vector
//! registers are in the [`VectorState`] that [`VECTOR_STATE`] points to. Voluntary switches come through an entry too.
//! So a task that does not run has all its registers in its record, where [`inspect`] shows them.
//!
//! The record of the current task is found through one word, [`TaskPort::current`]; several processors would each have
//! one, with its own [`VECTOR_STATE`]. The rest is behind the scheduler's lock, which masks interrupts.
//!
//! A task that ends leaves its stack in the entry of its last switch; record and stack are freed by the next task that
//! joins, spawns or idles.

mod deadlines;
mod list;
mod record;
mod scheduler;
mod stack;

pub use record::{Priority, TaskState};

use super::{
    context::{Registers, VectorState},
    fatal,
    lock::InterruptLock,
    time, trap,
};
use crate::{
    task::{
        Inspect, RED_ZONE, StoppedTask, TaskError, TaskLocals, TaskPointer, TaskPort, inspect_current, is_on_own_stack,
    },
    trap::Exception,
    unwind::{Context, catch_unwind_with_arg},
};
use alloc::{boxed::Box, format, string::String, sync::Arc};
use core::{
    num::NonZeroU8,
    ops::Range,
    ptr::NonNull,
    sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering},
};
use kernel_config::{
    bare_metal::{INTERRUPT_VECTOR, RESCHEDULE_VECTOR},
    task::{RED_RESERVE, YELLOW_ZONE},
};
use record::{TaskName, TaskRecord, TaskRef, Woken};
use scheduler::{Occasion, Scheduler, end_of};
use stack::TaskStack;
use x86_64::instructions::interrupts;

/// Time after which a task that sleeps while somebody asked it to stop looks again, in nanoseconds.
const KILL_TICK_NS: u64 = 4_000_000;

/// Stack of the idle task, in bytes. It frees what ended tasks leave.
const IDLE_STACK: usize = 32 << 10;

static BOOT: TaskRecord = TaskRecord::new(1, TaskName::new("boot"), Priority::NORMAL);
const BOOT_TASK: TaskRef = TaskRef::to(NonNull::from_ref(&BOOT));

static CURRENT: AtomicPtr<TaskRecord> = AtomicPtr::new((&raw const BOOT).cast_mut());

/// Where the exception entries save the vector registers: the current task's state. Belongs to the processor.
pub static VECTOR_STATE: AtomicPtr<VectorState> = AtomicPtr::new(BOOT.vectors.get());

static NEXT_ID: AtomicU64 = AtomicU64::new(2);

static TICKS: AtomicU64 = AtomicU64::new(0);

static SCHEDULER: InterruptLock<Scheduler> = InterruptLock::new(Scheduler::new());

fn current() -> TaskRef {
    let record = CURRENT.load(Ordering::Relaxed);
    // SAFETY: always points to a live record: that of the task that asks.
    TaskRef::to(unsafe { NonNull::new_unchecked(record) })
}

/// Opens the current task's yellow zone if the fault lies in it: native code needs more stack than the zone leaves it. The
/// zone becomes ordinary stack, so that the code goes on; the next `attach` closes it again.
pub(super) fn open_yellow_zone(fault: usize) -> bool {
    current().open_yellow_zone(fault)
}

/// Name and number of the current task, for reports: takes no lock.
pub fn current_name() -> (&'static str, u64) {
    // SAFETY: the caller runs in this task, so the record stays.
    let record: &'static TaskRecord = unsafe { &*current().as_ptr() };
    (record.name.as_str(), record.locals.id.get())
}

/// The stack of the current task, for reports; empty while it is unknown.
pub fn current_stack() -> Range<usize> {
    current().stack()
}

/// Makes the lowest part of the current task's stack accessible: to unwind from an overflow. `false`: it was already. Called in
/// exception context.
pub(super) fn open_overflow_reserve() -> bool {
    current().open_overflow_reserve()
}

/// Makes it inaccessible again if it was opened: to be called above it.
pub(super) fn close_overflow_reserve() {
    current().close_overflow_reserve();
}

/// The word at an address of the current task's stack in use; `None` if it is none.
pub(super) fn word_of_stack(address: usize) -> Option<usize> {
    let stack = current_stack();
    let is_inside = address.is_multiple_of(8) && address >= stack.start && address < stack.end;
    // SAFETY: the caller names the stack pointer or what is above; the stack is mapped from there on.
    is_inside.then(|| unsafe { *(address as *const usize) })
}

/// Whether an address lies below what the current task may use of its stack: the stack is full.
pub fn is_stack_guard(address: usize) -> bool {
    current().is_guard(address)
}

/// Notes the stack of the boot task, and makes further tasks possible. Tasks are switched by force as soon as the kernel calls
/// [`on_tick`] and interrupts are on.
///
/// # Errors
/// No memory for the idle task.
///
/// # Safety
/// Called once, by the boot task, while it runs on this stack, which lies in pages mapped through this port with an
/// unmapped page below, and stays.
pub unsafe fn init_boot_task(stack: Range<usize>) -> Result<(), TaskError> {
    BOOT.stack_bottom.set(stack.start);
    BOOT.locals.stack_top.set(stack.end);
    BOOT.close_overflow_reserve();
    let idle = create(0, "idle", IDLE_STACK, Priority::LOWEST, Box::new(idle))?;
    let mut scheduler = SCHEDULER.lock();
    scheduler.set_idle(idle);
    match scheduler.admit(BOOT_TASK) {
        true => Ok(()),
        false => Err(no_memory("boot")),
    }
}

fn idle() {
    loop {
        free_ended();
        interrupts::enable_and_hlt();
    }
}

/// A new task that is not known to anybody yet.
fn create(
    id: u64,
    name: &str,
    stack: usize,
    priority: Priority,
    body: Box<dyn FnOnce() + Send>,
) -> Result<TaskRef, TaskError> {
    let size = stack.saturating_add(YELLOW_ZONE + RED_RESERVE);
    let stack =
        TaskStack::new(size).map_err(|e| TaskError::Spawn(format!("`{name}`: a stack of {size:#x} bytes: {e}")))?;
    let mut record = record::allocate(id, TaskName::new(name), priority).ok_or_else(|| no_memory(name))?;
    let addresses = stack.addresses();
    record.stack_bottom.set(addresses.start);
    record.locals.stack_top.set(addresses.end);
    record.close_overflow_reserve();
    record.body.set(Some(body));
    *record.context.get_mut() = stack.first_registers(start as *const () as usize);
    core::mem::forget(stack); // freed in `free_ended`
    Ok(TaskRef::to(NonNull::from(Box::leak(record))))
}

#[cold]
fn no_memory(name: &str) -> TaskError {
    TaskError::Spawn(format!("`{name}`: no memory for its record"))
}

/// Frees what tasks that have ended left behind. Returns how many there were.
pub fn free_ended() -> usize {
    // One after the other, with interrupts on in between; each in one piece, so that whoever joins a task does not come back while
    // another one, preempted, still holds half of what it left.
    let free_next = || {
        interrupts::without_interrupts(|| {
            let ended = SCHEDULER.lock().pop_ended();
            ended.map(discard)
        })
    };
    core::iter::from_fn(free_next).count()
}

/// Frees a record and its stack.
fn discard(task: TaskRef) {
    // SAFETY: `create` leaked both, and nobody uses them any more: the task was never listed, or has ended and left its stack.
    unsafe {
        drop(TaskStack::of(task.stack()));
        drop(Box::from_raw(task.as_ptr()));
    }
}

/// The first function of every task, on its own stack.
extern "C" fn start() -> ! {
    let task = current();
    if let Some(body) = task.body.take()
        && let Err(reason) = catch_unwind_with_arg(|body: Box<dyn FnOnce() + Send>| body(), body)
    {
        // The panic handler has reported it. Dropping a payload may panic again; that one is leaked.
        if let Err(again) = catch_unwind_with_arg(drop, reason) {
            core::mem::forget(again);
        }
    }
    interrupts::disable();
    task.state.set(TaskState::Ended);
    enter_scheduler(Occasion::Yield);
    fatal(format_args!("a task went on after its end"))
}

/// Switches to whatever the scheduler picks; returns when the task goes on.
fn enter_scheduler(occasion: Occasion) {
    // SAFETY: the kernel has a gate for this vector, which leads to `on_yield` and saves every register.
    unsafe { core::arch::asm!("int {}", const RESCHEDULE_VECTOR, in("rax") occasion as usize) };
}

/// The timer has ticked: to be called from its entry, after the acknowledgement.
pub fn on_tick(registers: &mut Registers) {
    TICKS.fetch_add(1, Ordering::Relaxed);
    let task = current();
    let left = task.limit.load(Ordering::Relaxed);
    if left > 0 {
        task.limit.store(left - 1, Ordering::Relaxed);
        if left == 1 {
            task.locals.kill_requested.store(1, Ordering::Release);
        }
    }
    switch(registers, Occasion::Tick);
}

/// Ticks so far.
pub fn ticks() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// A device's interrupt was handled, which may have woken a task: to be called from its entry.
pub fn on_interrupt(registers: &mut Registers) {
    let urgent = SCHEDULER.lock().take_urgent();
    match urgent {
        true => switch(registers, Occasion::Wakeup),
        false => deliver(registers),
    }
}

/// To be called from the entry of the vector `RESCHEDULE_VECTOR`.
pub fn on_yield(registers: &mut Registers) {
    let by_wakeup = registers.rax == Occasion::Wakeup as usize;
    switch(registers, if by_wakeup { Occasion::Wakeup } else { Occasion::Yield });
}

fn switch(registers: &mut Registers, occasion: Occasion) {
    let from = current();
    let mut scheduler = SCHEDULER.lock();
    if !scheduler.is_started() {
        return;
    }
    let now = time::now_ns();
    scheduler.expire(from, now);
    let to = scheduler.pick(from, occasion, now);
    if to != from {
        // SAFETY: under the scheduler's lock; `from` does not run any more, and `to` not yet.
        unsafe {
            *from.context.get() = *registers;
            *registers = *to.context.get();
        }
        CURRENT.store(to.as_ptr(), Ordering::Relaxed);
        VECTOR_STATE.store(to.vectors.get(), Ordering::Relaxed);
    }
    drop(scheduler);
    deliver(registers);
}

/// Has the handlers run in the task that goes on if somebody asked for it.
fn deliver(registers: &mut Registers) {
    let task = current();
    if task.interrupted.swap(false, Ordering::AcqRel) || task.locals.kill_requested.load(Ordering::Acquire) != 0 {
        // Nobody has to take it.
        let _ = trap::dispatch(Exception::Interrupt, None, registers);
    }
}

/// How a new task is to be.
#[derive(Debug, Clone, Copy)]
pub struct TaskOptions<'a> {
    /// Its name, for reports; cut to 31 bytes.
    pub name: &'a str,
    /// Bytes of stack above the yellow zone.
    pub stack: usize,
    /// How urgent it is.
    pub priority: Priority,
}

/// Starts a task. [`TaskPort::spawn`] with a priority.
///
/// # Errors
/// No memory for its record or stack.
pub fn spawn(options: &TaskOptions<'_>, f: Box<dyn FnOnce() + Send>) -> Result<u64, TaskError> {
    free_ended();
    // The number is taken only for a task that comes to be, and numbers must be listed in order: both under the lock.
    let task = create(0, options.name, options.stack, options.priority, f)?;
    let mut scheduler = SCHEDULER.lock();
    if !scheduler.is_started() {
        drop(scheduler);
        discard(task);
        return Err(TaskError::Spawn(format!("`{}`: before the boot task is set up", options.name)));
    }
    let id = NEXT_ID.load(Ordering::Relaxed);
    task.locals.id.set(id);
    if !scheduler.admit(task) {
        drop(scheduler);
        discard(task);
        return Err(no_memory(options.name));
    }
    NEXT_ID.store(id + 1, Ordering::Relaxed);
    scheduler.make_ready(task, current(), time::now_ns());
    let urgent = scheduler.take_urgent();
    drop(scheduler);
    give_way_if(urgent);
    Ok(id)
}

/// Runs `f`, and asks this task to stop its call into wasm (as `request_kill` does) when `f` has had the processor at this many
/// ticks. Returns also whether it came to that. Limits do not nest: an inner one ends the outer one.
pub fn with_limit<R>(ticks: u32, f: impl FnOnce() -> R) -> (R, bool) {
    struct Limit(TaskRef);
    impl Drop for Limit {
        fn drop(&mut self) {
            self.0.limit.store(0, Ordering::Relaxed);
        }
    }
    let limit = Limit(current());
    limit.0.limit.store(ticks.max(1), Ordering::Relaxed);
    let result = f();
    let reached = limit.0.limit.load(Ordering::Relaxed) == 0;
    (result, reached)
}

/// Changes how urgent a task is.
///
/// # Errors
/// The task has ended.
pub fn set_priority(id: u64, priority: Priority) -> Result<(), TaskError> {
    schedule(id, |task| {
        task.base.set(priority);
        (priority, task.slice.get())
    })
}

/// Says how urgent a task is from here on, and how many ticks its turns have: what a scheduling policy decides. What
/// [`set_priority`] said stays known, in [`TaskView::base`].
///
/// # Errors
/// The task has ended.
pub fn advise(id: u64, priority: Priority, slice: NonZeroU8) -> Result<(), TaskError> {
    schedule(id, |_| (priority, slice.get()))
}

fn schedule(id: u64, say: impl FnOnce(TaskRef) -> (Priority, u8)) -> Result<(), TaskError> {
    let mut scheduler = SCHEDULER.lock();
    let task = scheduler.find(id).ok_or(TaskError::Ended(id))?;
    let (priority, slice) = say(task);
    task.slice.set(slice);
    task.left.set(task.left.get().min(slice));
    if task.priority.get() == priority {
        return Ok(());
    }
    scheduler.set_priority(task, priority, current(), time::now_ns());
    let urgent = scheduler.take_urgent();
    drop(scheduler);
    give_way_if(urgent);
    Ok(())
}

/// Lets a more urgent task run at once. With interrupts masked the caller holds something; then the next tick does it.
fn give_way_if(urgent: bool) {
    if urgent && interrupts::are_enabled() {
        enter_scheduler(Occasion::Wakeup);
    }
}

/// A task as seen by another.
#[derive(Debug)]
pub struct TaskView<'a> {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: &'a str,
    /// What it does.
    pub state: TaskState,
    /// How urgent it is.
    pub priority: Priority,
    /// How urgent it is to be, apart from what a scheduling policy makes of it.
    pub base: Priority,
    /// Ticks of a turn.
    pub slice: u8,
    /// Ticks so far that found the processor on it.
    pub ran: u64,
    /// Its locals.
    pub locals: &'a TaskLocals,
    /// Its integer registers, and its vector registers as `xsave` or `fxsave` left them; `None` for the task that asks.
    pub saved: Option<(&'a Registers, &'a VectorState)>,
    /// Its stack. In use are the addresses from `saved.rsp - 128` up (the red zone of the psABI), or from the stack
    /// pointer of the task that asks. What is above the stack pointer can be read, and nothing below `locals.stack_limit`
    /// unless the stack pointer is below it.
    pub stack: Range<usize>,
}

/// Calls `f` for every task that has not ended, with interrupts masked: none of them goes on, comes or goes meanwhile. `f` must
/// not spawn, wake, wait or join.
pub fn inspect(f: &mut dyn FnMut(&TaskView<'_>)) {
    let scheduler = SCHEDULER.lock();
    for task in scheduler.tasks() {
        let runs = *task == current();
        f(&TaskView {
            id: task.locals.id.get(),
            name: task.name.as_str(),
            state: task.state.get(),
            priority: task.priority.get(),
            base: task.base.get(),
            slice: task.slice.get(),
            ran: task.ran.get(),
            locals: &task.locals,
            // SAFETY: the task does not run while we hold the lock, so nobody writes what was saved.
            saved: (!runs).then(|| unsafe { (&*task.context.get(), &*task.vectors.get()) }),
            stack: task.stack(),
        });
    }
}

/// The port's tasks.
#[derive(Debug)]
pub struct BareTasks;

impl TaskPort for BareTasks {
    fn current(&self) -> &TaskLocals {
        // SAFETY: the record of the task that asks, which lives as long as it can use the reference.
        unsafe { &(*CURRENT.load(Ordering::Relaxed)).locals }
    }

    fn task_pointer(&self) -> Option<TaskPointer> {
        let address = (&raw const CURRENT).addr();
        Some(TaskPointer::Word { address, distance: core::mem::offset_of!(TaskRecord, locals) as i32 })
    }

    fn attach(&self) -> Result<&TaskLocals, TaskError> {
        let task = current();
        if !task.zone_closed.get() {
            task.close_yellow_zone()?;
        }
        Ok(self.current())
    }

    fn spawn(&self, name: &str, stack: usize, f: Box<dyn FnOnce() + Send>) -> Result<u64, TaskError> {
        spawn(&TaskOptions { name, stack, priority: current().base.get() }, f)
    }

    fn join(&self, id: u64) -> Result<(), TaskError> {
        if id == 0 || id >= NEXT_ID.load(Ordering::Relaxed) {
            return Err(TaskError::Ended(id));
        }
        if id == current().locals.id.get() {
            return Err(TaskError::Spawn(String::from("a task cannot wait for its own end")));
        }
        while block_if(None, |scheduler| scheduler.find(id).map(end_of)).is_some() {}
        free_ended();
        Ok(())
    }

    fn interrupt(&self, id: u64) -> Result<(), TaskError> {
        request(id, |_| ())
    }

    fn request_kill(&self, id: u64) -> Result<(), TaskError> {
        request(id, |task| task.locals.kill_requested.store(1, Ordering::Release))
    }

    fn for_each(&self, f: &mut dyn FnMut(&TaskLocals)) -> bool {
        let scheduler = SCHEDULER.lock();
        scheduler.tasks().iter().filter(|t| t.locals.stack_limit.get() != 0).for_each(|t| f(&t.locals));
        true
    }

    fn inspect(&self, with: &Arc<dyn Inspect>) -> bool {
        let mut myself = false;
        inspect(&mut |view| {
            if view.locals.stack_limit.get() == 0 || !with.wants(view.id) {
                return;
            }
            let Some((registers, vectors)) = view.saved else {
                myself = true;
                return;
            };
            let words = registers.words();
            let general = words.as_ptr_range();
            let vectors = vectors.vector_registers().as_ptr_range();
            // Nothing below the limit can be read unless the stack pointer is there: the zone is closed.
            let limit = view.locals.stack_limit.get();
            let readable = if registers.rsp < limit { view.stack.start } else { limit };
            let complete = is_on_own_stack(view.locals, registers.rsp);
            let stack = registers.rsp.saturating_sub(RED_ZONE).max(readable)..view.stack.end;
            let parts = [
                general.start as usize..general.end as usize,
                vectors.start as usize..vectors.end as usize,
                if complete { stack } else { 0..0 },
                0..0,
            ];
            // SAFETY: the task does not run until `inspect` returns, and its stack is mapped down to what is in use.
            let mut stopped = unsafe { StoppedTask::new(view.locals, Some(registers.rip), complete, parts) };
            if complete {
                let frame = Context::interrupted(registers.rip, &registers.in_dwarf_order(), view.stack.end);
                stopped = stopped.with_frame(frame);
            }
            with.inspect(&stopped);
        });
        if myself {
            inspect_current(&**with);
        }
        true
    }

    fn yield_now(&self) {
        enter_scheduler(Occasion::Yield);
    }

    fn wait(&self, word: &AtomicU32, expected: u32, timeout_ns: Option<u64>) -> bool {
        let deadline = timeout_ns.map(|ns| time::now_ns().saturating_add(ns));
        let address = word.as_ptr() as usize;
        let slept = block_if(deadline, |_| (word.load(Ordering::Acquire) == expected).then_some(address));
        // What looks like a timeout may be a task that was to look whether it is to stop.
        slept != Some(Woken::ByTimeout) || deadline.is_none_or(|d| time::now_ns() < d)
    }

    fn wake(&self, word: &AtomicU32, count: u32) -> usize {
        let mut scheduler = SCHEDULER.lock();
        let woken = scheduler.wake(word.as_ptr() as usize, count, current(), time::now_ns());
        let urgent = scheduler.take_urgent();
        drop(scheduler);
        give_way_if(urgent);
        woken
    }
}

/// Sleeps on the word whose address `condition` gives, at most until the deadline, and returns why it goes on. `None`: the condition
/// gave no address. Nobody wakes the word between the look at the condition and the sleep: both are under the lock.
fn block_if(deadline: Option<u64>, condition: impl FnOnce(&Scheduler) -> Option<usize>) -> Option<Woken> {
    let task = current();
    let were_on = interrupts::are_enabled();
    interrupts::disable();
    let mut scheduler = SCHEDULER.lock();
    let word = condition(&scheduler);
    if let Some(word) = word.filter(|_| scheduler.is_started()) {
        let stop = task.locals.kill_requested.load(Ordering::Acquire) != 0;
        let tick = stop.then(|| time::now_ns().saturating_add(KILL_TICK_NS));
        let deadline = deadline.into_iter().chain(tick).min();
        scheduler.block(task, word, deadline);
        drop(scheduler);
        enter_scheduler(Occasion::Yield);
    } else {
        drop(scheduler);
    }
    if were_on {
        interrupts::enable();
    }
    word.map(|_| task.woken.get())
}

/// Has a task's handlers run with `Exception::Interrupt` as soon as it has the processor, after `mark`; a task that sleeps goes on.
fn request(id: u64, mark: impl FnOnce(TaskRef)) -> Result<(), TaskError> {
    let in_handler = !interrupts::are_enabled();
    let mut scheduler = SCHEDULER.lock();
    let task = scheduler.find(id).ok_or(TaskError::Ended(id))?;
    mark(task);
    // In an interrupt's handler the handlers run at its end.
    let now = task == current() && !in_handler;
    if !now {
        task.interrupted.store(true, Ordering::Release);
        if task.state.get() == TaskState::Blocked {
            scheduler.unblock(task, Woken::ByOthers, current(), time::now_ns());
        }
    }
    let urgent = scheduler.take_urgent();
    drop(scheduler);
    if now {
        // SAFETY: the kernel has a gate for this vector, which leads to `trap::dispatch`.
        unsafe { core::arch::asm!("int {}", const INTERRUPT_VECTOR) };
    }
    give_way_if(urgent);
    Ok(())
}
