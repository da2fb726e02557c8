//! Tables: 8-byte elements in a reservation that never moves, and the descriptor compiled code reads.

use crate::domain::StateDomain;
use crate::linear_memory::CreateError;
use alloc::{sync::Arc, vec::Vec};
use core::any::Any;
use core::sync::atomic::{AtomicU64, Ordering};
use kernel_config::memory::{PAGE_SIZE, TABLE_RESERVATION_MAX};
use runtime_port::memory::GrowableMapping;
use spin::Mutex;
use wasm_cell::types::TableType;

/// What compiled code reads of a table (docs/CELL_ABI.md).
#[derive(Debug)]
#[repr(C)]
pub struct TableDescriptor {
    base: usize,
    len: AtomicU64,
}

const _: () = assert!(core::mem::offset_of!(TableDescriptor, base) == wasm_cell::abi::TABLE_BASE as usize);
const _: () = assert!(core::mem::offset_of!(TableDescriptor, len) == wasm_cell::abi::TABLE_LEN as usize);

/// A table. An element is a code address or a host value; null is 0.
pub struct Table {
    descriptor: TableDescriptor,
    ty: TableType,
    max: u64,
    mapping: Mutex<GrowableMapping>,
    /// Things that must live as long as the table: cells that failed to load after they put functions into it.
    keep: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
    domain: StateDomain,
}

const ELEMENT: u64 = wasm_cell::abi::TABLE_ELEMENT as u64;

impl Table {
    /// Makes a table of `ty.min` nulls that can grow to its maximum, or to `limit` elements if that is less.
    pub fn new(ty: TableType, limit: u64) -> Result<Arc<Table>, CreateError> {
        let max = ty.max.unwrap_or(u64::MAX).min(limit).min(TABLE_RESERVATION_MAX);
        if ty.min > max {
            return Err(CreateError::Limit { min: ty.min, limit: max });
        }
        // A reservation is never empty, so that the base of a table that cannot hold anything is an address too.
        let reserve = round_up(max.max(1));
        let mapping = GrowableMapping::new(reserve, round_up(ty.min)).map_err(CreateError::Memory)?;
        let descriptor = TableDescriptor { base: mapping.start_address().value(), len: AtomicU64::new(ty.min) };
        let (mapping, keep, domain) = (Mutex::new(mapping), Mutex::new(Vec::new()), StateDomain::new());
        Ok(Arc::new(Table { descriptor, ty, max, mapping, keep, domain }))
    }

    /// Address of the first element. Constant.
    pub fn base(&self) -> usize {
        self.descriptor.base
    }

    /// Current number of elements.
    pub fn len(&self) -> u64 {
        self.descriptor.len.load(Ordering::Acquire)
    }

    /// Whether it has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its type, with the current size as minimum (core spec, 4.2.7).
    pub fn ty(&self) -> TableType {
        TableType { min: self.len(), ..self.ty }
    }

    /// Address of the descriptor. Constant while the table lives.
    pub fn descriptor_address(&self) -> usize {
        core::ptr::from_ref(&self.descriptor) as usize
    }

    /// The state domain that it belongs to.
    pub(crate) fn domain(&self) -> &StateDomain {
        &self.domain
    }

    /// Keeps something alive as long as the table.
    pub(crate) fn keep(&self, what: Arc<dyn Any + Send + Sync>) {
        self.keep.lock().push(what);
    }

    /// Lets go of what [`Table::keep`] collected.
    pub(crate) fn release_kept(&self) {
        let kept = core::mem::take(&mut *self.keep.lock());
        drop(kept);
    }

    /// Grows by `delta` elements of value `init`. Returns the size before, or `None` when there is no room.
    ///
    /// # Safety
    /// As for [`Table::set`].
    pub unsafe fn grow(&self, delta: u64, init: u64) -> Option<u64> {
        let mut mapping = self.mapping.lock();
        let before = self.len();
        let after = before.checked_add(delta).filter(|after| *after <= self.max)?;
        let (committed, wanted) = (mapping.len(), round_up(after));
        if wanted > committed {
            mapping.commit_more(wanted - committed).ok()?;
        }
        if init != 0 {
            for i in before..after {
                self.word(i).store(init, Ordering::Relaxed);
            }
        }
        self.descriptor.len.store(after, Ordering::Release);
        Some(before)
    }

    /// The element, or `None` out of bounds.
    pub fn get(&self, index: u64) -> Option<u64> {
        (index < self.len()).then(|| self.word(index).load(Ordering::Relaxed))
    }

    /// Writes an element; `None` out of bounds. The value must be null or of the table's element type: compiled code
    /// jumps to it.
    ///
    /// # Safety
    /// `value` must be 0 or a valid value of the element type that lives as long as it stands in the table.
    pub unsafe fn set(&self, index: u64, value: u64) -> Option<()> {
        (index < self.len()).then(|| self.word(index).store(value, Ordering::Relaxed))
    }

    /// Fills a range; `None`, with nothing written, when it leaves the table.
    pub(crate) fn fill(&self, dst: u64, value: u64, len: u64) -> Option<()> {
        self.check(dst, len)?;
        (dst..dst + len).for_each(|i| self.word(i).store(value, Ordering::Relaxed));
        Some(())
    }

    /// Copies a range, overlapping or not; `None`, with nothing written, when one leaves its table.
    pub(crate) fn copy(&self, dst: u64, from: &Table, src: u64, len: u64) -> Option<()> {
        self.check(dst, len)?;
        from.check(src, len)?;
        if len > 0 {
            let (to, from) = (self.base() as u64 + dst * ELEMENT, from.base() as u64 + src * ELEMENT);
            // SAFETY: both ranges were checked and stay committed while the tables live; `copy` allows overlap.
            unsafe { core::ptr::copy(from as *const u64, to as *mut u64, len as usize) };
        }
        Some(())
    }

    /// Writes values from `dst` on; `None`, with nothing written, when they leave the table.
    pub(crate) fn write(&self, dst: u64, len: u64, mut value: impl FnMut(u64) -> u64) -> Option<()> {
        self.check(dst, len)?;
        (0..len).for_each(|i| self.word(dst + i).store(value(i), Ordering::Relaxed));
        Some(())
    }

    /// Replaces the elements that the map knows.
    pub(crate) fn translate(&self, map: impl Fn(u64) -> Option<u64>) {
        for i in 0..self.len() {
            let word = self.word(i);
            if let Some(other) = map(word.load(Ordering::Relaxed)) {
                word.store(other, Ordering::Relaxed);
            }
        }
    }

    /// Goes back to these elements. Nobody may use the table meanwhile.
    pub(crate) fn restore(&self, elements: &[u64]) {
        let len = self.len();
        for i in 0..len {
            self.word(i).store(elements.get(i as usize).copied().unwrap_or(0), Ordering::Relaxed);
        }
        self.descriptor.len.store(len.min(elements.len() as u64), Ordering::Release);
    }

    fn check(&self, start: u64, len: u64) -> Option<()> {
        (start.checked_add(len)? <= self.len()).then_some(())
    }

    fn word(&self, index: u64) -> &AtomicU64 {
        // SAFETY: callers checked `index` against the length (or hold the growth lock and committed the page); the
        // committed prefix is mapped writable and 8-aligned while `self` lives.
        unsafe { &*((self.base() as u64 + index * ELEMENT) as *const AtomicU64) }
    }
}

impl core::fmt::Debug for Table {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Table").field("ty", &self.ty()).finish_non_exhaustive()
    }
}

fn round_up(elements: u64) -> usize {
    ((elements * ELEMENT) as usize).next_multiple_of(PAGE_SIZE)
}
