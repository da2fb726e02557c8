//! References: null, `ref.func`, null checks.

use super::{FuncTranslator, Translated, unsupported};
use crate::trap::TrapCode;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use wasmparser::Operator;

impl FuncTranslator<'_> {
    /// Traps unless the reference is non-null.
    pub(super) fn check_non_null(&mut self, reference: Value, code: TrapCode) {
        let is_null = self.builder.ins().icmp_imm_u(IntCC::Equal, reference, 0);
        self.trap_if(is_null, code);
    }
}

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    match op {
        Operator::RefNull { .. } => {
            let null = t.builder.ins().iconst(types::I64, 0);
            t.push(null);
        }
        Operator::RefIsNull => {
            let reference = t.pop();
            let is_null = t.builder.ins().icmp_imm_u(IntCC::Equal, reference, 0);
            t.push_bool(is_null);
        }
        Operator::RefFunc { function_index } => {
            let Some(slot) = t.env.escaped_slot(*function_index) else { return unsupported(op) };
            let reference = t.load_constant_word(slot);
            t.push(reference);
        }
        Operator::RefAsNonNull => {
            let reference = t.pop();
            t.check_non_null(reference, TrapCode::NullReference);
            t.push(reference);
        }
        _ => return Ok(false),
    }
    Ok(true)
}
