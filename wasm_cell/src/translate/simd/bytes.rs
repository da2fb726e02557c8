//! Permutations of bytes.
//!
//! They are `pshufb`, which came with SSSE3. Without it the bytes go through a stack slot one by one: slow, but such
//! processors are older than 2006.

use crate::translate::FuncTranslator;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8, I8X16, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, StackSlot, StackSlotData, StackSlotKind, Value};

/// Bytes of a vector.
const VECTOR: i32 = 16;

/// Bytes of `a` and `b` (0–15 and 16–31) by constant selectors below 32.
pub(super) fn shuffle(t: &mut FuncTranslator<'_>, a: Value, b: Value, lanes: &[u8; 16]) -> Value {
    if t.env.cpu.ssse3 {
        let mask = t.builder.func.dfg.immediates.push(lanes.as_slice().into());
        return t.builder.ins().shuffle(a, b, mask);
    }
    let slot = slot(t, 3 * VECTOR as u32);
    t.builder.ins().stack_store(I64, a, slot, 0);
    t.builder.ins().stack_store(I64, b, slot, VECTOR);
    for (to, from) in (2 * VECTOR..).zip(lanes) {
        let byte = t.builder.ins().stack_load(I64, I8, slot, i32::from(*from));
        t.builder.ins().stack_store(I64, byte, slot, to);
    }
    t.builder.ins().stack_load(I64, I8X16, slot, 2 * VECTOR)
}

/// Bytes of `a` by the selectors in `selectors`; 0 for a selector of 16 or more.
pub(super) fn swizzle(t: &mut FuncTranslator<'_>, a: Value, selectors: Value) -> Value {
    if t.env.cpu.ssse3 {
        return t.builder.ins().swizzle(a, selectors);
    }
    let slot = slot(t, 2 * VECTOR as u32);
    t.builder.ins().stack_store(I64, a, slot, 0);
    let table = t.builder.ins().stack_addr(I64, slot, 0);
    let zero = t.builder.ins().iconst(I8, 0);
    for lane in 0..VECTOR {
        let selector = t.builder.ins().extractlane(selectors, lane as u8);
        let index = t.builder.ins().uextend(I64, selector);
        let index = t.builder.ins().band_imm_u(index, 15);
        let address = t.builder.ins().iadd(table, index);
        let byte = t.builder.ins().load(I8, MemFlagsData::trusted(), address, 0);
        let inside = t.builder.ins().icmp_imm_u(IntCC::UnsignedLessThan, selector, i64::from(VECTOR));
        let byte = t.builder.ins().select(inside, byte, zero);
        t.builder.ins().stack_store(I64, byte, slot, VECTOR + lane);
    }
    t.builder.ins().stack_load(I64, I8X16, slot, VECTOR)
}

fn slot(t: &mut FuncTranslator<'_>, size: u32) -> StackSlot {
    t.builder.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, size, 4))
}
