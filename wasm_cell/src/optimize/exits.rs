//! What a loop's exits lead to stands behind the loop.
//!
//! The back end puts what the second arm of a branch leads to in front of what the first one leads to. If the first stays in the loop and the second
//! leaves it, all that comes after the loop would lie in its middle: each round would jump across, and the register allocator, which takes
//! things in that order, would keep in registers what only the code in between needs. So such arms change places.

use alloc::vec::Vec;
use cranelift_codegen::Context;
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::{Function, Inst, InstBuilder, InstructionData, Value};

/// Loops have been looked for. The order of blocks is another afterwards.
pub(super) fn run(context: &mut Context) {
    let branches = branches(context);
    for branch in &branches {
        turn(&mut context.func, *branch);
    }
    if !branches.is_empty() {
        context.compute_domtree();
    }
}

/// Branches whose first arm stays in their innermost loop, other than to go on to its start, and whose second leaves it.
fn branches(context: &Context) -> Vec<Inst> {
    let Context { func, loop_analysis, .. } = context;
    let leaves = |branch: &Inst| {
        let InstructionData::Brif { blocks, .. } = &func.dfg.insts[*branch] else { return false };
        let [stays, leaves] = blocks.map(|call| call.block(&func.dfg.value_lists));
        let innermost = func.layout.inst_block(*branch).and_then(|block| loop_analysis.innermost_loop(block));
        innermost.is_some_and(|l| {
            stays != loop_analysis.loop_header(l)
                && loop_analysis.is_in_loop(stays, l)
                && !loop_analysis.is_in_loop(leaves, l)
        })
    };
    func.layout.blocks().filter_map(|block| func.layout.last_inst(block)).filter(leaves).collect()
}

fn turn(func: &mut Function, branch: Inst) {
    let InstructionData::Brif { arg, .. } = func.dfg.insts[branch] else { return };
    let opposite = opposite(func, branch, arg);
    if let InstructionData::Brif { arg, blocks, .. } = &mut func.dfg.insts[branch] {
        *arg = opposite;
        blocks.swap(0, 1);
    }
}

/// What is true when `condition` is not, made in front of `branch`.
fn opposite(func: &mut Function, branch: Inst, condition: Value) -> Value {
    let made_by = func.dfg.value_def(condition).inst().map(|inst| func.dfg.insts[inst]);
    let mut cursor = FuncCursor::new(func).at_inst(branch);
    cursor.use_srcloc(branch);
    match made_by {
        Some(InstructionData::IntCompare { cond, args: [a, b], .. }) => cursor.ins().icmp(cond.complement(), a, b),
        Some(InstructionData::FloatCompare { cond, args: [a, b], .. }) => cursor.ins().fcmp(cond.complement(), a, b),
        _ => cursor.ins().icmp_imm_u(IntCC::Equal, condition, 0),
    }
}
