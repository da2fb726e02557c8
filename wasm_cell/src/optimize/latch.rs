//! Comparisons at the end of loops.
//!
//! `i != C - k` and `i + k != C` are the same. Cranelift's optimiser prefers the first form, which keeps `i` alive until after
//! `i + k` has been computed: the two need two registers, and the way back to the start of the loop gets moves and a jump of its
//! own. The second form does without.

use super::pattern::{constant, plus_constant};
use super::{Edge, argument, edges};
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::flowgraph::ControlFlowGraph;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, Function, Inst, InstBuilder, InstructionData, Value, ValueDef, types};

pub(super) fn run(func: &mut Function, cfg: &ControlFlowGraph, domtree: &DominatorTree) {
    let mut block = func.layout.entry_block();
    while let Some(header) = block {
        let back = edges(func, cfg, header).find(|e| domtree.block_dominates(header, e.from));
        if let Some(back) = back {
            compare_next(func, header, back);
        }
        block = func.layout.next_block(header);
    }
}

fn compare_next(func: &mut Function, header: Block, back: Edge) {
    let InstructionData::Brif { arg: condition, .. } = func.dfg.insts[back.branch] else { return };
    let ValueDef::Result(compare, _) = func.dfg.value_def(condition) else { return };
    let InstructionData::IntCompare { cond, args: [value, with], .. } = func.dfg.insts[compare] else { return };
    let Some(with) = constant(func, with) else { return };
    if !matches!(cond, IntCC::Equal | IntCC::NotEqual) || func.dfg.value_type(value) != types::I32 {
        return;
    }
    let (variable, distance) = plus_constant(func, value).unwrap_or((value, 0));
    let Some(next) = next_of(func, header, back, variable) else { return };
    let Some((_, step)) = plus_constant(func, next) else { return };
    if next == value {
        return;
    }
    let mut cursor = FuncCursor::new(func).at_inst(back.branch);
    cursor.use_srcloc(back.branch);
    let with = i64::from(with.wrapping_sub(distance).wrapping_add(step));
    let condition = cursor.ins().icmp_imm_u(cond, next, with);
    if let InstructionData::Brif { arg, .. } = &mut cursor.func.dfg.insts[back.branch] {
        *arg = condition;
    }
    sink(func, next, back);
}

/// What `variable`, a parameter of the header or a form of one, is the next time around.
fn next_of(func: &Function, header: Block, back: Edge, variable: Value) -> Option<Value> {
    let position = |v: Value| func.dfg.block_params(header).iter().position(|p| *p == v);
    let next = argument(func, back, position(variable)?)?;
    matches!(plus_constant(func, next), Some((v, _)) if v == variable).then_some(next)
}

/// Moves the computation of `value` to the end of the block if nothing in between needs it, so that the old value is dead when the
/// new one is made.
fn sink(func: &mut Function, value: Value, back: Edge) {
    let ValueDef::Result(inst, _) = func.dfg.value_def(value) else { return };
    if func.layout.inst_block(inst) != Some(back.from) {
        return;
    }
    let Some(compare) = func.layout.prev_inst(back.branch) else { return };
    let mut next = func.layout.next_inst(inst);
    while let Some(between) = next.filter(|i| *i != compare && *i != back.branch) {
        if uses(func, between, value) {
            return;
        }
        next = func.layout.next_inst(between);
    }
    // The comparison's constant may stand between; it is no obstacle.
    func.layout.remove_inst(inst);
    func.layout.insert_inst(inst, compare);
}

fn uses(func: &Function, inst: Inst, value: Value) -> bool {
    func.dfg.inst_values(inst).any(|v| v == value)
}
