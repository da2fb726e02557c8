//! The text that the task trapped in last.
//!
//! Traps come from the same cell again and again, and who is found in code that is running needs no share of it and no presence in the
//! index. What was found is kept in four of the task's local slots, with the number of removals from the index before that.

use super::walk::Owner;
use crate::text_index::TEXT;
use core::cell::Cell;
use core::ptr::with_exposed_provenance;
use core::sync::atomic::{Ordering, compiler_fence};
use runtime_port::task::{LOCAL_SLOTS, TaskLocals};

/// The first of the slots.
const FIRST_SLOT: usize = 5;

/// Where the text is, whose it is (0: glue), and one more than the number of removals (0: nothing is kept).
fn slots(task: &TaskLocals) -> &[Cell<usize>; 4] {
    const { assert!(FIRST_SLOT + 4 <= LOCAL_SLOTS) };
    let [_, _, _, _, _, slots @ .., _, _, _] = &task.slots;
    slots
}

/// Finds the code that the current task runs at `pc`.
#[inline(always)]
pub(super) fn find(task: &TaskLocals, pc: usize) -> Option<Owner> {
    let [start, end, code, removals] = slots(task);
    // What runs is registered. If nothing was removed since, it is what was registered there when it was found, and it stays as
    // long as it runs.
    if (start.get()..end.get()).contains(&pc) && removals.get() == TEXT.removals().wrapping_add(1) {
        return Some(Owner { range: start.get()..end.get(), code: with_exposed_provenance(code.get()) });
    }
    look_up(task, pc)
}

#[inline(never)]
fn look_up(task: &TaskLocals, pc: usize) -> Option<Owner> {
    let number = TEXT.removals().wrapping_add(1);
    let owner = Owner::find(&TEXT.read(), pc)?;
    let [start, end, code, removals] = slots(task);
    // A fault on the way, in an exception handler's view of it, leaves nothing or all of it.
    removals.set(0);
    compiler_fence(Ordering::SeqCst);
    start.set(owner.range.start);
    end.set(owner.range.end);
    code.set(owner.code.expose_provenance());
    compiler_fence(Ordering::SeqCst);
    removals.set(number);
    Some(owner)
}
