//! What is unloaded goes when no task can be inside it any more.
//!
//! Entries that lead to an instance are closed first; then it waits here until every task that was inside wasm code at that
//! time has been outside since. Nobody blocks: each later load, unload or [`reclaim`] looks again.

use alloc::vec::Vec;
use runtime_port::platform;
use runtime_port::task::TaskLocals;
use runtime_port::unwind::KeepAlive;
use spin::Mutex;

/// Something that waits to be freed, and the tasks it waits for.
struct Retired {
    _what: KeepAlive,
    waiting_for: Vec<u64>,
}

static RETIRED: Mutex<Vec<Retired>> = Mutex::new(Vec::new());

/// The task's local slot that is not 0 while the task is inside a call into wasm.
const INSIDE_SLOT: usize = 0;

fn is_inside(task: &TaskLocals) -> bool {
    task.slots.get(INSIDE_SLOT).is_some_and(|s| {
        // SAFETY: a word that its task writes and this one reads; the read is atomic, so it sees some value it had.
        let word = unsafe { core::sync::atomic::AtomicUsize::from_ptr(s.as_ptr()) };
        word.load(core::sync::atomic::Ordering::SeqCst) != 0
    })
}

/// The tasks that are inside now; `None` when the port cannot tell.
pub(crate) fn tasks_inside() -> Option<Vec<u64>> {
    let mut inside = Vec::new();
    let known = platform().tasks().for_each(&mut |task| {
        if is_inside(task) {
            inside.push(task.id.get());
        }
    });
    known.then_some(inside)
}

/// Frees an instance, or what a closure needs, as soon as no task can be inside. Its entries must be closed already.
pub(crate) fn retire(what: KeepAlive) {
    // A task first says that it is inside, then reads where an entry leads. After the barrier it has either read that the
    // entry is closed, or is seen inside.
    platform().tasks().barrier();
    match tasks_inside() {
        Some(inside) if inside.is_empty() => drop(what),
        Some(waiting_for) => RETIRED.lock().push(Retired { _what: what, waiting_for }),
        // Nobody can say when it is safe, so it is never freed.
        None => core::mem::forget(what),
    }
}

/// Frees what no task is inside of any more. Returns how many instances still wait.
pub fn reclaim() -> usize {
    if RETIRED.lock().is_empty() {
        return 0;
    }
    let Some(inside) = tasks_inside() else { return RETIRED.lock().len() };
    let mut free = Vec::new();
    let mut retired = RETIRED.lock();
    let mut i = 0;
    while let Some(entry) = retired.get_mut(i) {
        entry.waiting_for.retain(|id| inside.contains(id));
        if entry.waiting_for.is_empty() {
            free.push(retired.swap_remove(i));
        } else {
            i += 1;
        }
    }
    let left = retired.len();
    // What is freed may itself lock, so the list is unlocked first.
    drop(retired);
    drop(free);
    left
}
