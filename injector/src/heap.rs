//! Allocations that fail: every single one that the life of a cell makes on the heap, one after the other.
//!
//! The program puts [`FailingAllocator`] before its allocator, and has an allocation-error handler that calls
//! [`runtime_port::heap::exhausted`]. Only the task that injects is refused: the one whose stack [`live`] runs on.
#![allow(unsafe_code, reason = "an allocator is unsafe to implement")]

use crate::kind::Kind;
use crate::verdict::{Outcome, Verdict};
use crate::workload::{SMALL, WORKLOADS};
use crate::world::{SetupError, World};
use alloc::{format, string::String, vec::Vec};
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use namespace_bridge::LoadOptions;
use runtime_port::heap::HeapExhausted;
use runtime_port::unwind::{KillReason, catch_unwind_with_arg};

/// An allocator that can refuse one allocation.
#[derive(Debug)]
pub struct FailingAllocator<A>(A);

/// Address on the stack of the task that is refused; 0: none.
static TASK: AtomicUsize = AtomicUsize::new(0);

/// Allocations of the task until one is refused.
static COUNTDOWN: AtomicU64 = AtomicU64::new(0);

/// Whether there is such an allocator in this program.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Furthest distance on one stack.
const NEAR: usize = 512 << 10;

impl<A> FailingAllocator<A> {
    /// In front of another one.
    pub const fn new(inner: A) -> Self {
        FailingAllocator(inner)
    }

    fn refuses(&self) -> bool {
        let task = TASK.load(Relaxed);
        if task == 0 {
            return false;
        }
        INSTALLED.store(true, Relaxed);
        let here = &raw const task as usize;
        here.abs_diff(task) < NEAR && COUNTDOWN.fetch_sub(1, Relaxed) == 1
    }
}

// SAFETY: the inner allocator's, or null.
unsafe impl<A: GlobalAlloc> GlobalAlloc for FailingAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if self.refuses() {
            return core::ptr::null_mut();
        }
        // SAFETY: passed on.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { self.0.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if self.refuses() {
            return core::ptr::null_mut();
        }
        // SAFETY: passed on.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if self.refuses() {
            return core::ptr::null_mut();
        }
        // SAFETY: passed on.
        unsafe { self.0.realloc(at, layout, size) }
    }
}

/// Refuses this task's `n`-th allocation while `f` runs (0: none). Returns also how many it made.
fn refusing<R>(n: u64, f: impl FnOnce() -> R) -> (R, u64) {
    const NEVER: u64 = 1 << 40;
    let start = if n == 0 { NEVER } else { n };
    let here = 0u8;
    COUNTDOWN.store(start, Relaxed);
    TASK.store(&raw const here as usize, Relaxed);
    let result = f();
    TASK.store(0, Relaxed);
    (result, start.wrapping_sub(COUNTDOWN.load(Relaxed)))
}

/// What a cell goes through. Each is one row of the report.
const LIVES: [&str; 4] = ["load, call, unload", "trap", "host error and nesting", "compile"];

/// Units of work of each call.
const WORK: i32 = 5;

/// The state between faults of this kind: how many allocations each life makes when none is refused, and its result.
#[derive(Debug)]
pub struct Allocations {
    /// Life, workload, allocations, right result.
    known: Vec<(usize, usize, u64, i64)>,
}

impl Allocations {
    /// Counts the allocations.
    pub fn new(world: &World) -> Result<Allocations, SetupError> {
        let mut known = Vec::new();
        for (life, called) in LIVES.iter().enumerate() {
            let workloads = if life == 0 { WORKLOADS.len() } else { 1 };
            for (workload, load) in WORKLOADS.iter().enumerate().take(workloads) {
                let failed = |e| SetupError(format!("{called}, {}: {e}", load.name));
                // What is made once and kept must be there before anybody counts.
                for _ in 0..2 {
                    live(world, life, workload, 0).0.map_err(failed)?;
                }
                let (result, allocations) = live(world, life, workload, 0);
                known.push((life, workload, allocations, result.map_err(failed)?));
            }
        }
        if !INSTALLED.load(Relaxed) {
            return Err(SetupError("the allocator that refuses is not installed".into()));
        }
        Ok(Allocations { known })
    }

    /// Number of allocations that can be refused: that many faults in a row refuse each of them once.
    pub fn total(&self) -> u64 {
        self.known.iter().map(|k| k.2).sum()
    }

    /// Refuses allocation `number` of the concatenated lives, and looks at what that did.
    pub fn inject(&self, world: &mut World, number: u64) -> Verdict {
        let mut n = number % self.total().max(1);
        let mut known = self.known.iter();
        let found = known.find(|k| {
            let inside = n < k.2;
            if !inside {
                n -= k.2;
            }
            inside
        });
        let Some((life, workload, _, right)) = found.copied() else {
            let outcome = Outcome::Lost("there is no allocation".into());
            return Verdict { fault: Kind::Heap.name(), place: String::new(), detected: false, outcome };
        };
        let (result, _) = live(world, life, workload, n + 1);
        let failed = result.is_err();
        let mut checks = match result {
            Ok(r) if r == right => Ok(()),
            Ok(r) => Err(format!("the result is {r} instead of {right}")),
            Err(e) if e.starts_with(ESCAPED) => Err(e),
            Err(_) => Ok(()),
        };
        checks = checks.and_then(|()| world.check_idle()).and_then(|()| world.check_others());
        checks = checks.and_then(|()| match live(world, life, workload, 0).0 {
            Ok(r) if r == right => world.check_idle(),
            other => Err(format!("without a refusal the result is {other:?} instead of {right}")),
        });
        let place = format!("{}, allocation {}", WORKLOADS[workload].name, n + 1);
        let outcome = match checks {
            Err(what) => Outcome::Lost(what),
            Ok(()) if failed => Outcome::Recovered,
            Ok(()) => Outcome::Quiet,
        };
        Verdict { fault: LIVES[life], place, detected: failed, outcome }
    }
}

/// How the message begins when no error came but an unwinding.
const ESCAPED: &str = "no error, but an unwinding";

/// Calls `f`, refusing its `n`-th allocation.
fn step<R, E: core::fmt::Display>(
    left: &mut u64,
    made: &mut u64,
    f: impl FnOnce() -> Result<R, E>,
) -> Result<R, String> {
    // Counting down over several steps: what is left for the later ones.
    let n = *left;
    let (result, allocations) = refusing(n, || catch_unwind_with_arg(|()| f(), ()));
    *left = n.saturating_sub(allocations);
    *made += allocations;
    match result {
        Ok(result) => result.map_err(|e| format!("{e}")),
        Err(KillReason::Panic(payload)) if payload.is::<HeapExhausted>() => Err(format!("{ESCAPED}: heap exhausted")),
        Err(reason) => Err(format!("{ESCAPED}: {}", reason.message().unwrap_or("?"))),
    }
}

/// One life of a cell, in a frame of its own, whose `n`-th allocation is refused (0: none). Also how many it made. Nothing stays in any case.
#[inline(never)]
fn live(world: &World, life: usize, workload: usize, n: u64) -> (Result<i64, String>, u64) {
    const NAME: &str = "short-lived";
    let (mut left, mut made) = (n, 0);
    let result = (|| {
        let loaded = match life {
            3 => step(&mut left, &mut made, || world.namespace.load_wasm(NAME, SMALL, LoadOptions::default())),
            _ => {
                let object = world.object(workload).clone();
                step(&mut left, &mut made, || world.namespace.load_object(NAME, object, LoadOptions::default()))
            }
        };
        let cell = match loaded {
            Err(e) if world.namespace.get_crate(NAME).is_some() => {
                return Err(format!("{ESCAPED} or half a load: {e}"));
            }
            loaded => loaded?,
        };
        if life == 3 {
            return Ok(1);
        }
        let instance = cell.instance().ok_or("the cell has no instance")?;
        let memory = instance.memory(0).ok_or("the cell has no memory")?;
        step(&mut left, &mut made, || memory.grow(1).ok_or("the memory does not grow"))?;
        let run = step(&mut left, &mut made, || cell.typed_func::<(i32, i32, i32, i64), i64>("run"))?;
        let mut call = |arguments| step(&mut left, &mut made, || run.call(arguments));
        match life {
            0 => call((WORK, 0, 0, 0)),
            // Any trap is right: the kind tells, and out of memory when the kind's own could not be made.
            1 => [0, 3, 20, 31].into_iter().try_fold(0, |sum, kind| match call((WORK, kind, 1, 0)) {
                Ok(_) => Err(String::from("the call did not trap")),
                Err(e) if e.starts_with(ESCAPED) => Err(e),
                Err(_) => Ok(sum + 1),
            }),
            _ => [40, 42, 43].into_iter().try_fold(0, |sum, kind| match call((WORK, kind, 1, 0)) {
                Ok(_) => Err(String::from("the call did not fail")),
                Err(e) if e.starts_with(ESCAPED) => Err(e),
                Err(_) => Ok(sum + 1),
            }),
        }
    })();
    // A load that failed must have left nothing. An unloading that fails can be repeated.
    if world.namespace.get_crate(NAME).is_some() {
        for _ in 0..2 {
            match step(&mut left, &mut made, || world.namespace.unload(NAME)) {
                Err(e) if result.is_ok() && e.starts_with(ESCAPED) => return (Err(e), made),
                Ok(()) => break,
                Err(_) => {}
            }
        }
    }
    (result, made)
}
