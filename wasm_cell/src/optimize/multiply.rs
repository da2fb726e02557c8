//! Multiplications by 3, 5 and 9: one address computation instead of a multiplication of three cycles.

use super::pattern::{binary, constant};
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{Function, Inst, InstBuilder, Opcode, types};

/// `products`: the function's multiplications.
pub(super) fn run(func: &mut Function, products: &[Inst]) {
    for inst in products {
        let result = func.dfg.first_result(*inst);
        let Some((Opcode::Imul, [a, b])) = binary(func, result) else { continue };
        let (factor, by) = match (constant(func, a), constant(func, b)) {
            (_, Some(by)) => (a, by),
            (Some(by), _) => (b, by),
            _ => continue,
        };
        if !matches!(func.dfg.value_type(result), types::I32 | types::I64) || !matches!(by, 3 | 5 | 9) {
            continue;
        }
        let mut cursor = FuncCursor::new(func).at_inst(*inst);
        cursor.use_srcloc(*inst);
        let shifted = cursor.ins().ishl_imm_u(factor, i64::from(by.ilog2()));
        cursor.func.replace(*inst).iadd(factor, shifted);
    }
}
