//! What instruction made a value.

use cranelift_codegen::ir::{Function, Inst, InstructionData, Opcode, Value, ValueDef, types};

/// The instruction whose only or first result `value` is.
pub(super) fn instruction(func: &Function, value: Value) -> Option<Inst> {
    match func.dfg.value_def(value) {
        ValueDef::Result(inst, 0) => Some(inst),
        _ => None,
    }
}

/// The bits of an integer constant of at most 32 bits, zero-extended.
pub(super) fn constant(func: &Function, value: Value) -> Option<u32> {
    let bits = match func.dfg.insts[instruction(func, value)?] {
        InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => imm.bits(),
        _ => return None,
    };
    match func.dfg.value_type(value) {
        types::I8 => Some(u32::from(bits as u8)),
        types::I16 => Some(u32::from(bits as u16)),
        types::I32 => Some(bits as u32),
        // Amounts of shifts.
        _ => u32::try_from(bits).ok(),
    }
}

/// Opcode and operands of a binary operation.
pub(super) fn binary(func: &Function, value: Value) -> Option<(Opcode, [Value; 2])> {
    match func.dfg.insts[instruction(func, value)?] {
        InstructionData::Binary { opcode, args } => Some((opcode, args)),
        _ => None,
    }
}

/// Opcode and operand of a unary operation.
pub(super) fn unary(func: &Function, value: Value) -> Option<(Opcode, Value)> {
    match func.dfg.insts[instruction(func, value)?] {
        InstructionData::Unary { opcode, arg } => Some((opcode, arg)),
        _ => None,
    }
}

/// A sum of an `i32` and a constant, modulo 2^32.
pub(super) fn plus_constant(func: &Function, value: Value) -> Option<(Value, u32)> {
    if func.dfg.value_type(value) != types::I32 {
        return None;
    }
    match binary(func, value)? {
        (Opcode::Iadd, [a, b]) => match constant(func, b) {
            Some(c) => Some((a, c)),
            None => Some((b, constant(func, a)?)),
        },
        (Opcode::Isub, [a, b]) => Some((a, constant(func, b)?.wrapping_neg())),
        _ => None,
    }
}

/// An `i32` extended to 64 bits with zeros.
pub(super) fn extended(func: &Function, value: Value) -> Option<Value> {
    let (opcode, arg) = unary(func, value)?;
    let widens = func.dfg.value_type(value) == types::I64 && func.dfg.value_type(arg) == types::I32;
    (opcode == Opcode::Uextend && widens).then_some(arg)
}
