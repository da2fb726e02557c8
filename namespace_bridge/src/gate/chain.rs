//! The gates that a task is inside of by calls: records on its stack, innermost first.
//!
//! A record belongs to an outermost entry and lies in the frame of `planks_gate`. The records are in stack order, as the catches of the
//! call path are, so leaving everything that was entered since a catch was made needs no mark but the catch's own address.

use super::protocol::Gate;
use super::word_of;
use crate::domain::Domain;
use core::cell::Cell;
use kernel_config::task::{RED_RESERVE, YELLOW_ZONE};
use runtime_port::task::{LOCAL_SLOTS, TaskLocals};

/// The task's local slot that holds the innermost record.
pub(crate) const CHAIN_SLOT: usize = 3;

/// The task's local slot that counts the [`GateGuard`](crate::domain::GateGuard)s it holds.
const GUARDS_SLOT: usize = 4;

/// An outermost entry. Known to the assembly in `gate/enter.rs`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Record {
    /// The next record, further out; 0 if there is none.
    pub(super) previous: usize,
    /// The gate that was taken. It may have become another one since.
    pub(super) gate: *const Gate,
    /// The stub's data.
    pub(super) stub: usize,
}

fn head(task: &TaskLocals) -> &Cell<usize> {
    const { assert!(CHAIN_SLOT < LOCAL_SLOTS && GUARDS_SLOT < LOCAL_SLOTS) };
    let [_, _, _, head, ..] = &task.slots;
    head
}

/// Number of guards that the task holds.
pub(crate) fn guards(task: &TaskLocals) -> &Cell<usize> {
    let [_, _, _, _, guards, ..] = &task.slots;
    guards
}

/// Whether the task is inside of any gate.
pub(crate) fn is_inside_any(task: &TaskLocals) -> bool {
    head(task).get() != 0 || guards(task).get() != 0
}

/// The record at this address.
///
/// # Safety
/// `address` must be 0 or that of a linked record of the current task.
unsafe fn record<'r>(address: usize) -> Option<&'r Record> {
    // SAFETY: linked records lie in frames that have not returned, and only their task touches them.
    unsafe { core::ptr::with_exposed_provenance::<Record>(address).as_ref() }
}

/// Whether an address can be that of something on the task's stack.
fn is_on_stack(task: &TaskLocals, address: usize) -> bool {
    // Native code that calls a cell may use what is kept below the limit of wasm code.
    let low = task.stack_limit.get().saturating_sub(YELLOW_ZONE + RED_RESERVE);
    (low..task.stack_top.get()).contains(&address)
}

/// Link of the record at `at`. One that does not lead further out on the same stack ends the chain: damaged code came back without leaving a
/// gate, and another record was put where the old one was.
fn outwards(task: &TaskLocals, at: usize, record: &Record) -> usize {
    let previous = record.previous;
    if previous <= at && is_on_stack(task, at) && is_on_stack(task, previous) { 0 } else { previous }
}

/// Whether a record of the task is for this gate.
fn has_record_for(task: &TaskLocals, gate: &Gate) -> bool {
    let mut at = head(task).get();
    // SAFETY: the chain of the current task; the gates of records are those of live domains.
    while let Some(record) = unsafe { record(at) } {
        // SAFETY: the task is inside, so the domain lives.
        if core::ptr::eq(unsafe { (*record.gate).root() }, gate) {
            return true;
        }
        at = outwards(task, at, record);
    }
    false
}

/// Links a record whose gate was taken.
///
/// # Safety
/// `record` lies in the current frame of `planks_gate` of the current task.
pub(super) unsafe fn link(task: &TaskLocals, record: *mut Record) {
    // SAFETY: the caller's promise.
    unsafe { (*record).previous = head(task).replace(record.expose_provenance()) };
}

/// Takes the innermost record off the chain and leaves its gate, unless the task is inside by something further out.
pub(crate) fn leave_innermost(task: &TaskLocals) {
    let at = head(task).get();
    // SAFETY: the chain of the current task.
    let Some(record) = (unsafe { record(at) }) else { return };
    head(task).set(outwards(task, at, record));
    // SAFETY: the task is inside, so the domain lives.
    leave_if_last(task, unsafe { &*record.gate });
}

/// Leaves a gate if the task is no longer inside by any record or guard. What was deferred runs before.
pub(crate) fn leave_if_last(task: &TaskLocals, gate: &Gate) {
    let mut gate = gate.root();
    if gate.guards() > 0 || has_record_for(task, gate) {
        return;
    }
    while Domain::of(gate).has_deferred() {
        // What is deferred is inside, too, and may join domains.
        gate.count_guard(1);
        Domain::of(gate).run_deferred();
        gate = gate.root();
        gate.count_guard(-1);
    }
    debug_assert!(gate.is_held_by(word_of(task)));
    gate.leave_quickly();
}

/// Address of the innermost record, if it lies below `mark`. For exception handlers.
pub(crate) fn innermost_below(task: &TaskLocals, mark: usize) -> Option<usize> {
    Some(head(task).get()).filter(|at| (1..mark).contains(at))
}

/// The same where damaged code may have made a link of anything: a record below a catch on the task's stack lies there, too. One that does not
/// ends the chain, and its gate stays taken by the task, which may enter it again.
pub(crate) fn plausible_below(task: &TaskLocals, catch: usize) -> Option<usize> {
    let record = innermost_below(task, catch)?;
    let is_record = is_on_stack(task, record) && record.is_multiple_of(align_of::<Record>());
    if is_on_stack(task, catch) && !is_record {
        head(task).set(0);
        return None;
    }
    Some(record)
}

/// Leaves every gate that was entered below `mark`, an address in the task's stack, by calls that end without returning. To be called
/// while the stack pointer is still below their records.
pub(crate) fn release_to(task: &TaskLocals, mark: usize) {
    while innermost_below(task, mark).is_some() {
        leave_innermost(task);
    }
}

/// To be called by a port, or by the kernel above it, that ends a task without unwinding its stack, while its stack is still mapped
/// and before its record is used for another task: leaves every gate that the task is inside of by calls.
pub fn task_ended(task: &TaskLocals) {
    release_to(task, usize::MAX);
}
