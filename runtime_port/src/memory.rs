//! Address space, frames and mappings.
//!
//! [`MemoryPort`] is the small unsafe interface of a port. Above it stand the types with Theseus's invariants:
//! `AllocatedPages` (exclusive reservation, returned on drop), `MappedPages` (exclusive mapping, unmapped on drop,
//! never writable and executable at once), `SharedFrames` (frames that several cells map: text and rodata) and
//! `GrowableMapping` (a reservation whose committed prefix grows in place and never moves).

/// Why a memory operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MemoryError {
    /// No address space of this size (bytes) is left. Release reservations or ask for less.
    #[error("out of address space: {0:#x} bytes")]
    OutOfAddressSpace(usize),
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

/// What a port does with address space and frames. Addresses and sizes are multiples of the page size.
///
/// # Safety
/// An implementation must give out disjoint reservations, map fresh frames zeroed, never leave a page writable and
/// executable, and make a change of protection visible to every processor before it returns.
pub unsafe trait MemoryPort: Sync {
    /// Reserves `size` bytes of address space; nothing is accessible. Several reservations of one size may be pooled.
    fn reserve(&self, size: usize) -> Result<usize, MemoryError>;

    /// Returns a reservation (or a page-aligned part of one). Everything mapped in it is unmapped.
    ///
    /// # Safety
    /// `start..start + size` must be reserved, owned by the caller, and not used afterwards.
    unsafe fn release(&self, start: usize, size: usize);

    /// Makes reserved pages accessible with fresh, zeroed frames (they may be supplied on first touch).
    ///
    /// # Safety
    /// The range must lie in a reservation of the caller and must not be mapped yet.
    unsafe fn commit(&self, start: usize, size: usize, flags: PteFlags) -> Result<(), MemoryError>;

    /// Gives the frames back; the range stays reserved and inaccessible.
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

    /// Frees shared frames.
    ///
    /// # Safety
    /// Nothing may map them any more, and the handle must not be used afterwards.
    unsafe fn free_frames(&self, frames: u64, size: usize);
}
