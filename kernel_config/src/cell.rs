//! Layout that compiled cells, the linker and the entry stubs agree on (docs/CELL_ABI.md).

/// Version of the cell object format. A cached object of another version is recompiled.
pub const OBJECT_FORMAT_VERSION: u32 = 6;

/// Alignment of every function in a text section, in bytes. The 4 bytes before an address-taken function hold
/// its type id, so the alignment leaves room for them.
pub const FUNCTION_ALIGN: usize = 16;

/// Bytes of one stable entry: padding, the 4-byte type id, then the code at offset [`ENTRY_CODE_OFFSET`].
pub const ENTRY_SIZE: usize = 32;

/// Offset of a stable entry's code (its address as a function) from the start of the entry.
pub const ENTRY_CODE_OFFSET: usize = 16;

/// The type id stands this many bytes before a function's code address.
pub const TYPE_ID_OFFSET: i32 = -4;

/// Alignment of the data block of a cell.
pub const DATA_ALIGN: usize = 64;
