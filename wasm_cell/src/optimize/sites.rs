//! Trap sites of accesses that the back end makes part of other instructions.
//!
//! An instruction of x86 can take an operand from memory, so a load may be done by the addition, the comparison or the store that uses it, and
//! its trap is then at that instruction's place in the wasm code. So these get the place of the load: none of them can trap on its own, but a
//! store to where the load has been, which does not trap after it.

use super::addresses::is_memory_access;
use alloc::vec::Vec;
use cranelift_codegen::entity::SecondaryMap;
use cranelift_codegen::ir::{Function, Inst, InstructionData, Opcode, Value};

/// Pure instructions between a load and what does it in the end: an extension, a comparison.
const DEPTH: usize = 3;

/// The users of the values that somebody uses.
#[derive(Clone, Copy, Default)]
enum Users {
    #[default]
    None,
    One(Inst),
    More,
}

/// Gives what may do a load the load's place.
pub(crate) fn run(func: &mut Function) {
    let is_load = |func: &Function, inst: Inst| {
        matches!(func.dfg.insts[inst], InstructionData::Load { .. }) && is_memory_access(func, inst)
    };
    let insts = || func.layout.blocks().flat_map(|b| func.layout.block_insts(b));
    let loads: Vec<Inst> = insts().filter(|inst| is_load(func, *inst)).collect();
    if loads.is_empty() {
        return;
    }
    let mut users: SecondaryMap<Value, Users> = SecondaryMap::with_capacity(func.dfg.num_values());
    users.resize(func.dfg.num_values());
    // Backwards, so that all users of an instruction's results are seen before it: the back end makes no code for what has none, and nor
    // does it count as a user.
    let mut next = func.layout.last_block();
    while let Some(block) = next {
        for inst in func.layout.block_insts(block).rev() {
            let is_used = |result: &Value| !matches!(users[*result], Users::None);
            if is_pure(func, inst) && !func.dfg.inst_results(inst).iter().any(is_used) {
                continue;
            }
            for value in func.dfg.inst_values(inst) {
                let users = &mut users[func.dfg.resolve_aliases(value)];
                *users = if let Users::None = users { Users::One(inst) } else { Users::More };
            }
        }
        next = func.layout.prev_block(block);
    }
    // Of several loads that one instruction uses only the last can be part of it.
    for load in loads {
        place(func, load, &users);
    }
}

fn place(func: &mut Function, load: Inst, users: &SecondaryMap<Value, Users>) {
    let (place, block) = (func.srcloc(load), func.layout.inst_block(load));
    let mut inst = load;
    for _ in 0..DEPTH {
        let &[result] = func.dfg.inst_results(inst) else { return };
        let Users::One(user) = users[result] else { return };
        if func.layout.inst_block(user) != block {
            return;
        }
        let opcode = func.dfg.insts[user].opcode();
        let ends = opcode == Opcode::Brif || stores_back(func, load, user, result);
        let is_pure = is_pure(func, user);
        if ends || is_pure {
            func.set_srcloc(user, place);
        }
        if !is_pure {
            return;
        }
        inst = user;
    }
}

/// Whether an instruction does nothing but compute.
fn is_pure(func: &Function, inst: Inst) -> bool {
    let opcode = func.dfg.insts[inst].opcode();
    !opcode.can_trap()
        && !opcode.can_load()
        && !opcode.can_store()
        && !opcode.is_call()
        && !opcode.is_terminator()
        && !opcode.other_side_effects()
}

/// Whether an instruction stores `value` where `load` has loaded from.
fn stores_back(func: &Function, load: Inst, store: Inst, value: Value) -> bool {
    let resolved = |v: Value| func.dfg.resolve_aliases(v);
    match (&func.dfg.insts[load], &func.dfg.insts[store]) {
        (InstructionData::Load { arg, offset, .. }, InstructionData::Store { args, offset: to, .. }) => {
            resolved(args[0]) == value && resolved(args[1]) == resolved(*arg) && offset == to
        }
        _ => false,
    }
}
