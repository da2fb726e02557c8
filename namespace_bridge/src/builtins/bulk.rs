//! Growing, copying, filling and initialising memories and tables (core spec, 4.6).

use super::record;
use crate::instance::InstanceRecord;

/// Does a bulk operation: 0, or 1 for out of bounds. Also 1, with nothing done, when the task is to stop: code that does little else
/// than bulk operations is hardly ever found in wasm by an interrupt.
#[inline]
fn status(operation: impl FnOnce() -> Option<()>) -> u32 {
    let done = if crate::call::may_have_to_stop() { None } else { operation() };
    done.is_none().into()
}

/// Bytes that a bulk operation handles before it looks whether its task is to stop.
const PIECE: usize = 1 << 20;

/// Calls `f` with position and length of every piece. `None` when the task is to stop, with the operation half done: wasm then
/// raises a trap, which becomes that of the kill.
#[inline]
fn in_pieces(len: usize, backwards: bool, mut f: impl FnMut(usize, usize)) -> Option<()> {
    if len <= PIECE {
        f(0, len);
        return Some(());
    }
    let pieces = len.div_ceil(PIECE);
    for i in 0..pieces {
        if crate::kill::is_pending() {
            return None;
        }
        let at = if backwards { pieces - 1 - i } else { i } * PIECE;
        f(at, PIECE.min(len - at));
    }
    Some(())
}

/// The size before, or -1.
fn size_before(before: Option<u64>) -> i64 {
    before.and_then(|n| i64::try_from(n).ok()).unwrap_or(-1)
}

pub(super) unsafe extern "C-unwind" fn memory_grow(instance: *const InstanceRecord, memory: u32, delta: u64) -> i64 {
    // SAFETY: called by compiled code with its own record.
    let instance = unsafe { record(instance) };
    size_before(instance.memory(memory).and_then(|m| m.grow(delta)))
}

pub(super) unsafe extern "C-unwind" fn memory_copy(
    instance: *const InstanceRecord,
    dst_memory: u32,
    src_memory: u32,
    dst: u64,
    src: u64,
    len: u64,
) -> u32 {
    // SAFETY: called by compiled code with its own record.
    let instance = unsafe { record(instance) };
    let copy = || {
        let to = instance.memory(dst_memory)?.range(dst, len)?;
        let from = instance.memory(src_memory)?.range(src, len)?;
        // Backwards when the end of the source would be overwritten before it is read.
        let backwards = from < to;
        in_pieces(len as usize, backwards, |at, n| {
            // SAFETY: both ranges are committed and stay so; they may overlap.
            unsafe { core::ptr::copy(from.add(at), to.add(at), n) }
        })
    };
    status(copy)
}

pub(super) unsafe extern "C-unwind" fn memory_fill(
    instance: *const InstanceRecord,
    memory: u32,
    dst: u64,
    value: u32,
    len: u64,
) -> u32 {
    // SAFETY: called by compiled code with its own record.
    let instance = unsafe { record(instance) };
    let fill = || {
        let to = instance.memory(memory)?.range(dst, len)?;
        in_pieces(len as usize, false, |at, n| {
            // SAFETY: the range is committed, writable, and stays so.
            unsafe { core::ptr::write_bytes(to.add(at), value as u8, n) }
        })
    };
    status(fill)
}

pub(super) unsafe extern "C-unwind" fn memory_init(
    instance: *const InstanceRecord,
    memory: u32,
    segment: u32,
    dst: u64,
    src: u64,
    len: u64,
) -> u32 {
    // SAFETY: called by compiled code with its own record.
    let instance = unsafe { record(instance) };
    status(|| init_memory(instance, memory, segment, dst, src, len))
}

/// Copies a part of a data segment to a memory.
pub(crate) fn init_memory(
    instance: &InstanceRecord,
    memory: u32,
    segment: u32,
    dst: u64,
    src: u64,
    len: u64,
) -> Option<()> {
    let end = usize::try_from(src.checked_add(len)?).ok()?;
    let bytes = instance.data_segment(segment).get(src as usize..end)?;
    instance.memory(memory)?.write(dst, bytes)
}

pub(super) unsafe extern "C-unwind" fn data_drop(instance: *const InstanceRecord, segment: u32) {
    // SAFETY: called by compiled code with its own record.
    unsafe { record(instance) }.drop_data(segment);
}

pub(super) unsafe extern "C-unwind" fn table_grow(
    instance: *const InstanceRecord,
    table: u32,
    delta: u64,
    init: u64,
) -> i64 {
    // SAFETY: called by compiled code with its own record.
    let instance = unsafe { record(instance) };
    // SAFETY: compiled code grows a table with values of its element type.
    size_before(instance.table(table).and_then(|t| unsafe { t.grow(delta, init) }))
}

pub(super) unsafe extern "C-unwind" fn table_fill(
    instance: *const InstanceRecord,
    table: u32,
    dst: u64,
    value: u64,
    len: u64,
) -> u32 {
    // SAFETY: called by compiled code with its own record.
    let instance = unsafe { record(instance) };
    status(|| instance.table(table)?.fill(dst, value, len))
}

pub(super) unsafe extern "C-unwind" fn table_copy(
    instance: *const InstanceRecord,
    dst_table: u32,
    src_table: u32,
    dst: u64,
    src: u64,
    len: u64,
) -> u32 {
    // SAFETY: called by compiled code with its own record.
    let instance = unsafe { record(instance) };
    let copy = || instance.table(dst_table)?.copy(dst, instance.table(src_table)?, src, len);
    status(copy)
}

pub(super) unsafe extern "C-unwind" fn table_init(
    instance: *const InstanceRecord,
    table: u32,
    segment: u32,
    dst: u64,
    src: u64,
    len: u64,
) -> u32 {
    // SAFETY: called by compiled code with its own record.
    let instance = unsafe { record(instance) };
    status(|| init_table(instance, table, segment, dst, src, len))
}

/// Copies a part of an element segment to a table.
pub(crate) fn init_table(
    instance: &InstanceRecord,
    table: u32,
    segment: u32,
    dst: u64,
    src: u64,
    len: u64,
) -> Option<()> {
    if src.checked_add(len)? > instance.element_count(segment) {
        return None;
    }
    instance.table(table)?.write(dst, len, |i| instance.element(segment, src + i))
}

pub(super) unsafe extern "C-unwind" fn elem_drop(instance: *const InstanceRecord, segment: u32) {
    // SAFETY: called by compiled code with its own record.
    unsafe { record(instance) }.drop_elements(segment);
}
