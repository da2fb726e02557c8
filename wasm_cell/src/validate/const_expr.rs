//! Types of constant expressions (core spec, 3.4.16): one pass with a stack of types.

use super::{Check, ensure};
use crate::metadata::{ConstExpr, ConstOp, Metadata};
use crate::types::{HeapType, RefType, ValType};
use alloc::{format, string::ToString, vec::Vec};

/// What an expression has left on the stack.
#[derive(Clone, Copy)]
enum Value {
    Of(ValType),
    /// `ref.null`: a value of every nullable type.
    Null,
}

/// Checks that `expr` yields one value of type `expected` and refers only to functions that have an entry and
/// to immutable globals with an index below `globals`.
pub(super) fn check(m: &Metadata, expr: &ConstExpr, expected: &ValType, globals: usize) -> Check {
    let mut stack = Vec::new();
    for op in &expr.0 {
        let value = match *op {
            ConstOp::I32Const(_) => Value::Of(ValType::I32),
            ConstOp::I64Const(_) => Value::Of(ValType::I64),
            ConstOp::F32Const(_) => Value::Of(ValType::F32),
            ConstOp::F64Const(_) => Value::Of(ValType::F64),
            ConstOp::V128Const(_) => Value::Of(ValType::V128),
            ConstOp::GlobalGet(g) => {
                let global = m.globals.get(g as usize).filter(|global| (g as usize) < globals && !global.ty.mutable);
                let global = global.ok_or_else(|| format!("global {g} cannot be used in a constant expression"))?;
                Value::Of(global.ty.content)
            }
            ConstOp::RefNull => Value::Null,
            ConstOp::RefFunc(f) => Value::Of(ValType::Ref(func_ref(m, f)?)),
            ConstOp::I32Add | ConstOp::I32Sub | ConstOp::I32Mul => binary(&mut stack, ValType::I32)?,
            ConstOp::I64Add | ConstOp::I64Sub | ConstOp::I64Mul => binary(&mut stack, ValType::I64)?,
        };
        stack.push(value);
    }
    let sound = match (stack.as_slice(), expected) {
        ([Value::Null], ValType::Ref(r)) => r.nullable,
        ([Value::Of(found)], expected) => found.is_subtype_of(expected),
        _ => false,
    };
    ensure(sound, || format!("the constant expression does not yield one {expected}"))
}

/// Takes two operands of type `ty` and yields one.
fn binary(stack: &mut Vec<Value>, ty: ValType) -> Check<Value> {
    let operands = (stack.pop(), stack.pop());
    match operands {
        (Some(Value::Of(a)), Some(Value::Of(b))) if a == ty && b == ty => Ok(Value::Of(ty)),
        _ => Err("a constant expression lacks operands".to_string()),
    }
}

/// Type of a reference to function `f`, which must have a stable entry.
pub(super) fn func_ref(m: &Metadata, f: u32) -> Check<RefType> {
    match (m.escaped_funcs.binary_search(&f), m.func_type(f)) {
        (Ok(_), Some(ty)) => Ok(RefType { nullable: false, heap: HeapType::Concrete(ty.hash) }),
        _ => Err(format!("function {f} has no entry to refer to")),
    }
}

/// Whether a reference of type `found` may be an element of type `expected`.
pub(super) fn fits_type(found: RefType, expected: &RefType) -> Check {
    ensure(found.is_subtype_of(expected), || format!("{found} is no {expected}"))
}
