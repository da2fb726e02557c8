//! Address space, frames and mappings.
//!
//! [`MemoryPort`] is the small unsafe interface of a port. Above it stand the types with Theseus's invariants:
//! `AllocatedPages` (exclusive reservation, returned on drop), `MappedPages` (exclusive mapping, unmapped on drop,
//! never writable and executable at once), `SharedFrames` (frames that several cells map: text and rodata) and
//! `GrowableMapping` (a reservation whose committed prefix grows in place and never moves).

mod address;
mod allocated;
mod borrowed;
mod committed;
mod frames;
mod growable;
mod image;
mod kept;
mod mapped;
mod pod;
#[cfg(test)]
#[cfg(feature = "hosted")]
mod tests;

pub use address::{VirtualAddress, round_up_to_page};
pub use allocated::{AllocatedPages, allocate_pages, allocate_pages_by_bytes};
pub use borrowed::{BorrowedMappedPages, BorrowedSliceMappedPages, Immutable, Mutability, Mutable};
pub use committed::committed_bytes;
pub use frames::SharedFrames;
pub use growable::GrowableMapping;
pub use image::{ImageMapping, ImageRanges};
pub use kept::KeptPages;
pub use mapped::{MappedPages, create_mapping, map_allocated_pages};
pub use pod::FromBytes;

/// Why a memory operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// No address space of this size (bytes) is left. Release reservations or ask for less.
    #[error("out of address space: {0:#x} bytes")]
    OutOfAddressSpace(usize),
    /// No addresses for this size (bytes) are left in the region that code and its data lie in. Unload cells, or make this one smaller.
    #[error("the region for code and its data has no {0:#x} bytes in one piece left")]
    OutOfCodeSpace(usize),
    /// No frames for this size (bytes). Free memory or ask for less.
    #[error("out of memory: {0:#x} bytes")]
    OutOfFrames(usize),
    /// Flags ask for a page that is writable and executable.
    #[error("a page may not be writable and executable")]
    WritableAndExecutable,
    /// The range leaves the object.
    #[error("range {start:#x}+{len:#x} leaves the mapping of {size:#x} bytes")]
    OutOfRange {
        /// First byte, relative to the object.
        start: usize,
        /// Length in bytes.
        len: usize,
        /// Size of the object in bytes.
        size: usize,
    },
    /// A typed borrow at an address that is not aligned for the type.
    #[error("offset {offset:#x} is not aligned to {align}")]
    Misaligned {
        /// Offset in the mapping.
        offset: usize,
        /// Alignment required.
        align: usize,
    },
    /// A mutable borrow of pages that are not writable, or a call into pages that are not executable.
    #[error("the mapping's flags {0:?} do not allow this")]
    Flags(PteFlags),
    /// The two mappings cannot become one: not adjacent, or of other flags.
    #[error("the mappings are not adjacent or differ in flags")]
    NotMergeable,
    /// A size or address that is not a multiple of the page size where one is required.
    #[error("{0:#x} is not a multiple of the page size")]
    NotPageAligned(usize),
    /// The runtime's own heap has no room for the bookkeeping.
    #[error("out of heap memory for a mapping's records")]
    OutOfHeap,
}

bitflags::bitflags! {
    /// Page flags, the builders and meaning of Theseus's `PteFlags` (crate `pte_flags`). Readable is implied by `VALID`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct PteFlags: u8 {
        /// The page is mapped.
        const VALID = 1;
        /// The page can be written.
        const WRITABLE = 2;
        /// The page can be executed. (Theseus keeps the inverse, `NOT_EXECUTABLE`; the default is the same.)
        const EXECUTABLE = 4;
    }
}

impl PteFlags {
    /// No access: the start of a chain of builders, as in Theseus.
    pub const fn new() -> PteFlags {
        PteFlags::empty()
    }

    /// Sets or clears `VALID`.
    pub const fn valid(self, on: bool) -> PteFlags {
        self.with(PteFlags::VALID, on)
    }

    /// Sets or clears `WRITABLE`.
    pub const fn writable(self, on: bool) -> PteFlags {
        self.with(PteFlags::WRITABLE, on)
    }

    /// Sets or clears `EXECUTABLE`.
    pub const fn executable(self, on: bool) -> PteFlags {
        self.with(PteFlags::EXECUTABLE, on)
    }

    /// Whether the page can be written.
    pub const fn is_writable(self) -> bool {
        self.contains(PteFlags::WRITABLE)
    }

    /// Whether the page can be executed.
    pub const fn is_executable(self) -> bool {
        self.contains(PteFlags::EXECUTABLE)
    }

    const fn with(self, flag: PteFlags, on: bool) -> PteFlags {
        if on { self.union(flag) } else { self.difference(flag) }
    }

    /// These flags with `VALID`, refused when they are writable and executable at once.
    pub(crate) fn checked(self) -> Result<PteFlags, MemoryError> {
        if self.contains(PteFlags::WRITABLE | PteFlags::EXECUTABLE) {
            return Err(MemoryError::WritableAndExecutable);
        }
        Ok(self | PteFlags::VALID)
    }
}

impl Default for PteFlags {
    fn default() -> Self {
        PteFlags::new()
    }
}

/// What is live in a port's memory, for reports and leak tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStatistics {
    /// Bytes of address space that are reserved and owned by someone (pooled reservations do not count).
    pub reserved_bytes: usize,
    /// Bytes of shared frames that exist, mapped or not.
    pub shared_bytes: usize,
    /// Reservations the port keeps to hand out again.
    pub pooled_reservations: usize,
    /// Address space of those, in bytes.
    pub pooled_bytes: usize,
}

/// What a port does with address space and frames. Addresses and sizes are multiples of the page size.
///
/// # Safety
/// An implementation must give out disjoint reservations, map fresh frames zeroed, never leave a page writable and
/// executable, and make a change of protection visible to every processor before it returns.
pub unsafe trait MemoryPort: Sync {
    /// Reserves `size` bytes of address space; nothing is accessible. Several reservations of one size may be pooled.
    fn reserve(&self, size: usize) -> Result<usize, MemoryError>;

    /// Reserves `size` bytes for code and for what it addresses: text, rodata, data and entries of cells. A port that can gives all such
    /// reservations, and its base image, addresses that are at most 2 GiB apart. When that region is full it refuses.
    fn reserve_for_code(&self, size: usize) -> Result<usize, MemoryError> {
        self.reserve(size)
    }

    /// Reserves `size` bytes whose addresses fit into 31 bits, for code that has addresses in 32-bit fields. Ports that have no
    /// such addresses to give refuse.
    fn reserve_low(&self, size: usize) -> Result<usize, MemoryError> {
        Err(MemoryError::OutOfAddressSpace(size))
    }

    /// Returns a reservation (or a page-aligned part of one). Everything mapped in it is unmapped.
    ///
    /// # Safety
    /// `start..start + size` must be reserved, owned by the caller, and not used afterwards.
    unsafe fn release(&self, start: usize, size: usize);

    /// Reserves `size` bytes, of which the first `committed` are writable and read zero, in one step. A port that pools
    /// reservations can do this without a call to the system.
    fn reserve_committed(&self, size: usize, committed: usize) -> Result<usize, MemoryError> {
        let start = self.reserve(size)?;
        if committed > 0 {
            // SAFETY: the range is part of the reservation just made and nothing is mapped in it.
            if let Err(e) = unsafe { self.commit(start, committed, PteFlags::VALID | PteFlags::WRITABLE) } {
                // SAFETY: the reservation was made above and never handed out.
                unsafe { self.release(start, size) };
                return Err(e);
            }
        }
        Ok(start)
    }

    /// Returns a whole reservation whose first `committed` bytes, and no others, are mapped, with fresh frames, writable.
    ///
    /// # Safety
    /// As for `release`, and `committed` must say what is mapped.
    unsafe fn release_committed(&self, start: usize, size: usize, committed: usize) {
        let _ = committed;
        // SAFETY: passed on from the caller.
        unsafe { self.release(start, size) }
    }

    /// What is live.
    fn statistics(&self) -> MemoryStatistics;

    /// Makes reserved pages accessible with fresh, zeroed frames (they may be supplied on first touch).
    ///
    /// # Safety
    /// The range must lie in a reservation of the caller and must not be mapped yet.
    unsafe fn commit(&self, start: usize, size: usize, flags: PteFlags) -> Result<(), MemoryError>;

    /// Unmaps pages (`commit`ted ones give their frames back, shared frames live on); the range stays reserved and
    /// inaccessible.
    ///
    /// # Safety
    /// The range must lie in a reservation of the caller; nobody may use it any more.
    unsafe fn decommit(&self, start: usize, size: usize);

    /// Changes the flags of mapped pages. Never called with `WRITABLE | EXECUTABLE`.
    ///
    /// # Safety
    /// The range must be mapped and owned by the caller.
    unsafe fn protect(&self, start: usize, size: usize, flags: PteFlags) -> Result<(), MemoryError>;

    /// Allocates `size` bytes of frames that can be mapped several times and fills them with `content`, the rest zero.
    /// The handle is the port's.
    fn create_frames(&self, content: &[&[u8]], size: usize) -> Result<u64, MemoryError>;

    /// Maps `size` bytes of shared frames from `offset` of `frames` at reserved `start`. Never writable.
    ///
    /// # Safety
    /// The range must lie in a reservation of the caller; `frames` must be live and the part within its size.
    unsafe fn map_frames(
        &self,
        start: usize,
        frames: u64,
        offset: usize,
        size: usize,
        flags: PteFlags,
    ) -> Result<(), MemoryError>;

    /// Maps shared frames, as `map_frames` does, over pages that map shared frames already, in one step for who executes or reads there
    /// meanwhile. A port that cannot do this refuses.
    ///
    /// # Safety
    /// As for `map_frames`; what others use there is the same in the new frames.
    unsafe fn replace_frames(
        &self,
        start: usize,
        frames: u64,
        offset: usize,
        size: usize,
        flags: PteFlags,
    ) -> Result<(), MemoryError> {
        let _ = (start, frames, offset, flags);
        Err(MemoryError::OutOfFrames(size))
    }

    /// Takes over a whole image that nobody uses any more, with its frames, to give both out again; `false` when it stays with the caller. A
    /// port that maps cheaply keeps none.
    ///
    /// # Safety
    /// `start` is a reservation of the caller with these parts, mapped as [`ImageMapping`] does; `frames`, `size` bytes of them, are mapped
    /// nowhere else. When taken over, neither may be used afterwards.
    unsafe fn keep_image(&self, start: usize, ranges: ImageRanges, frames: u64, size: usize) -> bool {
        let _ = (start, ranges, frames, size);
        false
    }

    /// Gives out an image that was kept: its frames, which hold `content` and then zeroes, and where it is mapped with these parts. Its data
    /// reads zero. `None` without a fitting one.
    fn reuse_image(&self, ranges: ImageRanges, content: &[&[u8]]) -> Option<(u64, usize)> {
        let _ = (ranges, content);
        None
    }

    /// Frees shared frames.
    ///
    /// # Safety
    /// Nothing may map them any more, and the handle must not be used afterwards.
    unsafe fn free_frames(&self, frames: u64, size: usize);
}
