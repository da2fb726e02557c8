//! Edges between blocks, found once a function: a branch with many destinations is gone through once, and not once for each block
//! that it leads to.

use alloc::vec;
use alloc::vec::Vec;
use cranelift_codegen::entity::EntityRef;
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
    all: Vec<Edge>,
    /// Where the edges into a block begin in `all`, by block; those into the next one begin where they end.
    starts: Vec<u32>,
}

impl Edges {
    /// The edges of reachable and unreachable blocks.
    pub(super) fn of(func: &Function) -> Edges {
        let mut starts = vec![0u32; func.dfg.num_blocks() + 1];
        let mut count = 0;
        each(func, |into, _| {
            starts[into.index()] += 1;
            count += 1;
        });
        // First the ends, then, counted down, the starts.
        let mut end = 0;
        for start in &mut starts {
            end += *start;
            *start = end;
        }
        let Some(block) = func.layout.entry_block() else { return Edges { all: Vec::new(), starts } };
        let none = Edge { from: block, branch: Inst::from_u32(0), destination: 0 };
        let mut all = vec![none; count];
        each(func, |into, edge| {
            starts[into.index()] -= 1;
            all[starts[into.index()] as usize] = edge;
        });
        Edges { all, starts }
    }

    /// The edges into `block`.
    pub(super) fn into(&self, block: Block) -> impl ExactSizeIterator<Item = Edge> {
        let (start, end) = (self.starts[block.index()] as usize, self.starts[block.index() + 1] as usize);
        self.all[start..end].iter().copied()
    }
}

/// Calls `found` with each edge and the block that it leads to, the last edge first.
fn each(func: &Function, mut found: impl FnMut(Block, Edge)) {
    let dfg = &func.dfg;
    let mut next = func.layout.last_block();
    while let Some(from) = next {
        next = func.layout.prev_block(from);
        let Some(branch) = func.layout.last_inst(from) else { continue };
        let destinations = dfg.insts[branch].branch_destination(&dfg.jump_tables, &dfg.exception_tables);
        for (destination, call) in destinations.iter().enumerate().rev() {
            found(call.block(&dfg.value_lists), Edge { from, branch, destination });
        }
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
