//! Pages, reservations and guards.

/// Size of a page in bytes, the unit of mapping and protection (Intel SDM vol. 3, 4.5: 4-KByte pages).
pub const PAGE_SIZE: usize = 4096;

/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

/// Size of a WebAssembly page in bytes when a memory does not say otherwise (core spec, 4.2.8).
pub const WASM_PAGE_SIZE: u64 = 64 * 1024;

/// Address space that a guarded 32-bit linear memory can index, in bytes.
pub const GUARDED_INDEX_SPACE: u64 = 1 << 32;

/// Inaccessible bytes behind the index space of a guarded memory. A static offset below this needs no check:
/// index (< 4 GiB) + offset + access size (≤ 16) stays inside index space + guard.
pub const MEMORY_GUARD: u64 = 32 << 20;

/// Address space of one guarded linear memory, in bytes.
pub const GUARDED_RESERVATION: u64 = GUARDED_INDEX_SPACE + MEMORY_GUARD;

/// Largest reservation of a bounds-checked memory (64-bit or custom page size) whose declared maximum is
/// larger or absent, in bytes. Growth beyond it returns -1.
pub const CHECKED_RESERVATION_MAX: u64 = 16 << 30;

/// Largest number of elements of a table whose declared maximum is larger or absent. Growth beyond it returns -1.
pub const TABLE_RESERVATION_MAX: u64 = 10_000_000;

/// Memory that is kept aside for steps that must not fail for want of memory, in bytes. A commit of a swap takes about 200 bytes an export.
pub const HEAP_RESERVE: usize = 512 << 10;
