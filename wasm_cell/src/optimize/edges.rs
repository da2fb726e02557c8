//! Edges between blocks, found once a function: a branch with many destinations is gone through once, and not once for each block
//! that it leads to.

use alloc::vec::Vec;
use cranelift_codegen::ir::{Block, BlockArg, Function, Inst, Value};

/// One edge into a block.
#[derive(Clone, Copy)]
pub(super) struct Edge {
    pub(super) from: Block,
    pub(super) branch: Inst,
    /// Position among the destinations of the branch.
    pub(super) destination: usize,
}

/// All edges of a function. The passes change what they pass for parameters, not where they lead.
pub(super) struct Edges {
    /// By the block that they lead to.
    all: Vec<(Block, Edge)>,
}

impl Edges {
    /// The edges of reachable and unreachable blocks.
    pub(super) fn of(func: &Function) -> Edges {
        let dfg = &func.dfg;
        let mut all = Vec::new();
        for from in func.layout.blocks() {
            let Some(branch) = func.layout.last_inst(from) else { continue };
            let destinations = dfg.insts[branch].branch_destination(&dfg.jump_tables, &dfg.exception_tables);
            let into = destinations.iter().map(|call| call.block(&dfg.value_lists)).enumerate();
            all.extend(into.map(|(destination, block)| (block, Edge { from, branch, destination })));
        }
        all.sort_unstable_by_key(|(block, edge)| (*block, edge.branch, edge.destination));
        Edges { all }
    }

    /// The edges into `block`.
    pub(super) fn into(&self, block: Block) -> impl ExactSizeIterator<Item = Edge> {
        let start = self.all.partition_point(|(b, _)| *b < block);
        let length = self.all[start..].partition_point(|(b, _)| *b == block);
        self.all[start..start + length].iter().map(|(_, edge)| *edge)
    }
}

/// What an edge passes, in the order of the parameters; `None` for what is not one of the function's values.
pub(super) fn arguments(func: &Function, edge: Edge) -> impl Iterator<Item = Option<Value>> {
    let dfg = &func.dfg;
    let destinations = dfg.insts[edge.branch].branch_destination(&dfg.jump_tables, &dfg.exception_tables);
    destinations[edge.destination].args(&dfg.value_lists).map(|a| a.as_value())
}

/// The value that an edge passes for a parameter.
pub(super) fn argument(func: &Function, edge: Edge, parameter: usize) -> Option<Value> {
    arguments(func, edge).nth(parameter)?
}

/// Passes another value for a parameter.
pub(super) fn set_argument(func: &mut Function, edge: Edge, parameter: usize, value: Value) {
    let dfg = &mut func.dfg;
    let destinations = dfg.insts[edge.branch].branch_destination_mut(&mut dfg.jump_tables, &mut dfg.exception_tables);
    let mut position = 0;
    destinations[edge.destination].update_args(&mut dfg.value_lists, |old| {
        position += 1;
        if position == parameter + 1 { BlockArg::Value(value) } else { old }
    });
}
