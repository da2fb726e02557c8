//! Integer arithmetic, comparisons and shifts on lanes.

use super::{binary, pop2, unary};
use crate::translate::FuncTranslator;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::types::{I8X16, I16X8, I32X4, I64X2};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use cranelift_frontend::FuncInstBuilder;
use wasmparser::Operator;

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    compare(t, op) || lane_by_lane(t, op) || widening(t, op)
}

fn compare(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    use IntCC::*;
    let (ty, condition) = match *op {
        Operator::I8x16Eq => (I8X16, Equal),
        Operator::I8x16Ne => (I8X16, NotEqual),
        Operator::I8x16LtS => (I8X16, SignedLessThan),
        Operator::I8x16LtU => (I8X16, UnsignedLessThan),
        Operator::I8x16GtS => (I8X16, SignedGreaterThan),
        Operator::I8x16GtU => (I8X16, UnsignedGreaterThan),
        Operator::I8x16LeS => (I8X16, SignedLessThanOrEqual),
        Operator::I8x16LeU => (I8X16, UnsignedLessThanOrEqual),
        Operator::I8x16GeS => (I8X16, SignedGreaterThanOrEqual),
        Operator::I8x16GeU => (I8X16, UnsignedGreaterThanOrEqual),

        Operator::I16x8Eq => (I16X8, Equal),
        Operator::I16x8Ne => (I16X8, NotEqual),
        Operator::I16x8LtS => (I16X8, SignedLessThan),
        Operator::I16x8LtU => (I16X8, UnsignedLessThan),
        Operator::I16x8GtS => (I16X8, SignedGreaterThan),
        Operator::I16x8GtU => (I16X8, UnsignedGreaterThan),
        Operator::I16x8LeS => (I16X8, SignedLessThanOrEqual),
        Operator::I16x8LeU => (I16X8, UnsignedLessThanOrEqual),
        Operator::I16x8GeS => (I16X8, SignedGreaterThanOrEqual),
        Operator::I16x8GeU => (I16X8, UnsignedGreaterThanOrEqual),

        Operator::I32x4Eq => (I32X4, Equal),
        Operator::I32x4Ne => (I32X4, NotEqual),
        Operator::I32x4LtS => (I32X4, SignedLessThan),
        Operator::I32x4LtU => (I32X4, UnsignedLessThan),
        Operator::I32x4GtS => (I32X4, SignedGreaterThan),
        Operator::I32x4GtU => (I32X4, UnsignedGreaterThan),
        Operator::I32x4LeS => (I32X4, SignedLessThanOrEqual),
        Operator::I32x4LeU => (I32X4, UnsignedLessThanOrEqual),
        Operator::I32x4GeS => (I32X4, SignedGreaterThanOrEqual),
        Operator::I32x4GeU => (I32X4, UnsignedGreaterThanOrEqual),

        Operator::I64x2Eq => (I64X2, Equal),
        Operator::I64x2Ne => (I64X2, NotEqual),
        Operator::I64x2LtS => (I64X2, SignedLessThan),
        Operator::I64x2GtS => (I64X2, SignedGreaterThan),
        Operator::I64x2LeS => (I64X2, SignedLessThanOrEqual),
        Operator::I64x2GeS => (I64X2, SignedGreaterThanOrEqual),
        _ => return false,
    };
    binary(t, ty, |i, a, b| i.icmp(condition, a, b));
    true
}

/// Instructions whose result lanes are as wide as their operands'.
fn lane_by_lane(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    match *op {
        Operator::I8x16Abs => unary(t, I8X16, |i, a| i.iabs(a)),
        Operator::I16x8Abs => unary(t, I16X8, |i, a| i.iabs(a)),
        Operator::I32x4Abs => unary(t, I32X4, |i, a| i.iabs(a)),
        Operator::I64x2Abs => unary(t, I64X2, |i, a| i.iabs(a)),
        Operator::I8x16Neg => unary(t, I8X16, |i, a| i.ineg(a)),
        Operator::I16x8Neg => unary(t, I16X8, |i, a| i.ineg(a)),
        Operator::I32x4Neg => unary(t, I32X4, |i, a| i.ineg(a)),
        Operator::I64x2Neg => unary(t, I64X2, |i, a| i.ineg(a)),
        Operator::I8x16Popcnt => unary(t, I8X16, |i, a| i.popcnt(a)),

        Operator::I8x16Add => binary(t, I8X16, |i, a, b| i.iadd(a, b)),
        Operator::I16x8Add => binary(t, I16X8, |i, a, b| i.iadd(a, b)),
        Operator::I32x4Add => binary(t, I32X4, |i, a, b| i.iadd(a, b)),
        Operator::I64x2Add => binary(t, I64X2, |i, a, b| i.iadd(a, b)),
        Operator::I8x16Sub => binary(t, I8X16, |i, a, b| i.isub(a, b)),
        Operator::I16x8Sub => binary(t, I16X8, |i, a, b| i.isub(a, b)),
        Operator::I32x4Sub => binary(t, I32X4, |i, a, b| i.isub(a, b)),
        Operator::I64x2Sub => binary(t, I64X2, |i, a, b| i.isub(a, b)),
        Operator::I16x8Mul => binary(t, I16X8, |i, a, b| i.imul(a, b)),
        Operator::I32x4Mul => binary(t, I32X4, |i, a, b| i.imul(a, b)),
        Operator::I64x2Mul => binary(t, I64X2, |i, a, b| i.imul(a, b)),

        Operator::I8x16AddSatS => binary(t, I8X16, |i, a, b| i.sadd_sat(a, b)),
        Operator::I8x16AddSatU => binary(t, I8X16, |i, a, b| i.uadd_sat(a, b)),
        Operator::I16x8AddSatS => binary(t, I16X8, |i, a, b| i.sadd_sat(a, b)),
        Operator::I16x8AddSatU => binary(t, I16X8, |i, a, b| i.uadd_sat(a, b)),
        Operator::I8x16SubSatS => binary(t, I8X16, |i, a, b| i.ssub_sat(a, b)),
        Operator::I8x16SubSatU => binary(t, I8X16, |i, a, b| i.usub_sat(a, b)),
        Operator::I16x8SubSatS => binary(t, I16X8, |i, a, b| i.ssub_sat(a, b)),
        Operator::I16x8SubSatU => binary(t, I16X8, |i, a, b| i.usub_sat(a, b)),

        Operator::I8x16MinS => binary(t, I8X16, |i, a, b| i.smin(a, b)),
        Operator::I8x16MinU => binary(t, I8X16, |i, a, b| i.umin(a, b)),
        Operator::I8x16MaxS => binary(t, I8X16, |i, a, b| i.smax(a, b)),
        Operator::I8x16MaxU => binary(t, I8X16, |i, a, b| i.umax(a, b)),
        Operator::I16x8MinS => binary(t, I16X8, |i, a, b| i.smin(a, b)),
        Operator::I16x8MinU => binary(t, I16X8, |i, a, b| i.umin(a, b)),
        Operator::I16x8MaxS => binary(t, I16X8, |i, a, b| i.smax(a, b)),
        Operator::I16x8MaxU => binary(t, I16X8, |i, a, b| i.umax(a, b)),
        Operator::I32x4MinS => binary(t, I32X4, |i, a, b| i.smin(a, b)),
        Operator::I32x4MinU => binary(t, I32X4, |i, a, b| i.umin(a, b)),
        Operator::I32x4MaxS => binary(t, I32X4, |i, a, b| i.smax(a, b)),
        Operator::I32x4MaxU => binary(t, I32X4, |i, a, b| i.umax(a, b)),
        Operator::I8x16AvgrU => binary(t, I8X16, |i, a, b| i.avg_round(a, b)),
        Operator::I16x8AvgrU => binary(t, I16X8, |i, a, b| i.avg_round(a, b)),
        Operator::I16x8Q15MulrSatS => binary(t, I16X8, |i, a, b| i.sqmul_round_sat(a, b)),

        Operator::I8x16Shl => shift(t, I8X16, |i, a, n| i.ishl(a, n)),
        Operator::I8x16ShrS => shift(t, I8X16, |i, a, n| i.sshr(a, n)),
        Operator::I8x16ShrU => shift(t, I8X16, |i, a, n| i.ushr(a, n)),
        Operator::I16x8Shl => shift(t, I16X8, |i, a, n| i.ishl(a, n)),
        Operator::I16x8ShrS => shift(t, I16X8, |i, a, n| i.sshr(a, n)),
        Operator::I16x8ShrU => shift(t, I16X8, |i, a, n| i.ushr(a, n)),
        Operator::I32x4Shl => shift(t, I32X4, |i, a, n| i.ishl(a, n)),
        Operator::I32x4ShrS => shift(t, I32X4, |i, a, n| i.sshr(a, n)),
        Operator::I32x4ShrU => shift(t, I32X4, |i, a, n| i.ushr(a, n)),
        Operator::I64x2Shl => shift(t, I64X2, |i, a, n| i.ishl(a, n)),
        Operator::I64x2ShrS => shift(t, I64X2, |i, a, n| i.sshr(a, n)),
        Operator::I64x2ShrU => shift(t, I64X2, |i, a, n| i.ushr(a, n)),
        _ => return false,
    }
    true
}

/// Shifts all lanes by one `i32`, modulo the lane's width as both wasm and Cranelift have it.
fn shift(t: &mut FuncTranslator<'_>, ty: Type, f: impl FnOnce(FuncInstBuilder<'_, '_>, Value, Value) -> Value) {
    let amount = t.pop();
    let vector = t.pop_vector(ty);
    let result = f(t.builder.ins(), vector, amount);
    t.push(result);
}

/// Instructions whose result lanes are wider or narrower than their operands'. The code generator knows the pairs of
/// widening and arithmetic here as single instructions.
fn widening(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    match *op {
        Operator::I8x16NarrowI16x8S => binary(t, I16X8, |i, a, b| i.snarrow(a, b)),
        Operator::I8x16NarrowI16x8U => binary(t, I16X8, |i, a, b| i.unarrow(a, b)),
        Operator::I16x8NarrowI32x4S => binary(t, I32X4, |i, a, b| i.snarrow(a, b)),
        Operator::I16x8NarrowI32x4U => binary(t, I32X4, |i, a, b| i.unarrow(a, b)),

        Operator::I16x8ExtendLowI8x16S => unary(t, I8X16, |i, a| i.swiden_low(a)),
        Operator::I16x8ExtendHighI8x16S => unary(t, I8X16, |i, a| i.swiden_high(a)),
        Operator::I16x8ExtendLowI8x16U => unary(t, I8X16, |i, a| i.uwiden_low(a)),
        Operator::I16x8ExtendHighI8x16U => unary(t, I8X16, |i, a| i.uwiden_high(a)),
        Operator::I32x4ExtendLowI16x8S => unary(t, I16X8, |i, a| i.swiden_low(a)),
        Operator::I32x4ExtendHighI16x8S => unary(t, I16X8, |i, a| i.swiden_high(a)),
        Operator::I32x4ExtendLowI16x8U => unary(t, I16X8, |i, a| i.uwiden_low(a)),
        Operator::I32x4ExtendHighI16x8U => unary(t, I16X8, |i, a| i.uwiden_high(a)),
        Operator::I64x2ExtendLowI32x4S => unary(t, I32X4, |i, a| i.swiden_low(a)),
        Operator::I64x2ExtendHighI32x4S => unary(t, I32X4, |i, a| i.swiden_high(a)),
        Operator::I64x2ExtendLowI32x4U => unary(t, I32X4, |i, a| i.uwiden_low(a)),
        Operator::I64x2ExtendHighI32x4U => unary(t, I32X4, |i, a| i.uwiden_high(a)),

        Operator::I16x8ExtMulLowI8x16S => multiply(t, I8X16, |i, a| i.swiden_low(a)),
        Operator::I16x8ExtMulHighI8x16S => multiply(t, I8X16, |i, a| i.swiden_high(a)),
        Operator::I16x8ExtMulLowI8x16U => multiply(t, I8X16, |i, a| i.uwiden_low(a)),
        Operator::I16x8ExtMulHighI8x16U => multiply(t, I8X16, |i, a| i.uwiden_high(a)),
        Operator::I32x4ExtMulLowI16x8S => multiply(t, I16X8, |i, a| i.swiden_low(a)),
        Operator::I32x4ExtMulHighI16x8S => multiply(t, I16X8, |i, a| i.swiden_high(a)),
        Operator::I32x4ExtMulLowI16x8U => multiply(t, I16X8, |i, a| i.uwiden_low(a)),
        Operator::I32x4ExtMulHighI16x8U => multiply(t, I16X8, |i, a| i.uwiden_high(a)),
        Operator::I64x2ExtMulLowI32x4S => multiply(t, I32X4, |i, a| i.swiden_low(a)),
        Operator::I64x2ExtMulHighI32x4S => multiply(t, I32X4, |i, a| i.swiden_high(a)),
        Operator::I64x2ExtMulLowI32x4U => multiply(t, I32X4, |i, a| i.uwiden_low(a)),
        Operator::I64x2ExtMulHighI32x4U => multiply(t, I32X4, |i, a| i.uwiden_high(a)),

        Operator::I16x8ExtAddPairwiseI8x16S => {
            let a = t.pop_vector(I8X16);
            let sums = add_pairs_signed(t, a);
            t.push(sums);
        }
        Operator::I32x4ExtAddPairwiseI16x8S => {
            let a = t.pop_vector(I16X8);
            let sums = add_pairs_signed(t, a);
            t.push(sums);
        }
        Operator::I16x8ExtAddPairwiseI8x16U => add_pairs_unsigned(t, I8X16),
        Operator::I32x4ExtAddPairwiseI16x8U => add_pairs_unsigned(t, I16X8),
        Operator::I32x4DotI16x8S => {
            let (a, b) = pop2(t, I16X8);
            let products = dot(t, a, b);
            t.push(products);
        }
        _ => return false,
    }
    true
}

/// Widens half of the lanes of both operands and multiplies them.
fn multiply(t: &mut FuncTranslator<'_>, ty: Type, widen: impl Fn(FuncInstBuilder<'_, '_>, Value) -> Value) {
    let (a, b) = pop2(t, ty);
    let a = widen(t.builder.ins(), a);
    let b = widen(t.builder.ins(), b);
    let product = t.builder.ins().imul(a, b);
    t.push(product);
}

/// Sums of neighbouring lanes, widened as signed.
pub(super) fn add_pairs_signed(t: &mut FuncTranslator<'_>, a: Value) -> Value {
    let low = t.builder.ins().swiden_low(a);
    let high = t.builder.ins().swiden_high(a);
    t.builder.ins().iadd_pairwise(low, high)
}

fn add_pairs_unsigned(t: &mut FuncTranslator<'_>, ty: Type) {
    let a = t.pop_vector(ty);
    let low = t.builder.ins().uwiden_low(a);
    let high = t.builder.ins().uwiden_high(a);
    let sums = t.builder.ins().iadd_pairwise(low, high);
    t.push(sums);
}

/// Sums of neighbouring products of the lanes, widened as signed.
pub(super) fn dot(t: &mut FuncTranslator<'_>, a: Value, b: Value) -> Value {
    let a_low = t.builder.ins().swiden_low(a);
    let b_low = t.builder.ins().swiden_low(b);
    let low = t.builder.ins().imul(a_low, b_low);
    let a_high = t.builder.ins().swiden_high(a);
    let b_high = t.builder.ins().swiden_high(b);
    let high = t.builder.ins().imul(a_high, b_high);
    t.builder.ins().iadd_pairwise(low, high)
}
