//! One scan: which tasks hold addresses of which retired things.

use super::{Retired, extent::Extent};
use crate::call;
use alloc::vec::Vec;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use runtime_port::platform;
use runtime_port::task::{Inspect, StoppedTask, TaskLocals};

/// Held, but not by a word of the stack.
const NOT_ON_STACK: usize = 1;

/// Lists that are kept are no longer than this.
const LARGE: usize = 1024;

/// A range and whose it is. Sorted by `start`.
#[derive(Debug, Clone, Copy)]
struct Sought {
    start: usize,
    end: usize,
    /// The highest `end` of this one and those before it.
    reach: usize,
    /// Position in [`Scan::things`].
    thing: usize,
}

/// A thing that is sought.
#[derive(Debug, Clone, Copy)]
struct Thing {
    serial: u64,
    /// See [`Retirement::shows_in_frames`](super::Retirement::shows_in_frames).
    shows_in_frames: bool,
}

/// A task that is to look.
#[derive(Debug)]
struct Asked {
    id: u64,
    asked: AtomicBool,
    answered: AtomicBool,
}

/// What a task said about a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has not answered yet.
    None,
    /// The scan does not ask it about this thing.
    NotAsked,
    /// It has no address of it.
    Free,
    /// It has.
    Held,
}

/// Addresses from one on, so many.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    start: usize,
    len: usize,
}

impl Window {
    fn of(range: &Range<usize>) -> Window {
        Window { start: range.start, len: range.end.saturating_sub(range.start) }
    }

    #[inline(always)]
    fn contains(self, word: usize) -> bool {
        word.wrapping_sub(self.start) < self.len
    }
}

/// A scan, shared with the handlers of the tasks that look. Never on a stack that is looked at: it is full of what is sought.
#[derive(Debug, Default)]
pub(super) struct Scan {
    sought: Vec<Sought>,
    /// Where all of it lies: two ranges, on both sides of the widest gap, because code and what lies on the heap are far apart, and the
    /// program itself may lie between them.
    windows: [Window; 2],
    /// Ascending by serial number.
    things: Vec<Thing>,
    /// Whether all of them do, see [`Retirement::shows_in_frames`](super::Retirement::shows_in_frames).
    shows_in_frames: bool,
    /// Ascending by number.
    tasks: Vec<Asked>,
    /// Per task and thing: 0, or the highest address at which the task holds it.
    found: Vec<AtomicUsize>,
    /// Addresses of the stack where nothing counts.
    except: Range<usize>,
    /// Tasks that were asked and have not answered.
    pub(super) unanswered: AtomicU32,
}

/// Refills a list. `None` when memory is short.
fn refill<T>(list: &mut Vec<T>, items: impl ExactSizeIterator<Item = T>) -> Option<()> {
    list.clear();
    list.try_reserve(items.len()).ok()?;
    list.extend(items);
    Some(())
}

/// Notes in each how far it and those before it reach, and finds the ranges on both sides of the widest gap.
fn windows(sought: &mut [Sought]) -> [Window; 2] {
    let lowest = sought.first().map_or(0, |s| s.start);
    let mut reach = lowest;
    // The addresses around the widest gap.
    let mut gap = lowest..lowest;
    for s in sought {
        if s.start.saturating_sub(reach) > gap.len() {
            gap = reach..s.start;
        }
        reach = reach.max(s.end);
        s.reach = reach;
    }
    [Window::of(&(lowest..gap.start)), Window::of(&(gap.end..reach))]
}

impl Scan {
    /// Makes it a scan of `tasks`, ascending, for `things`, ascending by serial number; words at `except` do not count. `None` when
    /// memory is short: then it is not to be used.
    #[inline(never)]
    pub(super) fn prepare(&mut self, things: &[&Retired], tasks: &[u64], except: Range<usize>) -> Option<()> {
        self.sought.clear();
        self.sought.try_reserve(things.iter().map(|t| t.it.ranges.len()).sum()).ok()?;
        for (thing, t) in things.iter().enumerate() {
            self.sought.extend(t.it.ranges.iter().map(|r| Sought { start: r.start, end: r.end, reach: 0, thing }));
        }
        self.sought.sort_unstable_by_key(|s| s.start);
        self.windows = windows(&mut self.sought);
        self.shows_in_frames = things.iter().all(|t| t.it.shows_in_frames);
        refill(
            &mut self.things,
            things.iter().map(|t| Thing { serial: t.serial, shows_in_frames: t.it.shows_in_frames }),
        )?;
        let asked = |id: &u64| Asked { id: *id, asked: AtomicBool::new(false), answered: AtomicBool::new(false) };
        refill(&mut self.tasks, tasks.iter().map(asked))?;
        let cells = things.len().checked_mul(tasks.len())?;
        refill(&mut self.found, (0..cells).map(|_| AtomicUsize::new(0)))?;
        self.except = except;
        self.unanswered = AtomicU32::new(0);
        Some(())
    }

    /// Whether its lists are too long to be kept.
    pub(super) fn is_large(&self) -> bool {
        self.found.len().max(self.sought.len()) > LARGE
    }

    fn task(&self, id: u64) -> Option<(usize, &Asked)> {
        let at = self.tasks.binary_search_by_key(&id, |t| t.id).ok()?;
        Some((at, self.tasks.get(at)?))
    }

    /// What a task said about a thing.
    pub(super) fn answer(&self, id: u64, serial: u64) -> Answer {
        let (Some((row, task)), Ok(thing)) = (self.task(id), self.things.binary_search_by_key(&serial, |t| t.serial))
        else {
            return Answer::NotAsked;
        };
        if !task.answered.load(Ordering::Acquire) {
            return Answer::None;
        }
        match self.found.get(row * self.things.len() + thing).map(|f| f.load(Ordering::Relaxed)) {
            Some(0) => Answer::Free,
            _ => Answer::Held,
        }
    }

    /// The tasks that were asked and have not answered.
    pub(super) fn silent(&self) -> impl Iterator<Item = u64> + '_ {
        let silent = |t: &&Asked| t.asked.load(Ordering::Acquire) && !t.answered.load(Ordering::Acquire);
        self.tasks.iter().filter(silent).map(|t| t.id)
    }

    /// Number of words that a task could have to be asked about: none means that nobody need be asked.
    pub(super) fn task_count(&self) -> usize {
        self.tasks.len()
    }

    /// Notes a word that lies in one of the windows, for the things that `counts` says.
    #[cold]
    fn note(&self, seen: &mut Seen<'_, '_>, at: usize, word: usize, counts: impl Fn(&Thing, bool) -> bool) {
        let locals = seen.task.locals();
        let on_stack = (locals.stack_limit.get()..locals.stack_top.get()).contains(&at);
        let mut i = self.sought.partition_point(|s| s.start <= word);
        while let Some(s) = i.checked_sub(1).and_then(|i| self.sought.get(i)).filter(|s| s.reach > word) {
            i -= 1;
            if word < s.end
                && let Some((found, thing)) = seen.found.get(s.thing).zip(self.things.get(s.thing))
                && counts(thing, on_stack)
                && !self.except.contains(&at)
                && !is_in_locals(locals, at)
                && !call::is_in_catch(locals, at)
            {
                found.fetch_max(if on_stack { at } else { NOT_ON_STACK }, Ordering::Relaxed);
                seen.in_vain |= thing.shows_in_frames;
            }
        }
    }

    /// Calls `f` with every word of the task, of its stack below `end`, that lies in one of the windows.
    #[inline(always)]
    fn for_each_near(&self, task: &StoppedTask<'_>, end: usize, f: impl FnMut(usize, usize)) {
        let [low, high] = self.windows;
        task.find_words_below(end, |word| low.contains(word) || high.contains(word), f);
    }

    /// Looks at everything, and again at what was found and shows in frames. If all of it does, and much of the stack is in use, only
    /// where calls of cells extend from the first.
    fn look(&self, seen: &mut Seen<'_, '_>) {
        let known = if self.shows_in_frames { Extent::if_cheap(seen.task) } else { Extent::Unknown };
        match known {
            Extent::Nothing => {}
            Extent::Below(end) => {
                self.for_each_near(seen.task, end, |at, word| {
                    self.note(seen, at, word, |_, on_stack| !on_stack || at < end);
                });
            }
            Extent::Unknown => {
                self.for_each_near(seen.task, usize::MAX, |at, word| self.note(seen, at, word, |_, _| true));
                if seen.in_vain {
                    self.look_closer(seen);
                }
            }
        }
    }

    /// Looks again at what was found and shows in frames, as far as calls of cells extend.
    #[cold]
    fn look_closer(&self, seen: &mut Seen<'_, '_>) {
        let extent = Extent::of(seen.task);
        if extent == Extent::Unknown {
            return;
        }
        let shown = seen.found.iter().zip(&self.things).filter(|(_, thing)| thing.shows_in_frames);
        shown.for_each(|(found, _)| found.store(0, Ordering::Relaxed));
        if let Extent::Below(end) = extent {
            self.for_each_near(seen.task, end, |at, word| {
                self.note(seen, at, word, |thing, on_stack| thing.shows_in_frames && (!on_stack || at < end));
            });
        }
    }
}

/// What a task is seen to hold.
struct Seen<'s, 't> {
    task: &'s StoppedTask<'t>,
    /// Of [`Scan::found`], those of the task.
    found: &'s [AtomicUsize],
    /// Whether it may be nothing that counts.
    in_vain: bool,
}

impl Inspect for Scan {
    fn wants(&self, id: u64) -> bool {
        let Some((_, task)) = self.task(id) else { return false };
        self.unanswered.fetch_add(1, Ordering::AcqRel);
        task.asked.store(true, Ordering::Release);
        true
    }

    fn inspect(&self, stopped: &StoppedTask<'_>) {
        let n = self.things.len();
        let Some((row, task)) = self.task(stopped.locals().id.get()) else { return };
        let Some(found) = self.found.get(row * n..(row + 1) * n) else { return };
        if !stopped.is_complete() || stopped.pc().is_some_and(is_in_transit) {
            found.iter().for_each(|f| f.store(NOT_ON_STACK, Ordering::Relaxed));
        } else {
            self.look(&mut Seen { task: stopped, found, in_vain: false });
        }
        for at in found.iter().map(|f| f.load(Ordering::Relaxed)).filter(|at| *at != 0) {
            call::look_when_left(stopped.locals(), at);
        }
        task.answered.store(true, Ordering::Release);
        self.unanswered.fetch_sub(1, Ordering::AcqRel);
    }

    fn inspected(&self) {
        platform().tasks().wake(&self.unanswered, u32::MAX);
    }
}

/// Whether an address is in the task's own record, which may lie on its stack: what is noted there of a text does not use it.
fn is_in_locals(locals: &TaskLocals, at: usize) -> bool {
    let start = core::ptr::from_ref(locals).addr();
    (start..start + size_of::<TaskLocals>()).contains(&at)
}

/// Whether the next instruction is one of those by which entries, thunks and call stubs find their way: `mov r11, [rip + x]`,
/// `jmp [r11 + x]`, `jmp r11`, `jmp [rip + x]`. Then the task is on its way to what a word says that was read before or is read now, and the
/// code that it runs in may itself be freed with what lies in it.
fn is_in_transit(pc: usize) -> bool {
    // SAFETY: a prefix or opcode that was executed next is followed by the bytes that it asks for.
    let byte = |i: usize| unsafe { *((pc + i) as *const u8) };
    match byte(0) {
        0x4c => byte(1) == 0x8b && byte(2) == 0x1d,
        0x41 => byte(1) == 0xff && (byte(2) == 0xa3 || byte(2) == 0xe3 || byte(2) == 0x63),
        0xff => byte(1) == 0x25,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sought(ranges: &[(usize, usize)]) -> Vec<Sought> {
        ranges.iter().map(|(start, end)| Sought { start: *start, end: *end, reach: 0, thing: 0 }).collect()
    }

    #[test]
    fn the_windows_leave_out_the_widest_gap_and_nothing_that_is_sought() {
        let mut all = sought(&[(10, 20), (15, 18), (30, 40), (1000, 1010), (1020, 1030)]);
        let windows = windows(&mut all);
        let hits: Vec<usize> = (0..2000).filter(|w| windows.iter().any(|window| window.contains(*w))).collect();
        assert_eq!(hits, (10..40).chain(1000..1030).collect::<Vec<_>>());
        assert_eq!(all.iter().map(|s| s.reach).collect::<Vec<_>>(), [20, 20, 40, 1010, 1030]);
    }

    #[test]
    fn windows_of_one_range_or_none() {
        let hits = |ranges: &[(usize, usize)]| {
            let windows = windows(&mut sought(ranges));
            (0..100).filter(|w| windows.iter().any(|window| window.contains(*w))).count()
        };
        assert_eq!((hits(&[]), hits(&[(5, 9)]), hits(&[(5, 9), (9, 12)])), (0, 4, 7));
    }
}
