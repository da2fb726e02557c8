//! Conversions between integer and floating-point lanes.

use super::unary;
use crate::translate::FuncTranslator;
use cranelift_codegen::ir::types::{F32X4, F64X2, I32, I32X4, I64X2};
use cranelift_codegen::ir::{InstBuilder, Value};
use wasmparser::Operator;

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    match *op {
        Operator::I32x4TruncSatF32x4S => unary(t, F32X4, |i, a| i.fcvt_to_sint_sat(I32X4, a)),
        Operator::I32x4TruncSatF32x4U => unary(t, F32X4, |i, a| i.fcvt_to_uint_sat(I32X4, a)),
        Operator::F32x4ConvertI32x4S => unary(t, I32X4, |i, a| i.fcvt_from_sint(F32X4, a)),
        Operator::F32x4ConvertI32x4U => unary(t, I32X4, |i, a| i.fcvt_from_uint(F32X4, a)),
        Operator::F32x4DemoteF64x2Zero => unary(t, F64X2, |i, a| i.fvdemote(a)),
        Operator::F64x2PromoteLowF32x4 => unary(t, F32X4, |i, a| i.fvpromote_low(a)),
        Operator::I32x4TruncSatF64x2SZero => {
            let a = t.pop_vector(F64X2);
            let wide = t.builder.ins().fcvt_to_sint_sat(I64X2, a);
            narrow_signed(t, wide);
        }
        Operator::I32x4TruncSatF64x2UZero => {
            let a = t.pop_vector(F64X2);
            truncate_unsigned(t, a);
        }
        Operator::F64x2ConvertLowI32x4S => {
            let a = t.pop_vector(I32X4);
            let wide = t.builder.ins().swiden_low(a);
            let value = t.builder.ins().fcvt_from_sint(F64X2, wide);
            t.push(value);
        }
        Operator::F64x2ConvertLowI32x4U => {
            let a = t.pop_vector(I32X4);
            let wide = t.builder.ins().uwiden_low(a);
            let value = t.builder.ins().fcvt_from_uint(F64X2, wide);
            t.push(value);
        }
        _ => return false,
    }
    true
}

/// Pushes the two 64-bit lanes saturated to signed 32 bits, and two zeros.
pub(super) fn narrow_signed(t: &mut FuncTranslator<'_>, wide: Value) {
    let zero = zero(t);
    let value = t.builder.ins().snarrow(wide, zero);
    t.push(value);
}

/// Pushes the two `f64` lanes as unsigned 32-bit integers, saturated, and two zeros.
pub(super) fn truncate_unsigned(t: &mut FuncTranslator<'_>, a: Value) {
    // The code generator's sequence rounds with `roundpd`, which needs SSE4.1.
    let value = if t.env.cpu.sse41 {
        let wide = t.builder.ins().fcvt_to_uint_sat(I64X2, a);
        let zero = zero(t);
        t.builder.ins().uunarrow(wide, zero)
    } else {
        let [low, high] = [0u8, 1].map(|lane| {
            let value = t.builder.ins().extractlane(a, lane);
            t.builder.ins().fcvt_to_uint_sat(I32, value)
        });
        let value = t.builder.ins().scalar_to_vector(I32X4, low);
        t.builder.ins().insertlane(value, high, 1)
    };
    t.push(value);
}

/// Zero as a constant of its own type: the code generator looks for exactly that in its patterns.
fn zero(t: &mut FuncTranslator<'_>) -> Value {
    let zero = t.builder.func.dfg.constants.insert([0u8; 16].as_slice().into());
    t.builder.ins().vconst(I64X2, zero)
}
