//! Scalar arithmetic, comparisons and conversions.
//!
//! Division checks its operands before it divides, so that a trap costs a call to a stub and no CPU exception.
//! Float-to-integer conversion keeps Cranelift's own sequence, whose trap sites are implicit (D8). Rounding needs
//! SSE4.1; without it a builtin does it, because a library call could not be resolved inside the cell.

use super::{FuncTranslator, Translated};
use crate::builtin::Builtin;
use cranelift_codegen::ir::condcodes::{CondCode, FloatCC, IntCC};
use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use cranelift_codegen::ir::{Endianness, InstBuilder, InstructionData, MemFlagsData, Opcode, Type, Value, types};
use wasmparser::Operator;

/// How a float is rounded to an integral value.
#[derive(Clone, Copy)]
pub(super) enum Rounding {
    Ceil,
    Floor,
    Trunc,
    Nearest,
}

impl FuncTranslator<'_> {
    fn compare(&mut self, cc: IntCC) {
        let (a, b) = self.pop2();
        let r = self.builder.ins().icmp(cc, a, b);
        self.push_bool(r);
    }

    fn compare_float(&mut self, cc: FloatCC) {
        let (a, b) = self.pop2();
        let r = self.builder.ins().fcmp(cc, a, b);
        self.push_bool(r);
    }

    fn is_zero(&mut self) {
        let mut a = self.pop();
        if core::mem::take(&mut self.compared) {
            if self.negate(a) {
                self.push_bool(a);
                return;
            }
            a = self.builder.ins().uextend(types::I32, a);
        }
        if let Some(opposite) = self.opposite(a) {
            self.push_bool(opposite);
            return;
        }
        let r = self.builder.ins().icmp_imm_u(IntCC::Equal, a, 0);
        self.push_bool(r);
    }

    /// Makes a comparison of integers, whose result nothing uses yet, its opposite.
    fn negate(&mut self, truth: Value) -> bool {
        let dfg = &mut self.builder.func.dfg;
        match dfg.value_def(truth).inst().map(|inst| &mut dfg.insts[inst]) {
            Some(InstructionData::IntCompare { cond, .. }) => {
                *cond = cond.complement();
                true
            }
            _ => false,
        }
    }

    /// The comparison that is true when `value`, if that is the result of one, is zero.
    fn opposite(&mut self, value: Value) -> Option<Value> {
        let dfg = &self.builder.func.dfg;
        let made_by = |value| dfg.value_def(value).inst().map(|inst| dfg.insts[inst]);
        let Some(InstructionData::Unary { opcode: Opcode::Uextend, arg }) = made_by(value) else { return None };
        match made_by(arg)? {
            InstructionData::IntCompare { cond, args: [a, b], .. } => {
                Some(self.builder.ins().icmp(cond.complement(), a, b))
            }
            _ => None,
        }
    }

    /// Extends an `i32`, or what it was itself extended from, to 64 bits.
    fn extend_signed(&mut self) {
        let value = self.pop();
        let dfg = &self.builder.func.dfg;
        let narrow = match dfg.value_def(value).inst().map(|inst| dfg.insts[inst]) {
            Some(InstructionData::Unary { opcode: Opcode::Sextend, arg }) => arg,
            _ => value,
        };
        let wide = self.builder.ins().sextend(types::I64, narrow);
        self.push(wide);
    }

    /// With all bits set, which is how wasm negates them, it is a negation: that can be part of what follows.
    fn xor(&mut self) {
        let (a, b) = self.pop2();
        let result = match (self.integer(a), self.integer(b)) {
            (_, Some(-1)) => self.builder.ins().bnot(a),
            (Some(-1), _) => self.builder.ins().bnot(b),
            _ => self.builder.ins().bxor(a, b),
        };
        self.push(result);
    }

    fn sign_extend_from(&mut self, narrow: Type) {
        let a = self.pop();
        let ty = self.type_of(a);
        let a = self.builder.ins().ireduce(narrow, a);
        let r = self.builder.ins().sextend(ty, a);
        self.push(r);
    }

    fn reinterpret(&mut self, ty: Type) {
        let a = self.pop();
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        let r = self.builder.ins().bitcast(ty, flags, a);
        self.push(r);
    }

    /// Rounds a scalar float.
    pub(super) fn round(&mut self, value: Value, rounding: Rounding) -> Translated<Value> {
        use Rounding::*;
        if self.env.cpu.sse41 {
            let ins = self.builder.ins();
            return Ok(match rounding {
                Ceil => ins.ceil(value),
                Floor => ins.floor(value),
                Trunc => ins.trunc(value),
                Nearest => ins.nearest(value),
            });
        }
        let builtin = match (rounding, self.type_of(value) == types::F32) {
            (Ceil, true) => Builtin::CeilF32,
            (Floor, true) => Builtin::FloorF32,
            (Trunc, true) => Builtin::TruncF32,
            (Nearest, true) => Builtin::NearestF32,
            (Ceil, false) => Builtin::CeilF64,
            (Floor, false) => Builtin::FloorF64,
            (Trunc, false) => Builtin::TruncF64,
            (Nearest, false) => Builtin::NearestF64,
        };
        self.call_builtin_value(builtin, &[value])
    }

    fn round_top(&mut self, rounding: Rounding) -> Translated {
        let a = self.pop();
        let r = self.round(a, rounding)?;
        self.push(r);
        Ok(())
    }
}

/// `unary!(t.op)`, `unary!(t.op(ty))`: replaces the top operand by `op` of it.
macro_rules! unary {
    ($t:ident . $op:ident) => {{
        let a = $t.pop();
        let r = $t.builder.ins().$op(a);
        $t.push(r);
    }};
    ($t:ident . $op:ident ( $ty:expr )) => {{
        let a = $t.pop();
        let r = $t.builder.ins().$op($ty, a);
        $t.push(r);
    }};
}

/// `binary!(t.op)`: replaces the top two operands by `op` of them.
macro_rules! binary {
    ($t:ident . $op:ident) => {{
        let (a, b) = $t.pop2();
        let r = $t.builder.ins().$op(a, b);
        $t.push(r);
    }};
}

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    use Operator::*;
    match op {
        I32Const { value } => {
            let v = t.builder.ins().iconst(types::I32, i64::from(*value));
            t.push(v);
        }
        I64Const { value } => {
            let v = t.builder.ins().iconst(types::I64, *value);
            t.push(v);
        }
        F32Const { value } => {
            let v = t.builder.ins().f32const(Ieee32::with_bits(value.bits()));
            t.push(v);
        }
        F64Const { value } => {
            let v = t.builder.ins().f64const(Ieee64::with_bits(value.bits()));
            t.push(v);
        }

        I32Eqz | I64Eqz => t.is_zero(),
        I32Eq | I64Eq => t.compare(IntCC::Equal),
        I32Ne | I64Ne => t.compare(IntCC::NotEqual),
        I32LtS | I64LtS => t.compare(IntCC::SignedLessThan),
        I32LtU | I64LtU => t.compare(IntCC::UnsignedLessThan),
        I32GtS | I64GtS => t.compare(IntCC::SignedGreaterThan),
        I32GtU | I64GtU => t.compare(IntCC::UnsignedGreaterThan),
        I32LeS | I64LeS => t.compare(IntCC::SignedLessThanOrEqual),
        I32LeU | I64LeU => t.compare(IntCC::UnsignedLessThanOrEqual),
        I32GeS | I64GeS => t.compare(IntCC::SignedGreaterThanOrEqual),
        I32GeU | I64GeU => t.compare(IntCC::UnsignedGreaterThanOrEqual),
        F32Eq | F64Eq => t.compare_float(FloatCC::Equal),
        F32Ne | F64Ne => t.compare_float(FloatCC::NotEqual),
        F32Lt | F64Lt => t.compare_float(FloatCC::LessThan),
        F32Gt | F64Gt => t.compare_float(FloatCC::GreaterThan),
        F32Le | F64Le => t.compare_float(FloatCC::LessThanOrEqual),
        F32Ge | F64Ge => t.compare_float(FloatCC::GreaterThanOrEqual),

        I32Clz | I64Clz => unary!(t.clz),
        I32Ctz | I64Ctz => unary!(t.ctz),
        I32Popcnt | I64Popcnt => unary!(t.popcnt),
        I32Add | I64Add => binary!(t.iadd),
        I32Sub | I64Sub => binary!(t.isub),
        I32Mul | I64Mul => binary!(t.imul),
        I32DivS | I64DivS => t.div_s(),
        I32DivU | I64DivU => t.div_u(),
        I32RemS | I64RemS => t.rem_s(),
        I32RemU | I64RemU => t.rem_u(),
        I32And | I64And => t.and(),
        I32Or | I64Or => binary!(t.bor),
        I32Xor | I64Xor => t.xor(),
        I32Shl | I64Shl => binary!(t.ishl),
        I32ShrS | I64ShrS => t.shift_right_signed(),
        I32ShrU | I64ShrU => binary!(t.ushr),
        I32Rotl | I64Rotl => binary!(t.rotl),
        I32Rotr | I64Rotr => binary!(t.rotr),

        F32Abs | F64Abs => unary!(t.fabs),
        F32Neg | F64Neg => unary!(t.fneg),
        F32Ceil | F64Ceil => t.round_top(Rounding::Ceil)?,
        F32Floor | F64Floor => t.round_top(Rounding::Floor)?,
        F32Trunc | F64Trunc => t.round_top(Rounding::Trunc)?,
        F32Nearest | F64Nearest => t.round_top(Rounding::Nearest)?,
        F32Sqrt | F64Sqrt => unary!(t.sqrt),
        F32Add | F64Add => binary!(t.fadd),
        F32Sub | F64Sub => binary!(t.fsub),
        F32Mul | F64Mul => binary!(t.fmul),
        F32Div | F64Div => binary!(t.fdiv),
        F32Min | F64Min => binary!(t.fmin),
        F32Max | F64Max => binary!(t.fmax),
        F32Copysign | F64Copysign => binary!(t.fcopysign),

        I32WrapI64 => unary!(t.ireduce(types::I32)),
        I64ExtendI32S => t.extend_signed(),
        I64ExtendI32U => unary!(t.uextend(types::I64)),
        I32Extend8S | I64Extend8S => t.sign_extend_from(types::I8),
        I32Extend16S | I64Extend16S => t.sign_extend_from(types::I16),
        I64Extend32S => t.sign_extend_from(types::I32),
        I32TruncF32S | I32TruncF64S => unary!(t.fcvt_to_sint(types::I32)),
        I32TruncF32U | I32TruncF64U => unary!(t.fcvt_to_uint(types::I32)),
        I64TruncF32S | I64TruncF64S => unary!(t.fcvt_to_sint(types::I64)),
        I64TruncF32U | I64TruncF64U => unary!(t.fcvt_to_uint(types::I64)),
        I32TruncSatF32S | I32TruncSatF64S => unary!(t.fcvt_to_sint_sat(types::I32)),
        I32TruncSatF32U | I32TruncSatF64U => unary!(t.fcvt_to_uint_sat(types::I32)),
        I64TruncSatF32S | I64TruncSatF64S => unary!(t.fcvt_to_sint_sat(types::I64)),
        I64TruncSatF32U | I64TruncSatF64U => unary!(t.fcvt_to_uint_sat(types::I64)),
        F32ConvertI32S | F32ConvertI64S => unary!(t.fcvt_from_sint(types::F32)),
        F32ConvertI32U | F32ConvertI64U => unary!(t.fcvt_from_uint(types::F32)),
        F64ConvertI32S | F64ConvertI64S => unary!(t.fcvt_from_sint(types::F64)),
        F64ConvertI32U | F64ConvertI64U => unary!(t.fcvt_from_uint(types::F64)),
        F32DemoteF64 => unary!(t.fdemote(types::F32)),
        F64PromoteF32 => unary!(t.fpromote(types::F64)),
        I32ReinterpretF32 => t.reinterpret(types::I32),
        I64ReinterpretF64 => t.reinterpret(types::I64),
        F32ReinterpretI32 => t.reinterpret(types::F32),
        F64ReinterpretI64 => t.reinterpret(types::F64),
        _ => return Ok(false),
    }
    Ok(true)
}
