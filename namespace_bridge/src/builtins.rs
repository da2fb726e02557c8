//! The functions compiled code calls through its builtin slots (`wasm_cell::builtin`).
//!
//! All are C functions; those of the state take the address of the [`InstanceRecord`] first. None traps by itself: a status
//! tells the code what to do, so no native frame stands between a trap and its code.

mod atomic;
pub(crate) mod bulk;
mod rounding;

use crate::instance::InstanceRecord;
use wasm_cell::builtin::Builtin;

/// Address of a builtin.
pub(crate) fn address_of(builtin: Builtin) -> usize {
    let pointer = match builtin {
        Builtin::MemoryGrow => bulk::memory_grow as *const (),
        Builtin::MemoryCopy => bulk::memory_copy as *const (),
        Builtin::MemoryFill => bulk::memory_fill as *const (),
        Builtin::MemoryInit => bulk::memory_init as *const (),
        Builtin::DataDrop => bulk::data_drop as *const (),
        Builtin::TableGrow => bulk::table_grow as *const (),
        Builtin::TableFill => bulk::table_fill as *const (),
        Builtin::TableCopy => bulk::table_copy as *const (),
        Builtin::TableInit => bulk::table_init as *const (),
        Builtin::ElemDrop => bulk::elem_drop as *const (),
        Builtin::AtomicWait32 => atomic::wait32 as *const (),
        Builtin::AtomicWait64 => atomic::wait64 as *const (),
        Builtin::AtomicNotify => atomic::notify as *const (),
        Builtin::CeilF32 => rounding::ceil_f32 as *const (),
        Builtin::FloorF32 => rounding::floor_f32 as *const (),
        Builtin::TruncF32 => rounding::trunc_f32 as *const (),
        Builtin::NearestF32 => rounding::nearest_f32 as *const (),
        Builtin::CeilF64 => rounding::ceil_f64 as *const (),
        Builtin::FloorF64 => rounding::floor_f64 as *const (),
        Builtin::TruncF64 => rounding::trunc_f64 as *const (),
        Builtin::NearestF64 => rounding::nearest_f64 as *const (),
    };
    pointer as usize
}

/// The record compiled code hands over.
///
/// # Safety
/// `instance` must be the first word of a live cell's data block.
unsafe fn record<'a>(instance: *const InstanceRecord) -> &'a InstanceRecord {
    // SAFETY: the linker wrote the address of the record, which lives as long as code of the cell runs.
    unsafe { &*instance }
}
