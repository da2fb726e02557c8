//! Constant expressions: initial values of globals and tables, offsets of segments, elements (core spec, 3.3.10).
#![deny(unsafe_code)]

use alloc::vec::Vec;
use wasm_cell::metadata::{ConstExpr, ConstOp};

/// What an expression may refer to.
pub(crate) trait ConstContext {
    /// Bits of a global's value.
    fn global(&self, index: u32) -> Option<u128>;
    /// Address of a function.
    fn func(&self, index: u32) -> Option<usize>;
}

/// The value's bits, zero-extended; `None` when the expression is not well-formed, which validation excludes.
pub(crate) fn eval(expr: &ConstExpr, context: &impl ConstContext) -> Option<u128> {
    if let [op] = &*expr.0 {
        return constant(op, context);
    }
    let mut stack: Vec<u128> = Vec::new();
    for op in &expr.0 {
        let value = match constant(op, context) {
            Some(value) => value,
            None => {
                let b = stack.pop()?;
                binary(op, stack.pop()?, b)?
            }
        };
        stack.push(value);
    }
    match stack.as_slice() {
        [value] => Some(*value),
        _ => None,
    }
}

fn constant(op: &ConstOp, context: &impl ConstContext) -> Option<u128> {
    Some(match *op {
        ConstOp::I32Const(v) => (v as u32).into(),
        ConstOp::I64Const(v) => (v as u64).into(),
        ConstOp::F32Const(bits) => bits.into(),
        ConstOp::F64Const(bits) => bits.into(),
        ConstOp::V128Const(bytes) => u128::from_le_bytes(bytes),
        ConstOp::GlobalGet(i) => context.global(i)?,
        ConstOp::RefNull => 0,
        ConstOp::RefFunc(i) => context.func(i)? as u128,
        _ => return None,
    })
}

fn binary(op: &ConstOp, a: u128, b: u128) -> Option<u128> {
    let (a32, b32, a64, b64) = (a as u32, b as u32, a as u64, b as u64);
    Some(match op {
        ConstOp::I32Add => a32.wrapping_add(b32).into(),
        ConstOp::I32Sub => a32.wrapping_sub(b32).into(),
        ConstOp::I32Mul => a32.wrapping_mul(b32).into(),
        ConstOp::I64Add => a64.wrapping_add(b64).into(),
        ConstOp::I64Sub => a64.wrapping_sub(b64).into(),
        ConstOp::I64Mul => a64.wrapping_mul(b64).into(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct None_;
    impl ConstContext for None_ {
        fn global(&self, index: u32) -> Option<u128> {
            (index == 3).then_some(u32::MAX.into())
        }
        fn func(&self, _: u32) -> Option<usize> {
            None
        }
    }

    #[test]
    fn extended_expressions_wrap_in_their_width() {
        let expr = ConstExpr([ConstOp::GlobalGet(3), ConstOp::I32Const(2), ConstOp::I32Add].into());
        assert_eq!(eval(&expr, &None_), Some(1));
        let expr = ConstExpr([ConstOp::I64Const(-1), ConstOp::I64Const(3), ConstOp::I64Mul].into());
        assert_eq!(eval(&expr, &None_), Some((-3i64 as u64).into()));
    }

    #[test]
    fn malformed_expressions_have_no_value() {
        for ops in
            [&[][..], &[ConstOp::I32Add], &[ConstOp::I32Const(1), ConstOp::I32Const(1)], &[ConstOp::GlobalGet(0)]]
        {
            assert_eq!(eval(&ConstExpr(ops.into()), &None_), None);
        }
    }
}
