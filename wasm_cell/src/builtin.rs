//! Functions of the runtime that compiled code calls through slots.
//!
//! All are C functions (System V psABI). The first argument of those that say so is the instance address from the
//! header of the data block. None of them traps by itself: a status tells the code what to do, so no native frame
//! stands between a trap and the wasm code it belongs to.

use bincode::{Decode, Encode};

/// A builtin. Indices are `u32`, addresses, lengths and deltas `u64` (zero-extended for 32-bit memories and tables).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub enum Builtin {
    /// `(instance, memory, delta) -> i64`: previous size in pages, or -1.
    MemoryGrow,
    /// `(instance, dst_memory, src_memory, dst, src, len) -> u32`: 0, or 1 for out of bounds.
    MemoryCopy,
    /// `(instance, memory, dst, value: u32, len) -> u32`: 0, or 1 for out of bounds.
    MemoryFill,
    /// `(instance, memory, segment, dst, src, len) -> u32`: 0, or 1 for out of bounds.
    MemoryInit,
    /// `(instance, segment)`
    DataDrop,
    /// `(instance, table, delta, init: u64) -> i64`: previous size, or -1.
    TableGrow,
    /// `(instance, table, dst, value: u64, len) -> u32`: 0, or 1 for out of bounds.
    TableFill,
    /// `(instance, dst_table, src_table, dst, src, len) -> u32`: 0, or 1 for out of bounds.
    TableCopy,
    /// `(instance, table, segment, dst, src, len) -> u32`: 0, or 1 for out of bounds.
    TableInit,
    /// `(instance, segment)`
    ElemDrop,
    /// `(instance, memory, address, expected: u32, timeout_ns: i64) -> i64`: 0 woken, 1 not equal, 2 timed out, or
    /// minus the number of a trap code.
    AtomicWait32,
    /// `(instance, memory, address, expected: u64, timeout_ns: i64) -> i64`: as [`Builtin::AtomicWait32`].
    AtomicWait64,
    /// `(instance, memory, address, count: u32) -> i64`: number woken, or minus the number of a trap code.
    AtomicNotify,
    /// `(f32) -> f32`, round up. Only on processors without SSE4.1, as the next ones.
    CeilF32,
    /// `(f32) -> f32`, round down.
    FloorF32,
    /// `(f32) -> f32`, round toward zero.
    TruncF32,
    /// `(f32) -> f32`, round to nearest, ties to even.
    NearestF32,
    /// `(f64) -> f64`, round up.
    CeilF64,
    /// `(f64) -> f64`, round down.
    FloorF64,
    /// `(f64) -> f64`, round toward zero.
    TruncF64,
    /// `(f64) -> f64`, round to nearest, ties to even.
    NearestF64,
}
