//! Allocations that fail: every single one that the life of a cell makes on the heap, one after the other.
//!
//! The program puts [`FailingAllocator`] before its allocator and [`Reserve`](runtime_port::heap::Reserve) behind that, and has an
//! allocation-error handler that calls [`runtime_port::heap::exhausted`]. Only the task that injects is refused: the one whose stack
//! the refused calls run on.
#![allow(unsafe_code, reason = "an allocator is unsafe to implement")]

use crate::life::{self, Known};
use crate::verdict::Verdict;
use crate::world::{SetupError, World, setup};
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use kernel_config::task::{RED_RESERVE, YELLOW_ZONE};
use runtime_port::platform;
use runtime_port::task::{self, stack_pointer};

/// An allocator that can refuse one allocation.
#[derive(Debug)]
pub struct FailingAllocator<A>(A);

/// Top of the stack of the task that is refused; 0: none.
static STACK_TOP: AtomicUsize = AtomicUsize::new(0);

/// Size of that stack.
static STACK_SIZE: AtomicUsize = AtomicUsize::new(0);

/// Allocations of the task until one is refused.
static COUNTDOWN: AtomicU64 = AtomicU64::new(0);

/// Whether there is such an allocator in this program.
static INSTALLED: AtomicBool = AtomicBool::new(false);

/// Whether a failed allocation unwinds in this program.
static UNWINDS: AtomicBool = AtomicBool::new(false);

/// Says that the program's allocation-error handler calls [`runtime_port::heap::exhausted`].
pub fn failures_unwind() {
    UNWINDS.store(true, Relaxed);
}

/// Whether it does, so that allocations may be refused.
pub fn is_possible() -> bool {
    UNWINDS.load(Relaxed)
}

impl<A> FailingAllocator<A> {
    /// In front of another one.
    pub const fn new(inner: A) -> Self {
        FailingAllocator(inner)
    }

    /// The allocator behind it.
    pub const fn allocator(&self) -> &A {
        &self.0
    }

    #[inline]
    fn refuses(&self) -> bool {
        let top = STACK_TOP.load(Relaxed);
        top != 0 && refuses(top)
    }
}

/// Whether this allocation is the one to be refused.
#[cold]
fn refuses(top: usize) -> bool {
    INSTALLED.store(true, Relaxed);
    let below_top = top.wrapping_sub(stack_pointer());
    below_top < STACK_SIZE.load(Relaxed) && COUNTDOWN.fetch_sub(1, Relaxed) == 1
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

/// Refuses this task's `n`-th allocation while `f` runs (0: none). Returns how many it made.
fn refusing(n: u64, f: &mut dyn FnMut()) -> u64 {
    const NEVER: u64 = 1 << 40;
    let start = if n == 0 { NEVER } else { n };
    let locals = task::current();
    let bottom = locals.stack_limit.get().saturating_sub(YELLOW_ZONE + RED_RESERVE);
    let top = locals.stack_top.get();
    STACK_SIZE.store(top - bottom, Relaxed);
    COUNTDOWN.store(start, Relaxed);
    STACK_TOP.store(top, Relaxed);
    f();
    STACK_TOP.store(0, Relaxed);
    start.wrapping_sub(COUNTDOWN.load(Relaxed))
}

const NOT_POSSIBLE: &str = "an allocation that fails ends this program: it has no allocation-error handler (docs/ARCHITECTURE.md, \"Toolchain\")";

/// The state between faults of this kind: how many allocations each life makes when none is refused.
#[derive(Debug)]
pub struct Allocations {
    known: Vec<Known>,
}

impl Allocations {
    /// Counts the allocations.
    pub fn new(world: &World) -> Result<Allocations, SetupError> {
        if !is_possible() {
            return Err(SetupError(NOT_POSSIBLE.into()));
        }
        platform().tasks().attach().map_err(|e| setup("task")(&e))?;
        let known = life::count(world, refusing).map_err(SetupError)?;
        match INSTALLED.load(Relaxed) {
            true => Ok(Allocations { known }),
            false => Err(SetupError("the allocator that refuses is not installed".into())),
        }
    }

    /// Number of allocations that can be refused: that many faults in a row refuse each of them once.
    pub fn total(&self) -> u64 {
        life::total(&self.known)
    }

    /// Refuses one allocation of the lives, and looks at what that did.
    pub fn inject(&self, world: &mut World, number: u64) -> Verdict {
        life::inject(world, &self.known, number, "allocation", refusing)
    }
}
