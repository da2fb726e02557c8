//! Relaxed vector instructions: of the results that the proposal allows, the one x86-64 gives fastest.
//!
//! The choice depends only on the processor features that the cell was compiled for, so a cell always computes the
//! same on the processors that it runs on.

use super::{binary, bytes, convert, float, integer, pop2, pop3, unary};
use crate::translate::{FuncTranslator, V128};
use cranelift_codegen::ir::types::{F32X4, F64X2, I8X16, I16X8, I32X4, I64X2};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use wasmparser::Operator;

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    match *op {
        Operator::I8x16RelaxedSwizzle => {
            let (a, selectors) = pop2(t, I8X16);
            // Selectors 16–127 may also select modulo 16, as `pshufb` does.
            let value = match t.env.cpu.ssse3 {
                true => t.builder.ins().x86_pshufb(a, selectors),
                false => bytes::swizzle(t, a, selectors),
            };
            t.push(value);
        }

        // Out of range and NaN may give INT_MIN, as `cvttps2dq` does.
        Operator::I32x4RelaxedTruncF32x4S => unary(t, F32X4, |i, a| i.x86_cvtt2dq(I32X4, a)),
        Operator::I32x4RelaxedTruncF64x2SZero => {
            let a = t.pop_vector(F64X2);
            let wide = t.builder.ins().x86_cvtt2dq(I64X2, a);
            convert::narrow_signed(t, wide);
        }
        // No unsigned conversion before AVX-512: the saturating sequence is as good as any.
        Operator::I32x4RelaxedTruncF32x4U => unary(t, F32X4, |i, a| i.fcvt_to_uint_sat(I32X4, a)),
        Operator::I32x4RelaxedTruncF64x2UZero => {
            let a = t.pop_vector(F64X2);
            convert::truncate_unsigned(t, a);
        }

        Operator::F32x4RelaxedMadd => multiply_add(t, F32X4, Sign::Plus),
        Operator::F32x4RelaxedNmadd => multiply_add(t, F32X4, Sign::Minus),
        Operator::F64x2RelaxedMadd => multiply_add(t, F64X2, Sign::Plus),
        Operator::F64x2RelaxedNmadd => multiply_add(t, F64X2, Sign::Minus),

        Operator::I8x16RelaxedLaneselect => select_lanes(t, I8X16),
        Operator::I16x8RelaxedLaneselect => select_lanes(t, I16X8),
        Operator::I32x4RelaxedLaneselect => select_lanes(t, I32X4),
        Operator::I64x2RelaxedLaneselect => select_lanes(t, I64X2),

        // With a NaN, or zeros of both signs, either operand may be the result.
        Operator::F32x4RelaxedMin => float::pseudo_min(t, F32X4),
        Operator::F32x4RelaxedMax => float::pseudo_max(t, F32X4),
        Operator::F64x2RelaxedMin => float::pseudo_min(t, F64X2),
        Operator::F64x2RelaxedMax => float::pseudo_max(t, F64X2),

        // -1 * -1 may overflow to -1, as in `pmulhrsw`.
        Operator::I16x8RelaxedQ15mulrS => match t.env.cpu.ssse3 {
            true => binary(t, I16X8, |i, a, b| i.x86_pmulhrsw(a, b)),
            false => binary(t, I16X8, |i, a, b| i.sqmul_round_sat(a, b)),
        },
        Operator::I16x8RelaxedDotI8x16I7x16S => {
            let (a, b) = pop2(t, I8X16);
            let value = dot(t, a, b);
            t.push(value);
        }
        Operator::I32x4RelaxedDotI8x16I7x16AddS => {
            let c = t.pop_vector(I32X4);
            let (a, b) = pop2(t, I8X16);
            let products = dot(t, a, b);
            let sums = integer::add_pairs_signed(t, products);
            let value = t.builder.ins().iadd(sums, c);
            t.push(value);
        }
        _ => return false,
    }
    true
}

/// Sign of the product in a multiply-add.
enum Sign {
    Plus,
    Minus,
}

/// `±(a * b) + c`: fused where the processor can, else rounded twice. Both are allowed.
fn multiply_add(t: &mut FuncTranslator<'_>, ty: Type, sign: Sign) {
    let (a, b, c) = pop3(t, ty);
    let a = match sign {
        Sign::Plus => a,
        Sign::Minus => t.builder.ins().fneg(a),
    };
    // The code generator uses the AVX encodings of FMA only.
    let value = if t.env.cpu.fma && t.env.cpu.avx {
        t.builder.ins().fma(a, b, c)
    } else {
        let product = t.builder.ins().fmul(a, b);
        t.builder.ins().fadd(product, c)
    };
    t.push(value);
}

/// Selects by mask lanes that are all ones or all zeros. For others the top bit of the lane may decide, as in the
/// `blendv` instructions; there is none for 16-bit lanes.
fn select_lanes(t: &mut FuncTranslator<'_>, ty: Type) {
    let blend = t.env.cpu.sse41 && ty != I16X8;
    let (a, b, mask) = pop3(t, if blend { ty } else { V128 });
    let value = match blend {
        true => t.builder.ins().blendv(mask, a, b),
        false => t.builder.ins().bitselect(mask, a, b),
    };
    t.push(value);
}

/// Sums of neighbouring products of signed bytes and 7-bit bytes. The latter may be taken as unsigned, with a
/// saturated sum, as in `pmaddubsw`.
fn dot(t: &mut FuncTranslator<'_>, a: Value, b: Value) -> Value {
    match t.env.cpu.ssse3 {
        true => t.builder.ins().x86_pmaddubsw(a, b),
        false => integer::dot(t, a, b),
    }
}
