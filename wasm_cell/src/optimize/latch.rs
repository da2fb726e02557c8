//! Comparisons at the end of loops.
//!
//! `i != C - k` and `i + k != C` are the same. Cranelift's optimiser prefers the first form, which keeps `i` alive until after
//! `i + k` has been computed: the two need two registers, and the way back to the start of the loop gets moves and a jump of its
//! own. The second form does without.

use super::pattern::{constant, plus_constant};
use super::{Edge, Edges, argument, arguments};
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{Block, Function, InstBuilder, InstructionData, Value, ValueDef, types};

/// Makes the comparisons look at the next value.
pub(super) fn compare_next(func: &mut Function, edges: &Edges, domtree: &DominatorTree) {
    each(func, edges, domtree, |func, header, back| {
        let Some((cond, value, with)) = condition(func, back) else { return };
        let (variable, distance) = distance_from_variable(func, value);
        let Some((next, step)) = next_of(func, header, back, variable) else { return };
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
    });
}

/// Computes the next value last, where nothing else needs it.
pub(super) fn sink_next(func: &mut Function, edges: &Edges, domtree: &DominatorTree) {
    each(func, edges, domtree, |func, _, back| {
        let Some((_, value, _)) = condition(func, back) else { return };
        if arguments(func, back).any(|next| next == Some(value)) {
            sink(func, value, back);
        }
    });
}

/// Calls `change` for every loop's header and the first way back to it.
fn each(
    func: &mut Function,
    edges: &Edges,
    domtree: &DominatorTree,
    mut change: impl FnMut(&mut Function, Block, Edge),
) {
    let mut block = func.layout.entry_block();
    while let Some(header) = block {
        let back = edges.into(header).find(|e| domtree.block_dominates(header, e.from));
        if let Some(back) = back {
            change(func, header, back);
        }
        block = func.layout.next_block(header);
    }
}

/// What a branch compares for equality: an `i32` with a constant.
fn condition(func: &Function, back: Edge) -> Option<(IntCC, Value, u32)> {
    let InstructionData::Brif { arg: condition, .. } = func.dfg.insts[back.branch] else { return None };
    let (cond, value, with) = match func.dfg.value_def(condition) {
        ValueDef::Result(inst, _) => match func.dfg.insts[inst] {
            InstructionData::IntCompare { cond, args: [value, with], .. } => (cond, value, constant(func, with)?),
            _ => (IntCC::NotEqual, condition, 0),
        },
        _ => (IntCC::NotEqual, condition, 0),
    };
    let is_equality = matches!(cond, IntCC::Equal | IntCC::NotEqual);
    (is_equality && func.dfg.value_type(value) == types::I32).then_some((cond, value, with))
}

/// The value to which constants were added, and their sum.
fn distance_from_variable(func: &Function, value: Value) -> (Value, u32) {
    let (mut variable, mut distance) = (value, 0u32);
    while let Some((of, by)) = plus_constant(func, variable) {
        (variable, distance) = (of, distance.wrapping_add(by));
    }
    (variable, distance)
}

/// What a variable, a parameter of the header, is the next time around, and how much more that is.
fn next_of(func: &Function, header: Block, back: Edge, variable: Value) -> Option<(Value, u32)> {
    let position = func.dfg.block_params(header).iter().position(|p| *p == variable)?;
    let next = argument(func, back, position)?;
    plus_constant(func, next).filter(|(of, _)| *of == variable).map(|(_, step)| (next, step))
}

/// Moves the computation of `value` to the end of the block if nothing in between needs it, so that the old value is dead when the
/// new one is made.
fn sink(func: &mut Function, value: Value, back: Edge) {
    let (ValueDef::Result(inst, _), Some(_)) = (func.dfg.value_def(value), plus_constant(func, value)) else { return };
    let InstructionData::Brif { arg: condition, .. } = func.dfg.insts[back.branch] else { return };
    let compare = match func.dfg.value_def(condition) {
        ValueDef::Result(compare, _) => compare,
        _ => back.branch,
    };
    let before = if func.layout.prev_inst(back.branch) == Some(compare) { compare } else { back.branch };
    if func.layout.inst_block(inst) != Some(back.from) || inst == before {
        return;
    }
    let mut next = func.layout.next_inst(inst);
    while let Some(between) = next.filter(|i| *i != before) {
        if func.dfg.inst_values(between).any(|v| v == value) {
            return;
        }
        next = func.layout.next_inst(between);
    }
    func.layout.remove_inst(inst);
    func.layout.insert_inst(inst, before);
}
