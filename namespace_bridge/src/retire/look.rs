//! Looking: who is asked about what, and when.

use super::scan::{Answer, Scan};
use super::{RETIRED, Retired, Retirement, TaskIds, WAITING, attached_tasks};
use alloc::{sync::Arc, vec::Vec};
use core::hint::black_box;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};
use runtime_port::platform;
use runtime_port::task::{Inspect, current, inspect_current};
use runtime_port::time::Instant;
use smallvec::SmallVec;
use spin::Mutex;

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// What is new, and what has waited long enough since it was looked at.
    Due,
    /// Everything.
    All,
    /// What the current task may hold, but for words of its stack at these addresses; nobody else is asked.
    Mine { except: (usize, usize) },
}

impl Which {
    fn is_mine(self) -> bool {
        matches!(self, Which::Mine { .. })
    }
}

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;

/// How long a load, unload or swap waits for the tasks it asked. Their answers count when they come later, too.
const WAIT_IN_PASSING: u64 = MILLISECOND;
/// How long [`reclaim`](super::reclaim) waits.
const WAIT: u64 = 20 * MILLISECOND;
/// First pause after a thing was found in use; doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: u64 = 200 * MICROSECOND;
const LONGEST_PAUSE: u64 = 200 * MILLISECOND;
/// After a look that took some time, the next in passing comes no sooner than this many times that.
const REST: u64 = 3;
const LONGEST_REST: u64 = 10 * MILLISECOND;
/// So much new waits for no pause.
const MANY: usize = 64;
const MANY_BYTES: usize = 64 << 20;
/// With so many waiting, who retires more waits as `reclaim` does, also for tasks that were silent the last time...
const PRESSURE: usize = 2 * MANY;
/// ... but only so often in a row: one may have blocked its signals for good.
const PATIENCE: u32 = 4;
/// Things that are looked at at once in passing.
const BATCH: usize = 256;

/// State between looks. Only ever locked by trying, so that who frees something, or is freed, may retire further things.
struct Looking {
    /// The scan that was prepared last, unless it is large: of the looking task alone, or [`scan`](Looking::scan). Its lists are used again
    /// when nobody else has it.
    prepared: Option<Arc<Scan>>,
    /// The latest scan of several tasks, until everybody has answered.
    scan: Option<Arc<Scan>>,
    /// Tasks that did not answer the last time, so nobody waits for them again before they have.
    silent: Vec<u64>,
    /// How often to wait for silent tasks nevertheless when much has come together.
    patience: u32,
    not_before: u64,
}

static LOOKING: Mutex<Looking> =
    Mutex::new(Looking { prepared: None, scan: None, silent: Vec::new(), patience: PATIENCE, not_before: 0 });
/// The task that looks.
static LOOKER: AtomicU64 = AtomicU64::new(0);

/// Looks, and frees what nobody uses. Returns whether it did: not when another task is looking.
pub(super) fn look(which: Which) -> bool {
    let me = current().id.get();
    let Some(mut looking) = LOOKING.try_lock() else { return LOOKER.load(Ordering::Relaxed) == me };
    LOOKER.store(me, Ordering::Relaxed);
    let mut which = which;
    loop {
        looking.scan(which);
        let free = take_free();
        if free.is_empty() {
            break;
        }
        // While this task looks, what is retired by what is freed only gets in line.
        drop(free);
        if WAITING.load(Ordering::Acquire) == 0 {
            break;
        }
        which = Which::Due;
    }
    LOOKER.store(0, Ordering::Relaxed);
    true
}

/// Called when the task has left a call in which it was found to hold something. What the call's `catch` still has in it does not
/// count.
#[cold]
#[inline(never)]
pub(crate) fn left(catch: Range<usize>) {
    clear_dead_stack::<FAR>();
    if WAITING.load(Ordering::Acquire) != 0 {
        look(Which::Mine { except: (catch.start, catch.end) });
    }
}

/// Words to clear for frames that are not optimised, in multiples of those of optimised ones.
const UNOPTIMISED: usize = if cfg!(debug_assertions) { 2 } else { 1 };
/// Words that calls go down to before the next clearing, with room to spare: on the way to what this module knows nothing of...
const FAR: usize = 2048 * UNOPTIMISED;
/// ... from a call of the namespace to where a version is let go...
const DEEP: usize = 1024 * UNOPTIMISED;
/// ... from there to the look...
const LESS_DEEP: usize = 512 * UNOPTIMISED;
/// ... and in the look.
const SHALLOW: usize = 256 * UNOPTIMISED;

/// Overwrites what earlier calls left below the stack pointer, so that it is not taken for something in use when it becomes
/// part of a frame again. Not if nobody looks at this task.
#[inline(always)]
fn clear_dead_stack<const WORDS: usize>() {
    #[inline(never)]
    fn clear<const WORDS: usize>() {
        let mut dead = [0usize; WORDS];
        black_box(&mut dead);
    }
    if current().stack_limit.get() != 0 {
        clear::<WORDS>();
    }
}

/// Runs `f` in frames in which nothing is left of earlier calls.
#[inline(always)]
pub(crate) fn on_clear_stack<R>(f: impl FnOnce() -> R) -> R {
    #[inline(never)]
    fn apart<R>(f: impl FnOnce() -> R) -> R {
        f()
    }
    clear_dead_stack::<DEEP>();
    apart(f)
}

/// [`retire`](super::retire), of what the current task has just worked with and may have left addresses of.
pub(crate) fn retire_own(it: Retirement) {
    clear_dead_stack::<LESS_DEEP>();
    super::retire(it);
}

/// Takes out what nobody holds.
fn take_free() -> SmallVec<[Retired; 1]> {
    let mut list = RETIRED.lock();
    let mut free = SmallVec::new();
    let mut i = 0;
    while i < list.len() {
        if list[i].holders.is_empty() && free.try_reserve(1).is_ok() {
            free.push(list.swap_remove(i));
        } else {
            i += 1;
        }
    }
    WAITING.store(list.len(), Ordering::Release);
    free
}

impl Looking {
    /// Asks the tasks that matter about the things that are to be looked at, and takes their answers.
    fn scan(&mut self, which: Which) {
        self.take_late_answers();
        let now = Instant::now().as_nanos();
        let Some(attached) = attached_tasks() else { return };
        let me = current().id.get();
        let Some(scan) = self.prepare(which, now, &attached, me) else { return };
        if which.is_mine() || *attached == [me] {
            clear_dead_stack::<SHALLOW>();
            if scan.wants(me) {
                inspect_current(&*scan);
            }
            take_answers(&scan);
            return;
        }
        clear_dead_stack::<FAR>();
        if platform().tasks().inspect(&(scan.clone() as Arc<dyn Inspect>)) {
            let pressure = WAITING.load(Ordering::Relaxed) >= PRESSURE && self.patience > 0;
            let most = if pressure || which == Which::All { WAIT } else { WAIT_IN_PASSING };
            self.wait(&scan, most, pressure);
            self.scan = Some(scan);
            self.take_late_answers();
            let took = Instant::now().as_nanos().saturating_sub(now);
            self.not_before = now + took + (took * REST).min(LONGEST_REST);
        }
    }

    /// Strikes tasks that have ended off the lists; prepares the scan of what is to be looked at. `None` if nothing is.
    #[inline(never)]
    fn prepare(&mut self, which: Which, now: u64, attached: &[u64], me: u64) -> Option<Arc<Scan>> {
        let mut list = RETIRED.lock();
        let (mut new, mut bytes) = (0, 0);
        for r in list.iter_mut() {
            r.holders.retain(|id| attached.binary_search(id).is_ok());
            if r.looks == 0 {
                new += 1;
                bytes += r.it.bytes;
            }
        }
        let resting = now < self.not_before && new < MANY && bytes < MANY_BYTES && attached != [me];
        if which == Which::Due && resting {
            return None;
        }
        let wanted = |r: &&mut Retired| {
            !r.holders.is_empty()
                && match which {
                    Which::Due => r.due <= now,
                    Which::All => true,
                    Which::Mine { .. } => r.holders.contains(&me),
                }
        };
        let most = if which == Which::Due { BATCH } else { usize::MAX };
        let mut things: SmallVec<[&Retired; 4]> = SmallVec::new();
        let mut tasks = TaskIds::new();
        for r in list.iter_mut().filter(wanted).take(most) {
            if !which.is_mine() {
                r.looks += 1;
                r.due = now + (FIRST_PAUSE << (r.looks - 1).min(16)).min(LONGEST_PAUSE);
            }
            things.try_reserve(1).ok()?;
            tasks.try_reserve(r.holders.len()).ok()?;
            tasks.extend(r.holders.iter().copied().filter(|id| !which.is_mine() || *id == me));
            things.push(r);
        }
        things.sort_unstable_by_key(|r| r.serial);
        tasks.sort_unstable();
        tasks.dedup();
        let except = if let Which::Mine { except: (start, end) } = which { start..end } else { 0..0 };
        if things.is_empty() {
            return None;
        }
        let mut prepared = self.prepared.take().unwrap_or_default();
        if Arc::get_mut(&mut prepared).is_none() {
            prepared = Arc::default();
        }
        Arc::get_mut(&mut prepared)?.prepare(&things, &tasks, except)?;
        if !prepared.is_large() {
            self.prepared = Some(prepared.clone());
        }
        Some(prepared)
    }

    /// Waits until every task has answered, but for those that did not the last time, unless there is pressure.
    fn wait(&mut self, scan: &Scan, most: u64, pressure: bool) {
        let start = Instant::now().as_nanos();
        loop {
            let unanswered = scan.unanswered.load(Ordering::Acquire);
            if unanswered == 0 || !pressure && scan.silent().all(|id| self.silent.contains(&id)) {
                break;
            }
            let waited = Instant::now().as_nanos().saturating_sub(start);
            if waited >= most {
                break;
            }
            platform().tasks().wait(&scan.unanswered, unanswered, Some(most - waited));
        }
        match scan.unanswered.load(Ordering::Acquire) {
            0 => self.patience = PATIENCE,
            _ if pressure => self.patience -= 1,
            _ => {}
        }
        self.silent.clear();
        if self.silent.try_reserve(scan.task_count()).is_ok() {
            self.silent.extend(scan.silent());
        }
    }

    /// Takes the answers to the latest scan that have come by now.
    fn take_late_answers(&mut self) {
        let Some(scan) = &self.scan else { return };
        let complete = scan.silent().next().is_none();
        take_answers(scan);
        if complete {
            self.scan = None;
        }
    }
}

/// Strikes the tasks off the lists that said they do not hold the thing.
fn take_answers(scan: &Scan) {
    for r in RETIRED.lock().iter_mut() {
        r.holders.retain(|id| scan.answer(*id, r.serial) != Answer::Free);
    }
}
