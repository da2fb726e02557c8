//! Constants, lanes, shuffles and bitwise instructions: what does not depend on the meaning of the lanes.

use super::{binary, bytes, pop3, unary};
use crate::translate::{FuncTranslator, V128};
use cranelift_codegen::ir::types::{F32X4, F64X2, I8, I8X16, I16, I16X8, I32, I32X4, I64X2};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use wasmparser::Operator;

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    match *op {
        Operator::V128Const { value } => {
            let constant = t.builder.func.dfg.constants.insert(value.bytes().as_slice().into());
            let value = t.builder.ins().vconst(V128, constant);
            t.push(value);
        }

        Operator::I8x16Splat => splat(t, I8X16),
        Operator::I16x8Splat => splat(t, I16X8),
        Operator::I32x4Splat => splat(t, I32X4),
        Operator::I64x2Splat => splat(t, I64X2),
        Operator::F32x4Splat => splat(t, F32X4),
        Operator::F64x2Splat => splat(t, F64X2),

        Operator::I8x16ExtractLaneS { lane } => extract(t, I8X16, lane, Extend::Signed),
        Operator::I8x16ExtractLaneU { lane } => extract(t, I8X16, lane, Extend::Unsigned),
        Operator::I16x8ExtractLaneS { lane } => extract(t, I16X8, lane, Extend::Signed),
        Operator::I16x8ExtractLaneU { lane } => extract(t, I16X8, lane, Extend::Unsigned),
        Operator::I32x4ExtractLane { lane } => extract(t, I32X4, lane, Extend::No),
        Operator::I64x2ExtractLane { lane } => extract(t, I64X2, lane, Extend::No),
        Operator::F32x4ExtractLane { lane } => extract(t, F32X4, lane, Extend::No),
        Operator::F64x2ExtractLane { lane } => extract(t, F64X2, lane, Extend::No),

        Operator::I8x16ReplaceLane { lane } => replace(t, I8X16, lane),
        Operator::I16x8ReplaceLane { lane } => replace(t, I16X8, lane),
        Operator::I32x4ReplaceLane { lane } => replace(t, I32X4, lane),
        Operator::I64x2ReplaceLane { lane } => replace(t, I64X2, lane),
        Operator::F32x4ReplaceLane { lane } => replace(t, F32X4, lane),
        Operator::F64x2ReplaceLane { lane } => replace(t, F64X2, lane),

        Operator::I8x16Shuffle { lanes } => {
            let (a, b) = super::pop2(t, I8X16);
            let value = bytes::shuffle(t, a, b, &lanes);
            t.push(value);
        }
        Operator::I8x16Swizzle => {
            let (a, selectors) = super::pop2(t, I8X16);
            let value = bytes::swizzle(t, a, selectors);
            t.push(value);
        }

        Operator::V128Not => unary(t, V128, |i, a| i.bnot(a)),
        Operator::V128And => binary(t, V128, |i, a, b| i.band(a, b)),
        Operator::V128AndNot => binary(t, V128, |i, a, b| i.band_not(a, b)),
        Operator::V128Or => binary(t, V128, |i, a, b| i.bor(a, b)),
        Operator::V128Xor => binary(t, V128, |i, a, b| i.bxor(a, b)),
        Operator::V128Bitselect => {
            let (a, b, mask) = pop3(t, V128);
            let value = t.builder.ins().bitselect(mask, a, b);
            t.push(value);
        }
        Operator::V128AnyTrue => {
            let a = t.pop_vector(V128);
            let any = t.builder.ins().vany_true(a);
            push_bool(t, any);
        }
        Operator::I8x16AllTrue => all_true(t, I8X16),
        Operator::I16x8AllTrue => all_true(t, I16X8),
        Operator::I32x4AllTrue => all_true(t, I32X4),
        Operator::I64x2AllTrue => all_true(t, I64X2),
        Operator::I8x16Bitmask => unary(t, I8X16, |i, a| i.vhigh_bits(I32, a)),
        Operator::I16x8Bitmask => unary(t, I16X8, |i, a| i.vhigh_bits(I32, a)),
        Operator::I32x4Bitmask => unary(t, I32X4, |i, a| i.vhigh_bits(I32, a)),
        Operator::I64x2Bitmask => unary(t, I64X2, |i, a| i.vhigh_bits(I32, a)),
        _ => return false,
    }
    true
}

/// How a narrow lane becomes an `i32`.
enum Extend {
    Signed,
    Unsigned,
    No,
}

/// The scalar on the stack with the type of a lane: wasm's `i32` stands for the narrow integers.
fn pop_lane(t: &mut FuncTranslator<'_>, lane: Type) -> Value {
    let scalar = t.pop();
    if matches!(lane, I8 | I16) { t.builder.ins().ireduce(lane, scalar) } else { scalar }
}

fn splat(t: &mut FuncTranslator<'_>, ty: Type) {
    let lane = pop_lane(t, ty.lane_type());
    let value = t.builder.ins().splat(ty, lane);
    t.push(value);
}

fn extract(t: &mut FuncTranslator<'_>, ty: Type, lane: u8, extend: Extend) {
    let vector = t.pop_vector(ty);
    let value = t.builder.ins().extractlane(vector, lane);
    let value = match extend {
        Extend::Signed => t.builder.ins().sextend(I32, value),
        Extend::Unsigned => t.builder.ins().uextend(I32, value),
        Extend::No => value,
    };
    t.push(value);
}

fn replace(t: &mut FuncTranslator<'_>, ty: Type, lane: u8) {
    let value = pop_lane(t, ty.lane_type());
    let vector = t.pop_vector(ty);
    let value = t.builder.ins().insertlane(vector, value, lane);
    t.push(value);
}

fn all_true(t: &mut FuncTranslator<'_>, ty: Type) {
    let a = t.pop_vector(ty);
    let all = t.builder.ins().vall_true(a);
    push_bool(t, all);
}

/// Pushes a Cranelift truth value (8 bits) as `i32`.
fn push_bool(t: &mut FuncTranslator<'_>, value: Value) {
    let value = t.builder.ins().uextend(I32, value);
    t.push(value);
}
