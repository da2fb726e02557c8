//! Trap sites of accesses that the back end makes part of other instructions.
//!
//! An instruction of x86 can take an operand from memory, so a load may be done by the addition, the comparison or the store that uses it, and
//! its trap is then at that instruction's place in the wasm code. So these get the place of the load: none of them can trap on its own, but a
//! store to where the load has been, which does not trap after it.

use super::addresses::is_memory_access;
use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::{Function, Inst, InstructionData, Opcode, Value};
use cranelift_codegen::packed_option::PackedOption;

/// Pure instructions between a load and what does it in the end: an extension, a comparison.
const DEPTH: u32 = 3;

/// From which load of its block a value comes.
#[derive(Clone, Copy, Default)]
struct Origin {
    load: PackedOption<Inst>,
    /// Number of the load.
    number: u32,
    /// Instructions between it and the value.
    depth: u32,
}

/// Gives what may do a load the load's place.
pub(crate) fn run(func: &mut Function) {
    let mut origins: SecondaryMap<Value, Origin> = SecondaryMap::new();
    let mut number = 0;
    let mut next_block = func.layout.entry_block();
    while let Some(block) = next_block {
        next_block = func.layout.next_block(block);
        // Loads of other blocks have lower numbers.
        let first = number + 1;
        let mut next = func.layout.first_inst(block);
        while let Some(inst) = next {
            next = func.layout.next_inst(inst);
            if matches!(func.dfg.insts[inst], InstructionData::Load { .. }) && is_memory_access(func, inst) {
                number += 1;
                let origin = Origin { load: inst.into(), number, depth: 0 };
                origins[func.dfg.first_result(inst)] = origin;
            } else if number >= first {
                place(func, inst, first, &mut origins);
            }
        }
    }
}

/// Gives an instruction the place of the last load, of those from number `first` on, that it may do.
fn place(func: &mut Function, inst: Inst, first: u32, origins: &mut SecondaryMap<Value, Origin>) {
    let opcode = func.dfg.insts[inst].opcode();
    let is_pure = is_pure(opcode);
    if !is_pure && opcode != Opcode::Brif && !opcode.can_store() {
        return;
    }
    let of = |value: &Value| origins[func.dfg.resolve_aliases(*value)];
    // Of several loads that one instruction uses only the last can be part of it.
    let last = func.dfg.inst_args(inst).iter().map(of).filter(|o| o.number >= first).max_by_key(|o| o.number);
    let Some((origin, load)) = last.and_then(|origin| Some((origin, origin.load.expand()?))) else { return };
    if !is_pure && opcode != Opcode::Brif && !stores_back(func, load, inst, origins) {
        return;
    }
    func.set_srcloc(inst, func.srcloc(load));
    if is_pure && origin.depth + 1 < DEPTH {
        for result in func.dfg.inst_results(inst) {
            origins[*result] = Origin { depth: origin.depth + 1, ..origin };
        }
    }
}

/// Whether an instruction does nothing but compute.
fn is_pure(opcode: Opcode) -> bool {
    !opcode.can_trap()
        && !opcode.can_load()
        && !opcode.can_store()
        && !opcode.is_call()
        && !opcode.is_terminator()
        && !opcode.other_side_effects()
}

/// Whether an instruction stores what comes from `load` where that has loaded from.
fn stores_back(func: &Function, load: Inst, store: Inst, origins: &SecondaryMap<Value, Origin>) -> bool {
    let resolved = |v: Value| func.dfg.resolve_aliases(v);
    match (&func.dfg.insts[load], &func.dfg.insts[store]) {
        (InstructionData::Load { arg, offset, .. }, InstructionData::Store { args, offset: to, .. }) => {
            origins[resolved(args[0])].load.expand() == Some(load)
                && resolved(args[1]) == resolved(*arg)
                && offset == to
        }
        _ => false,
    }
}
