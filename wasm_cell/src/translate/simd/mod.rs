//! Vector instructions (SIMD and relaxed SIMD).
//!
//! A `v128` on the operand stack has whatever 128-bit type the instruction that made it gave it; each instruction
//! views its operands as the type it needs, for which no code is made. The families are one file each.
//!
//! The baseline x86-64 processor has SSE2 only. Where the code generator would call a library function without a
//! later extension, the code here takes another way ([`bytes`], [`float`]'s rounding): a cell has no library to call.

mod bytes;
mod convert;
mod float;
mod integer;
mod lanes;
mod memory;
mod relaxed;

use super::{FuncTranslator, Translated};
use cranelift_codegen::ir::{Type, Value};
use cranelift_frontend::FuncInstBuilder;
use wasmparser::Operator;

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    Ok(memory::translate(t, op)
        || lanes::translate(t, op)
        || integer::translate(t, op)
        || convert::translate(t, op)
        || relaxed::translate(t, op)
        || float::translate(t, op)?)
}

/// One vector operand, viewed as `ty`; one result.
fn unary(t: &mut FuncTranslator<'_>, ty: Type, f: impl FnOnce(FuncInstBuilder<'_, '_>, Value) -> Value) {
    let a = t.pop_vector(ty);
    let result = f(t.builder.ins(), a);
    t.push(result);
}

/// Two vector operands, viewed as `ty`; one result.
fn binary(t: &mut FuncTranslator<'_>, ty: Type, f: impl FnOnce(FuncInstBuilder<'_, '_>, Value, Value) -> Value) {
    let (a, b) = pop2(t, ty);
    let result = f(t.builder.ins(), a, b);
    t.push(result);
}

/// Pops two vectors, viewed as `ty`; the second of the pair was on top.
fn pop2(t: &mut FuncTranslator<'_>, ty: Type) -> (Value, Value) {
    let b = t.pop_vector(ty);
    (t.pop_vector(ty), b)
}

/// Pops three vectors, viewed as `ty`; the last of the triple was on top.
fn pop3(t: &mut FuncTranslator<'_>, ty: Type) -> (Value, Value, Value) {
    let c = t.pop_vector(ty);
    let (a, b) = pop2(t, ty);
    (a, b, c)
}
