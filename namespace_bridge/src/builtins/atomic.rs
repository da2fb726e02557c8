//! `memory.atomic.wait` and `notify` (threads proposal).

use super::record;
use crate::call::current_task;
use crate::gate::{self, chain};
use crate::instance::InstanceRecord;
use crate::linear_memory::LinearMemory;
use crate::waiters::WaitResult;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use wasm_cell::trap::TrapCode;

fn trap(code: TrapCode) -> i64 {
    -(code as i64)
}

/// Address of an aligned operand of `size` bytes.
fn operand(memory: &LinearMemory, address: u64, size: u64) -> Result<*mut u8, TrapCode> {
    let at = memory.range(address, size).ok_or(TrapCode::MemoryOutOfBounds)?;
    if address.is_multiple_of(size) { Ok(at) } else { Err(TrapCode::MisalignedAtomic) }
}

fn wait(
    instance: &InstanceRecord,
    memory: u32,
    address: u64,
    size: u64,
    timeout_ns: i64,
    equal: impl FnOnce(*mut u8) -> bool,
) -> i64 {
    let Some(memory) = instance.memory(memory) else { return trap(TrapCode::MemoryOutOfBounds) };
    let at = match operand(memory, address, size) {
        Ok(at) => at,
        Err(code) => return trap(code),
    };
    if !memory.is_shared() {
        return trap(TrapCode::ExpectedSharedMemory);
    }
    if timeout_ns < 0 && chain::is_inside_any(current_task()) {
        gate::note_indefinite_wait();
        return trap(TrapCode::Deadlock);
    }
    match memory.waiters().wait(address, || equal(at), timeout_ns) {
        WaitResult::Woken => 0,
        WaitResult::NotEqual => 1,
        WaitResult::TimedOut => 2,
        WaitResult::Killed => trap(TrapCode::Killed),
    }
}

pub(super) unsafe extern "C-unwind" fn wait32(
    instance: *const InstanceRecord,
    memory: u32,
    address: u64,
    expected: u32,
    timeout_ns: i64,
) -> i64 {
    // SAFETY: called by compiled code with its own record.
    let instance = unsafe { record(instance) };
    wait(instance, memory, address, 4, timeout_ns, |at| {
        // SAFETY: four aligned bytes of committed memory (`operand`).
        unsafe { AtomicU32::from_ptr(at.cast()) }.load(Ordering::SeqCst) == expected
    })
}

pub(super) unsafe extern "C-unwind" fn wait64(
    instance: *const InstanceRecord,
    memory: u32,
    address: u64,
    expected: u64,
    timeout_ns: i64,
) -> i64 {
    // SAFETY: called by compiled code with its own record.
    let instance = unsafe { record(instance) };
    wait(instance, memory, address, 8, timeout_ns, |at| {
        // SAFETY: eight aligned bytes of committed memory (`operand`).
        unsafe { AtomicU64::from_ptr(at.cast()) }.load(Ordering::SeqCst) == expected
    })
}

pub(super) unsafe extern "C-unwind" fn notify(
    instance: *const InstanceRecord,
    memory: u32,
    address: u64,
    count: u32,
) -> i64 {
    // SAFETY: called by compiled code with its own record.
    let instance = unsafe { record(instance) };
    let Some(memory) = instance.memory(memory) else { return trap(TrapCode::MemoryOutOfBounds) };
    match operand(memory, address, 4) {
        Ok(_) => memory.waiters().notify(address, count).into(),
        Err(code) => trap(code),
    }
}
