//! The protocol of a gate: who holds it, who waits, who is next.
//!
//! The way in and out without contention is a compare-exchange of `owner` from `FREE` and a store of `FREE`. Whoever finds the gate
//! held gets in line under the lock of [`Waiting`], which all gates share, and sleeps until the task in front hands the gate over. A word
//! beside the owner, `attention`, is not 0 while anything but that is to be looked at:
//!
//! - **in**: a task that took the gate and sees `attention` goes to [`Gate::enter`], which gives the gate to who is first in line and
//!   puts the task behind the others. So nobody passes those who wait.
//! - **out**: a task looks at `attention` before and after it stores `FREE`. Before: there is something to do while it still holds
//!   the gate, or somebody to hand it to ([`Gate::leave`]). After: somebody got in line meanwhile ([`Gate::settle`]).
//!
//! The store of `FREE` and the load behind it have no fence in between. A waiter makes up for that: between setting `attention` and
//! looking at `owner` for the last time it passes a barrier that all other tasks pass too (`heavy_barrier`). If the leaver's load came
//! before that barrier, so did its store, and the waiter sees `FREE`; otherwise the load sees `attention`.
//!
//! A wait that would close a cycle is refused. All waits begin and end under one lock, and a task that waits cannot leave a gate, so
//! the last task to join a cycle sees all of it.
//!
//! Two gates become one by [`Gate::forward_to`]: the old one stays as a pointer to the other for as long as anybody knows it.
//!
//! Invariants, cited by the `SAFETY` comments:
//! 1. A [`Waiter`] is in line only while [`Gate::enter`] that was given it runs, and nobody refers to it once its state is `DONE`.
//! 2. Lines, links and buckets are touched under the lock of [`Waiting`] only.
//! 3. A gate lives as long as anybody waits for it, holds it, or knows a gate that is forwarded to it.

use super::sys::{
    AtomicPtr, AtomicU32, AtomicUsize, Mutex, Ordering, SPINS, heavy_barrier, light_barrier, relax, spin, wait, wake,
};
use core::cell::{Cell, UnsafeCell};
use core::ptr::{null, null_mut};

/// Nobody holds the gate.
pub(crate) const FREE: usize = 0;
/// The gate has become another one. Never a task.
pub(crate) const MOVED: usize = 1;

/// Somebody waits.
pub(crate) const QUEUED: u32 = 1;
/// The owner also holds guards: leaving wasm code is not leaving the gate.
pub(crate) const GUARDED: u32 = 2;
/// Something is to be done when the owner leaves.
pub(crate) const DEFERRED: u32 = 4;
/// The owner entered when this was two gates, and may have to leave it twice.
pub(crate) const JOINED: u32 = 8;
/// The gate has become another one.
pub(crate) const FORWARDED: u32 = 16;

/// A gate. The first three fields are known to the assembly in `gate/enter.rs`.
#[repr(C, align(64))]
pub(crate) struct Gate {
    /// `FREE`, `MOVED`, or the address of the owner's task record.
    owner: AtomicUsize,
    attention: AtomicU32,
    /// Guards that the owner holds. Only the owner touches it.
    guards: AtomicU32,
    /// Where the owner came in, for reports.
    entered: AtomicUsize,
    /// What it has become.
    forward: AtomicPtr<Gate>,
    line: UnsafeCell<Line>,
    waiting: &'static Waiting,
}

// SAFETY: `line` is touched under the lock of `waiting` only (invariant 2).
unsafe impl Sync for Gate {}
// SAFETY: a gate owns none of the waiters it points to.
unsafe impl Send for Gate {}

/// Waiters of one gate, first come first.
struct Line {
    first: *const Waiter,
    last: *const Waiter,
}

/// Number of buckets of the table of waiting tasks.
const BUCKETS: usize = 64;

/// All who wait, by task.
pub(crate) struct Waiting(pub(super) Mutex<Graph>);

/// The waiters, by task: the edges from tasks to gates. Those from gates to tasks are the owners.
pub(super) struct Graph {
    buckets: [*const Waiter; BUCKETS],
}

// SAFETY: invariants 1 and 2.
unsafe impl Send for Graph {}

const WAITING: u32 = 0;
/// It holds the gate, and may soon go on.
const GRANTED: u32 = 1;
/// It holds the gate, and nobody refers to it.
const DONE: u32 = 2;

/// A task in line. Lies on its stack.
pub(crate) struct Waiter {
    state: AtomicU32,
    task: usize,
    id: u64,
    gate: Cell<*const Gate>,
    next: Cell<*const Waiter>,
    neighbour: Cell<*const Waiter>,
}

/// How long a task is willing to wait, and what it is told.
pub(crate) trait Patience {
    /// Nanoseconds left, `None` for ever.
    fn left(&self) -> Option<u64>;
    /// Whether the task is to give up.
    fn cancelled(&self) -> bool;
    /// The wait would close a cycle: one of the waits that it consists of, the refused one first.
    fn cycle(&mut self, task: u64, waits_for: &Gate);
}

/// Why a task did not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    TimedOut,
    Cancelled,
    Cycle,
}

impl Waiter {
    /// For the task with this record and number.
    pub(crate) fn new(task: usize, id: u64) -> Waiter {
        Waiter {
            state: AtomicU32::new(WAITING),
            task,
            id,
            gate: Cell::new(null()),
            next: Cell::new(null()),
            neighbour: Cell::new(null()),
        }
    }
}

impl Graph {
    /// Nobody waits.
    pub(super) const EMPTY: Graph = Graph { buckets: [null(); BUCKETS] };

    fn bucket(&mut self, task: usize) -> &mut *const Waiter {
        // Records of tasks are at least that far apart.
        &mut self.buckets[(task >> 7) % BUCKETS]
    }

    fn find(&mut self, task: usize) -> Option<&Waiter> {
        let mut at = *self.bucket(task);
        // SAFETY: invariants 1 and 2.
        while let Some(waiter) = unsafe { at.as_ref() } {
            if waiter.task == task {
                return Some(waiter);
            }
            at = waiter.neighbour.get();
        }
        None
    }

    fn insert(&mut self, waiter: &Waiter) {
        let bucket = self.bucket(waiter.task);
        waiter.neighbour.set(*bucket);
        *bucket = waiter;
    }

    fn remove(&mut self, waiter: &Waiter) {
        let bucket = self.bucket(waiter.task);
        if core::ptr::eq(*bucket, waiter) {
            *bucket = waiter.neighbour.get();
            return;
        }
        let mut at = *bucket;
        // SAFETY: invariants 1 and 2.
        while let Some(before) = unsafe { at.as_ref() } {
            if core::ptr::eq(before.neighbour.get(), waiter) {
                return before.neighbour.set(waiter.neighbour.get());
            }
            at = before.neighbour.get();
        }
    }

    /// Whether `task` may not wait for `gate`, because its owner waits, directly or not, for a gate that the task holds.
    fn has_path(&mut self, gate: &Gate, task: usize) -> bool {
        let mut gate = gate;
        loop {
            let owner = gate.owner.load(Ordering::Acquire);
            if owner == task {
                return true;
            }
            // SAFETY: invariant 3.
            match self.find(owner).and_then(|w| unsafe { w.gate.get().as_ref() }) {
                Some(next) => gate = next,
                None => return false,
            }
        }
    }

    /// Tells the waits of the cycle that `me`, waiting for `gate`, would close.
    fn tell_cycle(&mut self, gate: &Gate, me: &Waiter, patience: &mut impl Patience) {
        patience.cycle(me.id, gate);
        let mut gate = gate;
        loop {
            let owner = gate.owner.load(Ordering::Acquire);
            if owner == me.task {
                return;
            }
            let Some(waiter) = self.find(owner) else { return };
            // SAFETY: invariant 3.
            let Some(next) = (unsafe { waiter.gate.get().as_ref() }) else { return };
            patience.cycle(waiter.id, next);
            gate = next;
        }
    }
}

/// A waiter that was let in, and is to be told when the lock is free.
#[must_use]
struct Granted(*const Waiter);

impl Granted {
    const NOBODY: Granted = Granted(null());

    fn tell(self) {
        // SAFETY: invariant 1: the waiter stays until it reads `DONE`.
        if let Some(waiter) = unsafe { self.0.as_ref() } {
            wake(&waiter.state);
            waiter.state.store(DONE, Ordering::Release);
        }
    }
}

impl Gate {
    /// A free gate, whose waiters are listed in `waiting`.
    pub(crate) fn new(waiting: &'static Waiting) -> Gate {
        Gate {
            owner: AtomicUsize::new(FREE),
            attention: AtomicU32::new(0),
            guards: AtomicU32::new(0),
            entered: AtomicUsize::new(0),
            forward: AtomicPtr::new(null_mut()),
            line: UnsafeCell::new(Line { first: null(), last: null() }),
            waiting,
        }
    }

    /// A gate that nobody can take: who meets it looks for the right one.
    pub(crate) fn moved(waiting: &'static Waiting) -> Gate {
        let gate = Gate::new(waiting);
        gate.owner.store(MOVED, Ordering::Relaxed);
        gate.attention.store(FORWARDED, Ordering::Relaxed);
        gate
    }

    /// What it has become, itself if nothing.
    pub(crate) fn root(&self) -> &Gate {
        let mut gate = self;
        // SAFETY: invariant 3.
        while let Some(next) = unsafe { gate.forward.load(Ordering::Acquire).as_ref() } {
            gate = next;
        }
        gate
    }

    /// The owner's task record; `FREE` without.
    pub(crate) fn owner(&self) -> usize {
        self.root().owner.load(Ordering::Acquire)
    }

    /// Whether the task with this record is inside.
    pub(crate) fn is_held_by(&self, task: usize) -> bool {
        self.owner() == task
    }

    /// Where the owner came in.
    pub(crate) fn entered(&self) -> usize {
        self.root().entered.load(Ordering::Relaxed)
    }

    /// Notes where the owner came in.
    pub(crate) fn set_entered(&self, place: usize) {
        self.entered.store(place, Ordering::Relaxed);
    }

    /// What is to be looked at.
    pub(crate) fn attention(&self) -> u32 {
        self.attention.load(Ordering::Relaxed)
    }

    /// Asks for attention.
    pub(crate) fn attend(&self, to: u32) {
        self.attention.fetch_or(to, Ordering::SeqCst);
    }

    /// Asks for it no longer.
    pub(crate) fn forget(&self, what: u32) {
        self.attention.fetch_and(!what, Ordering::SeqCst);
    }

    /// Guards of the owner. To be used by the owner only.
    pub(crate) fn guards(&self) -> u32 {
        self.guards.load(Ordering::Relaxed)
    }

    /// Counts one guard more or less. To be used by the owner only.
    pub(crate) fn count_guard(&self, by: i32) {
        self.guards.store(self.guards().saturating_add_signed(by), Ordering::Relaxed);
    }

    /// Takes the gate if it is free, past those who wait: the first instruction of the way in.
    #[inline]
    pub(crate) fn take(&self, task: usize) -> bool {
        self.owner.compare_exchange(FREE, task, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Enters, waiting in line if need be. `took` says that the task has taken the gate and saw something to attend to; otherwise it is not
    /// inside. Returns the gate that it is inside of then.
    pub(crate) fn enter(&self, me: &Waiter, took: bool, patience: &mut impl Patience) -> Result<&Gate, Refused> {
        let mut granted = Granted::NOBODY;
        let mut graph = self.waiting.0.lock();
        let gate = self.root();
        if gate.is_line_empty() {
            if took || gate.take(me.task) {
                return Ok(gate);
            }
        } else if took {
            granted = gate.hand_over(&mut graph);
        }
        let refused = if graph.has_path(gate, me.task) {
            graph.tell_cycle(gate, me, patience);
            Some(Refused::Cycle)
        } else {
            (patience.left() == Some(0)).then_some(Refused::TimedOut)
        };
        if refused.is_none() {
            gate.get_in_line(me, &mut graph);
        }
        drop(graph);
        granted.tell();
        match refused {
            Some(refused) => Err(refused),
            None => gate.wait_in_line(me, patience),
        }
    }

    fn wait_in_line(&self, me: &Waiter, patience: &impl Patience) -> Result<&Gate, Refused> {
        // From here on the owner sees that somebody waits, or has left already.
        heavy_barrier();
        self.settle();
        for _ in 0..SPINS {
            if me.state.load(Ordering::Acquire) != WAITING {
                break;
            }
            spin();
        }
        while me.state.load(Ordering::Acquire) == WAITING {
            let left = patience.left();
            let refused = match (patience.cancelled(), left) {
                (true, _) => Refused::Cancelled,
                (false, Some(0)) => Refused::TimedOut,
                _ => {
                    wait(&me.state, WAITING, left);
                    continue;
                }
            };
            let mut graph = self.waiting.0.lock();
            if me.state.load(Ordering::Acquire) == WAITING {
                self.root().get_out_of_line(me, &mut graph);
                return Err(refused);
            }
        }
        while me.state.load(Ordering::Acquire) != DONE {
            relax();
        }
        Ok(self.root())
    }

    /// Leaves: the way out without anything to attend to, as the assembly goes it. The caller holds it, and no guards.
    #[inline]
    pub(crate) fn leave_quickly(&self) {
        if self.attention() != 0 {
            return self.leave();
        }
        self.owner.store(FREE, Ordering::Release);
        light_barrier();
        if self.attention() != 0 {
            self.settle();
        }
    }

    /// Leaves: hands the gate to who is first in line. The caller holds it.
    pub(crate) fn leave(&self) {
        let mut graph = self.waiting.0.lock();
        let gate = self.root();
        gate.forget(GUARDED | JOINED);
        let granted = match gate.is_line_empty() {
            true => {
                gate.owner.store(FREE, Ordering::Release);
                Granted::NOBODY
            }
            false => gate.hand_over(&mut graph),
        };
        drop(graph);
        granted.tell();
    }

    /// Lets in who is first in line, if the gate is free.
    pub(crate) fn settle(&self) {
        let mut graph = self.waiting.0.lock();
        let gate = self.root();
        // SAFETY: invariants 1 and 2.
        let first = unsafe { (*gate.line.get()).first.as_ref() };
        let granted = match first {
            Some(first) if gate.take(first.task) => gate.hand_over(&mut graph),
            _ => Granted::NOBODY,
        };
        drop(graph);
        granted.tell();
    }

    /// Number of tasks in line.
    pub(crate) fn in_line(&self) -> usize {
        let _graph = self.waiting.0.lock();
        // SAFETY: invariant 2.
        let first = unsafe { (*self.root().line.get()).first };
        // SAFETY: invariant 1.
        let waiter = |at: *const Waiter| unsafe { at.as_ref() };
        core::iter::successors(waiter(first), |w| waiter(w.next.get())).count()
    }

    /// Becomes the gate `to`. The calling task holds both and goes on holding `to`; those who wait here wait there, behind who does.
    pub(crate) fn forward_to(&self, to: &Gate) {
        let graph = self.waiting.0.lock();
        // SAFETY: invariant 2.
        let (here, there) = unsafe { (&mut *self.line.get(), &mut *to.line.get()) };
        let mut at = here.first;
        // SAFETY: invariants 1 and 2.
        while let Some(waiter) = unsafe { at.as_ref() } {
            waiter.gate.set(to);
            at = waiter.next.get();
        }
        if !here.first.is_null() {
            // SAFETY: as above.
            match unsafe { there.last.as_ref() } {
                Some(last) => last.next.set(here.first),
                None => there.first = here.first,
            }
            there.last = here.last;
            to.attend(QUEUED);
        }
        *here = Line { first: null(), last: null() };
        to.attend(JOINED | self.attention() & (GUARDED | DEFERRED));
        to.guards.store(to.guards() + self.guards(), Ordering::Relaxed);
        self.attention.store(FORWARDED, Ordering::SeqCst);
        self.forward.store(core::ptr::from_ref(to).cast_mut(), Ordering::Release);
        self.owner.store(MOVED, Ordering::Release);
        drop(graph);
    }

    fn is_line_empty(&self) -> bool {
        // SAFETY: invariant 2.
        unsafe { (*self.line.get()).first.is_null() }
    }

    /// Makes the first in line the owner.
    fn hand_over(&self, graph: &mut Graph) -> Granted {
        // SAFETY: invariant 2.
        let line = unsafe { &mut *self.line.get() };
        // SAFETY: invariant 1.
        let Some(first) = (unsafe { line.first.as_ref() }) else { return Granted::NOBODY };
        line.first = first.next.get();
        if line.first.is_null() {
            line.last = null();
            self.forget(QUEUED);
        }
        graph.remove(first);
        self.owner.store(first.task, Ordering::Release);
        first.state.store(GRANTED, Ordering::Release);
        Granted(first)
    }

    fn get_in_line(&self, me: &Waiter, graph: &mut Graph) {
        me.gate.set(self);
        // SAFETY: invariant 2.
        let line = unsafe { &mut *self.line.get() };
        // SAFETY: invariant 1.
        match unsafe { line.last.as_ref() } {
            Some(last) => last.next.set(me),
            None => line.first = me,
        }
        line.last = me;
        graph.insert(me);
        self.attend(QUEUED);
    }

    fn get_out_of_line(&self, me: &Waiter, graph: &mut Graph) {
        // SAFETY: invariant 2.
        let line = unsafe { &mut *self.line.get() };
        let mut before: *const Waiter = null();
        let mut at = line.first;
        // SAFETY: invariants 1 and 2.
        while let Some(waiter) = unsafe { at.as_ref() } {
            if core::ptr::eq(waiter, me) {
                // SAFETY: as above.
                match unsafe { before.as_ref() } {
                    Some(before) => before.next.set(me.next.get()),
                    None => line.first = me.next.get(),
                }
                if core::ptr::eq(line.last, me) {
                    line.last = before;
                }
                break;
            }
            before = at;
            at = waiter.next.get();
        }
        if line.first.is_null() {
            self.forget(QUEUED);
        }
        graph.remove(me);
    }
}
