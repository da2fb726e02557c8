//! Atomic instructions (threads). All are sequentially consistent.
//!
//! An access that is not naturally aligned traps before its bounds are looked at. Bounds are as for plain accesses:
//! the address of a guarded memory needs no check, and a fault carries the memory trap.

use super::{FuncTranslator, Translated};
use crate::builtin::Builtin;
use crate::trap::TrapCode;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I16, I32, I64};
use cranelift_codegen::ir::{AtomicRmwOp, InstBuilder, MemFlagsData, Type, Value};
use wasmparser::{MemArg, MemArgTarget, Operator};

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    Ok(load_or_store(t, op) || read_modify_write(t, op) || compare_exchange(t, op) || wait_or_notify(t, op)?)
}

fn load_or_store(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    match op {
        Operator::I32AtomicLoad { memarg } => load(t, memarg, I32, I32),
        Operator::I32AtomicLoad8U { memarg } => load(t, memarg, I32, I8),
        Operator::I32AtomicLoad16U { memarg } => load(t, memarg, I32, I16),
        Operator::I64AtomicLoad { memarg } => load(t, memarg, I64, I64),
        Operator::I64AtomicLoad8U { memarg } => load(t, memarg, I64, I8),
        Operator::I64AtomicLoad16U { memarg } => load(t, memarg, I64, I16),
        Operator::I64AtomicLoad32U { memarg } => load(t, memarg, I64, I32),
        Operator::I32AtomicStore { memarg } => store(t, memarg, I32),
        Operator::I32AtomicStore8 { memarg } => store(t, memarg, I8),
        Operator::I32AtomicStore16 { memarg } => store(t, memarg, I16),
        Operator::I64AtomicStore { memarg } => store(t, memarg, I64),
        Operator::I64AtomicStore8 { memarg } => store(t, memarg, I8),
        Operator::I64AtomicStore16 { memarg } => store(t, memarg, I16),
        Operator::I64AtomicStore32 { memarg } => store(t, memarg, I32),
        Operator::AtomicFence { .. } => {
            t.builder.ins().fence();
        }
        _ => return false,
    }
    true
}

fn read_modify_write(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    use AtomicRmwOp::{Add, And, Or, Sub, Xchg, Xor};
    let (memarg, rmw, ty, access) = match op {
        Operator::I32AtomicRmwAdd { memarg } => (memarg, Add, I32, I32),
        Operator::I32AtomicRmw8AddU { memarg } => (memarg, Add, I32, I8),
        Operator::I32AtomicRmw16AddU { memarg } => (memarg, Add, I32, I16),
        Operator::I64AtomicRmwAdd { memarg } => (memarg, Add, I64, I64),
        Operator::I64AtomicRmw8AddU { memarg } => (memarg, Add, I64, I8),
        Operator::I64AtomicRmw16AddU { memarg } => (memarg, Add, I64, I16),
        Operator::I64AtomicRmw32AddU { memarg } => (memarg, Add, I64, I32),

        Operator::I32AtomicRmwSub { memarg } => (memarg, Sub, I32, I32),
        Operator::I32AtomicRmw8SubU { memarg } => (memarg, Sub, I32, I8),
        Operator::I32AtomicRmw16SubU { memarg } => (memarg, Sub, I32, I16),
        Operator::I64AtomicRmwSub { memarg } => (memarg, Sub, I64, I64),
        Operator::I64AtomicRmw8SubU { memarg } => (memarg, Sub, I64, I8),
        Operator::I64AtomicRmw16SubU { memarg } => (memarg, Sub, I64, I16),
        Operator::I64AtomicRmw32SubU { memarg } => (memarg, Sub, I64, I32),

        Operator::I32AtomicRmwAnd { memarg } => (memarg, And, I32, I32),
        Operator::I32AtomicRmw8AndU { memarg } => (memarg, And, I32, I8),
        Operator::I32AtomicRmw16AndU { memarg } => (memarg, And, I32, I16),
        Operator::I64AtomicRmwAnd { memarg } => (memarg, And, I64, I64),
        Operator::I64AtomicRmw8AndU { memarg } => (memarg, And, I64, I8),
        Operator::I64AtomicRmw16AndU { memarg } => (memarg, And, I64, I16),
        Operator::I64AtomicRmw32AndU { memarg } => (memarg, And, I64, I32),

        Operator::I32AtomicRmwOr { memarg } => (memarg, Or, I32, I32),
        Operator::I32AtomicRmw8OrU { memarg } => (memarg, Or, I32, I8),
        Operator::I32AtomicRmw16OrU { memarg } => (memarg, Or, I32, I16),
        Operator::I64AtomicRmwOr { memarg } => (memarg, Or, I64, I64),
        Operator::I64AtomicRmw8OrU { memarg } => (memarg, Or, I64, I8),
        Operator::I64AtomicRmw16OrU { memarg } => (memarg, Or, I64, I16),
        Operator::I64AtomicRmw32OrU { memarg } => (memarg, Or, I64, I32),

        Operator::I32AtomicRmwXor { memarg } => (memarg, Xor, I32, I32),
        Operator::I32AtomicRmw8XorU { memarg } => (memarg, Xor, I32, I8),
        Operator::I32AtomicRmw16XorU { memarg } => (memarg, Xor, I32, I16),
        Operator::I64AtomicRmwXor { memarg } => (memarg, Xor, I64, I64),
        Operator::I64AtomicRmw8XorU { memarg } => (memarg, Xor, I64, I8),
        Operator::I64AtomicRmw16XorU { memarg } => (memarg, Xor, I64, I16),
        Operator::I64AtomicRmw32XorU { memarg } => (memarg, Xor, I64, I32),

        Operator::I32AtomicRmwXchg { memarg } => (memarg, Xchg, I32, I32),
        Operator::I32AtomicRmw8XchgU { memarg } => (memarg, Xchg, I32, I8),
        Operator::I32AtomicRmw16XchgU { memarg } => (memarg, Xchg, I32, I16),
        Operator::I64AtomicRmwXchg { memarg } => (memarg, Xchg, I64, I64),
        Operator::I64AtomicRmw8XchgU { memarg } => (memarg, Xchg, I64, I8),
        Operator::I64AtomicRmw16XchgU { memarg } => (memarg, Xchg, I64, I16),
        Operator::I64AtomicRmw32XchgU { memarg } => (memarg, Xchg, I64, I32),
        _ => return false,
    };
    let operand = t.pop();
    let operand = narrow(t, operand, access);
    let (address, flags) = address(t, memarg, access);
    let old = t.builder.ins().atomic_rmw(access, flags, rmw, address, operand);
    push_widened(t, old, ty);
    true
}

fn compare_exchange(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    let (memarg, ty, access) = match op {
        Operator::I32AtomicRmwCmpxchg { memarg } => (memarg, I32, I32),
        Operator::I32AtomicRmw8CmpxchgU { memarg } => (memarg, I32, I8),
        Operator::I32AtomicRmw16CmpxchgU { memarg } => (memarg, I32, I16),
        Operator::I64AtomicRmwCmpxchg { memarg } => (memarg, I64, I64),
        Operator::I64AtomicRmw8CmpxchgU { memarg } => (memarg, I64, I8),
        Operator::I64AtomicRmw16CmpxchgU { memarg } => (memarg, I64, I16),
        Operator::I64AtomicRmw32CmpxchgU { memarg } => (memarg, I64, I32),
        _ => return false,
    };
    let (expected, replacement) = t.pop2();
    // Both wrap to the width of the access.
    let expected = narrow(t, expected, access);
    let replacement = narrow(t, replacement, access);
    let (address, flags) = address(t, memarg, access);
    let old = t.builder.ins().atomic_cas(flags, address, expected, replacement);
    push_widened(t, old, ty);
    true
}

fn wait_or_notify(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    match op {
        Operator::MemoryAtomicWait32 { memarg } => wait(t, memarg, Builtin::AtomicWait32, I32)?,
        Operator::MemoryAtomicWait64 { memarg } => wait(t, memarg, Builtin::AtomicWait64, I64)?,
        Operator::MemoryAtomicNotify { memarg } => {
            let count = t.pop();
            let (memory, address) = effective_address(t, memarg, I32);
            let woken = t.call_builtin_value(Builtin::AtomicNotify, &[memory, address, count])?;
            push_status(t, woken);
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn wait(t: &mut FuncTranslator<'_>, memarg: &MemArg, builtin: Builtin, access: Type) -> Translated {
    let (expected, timeout) = t.pop2();
    let (memory, address) = effective_address(t, memarg, access);
    let status = t.call_builtin_value(builtin, &[memory, address, expected, timeout])?;
    push_status(t, status);
    Ok(())
}

fn load(t: &mut FuncTranslator<'_>, memarg: &MemArg, ty: Type, access: Type) {
    let (address, flags) = address(t, memarg, access);
    let value = t.builder.ins().atomic_load(access, flags, address);
    push_widened(t, value, ty);
}

fn store(t: &mut FuncTranslator<'_>, memarg: &MemArg, access: Type) {
    let value = t.pop();
    let value = narrow(t, value, access);
    let (address, flags) = address(t, memarg, access);
    t.builder.ins().atomic_store(flags, value, address);
}

/// The value reduced to the width of the access.
fn narrow(t: &mut FuncTranslator<'_>, value: Value, access: Type) -> Value {
    if t.type_of(value) == access { value } else { t.builder.ins().ireduce(access, value) }
}

/// Pushes what was read, zero-extended to `ty`.
fn push_widened(t: &mut FuncTranslator<'_>, value: Value, ty: Type) {
    let value = if t.type_of(value) == ty { value } else { t.builder.ins().uextend(ty, value) };
    t.push(value);
}

/// Pops the index; traps unless the access is aligned. Gives an address to access.
fn address(t: &mut FuncTranslator<'_>, memarg: &MemArg, access: Type) -> (Value, MemFlagsData) {
    let index = t.pop();
    check_alignment(t, index, memarg, access);
    let address = t.memory_address_of(index, memarg, access.bytes());
    (t.flatten(address), address.flags)
}

/// Memories begin at page boundaries, so an access is aligned when `index + offset` is. Only the low bits count: it does
/// not matter that the sum may wrap around.
fn check_alignment(t: &mut FuncTranslator<'_>, index: Value, memarg: &MemArg, access: Type) {
    let mask = i64::from(access.bytes()) - 1;
    if mask == 0 {
        return;
    }
    let offset = memarg.offset as i64 & mask;
    let low = if offset == 0 { index } else { t.builder.ins().iadd_imm_s(index, offset) };
    let misaligned = t.builder.ins().band_imm_s(low, mask);
    t.trap_if(misaligned, TrapCode::MisalignedAtomic);
}

/// Pops the index; traps unless the access is aligned. Gives the memory's number and `index + offset`, whose bounds
/// the runtime checks.
fn effective_address(t: &mut FuncTranslator<'_>, memarg: &MemArg, access: Type) -> (Value, Value) {
    let MemArgTarget::Memory(memory) = memarg.target else {
        unreachable!("arrays need the gc feature, which validation refuses");
    };
    let index = t.pop();
    check_alignment(t, index, memarg, access);
    let is64 = t.type_of(index) == I64;
    let index = t.widen_index(index);
    let address = match memarg.offset {
        0 => index,
        offset => {
            let address = t.builder.ins().iadd_imm_s(index, offset as i64);
            if is64 {
                let wrapped = t.builder.ins().icmp(IntCC::UnsignedLessThan, address, index);
                t.trap_if(wrapped, TrapCode::MemoryOutOfBounds);
            }
            address
        }
    };
    (t.const32(memory), address)
}

/// Pushes a result that is not negative as `i32`; raises the trap that a negative one means.
fn push_status(t: &mut FuncTranslator<'_>, status: Value) {
    /// What waiting and notifying can fail with; anything else comes out as the last one.
    const CAUSES: [TrapCode; 6] = [
        TrapCode::MemoryOutOfBounds,
        TrapCode::MisalignedAtomic,
        TrapCode::ExpectedSharedMemory,
        TrapCode::Deadlock,
        TrapCode::Killed,
        TrapCode::OutOfMemory,
    ];
    let failed = t.builder.create_block();
    let next = t.builder.create_block();
    t.builder.set_cold_block(failed);
    let negative = t.builder.ins().icmp_imm_s(IntCC::SignedLessThan, status, 0);
    t.builder.ins().brif(negative, failed, &[], next, &[]);
    t.builder.seal_block(failed);
    t.builder.seal_block(next);

    t.builder.switch_to_block(failed);
    let [causes @ .., last] = CAUSES;
    for cause in causes {
        let is_cause = t.builder.ins().icmp_imm_s(IntCC::Equal, status, -i64::from(cause as u8));
        t.trap_if(is_cause, cause);
    }
    t.call_trap_stub(last);

    t.builder.switch_to_block(next);
    let status = t.builder.ins().ireduce(I32, status);
    t.push(status);
}
