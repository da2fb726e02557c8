//! The operand stack, and the types of the values on it.

use super::{FuncTranslator, V128};
use cranelift_codegen::ir::{Endianness, InstBuilder, InstructionData, MemFlagsData, Opcode, Type, Value, types};
use wasmparser::Operator;

impl FuncTranslator<'_> {
    /// Pushes a value.
    pub fn push(&mut self, value: Value) {
        self.scratch.stack.push(value);
    }

    /// Pops a value. The validator has seen to it that there is one.
    pub fn pop(&mut self) -> Value {
        self.scratch.stack.pop().expect("validated: the operand stack holds a value")
    }

    /// Pops two values; the second of the pair was on top.
    pub fn pop2(&mut self) -> (Value, Value) {
        let b = self.pop();
        (self.pop(), b)
    }

    /// Pops three values; the last of the triple was on top.
    pub fn pop3(&mut self) -> (Value, Value, Value) {
        let c = self.pop();
        let (a, b) = self.pop2();
        (a, b, c)
    }

    /// Pushes a truth value, which is wasm's `i32` unless the next instruction only asks whether it is zero.
    pub fn push_bool(&mut self, truth: Value) {
        self.push(truth);
        self.compared = true;
    }

    /// Makes an `i32` of what the last instruction has found, if `op` needs one.
    pub fn settle_comparison(&mut self, op: &Operator<'_>) {
        if matches!(op, Operator::I32Eqz) {
            return;
        }
        self.compared = false;
        let asks =
            matches!(op, Operator::BrIf { .. } | Operator::If { .. } | Operator::Select | Operator::TypedSelect { .. });
        if !asks {
            let truth = self.pop();
            let wide = self.builder.ins().uextend(types::I32, truth);
            self.push(wide);
        }
    }

    /// Pops a truth value: an `i32`, or the comparison that it was made from.
    pub fn pop_condition(&mut self) -> Value {
        let value = self.pop();
        self.condition_of(value)
    }

    /// What a truth value was made from, if that is a comparison: then there need be no `i32` of it.
    pub fn condition_of(&self, value: Value) -> Value {
        let dfg = &self.builder.func.dfg;
        match dfg.value_def(value).inst().map(|inst| dfg.insts[inst]) {
            Some(InstructionData::Unary { opcode: Opcode::Uextend, arg }) if dfg.value_type(arg) == types::I8 => arg,
            _ => value,
        }
    }

    /// Pops a `v128` and views it as `ty`.
    pub fn pop_vector(&mut self, ty: Type) -> Value {
        let value = self.pop();
        self.cast_vector(value, ty)
    }

    /// A 128-bit vector viewed as another vector type. No instruction is made for it.
    pub fn cast_vector(&mut self, value: Value, ty: Type) -> Value {
        if self.type_of(value) == ty {
            return value;
        }
        let dfg = &self.builder.func.dfg;
        let value = match dfg.value_def(value).inst().map(|inst| dfg.insts[inst]) {
            // A view of a view is one of what both view.
            Some(InstructionData::LoadNoOffset { opcode: Opcode::Bitcast, arg, .. })
                if self.type_of(arg).bits() == 128 =>
            {
                arg
            }
            _ => value,
        };
        if self.type_of(value) == ty {
            return value;
        }
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        self.builder.ins().bitcast(ty, flags, value)
    }

    /// The value with its canonical type: vectors become [`V128`].
    pub fn canonical(&mut self, value: Value) -> Value {
        if self.type_of(value).is_vector() { self.cast_vector(value, V128) } else { value }
    }

    /// The bits of an integer constant, sign-extended.
    pub fn integer(&self, value: Value) -> Option<i64> {
        let dfg = &self.builder.func.dfg;
        match dfg.insts[dfg.value_def(value).inst()?] {
            InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } if self.type_of(value) == types::I32 => {
                Some(i64::from(imm.bits() as i32))
            }
            InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } => Some(imm.bits()),
            _ => None,
        }
    }

    /// Type of a value.
    pub fn type_of(&self, value: Value) -> Type {
        self.builder.func.dfg.value_type(value)
    }
}
