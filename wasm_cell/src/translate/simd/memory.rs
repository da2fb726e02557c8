//! Loads and stores of vectors and of their lanes.

use crate::translate::{FuncTranslator, V128};
use cranelift_codegen::ir::types::{I8X16, I16X8, I32X4, I64X2};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value};
use cranelift_frontend::FuncInstBuilder;
use wasmparser::{MemArg, Operator};

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    match *op {
        Operator::V128Load { memarg } => load(t, &memarg, V128),
        Operator::V128Store { memarg } => {
            let value = t.pop_vector(V128);
            store(t, &memarg, value);
        }
        Operator::V128Load8x8S { memarg } => load_extend(t, &memarg, |i, f, p, o| i.sload8x8(f, p, o)),
        Operator::V128Load8x8U { memarg } => load_extend(t, &memarg, |i, f, p, o| i.uload8x8(f, p, o)),
        Operator::V128Load16x4S { memarg } => load_extend(t, &memarg, |i, f, p, o| i.sload16x4(f, p, o)),
        Operator::V128Load16x4U { memarg } => load_extend(t, &memarg, |i, f, p, o| i.uload16x4(f, p, o)),
        Operator::V128Load32x2S { memarg } => load_extend(t, &memarg, |i, f, p, o| i.sload32x2(f, p, o)),
        Operator::V128Load32x2U { memarg } => load_extend(t, &memarg, |i, f, p, o| i.uload32x2(f, p, o)),
        Operator::V128Load8Splat { memarg } => load_splat(t, &memarg, I8X16),
        Operator::V128Load16Splat { memarg } => load_splat(t, &memarg, I16X8),
        Operator::V128Load32Splat { memarg } => load_splat(t, &memarg, I32X4),
        Operator::V128Load64Splat { memarg } => load_splat(t, &memarg, I64X2),
        Operator::V128Load32Zero { memarg } => load_zero(t, &memarg, I32X4),
        Operator::V128Load64Zero { memarg } => load_zero(t, &memarg, I64X2),
        Operator::V128Load8Lane { memarg, lane } => load_lane(t, &memarg, I8X16, lane),
        Operator::V128Load16Lane { memarg, lane } => load_lane(t, &memarg, I16X8, lane),
        Operator::V128Load32Lane { memarg, lane } => load_lane(t, &memarg, I32X4, lane),
        Operator::V128Load64Lane { memarg, lane } => load_lane(t, &memarg, I64X2, lane),
        Operator::V128Store8Lane { memarg, lane } => store_lane(t, &memarg, I8X16, lane),
        Operator::V128Store16Lane { memarg, lane } => store_lane(t, &memarg, I16X8, lane),
        Operator::V128Store32Lane { memarg, lane } => store_lane(t, &memarg, I32X4, lane),
        Operator::V128Store64Lane { memarg, lane } => store_lane(t, &memarg, I64X2, lane),
        _ => return false,
    }
    true
}

/// Loads a value of type `ty` from the address on the stack.
fn load_value(t: &mut FuncTranslator<'_>, memarg: &MemArg, ty: Type) -> Value {
    let address = t.memory_address(memarg, ty.bytes());
    t.builder.ins().load(ty, address.flags, address.base, address.offset)
}

fn load(t: &mut FuncTranslator<'_>, memarg: &MemArg, ty: Type) {
    let value = load_value(t, memarg, ty);
    t.push(value);
}

fn store(t: &mut FuncTranslator<'_>, memarg: &MemArg, value: Value) {
    let size = t.type_of(value).bytes();
    let address = t.memory_address(memarg, size);
    t.builder.ins().store(address.flags, value, address.base, address.offset);
}

/// Loads 8 bytes and widens each lane.
fn load_extend(
    t: &mut FuncTranslator<'_>,
    memarg: &MemArg,
    load: impl FnOnce(FuncInstBuilder<'_, '_>, MemFlagsData, Value, i32) -> Value,
) {
    let address = t.memory_address(memarg, 8);
    let value = load(t.builder.ins(), address.flags, address.base, address.offset);
    t.push(value);
}

fn load_splat(t: &mut FuncTranslator<'_>, memarg: &MemArg, ty: Type) {
    let lane = load_value(t, memarg, ty.lane_type());
    let value = t.builder.ins().splat(ty, lane);
    t.push(value);
}

/// Loads the lowest lane; the others are zero.
fn load_zero(t: &mut FuncTranslator<'_>, memarg: &MemArg, ty: Type) {
    let lane = load_value(t, memarg, ty.lane_type());
    let value = t.builder.ins().scalar_to_vector(ty, lane);
    t.push(value);
}

fn load_lane(t: &mut FuncTranslator<'_>, memarg: &MemArg, ty: Type, lane: u8) {
    let vector = t.pop_vector(ty);
    let value = load_value(t, memarg, ty.lane_type());
    let value = t.builder.ins().insertlane(vector, value, lane);
    t.push(value);
}

fn store_lane(t: &mut FuncTranslator<'_>, memarg: &MemArg, ty: Type, lane: u8) {
    let vector = t.pop_vector(ty);
    let value = t.builder.ins().extractlane(vector, lane);
    store(t, memarg, value);
}
