//! Wide arithmetic: 128-bit sums, differences and products of pairs of `i64`.

use super::{FuncTranslator, Translated};
use cranelift_codegen::ir::types::I128;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::FuncInstBuilder;
use wasmparser::Operator;

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    match *op {
        Operator::I64Add128 => add_or_sub(t, |i, a, b| i.iadd(a, b)),
        Operator::I64Sub128 => add_or_sub(t, |i, a, b| i.isub(a, b)),
        // The code generator knows the product of widened operands as one multiplication.
        Operator::I64MulWideS => multiply(t, |i, a| i.sextend(I128, a)),
        Operator::I64MulWideU => multiply(t, |i, a| i.uextend(I128, a)),
        _ => return Ok(false),
    }
    Ok(true)
}

fn add_or_sub(t: &mut FuncTranslator<'_>, f: impl FnOnce(FuncInstBuilder<'_, '_>, Value, Value) -> Value) {
    let b = pop_wide(t);
    let a = pop_wide(t);
    let result = f(t.builder.ins(), a, b);
    push_wide(t, result);
}

fn multiply(t: &mut FuncTranslator<'_>, widen: impl Fn(FuncInstBuilder<'_, '_>, Value) -> Value) {
    let (a, b) = t.pop2();
    let a = widen(t.builder.ins(), a);
    let b = widen(t.builder.ins(), b);
    let result = t.builder.ins().imul(a, b);
    push_wide(t, result);
}

/// Pops a low and a high half; the high half is on top.
fn pop_wide(t: &mut FuncTranslator<'_>) -> Value {
    let (low, high) = t.pop2();
    t.builder.ins().iconcat(low, high)
}

fn push_wide(t: &mut FuncTranslator<'_>, value: Value) {
    let (low, high) = t.builder.ins().isplit(value);
    t.push(low);
    t.push(high);
}
