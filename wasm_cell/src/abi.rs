//! Offsets of the data block's header and of the records that compiled code reads (docs/CELL_ABI.md).

/// Address of the runtime's instance record, the first argument of builtins.
pub const HEADER_INSTANCE: i32 = 0;
/// Address of the routine that trap stubs jump to: code in `eax`, return address of the trap site on the stack.
pub const HEADER_RAISE: i32 = 8;
/// Bytes of the header.
pub const HEADER_SIZE: u32 = 64;

/// In a memory or table record: the base address. Never changes while the cell lives.
pub const RECORD_BASE: i32 = 0;
/// In a memory or table record: the address of the descriptor. Never changes while the cell lives.
pub const RECORD_DESCRIPTOR: i32 = 8;
/// Bytes of a memory or table record.
pub const RECORD_SIZE: u32 = 16;

/// In a memory descriptor: base address.
pub const MEMORY_BASE: i32 = 0;
/// In a memory descriptor: current length in bytes.
pub const MEMORY_BYTES: i32 = 8;

/// In a table descriptor: base address.
pub const TABLE_BASE: i32 = 0;
/// In a table descriptor: current number of elements.
pub const TABLE_LEN: i32 = 8;
/// Bytes of a table element: a code address or host value, null is 0.
pub const TABLE_ELEMENT: u32 = 8;
/// Bytes of a global's value (a `v128`).
pub const GLOBAL_SIZE: u32 = 16;
