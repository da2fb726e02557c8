//! Idioms: instructions of wasm that say together what one instruction does.
//!
//! Wasm has no instruction for the lesser of two integers, and old wasm none that extends a byte with its sign. And a compiler that keeps values in
//! locals from block to block forgets what it knew of them: it masks a byte that its load has extended already. The back end sees nothing of this,
//! and the passes before it look at loops; here it costs a glance at what an operand was made by.

use super::FuncTranslator;
use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::{InstBuilder, InstructionData, Opcode, Type, Value, types};

/// Which of two integers.
enum Order {
    Lesser,
    Greater,
    SignedLesser,
    SignedGreater,
}

impl FuncTranslator<'_> {
    /// A mask that keeps everything that was loaded goes.
    pub(super) fn and(&mut self) {
        let (a, b) = self.pop2();
        let result = match (self.loaded_bits(a), self.integer(b)) {
            (Some(bits), Some(mask)) if bits & !mask == 0 => a,
            _ => self.builder.ins().band(a, b),
        };
        self.push(result);
    }

    /// The bits that may be set in a value that comes from a narrow load.
    fn loaded_bits(&self, value: Value) -> Option<i64> {
        match self.made_by(value)?.opcode() {
            Opcode::Uload8 => Some(u8::MAX.into()),
            Opcode::Uload16 => Some(u16::MAX.into()),
            Opcode::Uload32 => Some(u32::MAX.into()),
            _ => None,
        }
    }

    /// A shift to the right that takes back one to the left extends the lower bits with their sign.
    pub(super) fn shift_right_signed(&mut self) {
        let (a, b) = self.pop2();
        let result = match self.lower_bits(a, b) {
            Some((of, narrow)) => {
                let ty = self.type_of(a);
                let lower = self.builder.ins().ireduce(narrow, of);
                self.builder.ins().sextend(ty, lower)
            }
            None => self.builder.ins().sshr(a, b),
        };
        self.push(result);
    }

    /// What was shifted to the left by `amount`, and the type of the bits that are left of it.
    fn lower_bits(&self, shifted: Value, amount: Value) -> Option<(Value, Type)> {
        let amount = self.integer(amount)?;
        let narrow = match i64::from(self.type_of(shifted).bits()) - amount {
            8 => types::I8,
            16 => types::I16,
            32 if amount != 0 => types::I32,
            _ => return None,
        };
        match self.made_by(shifted)? {
            InstructionData::Binary { opcode: Opcode::Ishl, args: [of, by] } if self.integer(by) == Some(amount) => {
                Some((of, narrow))
            }
            _ => None,
        }
    }

    /// A choice between what was compared is the lesser or the greater of both.
    pub(super) fn select(&mut self) {
        let (a, b, truth) = self.pop3();
        let condition = self.condition_of(truth);
        // One of 8 bits was made for this choice alone.
        let is_alone = self.type_of(truth) == types::I8;
        if let Some(order) = self.order(condition, a, b) {
            if is_alone {
                self.remove_last(condition);
            }
            let ins = self.builder.ins();
            let result = match order {
                Order::SignedLesser => ins.smin(a, b),
                Order::SignedGreater => ins.smax(a, b),
                Order::Lesser => ins.umin(a, b),
                Order::Greater => ins.umax(a, b),
            };
            self.push(result);
            return;
        }
        let condition = self.of_summand(condition, is_alone);
        let (a, b) = (self.canonical(a), self.canonical(b));
        let result = self.builder.ins().select(condition, a, b);
        self.push(result);
    }

    /// Which of `a` and `b` is chosen if `condition` says which: when one of them is computed here, perhaps from a load, which can be part of that
    /// only if the comparison does not need it too. A constant, though, can be part of the comparison.
    fn order(&self, condition: Value, a: Value, b: Value) -> Option<Order> {
        let Some(InstructionData::IntCompare { cond, args, .. }) = self.made_by(condition) else { return None };
        let [x, y, a, b] = [args[0], args[1], a, b].map(|v| self.builder.func.dfg.resolve_aliases(v));
        let cond = match () {
            () if (a, b) == (x, y) => cond,
            () if (b, a) == (x, y) => cond.swap_args(),
            () => return None,
        };
        let is_computed = |v| matches!(self.made_by(v), Some(InstructionData::Binary { .. }));
        if self.integer(a).or(self.integer(b)).is_some() || !(is_computed(a) || is_computed(b)) {
            return None;
        }
        match cond {
            IntCC::SignedLessThan | IntCC::SignedLessThanOrEqual => Some(Order::SignedLesser),
            IntCC::SignedGreaterThan | IntCC::SignedGreaterThanOrEqual => Some(Order::SignedGreater),
            IntCC::UnsignedLessThan | IntCC::UnsignedLessThanOrEqual => Some(Order::Lesser),
            IntCC::UnsignedGreaterThan | IntCC::UnsignedGreaterThanOrEqual => Some(Order::Greater),
            IntCC::Equal | IntCC::NotEqual => None,
        }
    }

    /// Whether a sum with a constant equals a constant is known before it is added up. `is_alone`: nothing else has the condition.
    fn of_summand(&mut self, condition: Value, is_alone: bool) -> Value {
        let Some((cond, summand, equals)) = self.summand(condition) else { return condition };
        if is_alone {
            self.remove_last(condition);
        }
        let ty = self.type_of(summand);
        let equals = self.builder.ins().iconst(ty, equals);
        self.builder.ins().icmp(cond, summand, equals)
    }

    fn summand(&self, condition: Value) -> Option<(IntCC, Value, i64)> {
        let Some(InstructionData::IntCompare {
            cond: cond @ (IntCC::Equal | IntCC::NotEqual),
            args: [sum, equals],
            ..
        }) = self.made_by(condition)
        else {
            return None;
        };
        let equals = self.integer(equals)?;
        match self.made_by(sum)? {
            InstructionData::Binary { opcode: Opcode::Iadd, args: [a, b] } => {
                let difference = equals.wrapping_sub(self.integer(b)?);
                let is_narrow = self.type_of(a) == types::I32;
                Some((cond, a, if is_narrow { i64::from(difference as i32) } else { difference }))
            }
            _ => None,
        }
    }

    /// Removes the last instruction if it made this value, which nothing uses: to the back end, what is computed from a load for two instructions
    /// cannot have the load as its operand, even if one of them is of no use.
    fn remove_last(&mut self, value: Value) {
        let last = self.builder.current_block().and_then(|block| self.builder.func.layout.last_inst(block));
        let made_by = self.builder.func.dfg.value_def(value).inst();
        if let Some(inst) = last.filter(|_| last == made_by) {
            self.builder.func.layout.remove_inst(inst);
        }
    }

    /// The instruction that made a value.
    fn made_by(&self, value: Value) -> Option<InstructionData> {
        let dfg = &self.builder.func.dfg;
        dfg.value_def(value).inst().map(|inst| dfg.insts[inst])
    }
}
