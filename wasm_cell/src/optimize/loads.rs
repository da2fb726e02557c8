//! Loads stand next to what uses them.
//!
//! Cranelift's optimiser computes what is pure as late as it can, and leaves loads where they are. So a block that loads much and then
//! adds it up does all loads first, and what was loaded waits in registers, more of them than there are. A load can be done later as long as
//! nothing is stored in between. One that may trap does not move past anything else that may: traps stay in their order, and everything
//! that has an effect stays before or behind each of them. What only the load's address is computed from moves along.

use super::STEPS;
use super::addresses::is_memory_access;
use alloc::vec::Vec;
use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::{Block, Function, Inst, InstructionData, Opcode, Value, ValueDef};
use hashbrown::HashSet;

/// Loads in a block for which there are registers enough; those that cannot trap move all the same.
pub(super) const FEW: usize = 10;

/// `crowded`: blocks with more than [`FEW`] loads from linear memories. `safe`: loads that cannot trap, although they are of a kind that may.
pub(super) fn run(func: &mut Function, crowded: &[Block], safe: &HashSet<Inst>) {
    let with_safe = safe.iter().filter_map(|load| func.layout.inst_block(*load));
    let mut blocks: Vec<Block> = crowded.iter().copied().chain(with_safe).collect();
    if blocks.is_empty() {
        return;
    }
    blocks.sort_unstable();
    blocks.dedup();
    let uses = uses(func);
    let mut steps = STEPS;
    for block in blocks {
        let many = crowded.binary_search(&block).is_ok();
        let mut loads: Vec<Inst> = loads(func, block).filter(|load| many || safe.contains(load)).collect();
        // The last first, so that what moves past what moved before keeps its order.
        while let Some(load) = loads.pop() {
            if let Some(before) = destination(func, load, safe, &mut steps) {
                move_before(func, load, before, &uses);
            }
        }
    }
}

/// The loads of a block from linear memories.
fn loads(func: &Function, block: Block) -> impl Iterator<Item = Inst> {
    func.layout.block_insts(block).filter(|inst| is_load(func, *inst))
}

/// Whether an instruction loads from a linear memory.
pub(super) fn is_load(func: &Function, inst: Inst) -> bool {
    matches!(func.dfg.insts[inst], InstructionData::Load { .. }) && is_memory_access(func, inst)
}

/// How often each value is used.
fn uses(func: &Function) -> SecondaryMap<Value, u32> {
    let mut uses: SecondaryMap<Value, u32> = SecondaryMap::new();
    for block in func.layout.blocks() {
        for inst in func.layout.block_insts(block) {
            for value in func.dfg.inst_values(inst) {
                uses[func.dfg.resolve_aliases(value)] += 1;
            }
        }
    }
    uses
}

/// What a load goes in front of: its first use in its block, if there is one and nothing stands between that it must not pass. Looks for it as
/// long as there are `steps` left.
fn destination(func: &Function, load: Inst, safe: &HashSet<Inst>, steps: &mut usize) -> Option<Inst> {
    let result = func.dfg.first_result(load);
    let may_trap = !safe.contains(&load);
    let mut next = func.layout.next_inst(load)?;
    let first = next;
    loop {
        *steps = steps.checked_sub(1)?;
        let opcode = func.dfg.insts[next].opcode();
        if opcode.is_terminator() {
            return None;
        }
        if func.dfg.inst_values(next).any(|v| func.dfg.resolve_aliases(v) == result) {
            return (next != first).then_some(next);
        }
        if opcode.can_store() || opcode.is_call() || opcode.other_side_effects() {
            return None;
        }
        if may_trap && traps(func, next) && !safe.contains(&next) {
            return None;
        }
        next = func.layout.next_inst(next)?;
    }
}

fn traps(func: &Function, inst: Inst) -> bool {
    let data = &func.dfg.insts[inst];
    match data.opcode().can_load() {
        true => data.memflags().is_none() || data.memflags_trap_code(&func.dfg).is_some(),
        false => data.opcode().can_trap(),
    }
}

/// Moves a load, and what makes its address and nothing else.
fn move_before(func: &mut Function, load: Inst, before: Inst, uses: &SecondaryMap<Value, u32>) {
    let block = func.layout.inst_block(load);
    func.layout.remove_inst(load);
    func.layout.insert_inst(load, before);
    let mut inst = load;
    loop {
        let own = func.dfg.inst_args(inst).iter().find_map(|value| match func.dfg.value_def(*value) {
            ValueDef::Result(of, 0) if uses[*value] == 1 && func.layout.inst_block(of) == block => {
                is_address_part(func.dfg.insts[of].opcode()).then_some(of)
            }
            _ => None,
        });
        let Some(own) = own else { return };
        func.layout.remove_inst(own);
        func.layout.insert_inst(own, inst);
        inst = own;
    }
}

fn is_address_part(opcode: Opcode) -> bool {
    matches!(opcode, Opcode::Iadd | Opcode::Uextend | Opcode::Ishl | Opcode::Iconst)
}
