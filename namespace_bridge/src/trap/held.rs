//! Where the contents of traps are: a few places in the program's data, and the heap when those are taken.
//!
//! A trap rarely outlives its handling, and taking and freeing such a place costs two nanoseconds, a block of the heap eight. It also
//! means that a trap has its backtrace when nothing is left of the heap.
//!
//! Which place a task tries depends on where its stack is, so that tasks seldom try the same one; each place has a flag of its own.

use super::Inner;
use alloc::boxed::Box;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

/// Number of places.
const PLACES: usize = 16;

/// Stacks are about this far from each other, as a power of two: no task's stack is much smaller.
const STACKS_APART: u32 = 18;

/// A place. A cache line and more each, so tasks do not wait for each other's.
#[repr(C, align(64))]
struct Place {
    taken: AtomicBool,
    inner: UnsafeCell<MaybeUninit<Inner>>,
}

// SAFETY: who has set `taken` has the rest to itself.
unsafe impl Sync for Place {}

static SPARE: [Place; PLACES] =
    [const { Place { taken: AtomicBool::new(false), inner: UnsafeCell::new(MaybeUninit::uninit()) } }; PLACES];

/// Owner of a trap's contents.
pub(super) struct Held(NonNull<Inner>);

// SAFETY: owns an `Inner`, as a box would.
unsafe impl Send for Held where Inner: Send {}
// SAFETY: as above.
unsafe impl Sync for Held where Inner: Sync {}

impl Held {
    /// A place with contents written by `write`. `None`: the heap has nothing left.
    ///
    /// # Safety
    /// `write` must initialise what it is given.
    #[inline]
    pub(super) unsafe fn new(write: impl FnOnce(*mut Inner)) -> Option<Held> {
        let place = match spare() {
            Some(place) => place,
            None => on_heap()?,
        };
        write(place.as_ptr());
        Some(Held(place))
    }
}

/// A place that is free, if the one that this task tries is.
#[inline]
fn spare() -> Option<NonNull<Inner>> {
    let here = 0u8;
    let place = SPARE.get((&raw const here as usize >> STACKS_APART) % PLACES)?;
    match place.taken.swap(true, Ordering::Acquire) {
        true => None,
        false => NonNull::new(place.inner.get().cast()),
    }
}

#[cold]
fn on_heap() -> Option<NonNull<Inner>> {
    // SAFETY: the layout has a size.
    NonNull::new(unsafe { alloc::alloc::alloc(core::alloc::Layout::new::<Inner>()) }.cast())
}

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        let offset = (self.0.as_ptr() as usize).wrapping_sub(SPARE.as_ptr() as usize);
        match SPARE.get(offset / size_of::<Place>()) {
            Some(place) => {
                // SAFETY: initialised in `new`, dropped once; the place is free only behind it.
                unsafe { self.0.drop_in_place() };
                place.taken.store(false, Ordering::Release);
            }
            // SAFETY: from `on_heap`, with Box's layout; initialised in `new`.
            None => drop(unsafe { Box::from_raw(self.0.as_ptr()) }),
        }
    }
}

impl Deref for Held {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        // SAFETY: initialised, and owned by `self`.
        unsafe { self.0.as_ref() }
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut Inner {
        // SAFETY: as above.
        unsafe { self.0.as_mut() }
    }
}
