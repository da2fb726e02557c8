//! Loads of vectors: their types, and which of them cannot trap.
//!
//! A vector instruction can take one operand from memory, if nothing with an effect stands between the load and it. Compilers for wasm
//! cannot know of that; they load many vectors first and compute later, and all of them want a register meanwhile. A load that is
//! known to be in bounds cannot trap, so [`super::loads`] may move it past others. It is known to be if all of its range lies within the least size
//! that the memory ever has.

use super::Edges;
use super::addresses::is_memory_access;
use super::pattern::{binary, extended, instruction};
use super::ranges::Ranges;
use alloc::vec::Vec;
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::{Function, Inst, InstBuilder, InstructionData, Opcode, Value};
use hashbrown::HashSet;

/// Bytes of a vector.
const BYTES: u64 = 16;

/// Loads of vectors for which there are registers enough: a function with no more of them does not depend on the size of the memory.
pub(crate) const FEW: usize = 8;

/// Gives loads of vectors the types of their uses. Those that cannot trap. `bytes`: what the memory holds at least, 0 if nothing is known of it.
pub(super) fn run(
    func: &mut Function,
    mut loads: Vec<Inst>,
    edges: &Edges,
    domtree: &DominatorTree,
    bytes: u64,
) -> HashSet<Inst> {
    if loads.is_empty() {
        return HashSet::new();
    }
    let uses = uses(func);
    let mut aliases = false;
    for inst in &mut loads {
        if let Some(typed) = with_type_of_use(func, *inst, &uses) {
            (*inst, aliases) = (typed, true);
        }
    }
    if aliases {
        func.dfg.resolve_all_aliases();
    }
    if bytes == 0 || loads.iter().filter(|inst| is_memory_access(func, **inst)).count() <= FEW {
        return HashSet::new();
    }
    let mut ranges = Ranges::new(func, edges, domtree);
    loads.into_iter().filter(|inst| in_bounds(func, &mut ranges, *inst, bytes)).collect()
}

/// Whether an instruction loads a vector.
pub(super) fn is_load(func: &Function, inst: Inst) -> bool {
    matches!(func.dfg.insts[inst], InstructionData::Load { opcode: Opcode::Load, .. })
        && func.dfg.value_type(func.dfg.first_result(inst)).bits() == 8 * BYTES as u32
}

/// How often each value is used, and by which instruction last.
fn uses(func: &Function) -> SecondaryMap<Value, (u32, Option<Inst>)> {
    let mut uses: SecondaryMap<Value, (u32, Option<Inst>)> = SecondaryMap::new();
    for block in func.layout.blocks() {
        for inst in func.layout.block_insts(block) {
            for value in func.dfg.inst_values(inst) {
                let (count, by) = &mut uses[value];
                (*count, *by) = (*count + 1, Some(inst));
            }
        }
    }
    uses
}

/// Loads what the only use, if it views the vector as another type, makes of it. Gives the load that takes the place of `inst`.
fn with_type_of_use(func: &mut Function, inst: Inst, uses: &SecondaryMap<Value, (u32, Option<Inst>)>) -> Option<Inst> {
    let result = func.dfg.first_result(inst);
    let (1, Some(view)) = uses[result] else { return None };
    let InstructionData::LoadNoOffset { opcode: Opcode::Bitcast, .. } = func.dfg.insts[view] else { return None };
    let InstructionData::Load { arg, flags, offset, .. } = func.dfg.insts[inst] else { return None };
    let viewed = func.dfg.first_result(view);
    let (ty, flags) = (func.dfg.value_type(viewed), func.dfg.mem_flags[flags]);
    let mut cursor = FuncCursor::new(func).at_inst(inst);
    cursor.use_srcloc(inst);
    let loaded = cursor.ins().load(ty, flags, arg, offset);
    func.layout.remove_inst(inst);
    func.dfg.detach_inst_results(inst);
    func.layout.remove_inst(view);
    func.dfg.detach_inst_results(view);
    func.dfg.change_to_alias(viewed, loaded);
    instruction(func, loaded)
}

/// Whether a load cannot leave a memory of `bytes` bytes.
fn in_bounds(func: &Function, ranges: &mut Ranges<'_>, inst: Inst, bytes: u64) -> bool {
    let InstructionData::Load { arg, offset, .. } = func.dfg.insts[inst] else { return false };
    if !is_memory_access(func, inst) {
        return false;
    }
    let Some((Opcode::Iadd, [a, b])) = binary(func, arg) else { return false };
    let Some(index) = extended(func, b).or_else(|| extended(func, a)) else { return false };
    let Ok(offset) = u64::try_from(i32::from(offset)) else { return false };
    let Some(block) = func.layout.inst_block(inst) else { return false };
    u64::from(ranges.at(index, block).high) + offset + BYTES <= bytes
}
