//! What is done to a function between Cranelift's optimiser and its back end.
//!
//! Cranelift works on values one by one and has no notion of loop variables. What follows from knowing them is done here:
//!
//! 1. [`ranges`]: between which bounds 32-bit values lie, loop variables included. The others ask it.
//! 2. [`rebase`]: loop variables that count up to zero become indices.
//! 3. [`latch`]: a loop's last comparison looks at the variable's next value, so that the old one is dead by then.
//! 4. [`addresses`]: constants that are added to an index without wrapping go into the access; small shifts become scaled indices.
//! 5. [`vectors`]: loads of vectors that cannot trap stand next to what uses them.
//! 6. [`widen`]: 32-bit values that go around a loop and are used as indices are kept in 64 bits, so that no access extends them.
//! 7. [`multiply`]: multiplications by 3, 5 and 9 are additions.
//!
//! All of these replace pure computations by equal ones, but for [`vectors`], which moves loads that cannot trap. No store, call or check
//! is added, removed or moved, so every trap happens where it did.

mod addresses;
mod latch;
mod multiply;
mod pattern;
mod ranges;
mod rebase;
pub(crate) mod vectors;
mod widen;

use cranelift_codegen::Context;
use cranelift_codegen::flowgraph::ControlFlowGraph;
use cranelift_codegen::ir::{Block, BlockArg, Function, Inst, Value};

/// Changes whenever these passes make other code: code of another version is as good, and not the same.
pub(crate) const VERSION: u32 = 3;

/// Runs the passes on a function that Cranelift has optimised. `memory_bytes`: what the memory holds at least, if there is only one. The
/// back end computes control flow and dominators anew.
pub(crate) fn run(context: &mut Context, memory_bytes: u64) {
    let Context { func, cfg, domtree, .. } = context;
    func.dfg.resolve_all_aliases();
    rebase::run(func, cfg, domtree);
    latch::compare_next(func, cfg, domtree);
    let accesses = addresses::plan(func, cfg, domtree);
    addresses::apply(func, accesses);
    latch::sink_next(func, cfg, domtree);
    vectors::run(func, cfg, domtree, memory_bytes);
    widen::run(func, cfg);
    multiply::run(func);
    func.dfg.resolve_all_aliases();
}

/// Steps that a pass may take to look at what edges pass for single parameters: blocks with many of both are left as they are.
const STEPS: usize = 1 << 20;

/// Takes from `steps` what looking at one parameter of a block costs; false if there are not so many left.
fn afford(steps: &mut usize, func: &Function, cfg: &ControlFlowGraph, block: Block) -> bool {
    let cost = cfg.pred_iter(block).count().saturating_mul(func.dfg.num_block_params(block));
    match steps.checked_sub(cost) {
        Some(left) => *steps = left,
        None => *steps = 0,
    }
    *steps > 0
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

/// What an edge passes, in the order of the parameters; `None` for what is not one of the function's values.
fn arguments(func: &Function, edge: Edge) -> impl Iterator<Item = Option<Value>> {
    let dfg = &func.dfg;
    let destinations = dfg.insts[edge.branch].branch_destination(&dfg.jump_tables, &dfg.exception_tables);
    destinations[edge.destination].args(&dfg.value_lists).map(|a| a.as_value())
}

/// The value that an edge passes for a parameter.
fn argument(func: &Function, edge: Edge, parameter: usize) -> Option<Value> {
    arguments(func, edge).nth(parameter)?
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
