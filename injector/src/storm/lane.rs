//! What is known about the versions of one cell (or of two that change together): which served when.

use super::cells::VERSIONS;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// The versions in the order in which they served. One task writes it.
pub(super) struct Lane {
    history: Vec<AtomicU8>,
    /// Number of the version that a swap is about to show.
    started: AtomicU64,
    /// Number of the version that is in service for sure.
    done: AtomicU64,
    /// Version a rollback would bring back; `VERSIONS` for none.
    previous: AtomicUsize,
}

impl Lane {
    /// Version 0 serves; at most `swaps` follow.
    pub(super) fn new(swaps: u64) -> Lane {
        let history = (0..swaps + 2).map(|_| AtomicU8::new(0)).collect();
        let previous = AtomicUsize::new(VERSIONS);
        Lane { history, started: AtomicU64::new(0), done: AtomicU64::new(0), previous }
    }

    fn at(&self, number: u64) -> usize {
        self.history.get(number as usize).map_or(0, |v| v.load(Ordering::Acquire).into())
    }

    /// The version in service.
    pub(super) fn version(&self) -> usize {
        self.at(self.done.load(Ordering::Acquire))
    }

    /// The version that a rollback brings back.
    pub(super) fn previous(&self) -> Option<usize> {
        Some(self.previous.load(Ordering::Relaxed)).filter(|v| *v < VERSIONS)
    }

    /// This version is about to come.
    pub(super) fn begin(&self, version: usize) {
        let number = self.done.load(Ordering::Relaxed) + 1;
        if let Some(place) = self.history.get(number as usize) {
            place.store(version as u8, Ordering::Release);
        }
        self.started.store(number, Ordering::SeqCst);
    }

    /// It has come; the one before can come back if it was kept.
    pub(super) fn end(&self, kept: bool) {
        self.previous.store(if kept { self.version() } else { VERSIONS }, Ordering::Relaxed);
        self.done.store(self.started.load(Ordering::Relaxed), Ordering::SeqCst);
    }

    /// It has not come.
    pub(super) fn abandon(&self) {
        self.started.store(self.done.load(Ordering::Relaxed), Ordering::SeqCst);
    }

    /// Number of the oldest version that can serve from now on.
    pub(super) fn since(&self) -> u64 {
        self.done.load(Ordering::SeqCst)
    }

    /// Number of the newest version that can have served until now.
    pub(super) fn until(&self) -> u64 {
        self.started.load(Ordering::SeqCst)
    }

    /// The number, from `since` to `until`, of a version, if it was one of those: the first one.
    pub(super) fn number_of(&self, version: usize, since: u64, until: u64) -> Option<u64> {
        (since..=until).find(|n| self.at(*n) == version)
    }
}
