//! A model check of gates, versions and reclaiming: the protocol's own source, run under loom in every interleaving (up to a bound of
//! preemptions) and with every order of memory accesses that the memory model allows.
//!
//! `protocol.rs` is the file that the system is built from. What the assembly of `gate/enter.rs` does is [`Cell::call`] here, instruction by
//! instruction; what a swap does is [`Cell::swap`], in the order of docs/SWAPPING.md.

#[path = "../../../../namespace_bridge/src/gate/protocol.rs"]
#[expect(dead_code, reason = "what the model does not use")]
mod protocol;
mod sys;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use protocol::{Gate, Graph, MOVED, Patience, Refused, Waiter, Waiting};
use std::cell::Cell as Plain;

/// Runs a model in every way that differs by at most this many preemptions.
fn check(preemptions: usize, f: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(f);
}

/// One list of waiters for the gates of a run. It stays: gates refer to it for ever.
fn waiting() -> &'static Waiting {
    Box::leak(Box::new(Waiting(sys::Mutex::new(Graph::EMPTY))))
}

/// Waits for ever, or gives up when it has been asked this often.
struct Patient {
    gives_up_after: Option<u32>,
    asked: Plain<u32>,
    hops: u32,
}

impl Patient {
    fn for_ever() -> Patient {
        Patient { gives_up_after: None, asked: Plain::new(0), hops: 0 }
    }

    fn for_a_moment() -> Patient {
        Patient { gives_up_after: Some(0), asked: Plain::new(0), hops: 0 }
    }
}

impl Patience for Patient {
    fn left(&self) -> Option<u64> {
        None
    }

    fn cancelled(&self) -> bool {
        let asked = self.asked.replace(self.asked.get() + 1);
        self.gives_up_after.is_some_and(|n| asked >= n)
    }

    fn cycle(&mut self, _task: u64, _waits_for: &Gate) {
        self.hops += 1;
    }
}

/// Records of tasks are that far apart.
fn task(n: usize) -> usize {
    0x1000 * (n + 1)
}

/// The way in, as in the assembly: take it, look for attention, otherwise get in line.
fn enter<'g>(gate: &'g Gate, n: usize, patience: &mut Patient) -> Result<&'g Gate, Refused> {
    let took = gate.take(task(n));
    if took && gate.attention() == 0 {
        return Ok(gate);
    }
    gate.enter(&Waiter::new(task(n), n as u64), took, patience)
}

/// A gate around a counter that is no atomic. Loom reports accesses that are not ordered.
struct Guarded {
    gate: Gate,
    count: UnsafeCell<usize>,
}

// SAFETY: loom checks every access of the cell.
unsafe impl Sync for Guarded {}
// SAFETY: as above.
unsafe impl Send for Guarded {}

impl Guarded {
    fn new() -> Arc<Guarded> {
        Arc::new(Guarded { gate: Gate::new(waiting()), count: UnsafeCell::new(0) })
    }

    fn count(&self, n: usize, patience: &mut Patient) -> Result<(), Refused> {
        let gate = enter(&self.gate, n, patience)?;
        // SAFETY: one task is inside; loom checks it.
        self.count.with_mut(|c| unsafe { *c += 1 });
        gate.leave_quickly();
        Ok(())
    }
}

#[test]
fn one_task_is_inside_at_a_time_and_everybody_gets_in() {
    check(2, || {
        let guarded = Guarded::new();
        let others: Vec<_> = (0..2)
            .map(|n| {
                let guarded = guarded.clone();
                thread::spawn(move || guarded.count(n, &mut Patient::for_ever()).unwrap())
            })
            .collect();
        guarded.count(2, &mut Patient::for_ever()).unwrap();
        others.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(guarded.gate.owner(), protocol::FREE);
        assert_eq!(guarded.gate.attention(), 0);
        // SAFETY: all tasks have ended.
        guarded.count.with(|c| assert_eq!(unsafe { *c }, 3));
    });
}

#[test]
fn two_tasks_that_come_again_and_again_lose_no_wake() {
    check(3, || {
        let guarded = Guarded::new();
        let other = guarded.clone();
        let other = thread::spawn(move || (0..2).for_each(|_| other.count(0, &mut Patient::for_ever()).unwrap()));
        (0..2).for_each(|_| guarded.count(1, &mut Patient::for_ever()).unwrap());
        other.join().unwrap();
        // SAFETY: all tasks have ended.
        guarded.count.with(|c| assert_eq!(unsafe { *c }, 4));
    });
}

#[test]
fn who_leaves_and_comes_back_does_not_pass_who_waits() {
    check(3, || {
        let guarded = Guarded::new();
        let gate = enter(&guarded.gate, 0, &mut Patient::for_ever()).unwrap();
        let other = guarded.clone();
        let other = thread::spawn(move || other.count(1, &mut Patient::for_ever()).unwrap());
        let waited = gate.attention() & protocol::QUEUED != 0;
        gate.leave_quickly();
        let gate = enter(&guarded.gate, 0, &mut Patient::for_ever()).unwrap();
        // SAFETY: this task is inside; loom checks it.
        let seen = guarded.count.with(|c| unsafe { *c });
        assert!(seen == 1 || !waited, "passed a task that was in line");
        gate.leave_quickly();
        other.join().unwrap();
    });
}

#[test]
fn a_task_that_gives_up_takes_no_turn_with_it() {
    check(3, || {
        let guarded = Guarded::new();
        let tasks: Vec<_> = (0..2)
            .map(|n| {
                let guarded = guarded.clone();
                thread::spawn(move || {
                    let mut patience = if n == 0 { Patient::for_a_moment() } else { Patient::for_ever() };
                    usize::from(guarded.count(n, &mut patience).is_ok())
                })
            })
            .collect();
        guarded.count(2, &mut Patient::for_ever()).unwrap();
        let counted: usize = tasks.into_iter().map(|t| t.join().unwrap()).sum();
        assert_eq!((guarded.gate.owner(), guarded.gate.attention()), (protocol::FREE, 0));
        // SAFETY: all tasks have ended.
        guarded.count.with(|c| assert_eq!(unsafe { *c }, 1 + counted));
    });
}

#[test]
fn of_two_tasks_that_want_each_others_gate_at_most_one_is_refused_and_none_waits_for_ever() {
    check(3, || {
        let waiting = waiting();
        let gates = Arc::new([Gate::new(waiting), Gate::new(waiting)]);
        let refused = Arc::new(AtomicUsize::new(0));
        let run = |n: usize| {
            let (gates, refused) = (gates.clone(), refused.clone());
            move || {
                let mine = enter(&gates[n], n, &mut Patient::for_ever()).unwrap();
                let mut patience = Patient::for_ever();
                match enter(&gates[1 - n], n, &mut patience) {
                    Ok(gate) => gate.leave_quickly(),
                    Err(Refused::Cycle) => {
                        assert_eq!(patience.hops, 2);
                        refused.fetch_add(1, Ordering::SeqCst);
                    }
                    Err(other) => panic!("{other:?}"),
                }
                mine.leave_quickly();
            }
        };
        let other = thread::spawn(run(0));
        run(1)();
        other.join().unwrap();
        assert!(refused.load(Ordering::SeqCst) <= 1);
        assert!(gates.iter().all(|g| g.owner() == protocol::FREE && g.attention() == 0));
    });
}

#[test]
fn two_gates_that_become_one_let_one_task_in_by_either() {
    check(2, || {
        let waiting = waiting();
        let gates = Arc::new([Gate::new(waiting), Gate::new(waiting)]);
        let count = Arc::new(Guarded { gate: Gate::new(waiting), count: UnsafeCell::new(0) });
        let joiner = {
            let gates = gates.clone();
            thread::spawn(move || {
                let first = enter(&gates[0], 0, &mut Patient::for_ever()).unwrap();
                let second = enter(&gates[1], 0, &mut Patient::for_ever()).unwrap();
                second.forward_to(first);
                first.leave();
            })
        };
        let caller = {
            let (gates, count) = (gates.clone(), count.clone());
            thread::spawn(move || {
                let gate = enter(&gates[1], 1, &mut Patient::for_ever()).unwrap();
                if gates[1].root() as *const Gate == &gates[0] {
                    // SAFETY: the gates are one now, so one task is inside; loom checks it.
                    count.count.with_mut(|c| unsafe { *c += 1 });
                }
                leave(gate);
            })
        };
        joiner.join().unwrap();
        let gate = enter(&gates[0], 2, &mut Patient::for_ever()).unwrap();
        // SAFETY: as above: the gates are one by now.
        count.count.with_mut(|c| unsafe { *c += 1 });
        gate.leave_quickly();
        caller.join().unwrap();
        assert_eq!(gates[0].owner(), protocol::FREE);
        assert_eq!(gates[1].root() as *const Gate, &gates[0] as *const Gate);
    });
}

/// The way out, as in the assembly.
fn leave(gate: &Gate) {
    gate.leave_quickly();
}

/// A cell with two versions, by the words that the real one has.
struct Cell {
    gate: Gate,
    /// What the versions' gate words hold when another version has taken their place.
    no_gate: Gate,
    /// What the entry leads to: the number of a version.
    version_word: AtomicUsize,
    /// The gate words of the versions: 0 leads to `gate`, 1 to `no_gate`.
    gate_words: [AtomicUsize; 2],
    /// The state: which version it belongs to, and how many calls it has seen.
    state: UnsafeCell<(usize, usize)>,
    /// Whether the pages of the old version are gone. Written once, read by whoever is in its text.
    pages: UnsafeCell<bool>,
    /// Per caller: whether it is inside of wasm code (the task's local slot).
    inside: [AtomicUsize; 2],
}

// SAFETY: loom checks every access of the cells.
unsafe impl Sync for Cell {}
// SAFETY: as above.
unsafe impl Send for Cell {}

impl Cell {
    fn new() -> Arc<Cell> {
        let waiting = waiting();
        let no_gate = Gate::moved(waiting);
        assert_eq!(no_gate.owner(), MOVED);
        Arc::new(Cell {
            gate: Gate::new(waiting),
            no_gate,
            version_word: AtomicUsize::new(0),
            gate_words: [AtomicUsize::new(0), AtomicUsize::new(0)],
            state: UnsafeCell::new((0, 0)),
            pages: UnsafeCell::new(false),
            inside: [AtomicUsize::new(0), AtomicUsize::new(0)],
        })
    }

    fn gate_of(&self, version: usize) -> &Gate {
        if self.gate_words[version].load(Ordering::Acquire) == 0 { &self.gate } else { &self.no_gate }
    }

    /// Anything in the text or data of a version: its pages must be there.
    fn touch(&self, version: usize) {
        if version == 0 {
            // SAFETY: loom checks that nobody frees the pages meanwhile.
            self.pages.with(|p| assert!(!unsafe { *p }, "used after it was freed"));
        }
    }

    /// The body of the function.
    fn body(&self, version: usize) {
        self.touch(version);
        // SAFETY: one task is inside; loom checks it.
        self.state.with_mut(|s| unsafe {
            assert_eq!((*s).0, version, "the body of one version met the state of another");
            (*s).1 += 1;
        });
    }

    /// A call from native code, through the stable entry.
    fn call(&self, n: usize) {
        // The catch. After this the task is seen inside, or it sees what the entry leads to now.
        self.inside[n].store(1, Ordering::Release);
        sys::light_barrier();
        self.entry(n);
        self.inside[n].store(0, Ordering::Release);
    }

    fn entry(&self, n: usize) {
        loop {
            let version = self.version_word.load(Ordering::Acquire);
            // The stub.
            self.touch(version);
            let gate = self.gate_of(version);
            if gate.is_held_by(task(n)) {
                // Nested: it has waited at an older version's gate and holds it.
                return self.body(version);
            }
            if gate.take(task(n)) {
                if gate.attention() == 0 && std::ptr::eq(self.gate_of(version), gate) {
                    self.body(version);
                    return gate.leave_quickly();
                }
                // Slowly, having taken it.
                self.touch(version);
                if !std::ptr::eq(self.gate_of(version), gate) {
                    gate.leave();
                    continue;
                }
                let gate = gate.enter(&Waiter::new(task(n), n as u64), true, &mut Patient::for_ever()).unwrap();
                return self.with_turn(n, version, gate);
            }
            // Slowly, without.
            self.touch(version);
            if !std::ptr::eq(self.gate_of(version), &self.gate) {
                continue;
            }
            let waiter = Waiter::new(task(n), n as u64);
            let gate = self.gate.enter(&waiter, false, &mut Patient::for_ever()).unwrap();
            return self.with_turn(n, version, gate);
        }
    }

    /// The task has waited and is inside.
    fn with_turn(&self, n: usize, version: usize, gate: &Gate) {
        self.touch(version);
        match std::ptr::eq(self.gate_of(version), gate) {
            true => self.body(version),
            // It keeps its turn, and goes by the entry.
            false => self.entry(n),
        }
        gate.leave_quickly();
    }

    /// Puts version 1 into service, and frees version 0 when nobody can be inside.
    fn swap(&self) {
        let swapper = 7;
        let gate = enter(&self.gate, swapper, &mut Patient::for_ever()).unwrap();
        // SAFETY: nobody else is inside; loom checks it.
        self.state.with_mut(|s| unsafe { (*s).0 = 1 });
        self.version_word.store(1, Ordering::Release);
        self.gate_words[0].store(1, Ordering::Release);
        gate.leave_quickly();
        // Retire: whoever is not seen inside now reads the new version word when it comes.
        sys::heavy_barrier();
        for task in &self.inside {
            while task.load(Ordering::Acquire) != 0 {
                thread::yield_now();
            }
        }
        // SAFETY: nobody is in the text of version 0; loom checks it.
        self.pages.with_mut(|p| unsafe { *p = true });
    }
}

#[test]
fn no_call_is_lost_doubled_or_torn_by_a_swap_and_nothing_is_used_after_it_is_freed() {
    check(1, || {
        let cell = Cell::new();
        let callers: Vec<_> = (0..2)
            .map(|n| {
                let cell = cell.clone();
                thread::spawn(move || cell.call(n))
            })
            .collect();
        cell.swap();
        callers.into_iter().for_each(|t| t.join().unwrap());
        // SAFETY: all tasks have ended.
        cell.state.with(|s| assert_eq!(unsafe { *s }, (1, 2)));
        assert_eq!((cell.gate.owner(), cell.gate.attention()), (protocol::FREE, 0));
    });
}

#[test]
fn a_caller_that_calls_twice_meets_the_new_version_at_once() {
    check(3, || {
        let cell = Cell::new();
        let caller = {
            let cell = cell.clone();
            thread::spawn(move || (0..2).for_each(|_| cell.call(0)))
        };
        cell.swap();
        caller.join().unwrap();
        // SAFETY: all tasks have ended.
        cell.state.with(|s| assert_eq!(unsafe { *s }, (1, 2)));
    });
}
