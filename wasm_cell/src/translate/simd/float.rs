//! Floating-point arithmetic, comparisons and rounding on lanes.

use super::{binary, pop2, unary};
use crate::builtin::Builtin;
use crate::translate::{FuncTranslator, Translated};
use cranelift_codegen::ir::condcodes::FloatCC;
use cranelift_codegen::ir::types::{F32X4, F64X2};
use cranelift_codegen::ir::{InstBuilder, Type, Value};
use cranelift_frontend::FuncInstBuilder;
use wasmparser::Operator;

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    Ok(compare(t, op) || arithmetic(t, op) || round(t, op)?)
}

fn compare(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    use FloatCC::*;
    let (ty, condition) = match *op {
        Operator::F32x4Eq => (F32X4, Equal),
        Operator::F32x4Ne => (F32X4, NotEqual),
        Operator::F32x4Lt => (F32X4, LessThan),
        Operator::F32x4Gt => (F32X4, GreaterThan),
        Operator::F32x4Le => (F32X4, LessThanOrEqual),
        Operator::F32x4Ge => (F32X4, GreaterThanOrEqual),
        Operator::F64x2Eq => (F64X2, Equal),
        Operator::F64x2Ne => (F64X2, NotEqual),
        Operator::F64x2Lt => (F64X2, LessThan),
        Operator::F64x2Gt => (F64X2, GreaterThan),
        Operator::F64x2Le => (F64X2, LessThanOrEqual),
        Operator::F64x2Ge => (F64X2, GreaterThanOrEqual),
        _ => return false,
    };
    binary(t, ty, |i, a, b| i.fcmp(condition, a, b));
    true
}

fn arithmetic(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> bool {
    match *op {
        Operator::F32x4Abs => unary(t, F32X4, |i, a| i.fabs(a)),
        Operator::F64x2Abs => unary(t, F64X2, |i, a| i.fabs(a)),
        Operator::F32x4Neg => unary(t, F32X4, |i, a| i.fneg(a)),
        Operator::F64x2Neg => unary(t, F64X2, |i, a| i.fneg(a)),
        Operator::F32x4Sqrt => unary(t, F32X4, |i, a| i.sqrt(a)),
        Operator::F64x2Sqrt => unary(t, F64X2, |i, a| i.sqrt(a)),
        Operator::F32x4Add => binary(t, F32X4, |i, a, b| i.fadd(a, b)),
        Operator::F64x2Add => binary(t, F64X2, |i, a, b| i.fadd(a, b)),
        Operator::F32x4Sub => binary(t, F32X4, |i, a, b| i.fsub(a, b)),
        Operator::F64x2Sub => binary(t, F64X2, |i, a, b| i.fsub(a, b)),
        Operator::F32x4Mul => binary(t, F32X4, |i, a, b| i.fmul(a, b)),
        Operator::F64x2Mul => binary(t, F64X2, |i, a, b| i.fmul(a, b)),
        Operator::F32x4Div => binary(t, F32X4, |i, a, b| i.fdiv(a, b)),
        Operator::F64x2Div => binary(t, F64X2, |i, a, b| i.fdiv(a, b)),
        Operator::F32x4Min => binary(t, F32X4, |i, a, b| i.fmin(a, b)),
        Operator::F64x2Min => binary(t, F64X2, |i, a, b| i.fmin(a, b)),
        Operator::F32x4Max => binary(t, F32X4, |i, a, b| i.fmax(a, b)),
        Operator::F64x2Max => binary(t, F64X2, |i, a, b| i.fmax(a, b)),
        Operator::F32x4PMin => pseudo_min(t, F32X4),
        Operator::F64x2PMin => pseudo_min(t, F64X2),
        Operator::F32x4PMax => pseudo_max(t, F32X4),
        Operator::F64x2PMax => pseudo_max(t, F64X2),
        _ => return false,
    }
    true
}

/// `b < a ? b : a`, which is x86's `minps`/`minpd` to the code generator.
pub(super) fn pseudo_min(t: &mut FuncTranslator<'_>, ty: Type) {
    let (a, b) = pop2(t, ty);
    choose(t, ty, (b, a), (b, a));
}

/// `a < b ? b : a`, which is x86's `maxps`/`maxpd` to the code generator.
pub(super) fn pseudo_max(t: &mut FuncTranslator<'_>, ty: Type) {
    let (a, b) = pop2(t, ty);
    choose(t, ty, (a, b), (b, a));
}

/// Pushes, lane by lane, `less < than ? then : otherwise`.
fn choose(t: &mut FuncTranslator<'_>, ty: Type, (less, than): (Value, Value), (then, otherwise): (Value, Value)) {
    let mask = t.builder.ins().fcmp(FloatCC::LessThan, less, than);
    let mask = t.cast_vector(mask, ty);
    let value = t.builder.ins().bitselect(mask, then, otherwise);
    t.push(value);
}

fn round(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    match *op {
        Operator::F32x4Ceil => rounding(t, F32X4, Builtin::CeilF32, |i, a| i.ceil(a))?,
        Operator::F32x4Floor => rounding(t, F32X4, Builtin::FloorF32, |i, a| i.floor(a))?,
        Operator::F32x4Trunc => rounding(t, F32X4, Builtin::TruncF32, |i, a| i.trunc(a))?,
        Operator::F32x4Nearest => rounding(t, F32X4, Builtin::NearestF32, |i, a| i.nearest(a))?,
        Operator::F64x2Ceil => rounding(t, F64X2, Builtin::CeilF64, |i, a| i.ceil(a))?,
        Operator::F64x2Floor => rounding(t, F64X2, Builtin::FloorF64, |i, a| i.floor(a))?,
        Operator::F64x2Trunc => rounding(t, F64X2, Builtin::TruncF64, |i, a| i.trunc(a))?,
        Operator::F64x2Nearest => rounding(t, F64X2, Builtin::NearestF64, |i, a| i.nearest(a))?,
        _ => return Ok(false),
    }
    Ok(true)
}

/// One instruction with SSE4.1, else a call per lane.
fn rounding(
    t: &mut FuncTranslator<'_>,
    ty: Type,
    scalar: Builtin,
    vector: impl FnOnce(FuncInstBuilder<'_, '_>, Value) -> Value,
) -> Translated {
    if t.env.cpu.sse41 {
        unary(t, ty, vector);
        return Ok(());
    }
    let operand = t.pop_vector(ty);
    let mut result = operand;
    for lane in 0..ty.lane_count() as u8 {
        let value = t.builder.ins().extractlane(operand, lane);
        let value = t.call_builtin_value(scalar, &[value])?;
        result = t.builder.ins().insertlane(result, value, lane);
    }
    t.push(result);
    Ok(())
}
