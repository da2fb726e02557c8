//! Indices that go around a loop, kept in 64 bits.
//!
//! A linear memory's index has 32 bits, an address 64. The back end knows that most 32-bit instructions clear the upper half of
//! their register, but of a block's parameter it knows nothing, so each access through one extends it first. A parameter that is
//! used extended becomes one of 64 bits; what branches pass for it is extended there, which for nearly all instructions that make
//! such values costs nothing. Loads of 32 bits that are used extended become loads that extend.

use super::pattern::{constant, extended, instruction};
use super::{Edges, STEPS, afford, argument, set_argument};
use alloc::vec::Vec;
use cranelift_codegen::cursor::{Cursor, CursorPosition, FuncCursor};
use cranelift_codegen::ir::{Block, Function, Inst, InstBuilder, InstructionData, Opcode, Value, ValueDef, types};
use hashbrown::HashMap;

/// Whether there are aliases now.
pub(super) fn run(func: &mut Function, edges: &Edges) -> bool {
    let mut aliases = false;
    let mut widen = Widen { edges, wide: HashMap::new(), todo: Vec::new(), steps: STEPS };
    let mut extensions = Vec::new();
    for block in func.layout.blocks() {
        for inst in func.layout.block_insts(block) {
            if let InstructionData::Unary { opcode: Opcode::Uextend, .. } = func.dfg.insts[inst] {
                extensions.push(inst);
            }
        }
    }
    for inst in extensions {
        let result = func.dfg.first_result(inst);
        if let Some(narrow) = extended(func, result)
            && let Some(wide) = widen.of(func, narrow)
        {
            func.dfg.detach_inst_results(inst);
            func.dfg.change_to_alias(result, wide);
            func.layout.remove_inst(inst);
            aliases = true;
        }
    }
    while let Some((block, position)) = widen.todo.pop() {
        let into: Vec<_> = edges.into(block).collect();
        for edge in into {
            let Some(narrow) = argument(func, edge, position) else { continue };
            let wide = match widen.of(func, narrow) {
                Some(wide) => wide,
                None => {
                    let mut cursor = FuncCursor::new(func).at_inst(edge.branch);
                    cursor.use_srcloc(edge.branch);
                    match constant(cursor.func, narrow) {
                        Some(c) => cursor.ins().iconst(types::I64, i64::from(c)),
                        None => cursor.ins().uextend(types::I64, narrow),
                    }
                }
            };
            set_argument(func, edge, position, wide);
        }
    }
    aliases
}

struct Widen<'a> {
    edges: &'a Edges,
    /// 32-bit values and what stands for them in 64 bits.
    wide: HashMap<Value, Value>,
    /// Parameters that were widened and whose arguments were not yet.
    todo: Vec<(Block, usize)>,
    /// Steps left.
    steps: usize,
}

impl Widen<'_> {
    /// The value with 64 bits, if it is one that can be made so where it comes from.
    fn of(&mut self, func: &mut Function, narrow: Value) -> Option<Value> {
        let narrow = func.dfg.resolve_aliases(narrow);
        if let Some(wide) = self.wide.get(&narrow) {
            return Some(*wide);
        }
        let wide = match func.dfg.value_def(narrow) {
            ValueDef::Param(block, position) => self.parameter(func, narrow, block, position)?,
            ValueDef::Result(inst, 0) => load(func, narrow, inst)?,
            _ => return None,
        };
        self.wide.insert(narrow, wide);
        Some(wide)
    }

    fn parameter(&mut self, func: &mut Function, narrow: Value, block: Block, position: usize) -> Option<Value> {
        let entry = func.layout.entry_block() == Some(block);
        if entry || func.dfg.value_type(narrow) != types::I32 || !afford(&mut self.steps, func, self.edges, block) {
            return None;
        }
        // What is not a value of the function could not be extended.
        if self.edges.into(block).any(|edge| argument(func, edge, position).is_none()) {
            return None;
        }
        let wide = func.dfg.replace_block_param(narrow, types::I64);
        let mut cursor = FuncCursor::new(func).at_first_insertion_point(block);
        cursor.ins().with_result(narrow).ireduce(types::I32, wide);
        self.todo.push((block, position));
        Some(wide)
    }
}

/// Makes a load extend what it loads.
fn load(func: &mut Function, narrow: Value, inst: Inst) -> Option<Value> {
    let InstructionData::Load { opcode: Opcode::Load, arg, flags, offset } = func.dfg.insts[inst] else { return None };
    if func.dfg.value_type(narrow) != types::I32 || instruction(func, narrow) != Some(inst) {
        return None;
    }
    let flags = func.dfg.mem_flags[flags];
    let mut cursor = FuncCursor::new(func);
    cursor.set_position(CursorPosition::At(inst));
    cursor.use_srcloc(inst);
    let wide = cursor.ins().uload32(flags, arg, offset);
    cursor.func.replace(inst).ireduce(types::I32, wide);
    Some(wide)
}
