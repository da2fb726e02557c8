//! What is done to a function between Cranelift's optimiser and its back end.
//!
//! Cranelift works on values one by one and has no notion of loop variables. What follows from knowing them is done here:
//!
//! 1. [`ranges`]: between which bounds 32-bit values lie, loop variables included.
//! 2. [`addresses`]: constants that are added to an index without wrapping go into the access; small shifts become scaled indices.
//! 3. [`latch`]: a loop's last comparison looks at the variable's next value, so that the old one is dead by then.
//! 4. [`widen`]: 32-bit values that go around a loop and are used as indices are kept in 64 bits, so that no access extends them.
//! 5. [`multiply`]: multiplications by 3, 5 and 9 are additions.
//!
//! All of these replace pure computations by equal ones. No load, store, call or check is added, removed or moved, so every
//! trap happens where it did.

mod addresses;
mod latch;
mod multiply;
mod pattern;
mod ranges;
mod widen;

use cranelift_codegen::Context;
use cranelift_codegen::flowgraph::ControlFlowGraph;
use cranelift_codegen::ir::{Block, BlockArg, Function, Inst, Value};

/// Changes whenever these passes make other code: code of another version is as good, and not the same.
pub(crate) const VERSION: u32 = 1;

/// Runs the passes on a function that Cranelift has optimised. The back end computes control flow and dominators anew.
pub(crate) fn run(context: &mut Context) {
    let func = &mut context.func;
    func.dfg.resolve_all_aliases();
    let accesses = addresses::plan(func, &context.cfg, &context.domtree);
    addresses::apply(func, accesses);
    latch::run(func, &context.cfg, &context.domtree);
    widen::run(func, &context.cfg);
    multiply::run(func);
    func.dfg.resolve_all_aliases();
}

/// One edge into a block.
#[derive(Clone, Copy)]
struct Edge {
    from: Block,
    branch: Inst,
    /// Position among the destinations of the branch.
    destination: usize,
}

/// The edges into `block`.
fn edges(func: &Function, cfg: &ControlFlowGraph, block: Block) -> impl Iterator<Item = Edge> {
    cfg.pred_iter(block).flat_map(move |pred| {
        let dfg = &func.dfg;
        let destinations = dfg.insts[pred.inst].branch_destination(&dfg.jump_tables, &dfg.exception_tables);
        let here = move |(_, call): &(usize, &cranelift_codegen::ir::BlockCall)| call.block(&dfg.value_lists) == block;
        destinations.iter().enumerate().filter(here).map(move |(destination, _)| Edge {
            from: pred.block,
            branch: pred.inst,
            destination,
        })
    })
}

/// The value that an edge passes for a parameter; `None` if it is not one of the function's values.
fn argument(func: &Function, edge: Edge, parameter: usize) -> Option<Value> {
    let dfg = &func.dfg;
    let destinations = dfg.insts[edge.branch].branch_destination(&dfg.jump_tables, &dfg.exception_tables);
    destinations.get(edge.destination)?.args(&dfg.value_lists).nth(parameter)?.as_value()
}

/// Passes another value for a parameter.
fn set_argument(func: &mut Function, edge: Edge, parameter: usize, value: Value) {
    let dfg = &mut func.dfg;
    let destinations = dfg.insts[edge.branch].branch_destination_mut(&mut dfg.jump_tables, &mut dfg.exception_tables);
    let mut position = 0;
    destinations[edge.destination].update_args(&mut dfg.value_lists, |old| {
        position += 1;
        if position == parameter + 1 { BlockArg::Value(value) } else { old }
    });
}
