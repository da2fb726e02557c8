//! Loop variables that count up to zero.
//!
//! Compilers like loops whose variable starts at `-n` and ends at zero, because the comparison is free then. To get an index from it, each
//! access adds a constant that makes the sum wrap around, and such a sum cannot be part of an address. Such a variable is moved by the
//! smallest of these constants: then it is an index itself, and the others differ from it by little.

use super::pattern::{constant, extended, plus_constant};
use super::ranges::Ranges;
use super::{Edge, Edges, argument, set_argument};
use alloc::vec::Vec;
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::ir::{Block, Function, Inst, InstBuilder, InstructionData, Opcode, Value, ValueDef, types};
use hashbrown::{HashMap, HashSet};

/// A variable and by how much it is moved.
struct Move {
    header: Block,
    position: usize,
    variable: Value,
    step: u32,
    by: u32,
    /// The sums with constants that are indices.
    sums: Vec<(Inst, u32)>,
}

pub(super) fn run(func: &mut Function, edges: &Edges, domtree: &DominatorTree) {
    let moves = plan(func, edges, domtree);
    let any = !moves.is_empty();
    for m in moves {
        apply(func, edges, domtree, m);
    }
    // Once for all of them: it goes through the whole function.
    if any {
        func.dfg.resolve_all_aliases();
    }
}

fn plan(func: &Function, edges: &Edges, domtree: &DominatorTree) -> Vec<Move> {
    let mut sums: HashMap<Value, Vec<(Inst, u32)>> = HashMap::new();
    let mut variables = Vec::new();
    let mut seen = HashSet::new();
    for block in func.layout.blocks() {
        for inst in func.layout.block_insts(block) {
            let InstructionData::Unary { opcode: Opcode::Uextend, .. } = func.dfg.insts[inst] else { continue };
            let Some(index) = extended(func, func.dfg.first_result(inst)) else { continue };
            let (Some((of, by)), ValueDef::Result(sum, _)) = (plus_constant(func, index), func.dfg.value_def(index))
            else {
                continue;
            };
            if let ValueDef::Param(..) = func.dfg.value_def(of) {
                let sums = sums.entry(of).or_insert_with(|| {
                    variables.push(of);
                    Vec::new()
                });
                if seen.insert(sum) {
                    sums.push((sum, by));
                }
            }
        }
    }
    if variables.is_empty() {
        return Vec::new();
    }
    let mut ranges = Ranges::new(func, edges, domtree);
    let mut moves = Vec::new();
    for variable in variables {
        let range = ranges.of(variable);
        // A sum that wraps for every value of the variable, or none.
        let start_of = |by: u32| (u64::from(range.low) + u64::from(by)).checked_sub(1 << 32);
        let mut list = sums.remove(&variable).unwrap_or_default();
        list.retain(|(_, by)| start_of(*by).is_some());
        let Some((_, by)) = list.iter().copied().min_by_key(|(_, by)| start_of(*by)) else { continue };
        let ValueDef::Param(header, position) = func.dfg.value_def(variable) else { continue };
        let mut back = edges.into(header).filter(|e| domtree.block_dominates(header, e.from));
        let (Some(edge), None) = (back.next(), back.next()) else { continue };
        let next = argument(func, edge, position).and_then(|next| plus_constant(func, next));
        let Some((_, step)) = next.filter(|(of, _)| *of == variable) else { continue };
        let mut into = edges.into(header).filter(|e| !domtree.block_dominates(header, e.from));
        if into.all(|e| argument(func, e, position).is_some_and(|v| constant(func, v).is_some())) {
            moves.push(Move { header, position, variable, step, by, sums: list });
        }
    }
    moves
}

fn apply(func: &mut Function, edges: &Edges, domtree: &DominatorTree, m: Move) {
    let into: Vec<Edge> = edges.into(m.header).collect();
    let moved = func.dfg.replace_block_param(m.variable, types::I32);
    let mut cursor = FuncCursor::new(func).at_first_insertion_point(m.header);
    // What it was, for whoever else wants it.
    let by = cursor.ins().iconst(types::I32, i64::from(m.by));
    cursor.ins().with_result(m.variable).isub(moved, by);
    for edge in into {
        let mut cursor = FuncCursor::new(func).at_inst(edge.branch);
        cursor.use_srcloc(edge.branch);
        let value = if domtree.block_dominates(m.header, edge.from) {
            cursor.ins().iadd_imm_u(moved, i64::from(m.step))
        } else {
            let start = argument(cursor.func, edge, m.position).and_then(|v| constant(cursor.func, v));
            let start = start.expect("planned: it starts with constants");
            cursor.ins().iconst(types::I32, i64::from(start.wrapping_add(m.by)))
        };
        set_argument(func, edge, m.position, value);
    }
    for (sum, by) in m.sums {
        let result = func.dfg.first_result(sum);
        if by == m.by {
            func.dfg.detach_inst_results(sum);
            func.dfg.change_to_alias(result, moved);
            func.layout.remove_inst(sum);
        } else {
            func.replace(sum).iadd_imm_u(moved, i64::from(by.wrapping_sub(m.by)));
        }
    }
}
