//! Why a task did not get through a gate.
#![deny(unsafe_code)]

use alloc::{string::String, vec::Vec};
use core::fmt;
use core::time::Duration;

/// One wait of a cycle of waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The task that waits. The next hop's task is inside of what it waits for; the last one waits for the first one's.
    pub task: u64,
    /// The cells of the state domain that it waits for.
    pub waits_for: String,
}

/// Why a task did not get through a gate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GateError {
    /// Who is inside did not leave in time. Wait longer, or ask that task to stop (`kill_task`).
    TimedOut {
        /// The cells of the domain.
        cells: String,
        /// The task inside at that time, if the port could tell.
        inside: Option<u64>,
        /// The cell by which it came in, if it came by a call.
        through: Option<alloc::sync::Arc<str>>,
        /// How long the wait was.
        waited: Duration,
    },
    /// To wait would have been for ever: each task of the cycle waits for a domain that the next one is inside of. Enter the
    /// domains in one order, or join them by sharing state.
    Cycle(Vec<Hop>),
    /// The waiting task was asked to stop.
    Killed,
    /// An indefinite `memory.atomic.wait` inside of a gate: nobody could come in and notify.
    IndefiniteWait,
}

impl fmt::Display for GateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GateError::TimedOut { cells, inside, through, waited } => {
                write!(f, "waited {waited:?} for {cells}: ")?;
                match inside {
                    Some(task) => write!(f, "task {task} is inside")?,
                    None => write!(f, "a task is inside")?,
                }
                match through {
                    Some(cell) => write!(f, ", by a call of `{cell}`"),
                    None => Ok(()),
                }
            }
            GateError::Cycle(hops) => {
                for (i, hop) in hops.iter().enumerate() {
                    match i {
                        0 => write!(f, "task {} would wait for {}", hop.task, hop.waits_for)?,
                        _ => write!(f, ", where task {} is inside, which waits for {}", hop.task, hop.waits_for)?,
                    }
                }
                match hops.first() {
                    Some(first) => write!(f, ", where task {} is inside", first.task),
                    None => f.write_str("a wait would close a cycle of waits"),
                }
            }
            GateError::Killed => f.write_str("the task was asked to stop while it waited"),
            GateError::IndefiniteWait => f.write_str(
                "memory.atomic.wait without a timeout while inside of a gate, where nobody else can come in",
            ),
        }
    }
}

impl core::error::Error for GateError {}
