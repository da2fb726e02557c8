//! Which object an address belongs to: an ordered index over address ranges that exception handlers may read.
//!
//! Readers take no lock and allocate nothing, so [`RangeIndex::read`] may be called anywhere, exception context
//! included. Writers ([`RangeIndex::insert`], [`RangeIndex::remove`]) serialise on a lock.
//!
//! **Shape.** A *directory* is a sorted array of `(first address, chunk)`; a *chunk* is a sorted array of up to
//! [`CHUNK`] ranges. Look-up is two binary searches. An insertion copies one chunk and stores one pointer; the directory
//! is copied only when a chunk splits, vanishes or merges, once in some thirty operations. Removal sets the range's
//! node pointer to null first, which cannot fail, and tidies up afterwards as far as memory allows.
//!
//! **Reclamation.** What a writer replaces may still be read. A reader counts itself in one of [`STRIPES`] counters
//! before it loads the root and leaves the counter when done. A replaced object waits in a list with the set of stripes that
//! have not been seen at zero since it became unreachable; every later writer looks at the counters and frees what has
//! waited for all of them, values included, after it has let go of the lock. Nobody waits for a reader, so a reader may be
//! preempted at any point.
//!
//! Invariants, cited by the `SAFETY` comments:
//! 1. Everything reachable from `root` is initialised before the store that makes it reachable and, but for the atomic
//!    pointers in it, is not changed afterwards.
//! 2. An object is freed only after it became unreachable and every stripe was then seen at zero. The reader's
//!    increment and its load of the root, and the writer's store and its loads of the counters, are sequentially
//!    consistent: a reader that the writer did not see loads the root after the writer's store.
//! 3. Only the holder of `writer` replaces or frees objects.

mod garbage;

use alloc::{boxed::Box, vec::Vec};
use core::alloc::Layout;
use core::ops::Range;
use core::ptr::{NonNull, null_mut};
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering::SeqCst};
use garbage::{Garbage, Retired, Writer};
use spin::Mutex;

/// Ranges of one chunk.
const CHUNK: usize = 64;
/// Counters that readers spread over.
const STRIPES: usize = 16;
/// How often a writer looks again whether readers have gone.
const PATIENCE: usize = 64;
const ALL_STRIPES: u32 = (1 << STRIPES) - 1;

/// Why a range could not be registered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RangeIndexError {
    /// The range is empty or overlaps a registered one: a defect of the caller.
    #[error("the address range {new:#x?} is empty or overlaps {old:#x?}, which is there already")]
    Overlap {
        /// The range to register.
        new: Range<usize>,
        /// The one that is registered already.
        old: Range<usize>,
    },
    /// No memory for the index. Unload something or give the heap more.
    #[error("out of memory for an index of address ranges")]
    OutOfMemory,
}

/// A registered range.
#[derive(Debug)]
struct Node<T> {
    retired: Retired<T>,
    range: Range<usize>,
    value: T,
}

#[derive(Debug)]
struct Slot<T> {
    start: usize,
    end: usize,
    /// Null when the range was removed.
    node: AtomicPtr<Node<T>>,
}

#[derive(Debug)]
struct Chunk<T> {
    retired: Retired<T>,
    slots: Vec<Slot<T>>,
}

#[derive(Debug)]
struct DirectoryEntry<T> {
    /// The chunk holds the ranges from here to the next entry's `first`. 0 in the first entry.
    first: usize,
    chunk: AtomicPtr<Chunk<T>>,
}

#[derive(Debug)]
struct Directory<T> {
    retired: Retired<T>,
    entries: Vec<DirectoryEntry<T>>,
}

#[derive(Debug)]
#[repr(align(64))]
struct Stripe(AtomicUsize);

/// An index from address ranges to values.
#[derive(Debug)]
pub struct RangeIndex<T> {
    root: AtomicPtr<Directory<T>>,
    stripes: [Stripe; STRIPES],
    removals: AtomicUsize,
    writer: Mutex<Writer<T>>,
}

// SAFETY: values move to whoever frees them and are shared with readers.
unsafe impl<T: Send + Sync> Sync for RangeIndex<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for RangeIndex<T> {}

/// What an address belongs to.
#[derive(Debug)]
pub struct Found<'r, T> {
    /// First address.
    pub start: usize,
    /// Behind the last address.
    pub end: usize,
    /// What the range stands for.
    pub value: &'r T,
}

impl<T> Found<'_, T> {
    /// Whether the address is in this range.
    #[inline]
    pub fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.start) < self.end - self.start
    }
}

impl<T> Clone for Found<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Found<'_, T> {}

/// A reader's presence in the index. Short-lived; what it returns is valid while it lives.
#[derive(Debug)]
pub struct Reader<'i, T> {
    index: &'i RangeIndex<T>,
    stripe: usize,
}

impl<T> Drop for Reader<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(s) = self.index.stripes.get(self.stripe) {
            s.0.fetch_sub(1, SeqCst);
        }
    }
}

impl<T> Reader<'_, T> {
    /// What is registered at this address.
    pub fn find(&self, address: usize) -> Option<Found<'_, T>> {
        // SAFETY: invariants 1 and 2; this reader is counted.
        let directory = unsafe { self.index.root.load(SeqCst).as_ref() }?;
        let at = directory.entries.partition_point(|e| e.first <= address).checked_sub(1)?;
        let chunk = directory.entries.get(at)?.chunk.load(SeqCst);
        // SAFETY: as above.
        let chunk = unsafe { chunk.as_ref() }?;
        let at = chunk.slots.partition_point(|s| s.start <= address).checked_sub(1)?;
        let slot = chunk.slots.get(at)?;
        if address >= slot.end {
            return None;
        }
        // SAFETY: as above.
        let node = unsafe { slot.node.load(SeqCst).as_ref() }?;
        Some(node.found())
    }

    /// What is registered at this address or next below it, and what is next above.
    pub fn near(&self, address: usize) -> [Option<Found<'_, T>>; 2] {
        // SAFETY: invariants 1 and 2; this reader is counted.
        let Some(directory) = (unsafe { self.index.root.load(SeqCst).as_ref() }) else { return [None, None] };
        let upto = directory.entries.partition_point(|e| e.first <= address);
        let slots = |at: usize| -> &[Slot<T>] {
            let chunk = directory.entries.get(at).map_or(null_mut(), |e| e.chunk.load(SeqCst));
            // SAFETY: as above.
            unsafe { chunk.as_ref() }.map_or(&[], |c| &c.slots)
        };
        // A null pointer stands for a range that was removed.
        // SAFETY: as above.
        let found = |slot: &Slot<T>| unsafe { slot.node.load(SeqCst).as_ref() }.map(Node::found);
        // Whole chunks may have been emptied and not tidied up yet.
        let below = |s: &&Slot<T>| s.start <= address;
        let lower = (0..upto).rev().find_map(|at| slots(at).iter().rev().filter(below).find_map(found));
        let above = |s: &&Slot<T>| s.start > address;
        let from = upto.saturating_sub(1)..directory.entries.len();
        let upper = { from }.find_map(|at| slots(at).iter().filter(above).find_map(found));
        [lower, upper]
    }
}

impl<T> Node<T> {
    #[inline]
    fn found(&self) -> Found<'_, T> {
        Found { start: self.range.start, end: self.range.end, value: &self.value }
    }
}

impl<T> Default for RangeIndex<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> RangeIndex<T> {
    /// An empty index.
    pub const fn new() -> Self {
        RangeIndex {
            root: AtomicPtr::new(null_mut()),
            stripes: [const { Stripe(AtomicUsize::new(0)) }; STRIPES],
            removals: AtomicUsize::new(0),
            writer: Mutex::new(Writer::new()),
        }
    }

    /// Starts reading. Lock-free; allowed in exception context.
    #[inline]
    pub fn read(&self) -> Reader<'_, T> {
        // Stacks of different tasks lie in different pages: a cheap spread without knowing the task.
        let here = 0u8;
        let stripe = ((&raw const here as usize) >> 14) % STRIPES;
        if let Some(s) = self.stripes.get(stripe) {
            s.0.fetch_add(1, SeqCst);
        }
        Reader { index: self, stripe }
    }

    /// Adds a range.
    ///
    /// # Errors
    /// The range is empty or overlaps one that is there; no memory.
    pub fn insert(&self, range: Range<usize>, value: T) -> Result<(), RangeIndexError> {
        self.write(|writer| self.insert_locked(writer, range, value))
    }

    /// Removes the range that starts here. Returns whether there was one. Cannot fail for want of memory. Its value is dropped
    /// when no reader can see it any more: now, unless somebody reads.
    pub fn remove(&self, start: usize) -> bool {
        self.write(|writer| self.remove_locked(writer, start))
    }

    /// Does something under the lock, and afterwards drops what nobody can see any more.
    fn write<R>(&self, change: impl FnOnce(&mut Writer<T>) -> R) -> R {
        let mut writer = self.writer.lock();
        writer.collect(&self.stripes);
        // Readers are done in a fraction of a microsecond, unless they are preempted; what waits already says that one is.
        let patience = if writer.is_waiting() { 0 } else { PATIENCE };
        let result = change(&mut writer);
        for _ in 0..patience {
            if !writer.is_waiting() {
                break;
            }
            core::hint::spin_loop();
            writer.collect(&self.stripes);
        }
        let free = writer.take_free();
        drop(writer);
        drop(free);
        result
    }

    fn insert_locked(&self, writer: &mut Writer<T>, range: Range<usize>, value: T) -> Result<(), RangeIndexError> {
        let overlap = |old: Range<usize>| RangeIndexError::Overlap { new: range.clone(), old };
        if range.is_empty() {
            return Err(overlap(range.clone()));
        }
        let node = try_box(Node { retired: Retired::NEW, range: range.clone(), value })?;
        let slot =
            |node: Box<Node<T>>| Slot { start: range.start, end: range.end, node: AtomicPtr::new(Box::into_raw(node)) };
        // SAFETY: invariants 1 and 3.
        let Some(directory) = (unsafe { self.root.load(SeqCst).as_ref() }) else {
            let mut chunk = Chunk::try_with_capacity(1)?;
            let mut first = Directory::try_with_capacity(1)?;
            chunk.slots.push(slot(node));
            first.entries.push(DirectoryEntry { first: 0, chunk: AtomicPtr::new(Box::into_raw(chunk)) });
            self.root.store(Box::into_raw(first), SeqCst);
            return Ok(());
        };
        let at = directory.position(range.start);
        let chunk = directory.chunk(at);
        if let Some(old) = chunk.live().find(|s| s.start < range.end && range.start < s.end) {
            return Err(overlap(old.start..old.end));
        }
        if let Some(next) = directory.entries.get(at + 1).map(|_| directory.chunk(at + 1))
            && let Some(old) = next.live().next().filter(|s| s.start < range.end)
        {
            return Err(overlap(old.start..old.end));
        }
        let live = chunk.live().count();
        let before = chunk.live().take_while(|s| s.start < range.start).count();
        if live < CHUNK {
            let mut new = Chunk::try_with_capacity(live + 1)?;
            new.slots.extend(chunk.live().take(before).map(Slot::copy));
            new.slots.push(slot(node));
            new.slots.extend(chunk.live().skip(before).map(Slot::copy));
            self.replace_chunk(writer, directory, at, new);
            return Ok(());
        }
        // Split. At the upper end, as when addresses only ascend, keep the lower chunk full.
        let low = if before == live { live } else { live / 2 };
        let mut lower = Chunk::try_with_capacity(low + 1)?;
        let mut upper = Chunk::try_with_capacity(live - low + 1)?;
        let mut entries = Directory::try_with_capacity(directory.entries.len() + 1)?;
        lower.slots.extend(chunk.live().take(low).map(Slot::copy));
        upper.slots.extend(chunk.live().skip(low).map(Slot::copy));
        if before < low {
            lower.slots.insert(before, slot(node));
        } else {
            upper.slots.insert(before - low, slot(node));
        }
        let upper_first = upper.slots.first().map_or(0, |s| s.start);
        for (i, e) in directory.entries.iter().enumerate() {
            if i != at {
                entries.entries.push(e.copy());
            }
        }
        let first = directory.entries.get(at).map_or(0, |e| e.first);
        entries.entries.insert(at, DirectoryEntry { first: upper_first, chunk: AtomicPtr::new(Box::into_raw(upper)) });
        entries.entries.insert(at, DirectoryEntry { first, chunk: AtomicPtr::new(Box::into_raw(lower)) });
        let old = directory.chunk_ptr(at);
        self.replace_directory(writer, Some(entries));
        writer.retire(Garbage::Chunk(old));
        writer.collect(&self.stripes);
        Ok(())
    }

    fn remove_locked(&self, writer: &mut Writer<T>, start: usize) -> bool {
        // SAFETY: invariants 1 and 3.
        let Some(directory) = (unsafe { self.root.load(SeqCst).as_ref() }) else { return false };
        let at = directory.position(start);
        let chunk = directory.chunk(at);
        let Some(slot) = chunk.live().find(|s| s.start == start) else { return false };
        self.removals.fetch_add(1, SeqCst);
        let Some(node) = NonNull::new(slot.node.swap(null_mut(), SeqCst)) else { return false };
        writer.retire(Garbage::Node(node));
        // What follows only saves memory; without memory to do it the empty slot stays until the next chance.
        let _ = self.tidy(writer, directory, at);
        writer.collect(&self.stripes);
        true
    }

    /// A number that changes before a range is removed: while it is what it was before something was found, no other range can
    /// have taken that one's place.
    #[inline]
    pub fn removals(&self) -> usize {
        self.removals.load(SeqCst)
    }

    /// Number of ranges.
    pub fn len(&self) -> usize {
        let _writer = self.writer.lock();
        // SAFETY: invariants 1 and 3.
        unsafe { self.root.load(SeqCst).as_ref() }
            .map_or(0, |d| (0..d.entries.len()).map(|i| d.chunk(i).live().count()).sum())
    }

    /// Whether no range is registered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shrinks, merges or drops chunk `at` when it has become mostly empty.
    fn tidy(&self, writer: &mut Writer<T>, directory: &Directory<T>, at: usize) -> Result<(), RangeIndexError> {
        let chunk = directory.chunk(at);
        let live = chunk.live().count();
        if live == 0 {
            let new = match directory.entries.len() {
                1 => None,
                n => Some(directory.without(at, n - 1)?),
            };
            let old = directory.chunk_ptr(at);
            self.replace_directory(writer, new);
            writer.retire(Garbage::Chunk(old));
            return Ok(());
        }
        let room = |i: usize| directory.chunk(i).live().count() + live <= CHUNK * 3 / 4;
        let neighbour = match at {
            _ if live > CHUNK / 4 => None,
            0 => Some(0).filter(|_| directory.entries.len() > 1 && room(1)),
            _ => Some(at - 1).filter(|i| room(*i)),
        };
        if let Some(low) = neighbour {
            let high = low + 1;
            let both = directory.chunk(low).live().chain(directory.chunk(high).live());
            let mut merged = Chunk::try_with_capacity(CHUNK)?;
            merged.slots.extend(both.map(Slot::copy));
            let mut new = directory.without(high, directory.entries.len() - 1)?;
            if let Some(e) = new.entries.get_mut(low) {
                e.chunk = AtomicPtr::new(Box::into_raw(merged));
            }
            let (a, b) = (directory.chunk_ptr(low), directory.chunk_ptr(high));
            self.replace_directory(writer, Some(new));
            writer.retire(Garbage::Chunk(a));
            writer.retire(Garbage::Chunk(b));
        } else if chunk.slots.len() - live >= CHUNK / 4 {
            let mut new = Chunk::try_with_capacity(live)?;
            new.slots.extend(chunk.live().map(Slot::copy));
            self.replace_chunk(writer, directory, at, new);
        }
        Ok(())
    }

    fn replace_chunk(&self, writer: &mut Writer<T>, directory: &Directory<T>, at: usize, new: Box<Chunk<T>>) {
        if let Some(entry) = directory.entries.get(at)
            && let Some(old) = NonNull::new(entry.chunk.swap(Box::into_raw(new), SeqCst))
        {
            writer.retire(Garbage::Chunk(old));
        }
        writer.collect(&self.stripes);
    }

    fn replace_directory(&self, writer: &mut Writer<T>, new: Option<Box<Directory<T>>>) {
        let new = new.map_or(null_mut(), Box::into_raw);
        if let Some(old) = NonNull::new(self.root.swap(new, SeqCst)) {
            writer.retire(Garbage::Directory(old));
        }
    }
}

impl<T> Drop for RangeIndex<T> {
    fn drop(&mut self) {
        let root = NonNull::new(*self.root.get_mut());
        let writer = self.writer.get_mut();
        if let Some(root) = root {
            // SAFETY: exclusive access: nobody reads.
            let directory = unsafe { root.as_ref() };
            for i in 0..directory.entries.len() {
                for slot in &directory.chunk(i).slots {
                    if let Some(node) = NonNull::new(slot.node.load(SeqCst)) {
                        writer.retire(Garbage::Node(node));
                    }
                }
                writer.retire(Garbage::Chunk(directory.chunk_ptr(i)));
            }
            writer.retire(Garbage::Directory(root));
        }
        // SAFETY: exclusive access: nobody reads.
        unsafe { writer.free_all() };
    }
}

impl<T> Slot<T> {
    fn copy(&self) -> Slot<T> {
        Slot { start: self.start, end: self.end, node: AtomicPtr::new(self.node.load(SeqCst)) }
    }
}

impl<T> Chunk<T> {
    fn try_with_capacity(n: usize) -> Result<Box<Chunk<T>>, RangeIndexError> {
        try_box(Chunk { retired: Retired::NEW, slots: try_vec(n)? })
    }

    fn live(&self) -> impl Iterator<Item = &Slot<T>> {
        self.slots.iter().filter(|s| !s.node.load(SeqCst).is_null())
    }
}

impl<T> DirectoryEntry<T> {
    fn copy(&self) -> DirectoryEntry<T> {
        DirectoryEntry { first: self.first, chunk: AtomicPtr::new(self.chunk.load(SeqCst)) }
    }
}

impl<T> Directory<T> {
    fn try_with_capacity(n: usize) -> Result<Box<Directory<T>>, RangeIndexError> {
        try_box(Directory { retired: Retired::NEW, entries: try_vec(n)? })
    }

    /// Index of the chunk in whose span the address lies.
    fn position(&self, address: usize) -> usize {
        self.entries.partition_point(|e| e.first <= address).saturating_sub(1)
    }

    fn chunk_ptr(&self, at: usize) -> NonNull<Chunk<T>> {
        self.entries
            .get(at)
            .and_then(|e| NonNull::new(e.chunk.load(SeqCst)))
            .expect("directories are never empty and `at` came from `position` or a bounded loop")
    }

    fn chunk(&self, at: usize) -> &Chunk<T> {
        // SAFETY: invariants 1 and 3: only writers call this.
        unsafe { &*self.chunk_ptr(at).as_ptr() }
    }

    /// A copy without entry `at`.
    fn without(&self, at: usize, len: usize) -> Result<Box<Directory<T>>, RangeIndexError> {
        let mut new = Directory::try_with_capacity(len)?;
        new.entries.extend(self.entries.iter().enumerate().filter(|(i, _)| *i != at).map(|(_, e)| e.copy()));
        if let Some(e) = new.entries.first_mut() {
            e.first = 0;
        }
        Ok(new)
    }
}

fn try_vec<T>(n: usize) -> Result<Vec<T>, RangeIndexError> {
    let mut v = Vec::new();
    v.try_reserve_exact(n).map_err(|_| RangeIndexError::OutOfMemory)?;
    Ok(v)
}

fn try_box<T>(value: T) -> Result<Box<T>, RangeIndexError> {
    let layout = Layout::new::<T>();
    // SAFETY: no `T` of this module is zero-sized.
    let p = unsafe { alloc::alloc::alloc(layout) }.cast::<T>();
    if p.is_null() {
        return Err(RangeIndexError::OutOfMemory);
    }
    // SAFETY: `p` is fresh memory of T's layout from the global allocator, which is what `Box` frees it with.
    unsafe {
        p.write(value);
        Ok(Box::from_raw(p))
    }
}

#[cfg(test)]
mod tests;
