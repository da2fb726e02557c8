//! Counts the bytes that are accessible through frames of their own, over all owners. For reports and leak tests.

use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static COMMITTED: AtomicUsize = AtomicUsize::new(0);

/// Bytes in mappings with frames of their own (shared frames do not count, idle images do).
pub fn committed_bytes() -> usize {
    COMMITTED.load(Relaxed)
}

pub(super) fn add(bytes: usize) {
    COMMITTED.fetch_add(bytes, Relaxed);
}

pub(super) fn subtract(bytes: usize) {
    COMMITTED.fetch_sub(bytes, Relaxed);
}
