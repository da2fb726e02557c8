//! Conversions between integer and floating-point lanes.

use super::unary;
use crate::translate::{FuncTranslator, V128};
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
    if !t.env.cpu.sse41 {
        // The code generator's sequence for whole vectors truncates with an SSE4.1 instruction.
        let mut value = zero(t);
        value = t.cast_vector(value, I32X4);
        for lane in 0..2 {
            let float = t.builder.ins().extractlane(a, lane);
            let integer = t.builder.ins().fcvt_to_uint_sat(I32, float);
            value = t.builder.ins().insertlane(value, integer, lane);
        }
        t.push(value);
        return;
    }
    let wide = t.builder.ins().fcvt_to_uint_sat(I64X2, a);
    let zero = zero(t);
    let value = t.builder.ins().uunarrow(wide, zero);
    t.push(value);
}

/// Zero as a constant of its own type: the code generator looks for exactly that in its patterns.
fn zero(t: &mut FuncTranslator<'_>) -> Value {
    debug_assert_eq!(V128.bytes(), I64X2.bytes());
    let zero = t.builder.func.dfg.constants.insert([0u8; 16].as_slice().into());
    t.builder.ins().vconst(I64X2, zero)
}
