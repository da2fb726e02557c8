//! What happens to a cell that failed: policies, poisoning, recovery.
//!
//! The caller of a failed call always gets its `Err`. Without a policy that is all: the cell's state is as the core spec leaves
//! it and the cell stays in service. A [`Policy`] does more. Its cell is *poisoned* when a call in it fails: its entries
//! are closed, so new calls get [`TrapCode::Poisoned`] with the cell's name. When every task that was inside wasm code
//! then has been outside since, the policy acts, and the entries, whose addresses never change, lead to what serves from
//! now on:
//!
//! ```text
//! Serving ──failure──► Poisoned ──nobody inside, time has come──► Serving (fresh instance) or Replaced (fallback)
//!    │                     └──recovery failed──┐
//!    └──N failures in the window───────► Quarantined ──clear_poison or reset──► Serving
//! ```
//!
//! Recovery runs on a task that has just failed or met a closed entry, once it is outside of wasm, and in [`run`]. With one
//! task that is before the failed call returns.

mod closed;
mod policy;
mod supervision;

pub use closed::ClosedCell;
pub(crate) use closed::is_closed_routine;
pub use policy::{Policy, PolicyError, RecoveryState};
pub(crate) use supervision::Supervision;

use crate::code::LoadedCode;
use crate::entries;
use crate::fault_log::{self, FaultType};
use crate::gate;
use crate::text_index::TEXT;
use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicBool, Ordering};
use runtime_port::heap::without_failing;
use runtime_port::time::Instant;
use spin::Mutex;
use wasm_cell::trap::TrapCode;

/// Cells that wait for their recovery.
static WAITING: Mutex<Vec<Arc<Supervision>>> = Mutex::new(Vec::new());

/// Whether there are any.
static ANY_WAITING: AtomicBool = AtomicBool::new(false);

/// One task recovers at a time.
static RUNNING: Mutex<()> = Mutex::new(());

/// Records a fault and poisons the cell if its policy says so.
#[inline]
pub(crate) fn failed(code: &LoadedCode, pc: usize, exact: bool, fault: FaultType) {
    let record = fault_log::log_exception(code, pc, exact, fault);
    if let Some(supervision) = code.supervision()
        && !is_of_another_cell(fault)
    {
        without_failing(|| supervision.failed(code, fault, record));
    }
}

/// A panic crosses the wasm code that was entered at `entry` (0: unknown). It is recorded for the cell that native code
/// called, since nobody walks the frames of a panic before they go.
#[cold]
pub(crate) fn panicked(entry: usize) {
    if entry != 0 {
        let reader = TEXT.read();
        let target = if reader.find(entry).is_some() {
            Some(entry)
        } else {
            // SAFETY: the call that panicked was made to this address, so it is code; what is shorter than an entry is not at
            // the end of its page, since cells are followed by data.
            unsafe { entries::target_of(entry).map(|t| gate::stub::behind(t)) }
        };
        let code = target.and_then(|t| Some((t, reader.find(t)?.code()?.clone())));
        drop(reader);
        if let Some((target, code)) = code {
            failed(&code, target, true, FaultType::Panic);
        }
    }
    if crate::call::innermost(crate::call::current_task()).is_null() {
        after_failure();
    }
}

/// Whether the cell only called a function that is out of service.
fn is_of_another_cell(fault: FaultType) -> bool {
    use TrapCode::{FunctionGone, Poisoned, Quarantined};
    matches!(fault, FaultType::Trap(FunctionGone | Poisoned | Quarantined))
}

/// Puts a cell on the list of those that wait.
fn enqueue(supervision: Arc<Supervision>) {
    let mut waiting = WAITING.lock();
    if !waiting.iter().any(|s| Arc::ptr_eq(s, &supervision)) {
        waiting.push(supervision);
    }
    ANY_WAITING.store(true, Ordering::Release);
}

/// To be called by a task that has left wasm code or is about to call some: recovers what can be. Returns whether nothing
/// is left to do.
#[inline]
pub(crate) fn after_failure() -> bool {
    !ANY_WAITING.load(Ordering::Acquire) || run() == 0
}

/// Recovers every poisoned cell that nobody is inside of and whose time has come. Returns how many still wait. Useful from a
/// timer or an idle task, when no call would come by and do it. Does nothing in a task that is inside wasm.
pub fn run() -> usize {
    // What is to be recovered is not forgotten for want of memory. A recovery itself may fail.
    without_failing(run_all)
}

fn run_all() -> usize {
    let Some(_running) = RUNNING.try_lock() else { return WAITING.lock().len() };
    let all = core::mem::take(&mut *WAITING.lock());
    let mut left: Vec<_> = Vec::new();
    for supervision in all {
        if !supervision.recover(Instant::now().as_nanos()) {
            left.push(supervision);
        }
    }
    let mut waiting = WAITING.lock();
    // Those that failed again meanwhile are on the list already.
    left.retain(|s| !waiting.iter().any(|w| Arc::ptr_eq(s, w)));
    waiting.append(&mut left);
    ANY_WAITING.store(!waiting.is_empty(), Ordering::Release);
    waiting.len()
}
