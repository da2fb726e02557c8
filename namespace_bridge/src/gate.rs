//! Gates: one task at a time inside the cells of a state domain (D7, docs/SWAPPING.md).
//!
//! A gate stands in front of the functions of every cell whose state is not shared with all tasks ([`crate::domain`] says which cells
//! those are). The version table of such a cell leads to a *gate stub* of each function: a nested call by the task that is inside
//! already costs a comparison and a jump; the outermost one takes the gate, notes that in a record on the stack, and leaves the
//! gate when the function returns, however it returns:
//!
//! - normally: in `planks_gate`, the routine behind the stubs;
//! - by a trap or a kill: at the catch, which leaves every gate whose record lies below it ([`chain`]);
//! - by a panic: in the routine's personality, when the unwinder passes its frame.
//!
//! ```text
//! entry ── version table ── stub ──┬── the task is inside ──────────────► body
//!                                  └── planks_gate: take, record, call ─► body, then leave
//! ```
//!
//! | file | |
//! | --- | --- |
//! | `protocol` | owner, line, cycles; the same source runs in the model check |
//! | `chain` | the gates that a task is inside of |
//! | `stub` | the code of a module's stubs |
//! | `enter` | the routine behind them |
//! | `error` | why a task did not get in |

pub(crate) mod chain;
mod enter;
mod error;
pub(crate) mod protocol;
pub(crate) mod stub;
mod sys;

pub use chain::task_ended;
pub use error::{GateError, Hop};

pub(crate) use enter::{is_gate, leaves_gates, note_indefinite_wait, planks_leave_gates};
use protocol::{Patience, Waiting};
use runtime_port::task::TaskLocals;
use runtime_port::time::Instant;
pub(crate) use stub::STUB_SIZE;

/// All tasks that wait for gates.
pub(crate) static WAITING: Waiting = Waiting(sys::Mutex::new(protocol::Graph::EMPTY));

/// The word by which gates know a task: the address of its record.
pub(crate) fn word_of(task: &TaskLocals) -> usize {
    core::ptr::from_ref(task).expose_provenance()
}

/// How long a task waits, and the cycle it was refused for.
pub(crate) struct Wait<'t> {
    task: &'t TaskLocals,
    deadline: Option<u64>,
    pub(crate) cycle: alloc::vec::Vec<Hop>,
}

impl<'t> Wait<'t> {
    /// Until the task is asked to stop, or this many nanoseconds have passed.
    pub(crate) fn new(task: &'t TaskLocals, timeout_ns: Option<u64>) -> Wait<'t> {
        let deadline = timeout_ns.map(|t| Instant::now().as_nanos().saturating_add(t));
        Wait { task, deadline, cycle: alloc::vec::Vec::new() }
    }
}

impl Patience for Wait<'_> {
    fn left(&self) -> Option<u64> {
        self.deadline.map(|d| d.saturating_sub(Instant::now().as_nanos()))
    }

    fn cancelled(&self) -> bool {
        crate::kill::requested(self.task)
    }

    fn cycle(&mut self, task: u64, waits_for: &protocol::Gate) {
        if self.cycle.try_reserve(1).is_ok() {
            self.cycle.push(Hop { task, waits_for: crate::domain::Domain::of(waits_for).name() });
        }
    }
}
