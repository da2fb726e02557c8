//! What is unloaded or replaced goes when no task can use it any more.
//!
//! The entries that lead to a retired version are closed first; then it waits here until every task that was attached at that
//! time has been seen without an address of it: no register, no word of the part of its stack that calls of cells take (`extent`).
//! A task that has been seen so cannot get one again, because code addresses are handed out by entries only: function references,
//! slots, handles and raw pointers are all addresses of stable entries. So each retired thing keeps a list of the tasks that may still
//! hold it, which only gets shorter, and one task that stays in one version keeps just that version.
//!
//! Nobody blocks for long. Each later load, unload, swap and [`reclaim`] looks again, and a task that was found to hold something
//! looks itself when it leaves the call that holds it. To look costs each task that is asked an interrupt and a walk over its
//! stack, for everything that waits at once; what is found busy is looked at more and more rarely, and looking takes
//! at most a quarter of the time, however often something is retired.

mod extent;
mod look;
mod scan;

pub(crate) use look::{left, on_clear_stack, retire_own};

use alloc::{sync::Arc, vec::Vec};
use core::ops::Range;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use look::{Which, look};
use runtime_port::heap::HeapExhausted;
use runtime_port::platform;
use runtime_port::task::TaskLocals;
use runtime_port::unwind::KeepAlive;
use smallvec::SmallVec;
use spin::Mutex;

/// Something to be freed when no task can use it.
pub(crate) struct Retirement {
    /// The cell whose it was.
    pub name: Arc<str>,
    /// Version of the cell; 0 for what belongs to none.
    pub version: u32,
    /// Bytes that go with it.
    pub bytes: usize,
    /// Addresses that a task uses it by: of its code, its data, and what its native code is handed.
    pub ranges: Vec<Range<usize>>,
    /// Whether who uses it has a frame of a cell or of glue, or stands in one: not so for native code, whose addresses any other native code may be
    /// handed. Then words of frames further out do not count.
    pub shows_in_frames: bool,
    /// The share to drop.
    #[expect(dead_code, reason = "held, not read")]
    pub what: KeepAlive,
}

/// A version of a cell that is unloaded or replaced, but still in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetiredVersion {
    /// Name of the cell.
    pub name: Arc<str>,
    /// Its version; 0 for what belongs to no version: a host function's environment.
    pub version: u32,
    /// Bytes that it keeps.
    pub bytes: usize,
    /// Numbers of the tasks that may be using it.
    pub held_by: Vec<u64>,
}

/// Numbers of tasks, in ascending order. So few as there mostly are need no memory.
type TaskIds = SmallVec<[u64; 4]>;

/// Something that waits.
struct Retired {
    serial: u64,
    it: Retirement,
    /// Tasks that were attached when it was retired and have not been seen without it since.
    holders: TaskIds,
    /// How often it was looked at in vain.
    looks: u32,
    /// When it is looked at again.
    due: u64,
}

static RETIRED: Mutex<Vec<Retired>> = Mutex::new(Vec::new());
/// Number of things in [`RETIRED`].
static WAITING: AtomicUsize = AtomicUsize::new(0);
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// The task's local slot that is not 0 while the task is inside a call into wasm.
const INSIDE_SLOT: usize = 0;

fn is_inside(task: &TaskLocals) -> bool {
    task.slots.get(INSIDE_SLOT).is_some_and(|s| {
        // SAFETY: a word that its task writes and this one reads; the read is atomic, so it sees some value it had.
        let word = unsafe { AtomicUsize::from_ptr(s.as_ptr()) };
        word.load(Ordering::SeqCst) != 0
    })
}

/// The tasks that are inside a call into wasm now; `None` when the port cannot tell.
pub(crate) fn tasks_inside() -> Option<Vec<u64>> {
    let mut inside = Vec::new();
    let known = platform().tasks().for_each(&mut |task| {
        if is_inside(task) {
            inside.push(task.id.get());
        }
    });
    known.then_some(inside)
}

/// The tasks that are attached, in ascending order; `None` when the port cannot tell or memory is short.
fn attached_tasks() -> Option<TaskIds> {
    list_attached(TaskIds::new()).or_else(|| list_attached(TaskIds::from_vec(core::mem::take(&mut *SPARE.lock()))))
}

/// The same, in a list that may have room already.
fn list_attached(mut tasks: TaskIds) -> Option<TaskIds> {
    let mut complete = true;
    let known = platform().tasks().for_each(&mut |task| {
        // SAFETY: as in `is_inside`.
        let limit = unsafe { AtomicUsize::from_ptr(task.stack_limit.as_ptr()) };
        if limit.load(Ordering::Acquire) != 0 {
            complete &= tasks.try_reserve(1).is_ok();
            if complete {
                tasks.push(task.id.get());
            }
        }
    });
    tasks.sort_unstable();
    (known && complete).then_some(tasks)
}

/// Room for the tasks of one retirement, for when there is no memory.
static SPARE: Mutex<Vec<u64>> = Mutex::new(Vec::new());

/// Makes sure that one cell can be retired without memory. To be called before the first change of what ends in that.
pub(crate) fn reserve() -> Result<(), HeapExhausted> {
    const MORE: usize = 8;
    let mut tasks = 0usize;
    platform().tasks().for_each(&mut |_| tasks += 1);
    let mut spare = SPARE.lock();
    let room = spare.try_reserve(tasks + MORE);
    drop(spare);
    room.map_err(|_| HeapExhausted)?;
    RETIRED.lock().try_reserve(MORE).map_err(|_| HeapExhausted)
}

/// Frees something as soon as no task can use it. What leads to it must be closed already.
pub(crate) fn retire(it: Retirement) {
    // A task that attaches later finds what leads here closed: the port lists a task before it is attached.
    let Some(holders) = attached_tasks() else {
        log::warn!("nobody can tell who uses {}@{}: its memory is never freed", it.name, it.version);
        core::mem::forget(it);
        return;
    };
    if holders.is_empty() {
        drop(it);
        return;
    }
    let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
    let mut list = RETIRED.lock();
    if list.try_reserve(1).is_err() {
        drop(list);
        log::error!("out of memory: {}@{} is never freed ({} bytes)", it.name, it.version, it.bytes);
        core::mem::forget(it);
        return;
    }
    list.push(Retired { serial, it, holders, looks: 0, due: 0 });
    WAITING.store(list.len(), Ordering::Release);
    drop(list);
    look(Which::Due);
}

/// Looks at what has waited long enough. Cheap when there is nothing.
pub(crate) fn look_again() {
    if WAITING.load(Ordering::Acquire) != 0 {
        look(Which::Due);
    }
}

/// Looks at everything that was retired, and frees what no task can use any more. Returns how many things still wait.
///
/// Interrupts every task that may hold something, and waits a moment for it; a task that does not answer in time is taken to hold
/// everything.
pub fn reclaim() -> usize {
    if WAITING.load(Ordering::Acquire) != 0 {
        on_clear_stack(|| {
            // Another task may be looking: it has not seen what was retired since.
            let mut tries = 1000;
            while !look(Which::All) && tries > 0 {
                platform().tasks().yield_now();
                tries -= 1;
            }
        });
    }
    WAITING.load(Ordering::Acquire)
}

/// What was unloaded or replaced and is still in use, as it was when somebody looked last.
pub fn retired() -> Vec<RetiredVersion> {
    let info = |r: &Retired| RetiredVersion {
        name: r.it.name.clone(),
        version: r.it.version,
        bytes: r.it.bytes,
        held_by: r.holders.to_vec(),
    };
    RETIRED.lock().iter().map(info).collect()
}
