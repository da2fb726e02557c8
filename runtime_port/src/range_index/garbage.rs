//! What a writer of a [`RangeIndex`](super::RangeIndex) has replaced, until no reader can see it any more.

use super::{ALL_STRIPES, Chunk, Directory, Node, STRIPES, Stripe};
use alloc::boxed::Box;
use core::ptr::NonNull;
use core::sync::atomic::Ordering::SeqCst;

/// What waits to be freed.
#[derive(Debug)]
pub(super) enum Garbage<T> {
    Node(NonNull<Node<T>>),
    Chunk(NonNull<Chunk<T>>),
    Directory(NonNull<Directory<T>>),
}

/// Link in the list of objects that wait for readers. Part of each object, so that retiring never allocates.
#[derive(Debug)]
pub(super) struct Retired<T> {
    next: Option<Garbage<T>>,
    /// Stripes not yet seen at zero.
    pending: u32,
}

impl<T> Retired<T> {
    pub(super) const NEW: Self = Retired { next: None, pending: 0 };
}

/// The lists; the index's lock protects them.
#[derive(Debug)]
pub(super) struct Writer<T> {
    /// Waits for readers.
    garbage: Option<Garbage<T>>,
    /// Has waited; freed when the lock is released.
    free: Option<Garbage<T>>,
    /// How often not to look at what waits. While a reader is preempted much can come together, which is not to be looked through for
    /// every change.
    rest: usize,
}

// SAFETY: the pointers in the lists are owned by them.
unsafe impl<T: Send> Send for Writer<T> {}

impl<T> Writer<T> {
    pub(super) const fn new() -> Self {
        Writer { garbage: None, free: None, rest: 0 }
    }

    /// Whether something waits for readers.
    pub(super) fn is_waiting(&self) -> bool {
        self.garbage.is_some()
    }

    /// Takes what became unreachable just now.
    pub(super) fn retire(&mut self, garbage: Garbage<T>) {
        let retired = garbage.retired();
        // SAFETY: invariant 3. Readers do not look at this field.
        unsafe {
            (*retired).pending = ALL_STRIPES;
            (*retired).next = self.garbage.take();
        }
        self.garbage = Some(garbage);
    }

    /// Sees which readers have gone, and sorts out what none can see any more.
    pub(super) fn collect(&mut self, stripes: &[Stripe; STRIPES]) {
        if self.garbage.is_none() {
            return;
        }
        if self.rest > 0 {
            self.rest -= 1;
            return;
        }
        let mut kept = 0;
        let mut quiet = 0u32;
        for (i, s) in stripes.iter().enumerate() {
            quiet |= u32::from(s.0.load(SeqCst) == 0) << i;
        }
        let mut list = self.garbage.take();
        while let Some(garbage) = list {
            let retired = garbage.retired();
            // SAFETY: invariant 3; the list owns the object.
            let pending = unsafe {
                list = (*retired).next.take();
                (*retired).pending &= !quiet;
                (*retired).pending
            };
            kept += usize::from(pending != 0);
            let list = if pending == 0 { &mut self.free } else { &mut self.garbage };
            // SAFETY: invariant 3.
            unsafe { (*retired).next = list.take() };
            *list = Some(garbage);
        }
        self.rest = kept / 4;
    }

    /// What nobody can see any more.
    pub(super) fn take_free(&mut self) -> Free<T> {
        Free(self.free.take())
    }

    /// Frees everything.
    ///
    /// # Safety
    /// Nobody reads.
    pub(super) unsafe fn free_all(&mut self) {
        drop(Free(self.free.take()));
        drop(Free(self.garbage.take()));
    }
}

/// A list of objects that nobody can see; dropping it frees them, values included.
#[derive(Debug)]
pub(super) struct Free<T>(Option<Garbage<T>>);

impl<T> Drop for Free<T> {
    fn drop(&mut self) {
        while let Some(garbage) = self.0.take() {
            // SAFETY: invariant 2; the list, which is ours alone, owns the object, which is in it once.
            unsafe {
                self.0 = (*garbage.retired()).next.take();
                garbage.free();
            }
        }
    }
}

impl<T> Clone for Garbage<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Garbage<T> {}

impl<T> Garbage<T> {
    fn retired(self) -> *mut Retired<T> {
        // SAFETY: the objects are live until `free`; only the field's address is taken.
        unsafe {
            match self {
                Garbage::Node(p) => &raw mut (*p.as_ptr()).retired,
                Garbage::Chunk(p) => &raw mut (*p.as_ptr()).retired,
                Garbage::Directory(p) => &raw mut (*p.as_ptr()).retired,
            }
        }
    }

    /// # Safety
    /// The object came from a `Box`, is in no list, and nobody can reach it.
    unsafe fn free(self) {
        // SAFETY: the caller's promise. A chunk or directory does not own what its pointers lead to.
        unsafe {
            match self {
                Garbage::Node(p) => drop(Box::from_raw(p.as_ptr())),
                Garbage::Chunk(p) => drop(Box::from_raw(p.as_ptr())),
                Garbage::Directory(p) => drop(Box::from_raw(p.as_ptr())),
            }
        }
    }
}
