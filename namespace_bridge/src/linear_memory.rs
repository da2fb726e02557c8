//! Linear memories: a reservation whose committed prefix grows in place, and the descriptor compiled code reads.
//!
//! The base never changes. A guarded memory (D3) reserves its whole index space and a guard, so what is out of bounds
//! faults; a checked memory reserves its maximum, and code compares with [`MemoryDescriptor::bytes`].

use crate::domain::StateDomain;
use crate::waiters::Waiters;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU64, Ordering};
use kernel_config::memory::{CHECKED_RESERVATION_MAX, GUARDED_INDEX_SPACE, GUARDED_RESERVATION, PAGE_SIZE};
use runtime_port::memory::{GrowableMapping, MemoryError};
use spin::Mutex;
use wasm_cell::types::{MemoryStyle, MemoryType};

/// What compiled code reads of a memory (docs/CELL_ABI.md).
#[derive(Debug)]
#[repr(C)]
pub struct MemoryDescriptor {
    base: usize,
    bytes: AtomicU64,
}

const _: () = assert!(core::mem::offset_of!(MemoryDescriptor, base) == wasm_cell::abi::MEMORY_BASE as usize);
const _: () = assert!(core::mem::offset_of!(MemoryDescriptor, bytes) == wasm_cell::abi::MEMORY_BYTES as usize);

/// Why a memory could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateError {
    /// The declared minimum is beyond the limit (both in bytes or elements).
    Limit {
        /// What is asked for.
        min: u64,
        /// What is allowed.
        limit: u64,
    },
    /// The port has no room.
    Memory(MemoryError),
}

/// A linear memory. Its address is stable while it lives: it is only handed out in an [`Arc`].
pub struct LinearMemory {
    descriptor: MemoryDescriptor,
    ty: MemoryType,
    style: MemoryStyle,
    /// Largest size in bytes it can grow to.
    max_bytes: u64,
    mapping: Mutex<GrowableMapping>,
    waiters: Waiters,
    domain: StateDomain,
}

/// Zeroed pages behind the end of a checked memory's reservation that no access may reach: a mispredicted check then
/// reads nothing of anybody else's.
const CHECKED_GUARD: usize = PAGE_SIZE;

impl LinearMemory {
    /// Makes a memory of `ty.min` pages that can grow to its maximum, or to `limit` bytes if that is less.
    pub fn new(ty: MemoryType, style: MemoryStyle, limit: u64) -> Result<Arc<LinearMemory>, CreateError> {
        // The page sizes that the custom-page-sizes proposal allows, and those between.
        if ty.page_size_log2 > 16 {
            return Err(CreateError::Limit { min: u64::MAX, limit: 0 });
        }
        let in_bytes = |pages: u64| pages.checked_shl(ty.page_size_log2).filter(|b| b >> ty.page_size_log2 == pages);
        let min = in_bytes(ty.min).unwrap_or(u64::MAX);
        let declared = ty.max.map_or(u64::MAX, |m| in_bytes(m).unwrap_or(u64::MAX));
        let space = match style {
            MemoryStyle::Guarded => GUARDED_INDEX_SPACE,
            MemoryStyle::Checked if ty.is64 => CHECKED_RESERVATION_MAX,
            MemoryStyle::Checked => GUARDED_INDEX_SPACE,
        };
        let page = 1u64 << ty.page_size_log2;
        // As many pages as an index of 32 bits can count.
        let space = if ty.is64 { space } else { space.min(u64::from(u32::MAX) << ty.page_size_log2) };
        let max_bytes = declared.min(space).min(limit) / page * page;
        if min > max_bytes {
            return Err(CreateError::Limit { min, limit: max_bytes });
        }
        let reserve = match style {
            MemoryStyle::Guarded => GUARDED_RESERVATION as usize,
            MemoryStyle::Checked => round_up(max_bytes) + CHECKED_GUARD,
        };
        let mapping = GrowableMapping::new(reserve, round_up(min)).map_err(CreateError::Memory)?;
        let descriptor = MemoryDescriptor { base: mapping.start_address().value(), bytes: AtomicU64::new(min) };
        Ok(Arc::new(LinearMemory {
            descriptor,
            ty,
            style,
            max_bytes,
            mapping: Mutex::new(mapping),
            waiters: Waiters::new(),
            domain: StateDomain::new(),
        }))
    }

    /// First byte's address. Constant.
    pub fn base(&self) -> usize {
        self.descriptor.base
    }

    /// Current length in bytes.
    pub fn bytes(&self) -> u64 {
        self.descriptor.bytes.load(Ordering::Acquire)
    }

    /// Current length in pages of the memory's own page size.
    pub fn pages(&self) -> u64 {
        self.bytes() >> self.ty.page_size_log2
    }

    /// Its type, with the current size as minimum (core spec, 4.2.8).
    pub fn ty(&self) -> MemoryType {
        MemoryType { min: self.pages(), ..self.ty }
    }

    /// How code must access it.
    pub fn style(&self) -> MemoryStyle {
        self.style
    }

    /// Whether tasks may share it.
    pub fn is_shared(&self) -> bool {
        self.ty.shared
    }

    /// Address of the descriptor. Constant while the memory lives.
    pub fn descriptor_address(&self) -> usize {
        core::ptr::from_ref(&self.descriptor) as usize
    }

    /// The state domain that it belongs to.
    pub(crate) fn domain(&self) -> &StateDomain {
        &self.domain
    }

    /// Who waits on its addresses.
    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    /// Grows by `delta` pages. Returns the size before, or `None` when there is no room.
    pub fn grow(&self, delta: u64) -> Option<u64> {
        let mut mapping = self.mapping.lock();
        let before = self.bytes();
        let more = delta.checked_shl(self.ty.page_size_log2).filter(|b| b >> self.ty.page_size_log2 == delta)?;
        let after = before.checked_add(more).filter(|after| *after <= self.max_bytes)?;
        let committed = mapping.len();
        let wanted = round_up(after);
        if wanted > committed {
            mapping.commit_more(wanted - committed).ok()?;
        }
        self.descriptor.bytes.store(after, Ordering::Release);
        Some(before >> self.ty.page_size_log2)
    }

    /// Goes back to these contents: what was grown since is zeroed and given up. Nobody may use the memory meanwhile.
    pub(crate) fn restore(&self, bytes: &[u8]) {
        let _mapping = self.mapping.lock();
        let len = self.bytes();
        let (kept, grown) = (bytes.len().min(len as usize), len.saturating_sub(bytes.len() as u64));
        if self.write(0, bytes.get(..kept).unwrap_or_default()).is_some()
            && let Some(rest) = self.range(kept as u64, grown)
        {
            // SAFETY: `range` checked that the bytes are committed, and nobody uses them.
            unsafe { core::ptr::write_bytes(rest, 0, grown as usize) };
            self.descriptor.bytes.store(kept as u64, Ordering::Release);
        }
    }

    /// Address of `len` bytes at `offset`, if they lie inside.
    pub fn range(&self, offset: u64, len: u64) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        (end <= self.bytes()).then(|| (self.descriptor.base + offset as usize) as *mut u8)
    }

    /// Copies bytes out. `None` when they leave the memory.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> Option<()> {
        let from = self.range(offset, to.len() as u64)?;
        // SAFETY: `range` checked that the bytes are committed; they never unmap while `self` lives, and `to` is
        // ordinary memory, which a linear memory does not overlap.
        unsafe { core::ptr::copy_nonoverlapping(from, to.as_mut_ptr(), to.len()) };
        Some(())
    }

    /// Copies bytes in. `None`, with nothing written, when they leave the memory.
    pub fn write(&self, offset: u64, from: &[u8]) -> Option<()> {
        let to = self.range(offset, from.len() as u64)?;
        // SAFETY: as in `read`; the committed prefix is writable.
        unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
        Some(())
    }
}

impl core::fmt::Debug for LinearMemory {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LinearMemory")
            .field("base", &self.base())
            .field("bytes", &self.bytes())
            .field("style", &self.style)
            .finish_non_exhaustive()
    }
}

fn round_up(bytes: u64) -> usize {
    (bytes as usize).next_multiple_of(PAGE_SIZE)
}
