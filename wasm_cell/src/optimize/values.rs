//! What is computed once need not be computed again.
//!
//! Three things in one walk over the function, dominators before what they dominate:
//!
//! - **Value numbering**: a pure computation of what was computed where every way leads by is replaced by the value that was. Constants
//!   count as equal operands, but stay where they are: the back end makes them part of instructions.
//! - **Loads**: one from where something was loaded or stored before, with nothing in between that may store into the same alias region,
//!   is replaced by that value. Behind a block with several ways in, all memory counts as changed.
//! - **Loop invariants**: a pure computation whose operands come from outside a loop moves in front of it.
//!
//! A value that lives across a call has to be kept on the stack, and nearly everything here costs no more than to load it from there. So
//! what was computed before a call is computed again after it, and nothing moves out of a loop that calls.

use super::Edges;
use core::hash::{Hash, Hasher};
use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::entity::{EntityRef, SecondaryMap};
use cranelift_codegen::ir::{Block, Function, Inst, InstructionData, Opcode, Type, Value, ValueDef};
use cranelift_codegen::loop_analysis::{Loop, LoopAnalysis};
use hashbrown::{HashMap, HashSet};

/// Alias regions of a function ([`crate::translate::Regions`]).
const REGIONS: usize = 4;

/// Loops that are looked at for each instruction of a function, and for the smallest.
const STEPS_OF_INSTRUCTION: usize = 16;
const LEAST_STEPS: usize = 4096;

/// When something was stored last, by region.
type Stored = [u32; REGIONS];

/// What an instruction computes.
#[derive(PartialEq, Eq)]
struct Key {
    opcode: Opcode,
    ty: Type,
    operands: [u64; 3],
    /// Immediate operand.
    immediate: u32,
    /// Loads: the last store that it may see. Others: calls before it.
    when: u32,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c] = self.operands;
        state.write_u64(a ^ b.rotate_left(24) ^ c.rotate_left(48));
        state.write_u64((self.opcode as u64) << 48 ^ u64::from(self.immediate) << 32 ^ u64::from(self.when));
    }
}

/// A value and the block from which on it is there.
type Place = (Value, Block);

struct Values<'a> {
    edges: &'a Edges,
    domtree: &'a DominatorTree,
    loops: &'a LoopAnalysis,
    /// Where invariants of a loop go: the only block in front of it. None for loops that call.
    front: HashMap<Loop, Block>,
    computed: HashMap<Key, Place>,
    /// When something was stored last, at the end of a block.
    stored: SecondaryMap<Block, Stored>,
    /// Stores and calls so far.
    clock: u32,
    /// Calls so far.
    calls: u32,
    /// Steps left for loop invariants.
    steps: usize,
}

/// What is replaced is an alias afterwards.
pub(super) fn run(func: &mut Function, edges: &Edges, domtree: &DominatorTree, loops: &LoopAnalysis) {
    let mut values = Values {
        edges,
        domtree,
        loops,
        front: fronts(func, edges, domtree, loops),
        computed: HashMap::with_capacity(func.dfg.num_insts() / 2),
        stored: SecondaryMap::with_capacity(func.dfg.num_blocks()),
        clock: 0,
        calls: 0,
        steps: func.dfg.num_insts().saturating_mul(STEPS_OF_INSTRUCTION).max(LEAST_STEPS),
    };
    for block in domtree.cfg_rpo() {
        let mut stored = values.at_start(*block);
        let mut next = func.layout.first_inst(*block);
        while let Some(inst) = next {
            next = func.layout.next_inst(inst);
            values.instruction(func, *block, inst, &mut stored);
        }
        values.stored[*block] = stored;
    }
}

/// The block in front of each loop that does not call.
fn fronts(func: &Function, edges: &Edges, domtree: &DominatorTree, loops: &LoopAnalysis) -> HashMap<Loop, Block> {
    let mut fronts = HashMap::new();
    for l in loops.loops() {
        let header = loops.loop_header(l);
        let mut into = edges.into(header).filter(|edge| !domtree.block_dominates(header, edge.from));
        if let (Some(edge), None) = (into.next(), into.next())
            && func.dfg.insts[edge.branch].opcode() == Opcode::Jump
        {
            fronts.insert(l, edge.from);
        }
    }
    let mut calling = HashSet::new();
    for block in func.layout.blocks() {
        let mut around = loops.innermost_loop(block);
        if around.is_some() && func.layout.block_insts(block).any(|inst| func.dfg.insts[inst].opcode().is_call()) {
            // Those around one that is known to call are known to.
            while let Some(l) = around.filter(|l| calling.insert(*l)) {
                fronts.remove(&l);
                around = loops.loop_parent(l);
            }
        }
    }
    fronts
}

impl Values<'_> {
    /// When something was stored last, at the start of a block.
    fn at_start(&mut self, block: Block) -> Stored {
        let mut into = self.edges.into(block);
        match (into.next(), into.next()) {
            (Some(only), None) => self.stored[only.from],
            _ => {
                self.clock += 1;
                [self.clock; REGIONS]
            }
        }
    }

    /// Goes over one instruction.
    fn instruction(&mut self, func: &mut Function, block: Block, inst: Inst, stored: &mut Stored) {
        let data = func.dfg.insts[inst];
        let opcode = data.opcode();
        if let InstructionData::Load { arg, offset, .. } = data
            && let Some(region) = region(func, &data)
        {
            let (opcode, ty) = (data.opcode(), func.dfg.value_type(func.dfg.first_result(inst)));
            let key = key_of_load(func, opcode, ty, (arg, offset.into()), stored[region]);
            if !self.replace(func, block, inst, &key) {
                self.computed.insert(key, (func.dfg.first_result(inst), block));
            }
            return;
        }
        if opcode.can_store() || opcode.is_call() || opcode.other_side_effects() || opcode == Opcode::AtomicLoad {
            self.clock += 1;
            self.calls += u32::from(opcode.is_call());
            match (data, region(func, &data)) {
                (InstructionData::Store { args: [value, address], offset, .. }, Some(region)) => {
                    stored[region] = self.clock;
                    if opcode == Opcode::Store {
                        let (value, ty) = (func.dfg.resolve_aliases(value), func.dfg.value_type(value));
                        let key = key_of_load(func, Opcode::Load, ty, (address, offset.into()), self.clock);
                        self.computed.insert(key, (value, block));
                    }
                }
                _ => *stored = [self.clock; REGIONS],
            }
            return;
        }
        let Some(key) = self.key(func, &data, inst) else { return };
        if !self.replace(func, block, inst, &key) {
            let at = self.hoist(func, block, inst);
            self.computed.insert(key, (func.dfg.first_result(inst), at));
        }
    }

    /// Replaces the only result of an instruction, which goes, if what it computes is there already.
    fn replace(&self, func: &mut Function, block: Block, inst: Inst, key: &Key) -> bool {
        let Some((value, at)) = self.computed.get(key) else { return false };
        if !self.domtree.block_dominates(*at, block) {
            return false;
        }
        let result = func.dfg.first_result(inst);
        func.dfg.detach_inst_results(inst);
        func.dfg.change_to_alias(result, *value);
        func.layout.remove_inst(inst);
        true
    }

    /// What a pure instruction other than a constant computes.
    fn key(&self, func: &Function, data: &InstructionData, inst: Inst) -> Option<Key> {
        let opcode = data.opcode();
        if opcode.can_trap() || opcode.can_load() || opcode.is_terminator() {
            return None;
        }
        let &[result] = func.dfg.inst_results(inst) else { return None };
        let of = |value| operand(func, value);
        let (operands, immediate) = match *data {
            InstructionData::Unary { arg, .. } => ([of(arg), 0, 0], 0),
            InstructionData::Binary { args: [a, b], .. } => ([of(a), of(b), 0], 0),
            InstructionData::Ternary { args: [a, b, c], .. } => ([of(a), of(b), of(c)], 0),
            InstructionData::IntCompare { args: [a, b], cond, .. } => ([of(a), of(b), 0], cond as u32),
            InstructionData::FloatCompare { args: [a, b], cond, .. } => ([of(a), of(b), 0], cond as u32),
            InstructionData::BinaryImm8 { arg, imm, .. } => ([of(arg), 0, 0], imm.into()),
            InstructionData::TernaryImm8 { args: [a, b], imm, .. } => ([of(a), of(b), 0], u32::from(imm)),
            InstructionData::Shuffle { args: [a, b], imm, .. } => ([of(a), of(b), 0], imm.index() as u32),
            InstructionData::LoadNoOffset { opcode: Opcode::Bitcast, arg, flags } => {
                ([of(arg), 0, 0], flags.index() as u32)
            }
            _ => return None,
        };
        Some(Key { opcode, ty: func.dfg.value_type(result), operands, immediate, when: self.calls })
    }

    /// Moves a pure instruction out of the loops in which its operands do not change. The block where it is then.
    fn hoist(&mut self, func: &mut Function, block: Block, inst: Inst) -> Block {
        let Some(mut innermost) = self.loops.innermost_loop(block) else { return block };
        if func.layout.is_cold(block) {
            return block;
        }
        let mut to = None;
        while let Some(front) = self.front.get(&innermost) {
            let steps = &mut self.steps;
            let loops = self.loops;
            let changes = func.dfg.inst_args(inst).iter().any(|value| {
                let value = func.dfg.resolve_aliases(*value);
                let of = match func.dfg.value_def(value) {
                    ValueDef::Result(by, _) if is_constant(func.dfg.insts[by].opcode()) => return false,
                    ValueDef::Result(by, _) => func.layout.inst_block(by),
                    ValueDef::Param(of, _) => Some(of),
                    ValueDef::Union(..) => None,
                };
                // It may have to look at all loops around the operand.
                *steps = steps.saturating_sub(of.map_or(1, |of| loops.loop_level(of).level() + 1));
                of.is_none_or(|of| *steps == 0 || loops.is_in_loop(of, innermost))
            });
            if changes {
                break;
            }
            to = Some(*front);
            match self.loops.loop_parent(innermost) {
                Some(parent) => innermost = parent,
                None => break,
            }
        }
        let Some((to, before)) = to.and_then(|to| Some((to, func.layout.last_inst(to)?))) else { return block };
        move_before(func, inst, before);
        to
    }
}

fn key_of_load(func: &Function, opcode: Opcode, ty: Type, (address, offset): (Value, i32), when: u32) -> Key {
    Key { opcode, ty, operands: [operand(func, address), 0, 0], immediate: offset as u32, when }
}

/// The same number for values that are equal for sure.
fn operand(func: &Function, value: Value) -> u64 {
    const CONSTANT: u64 = 1 << 63;
    let value = func.dfg.resolve_aliases(value);
    if let ValueDef::Result(inst, _) = func.dfg.value_def(value)
        && let InstructionData::UnaryImm { opcode: Opcode::Iconst, imm } = func.dfg.insts[inst]
    {
        let (bits, size) = (imm.bits(), func.dfg.value_type(value).bits());
        if size <= 32 || u32::try_from(bits).is_ok() {
            return CONSTANT | u64::from(size) << 32 | u64::from(bits as u32);
        }
    }
    value.index() as u64 + 1
}

/// The alias region that an instruction accesses.
fn region(func: &Function, data: &InstructionData) -> Option<usize> {
    data.memflags_data(&func.dfg)?.alias_region().map(|region| region.index()).filter(|index| *index < REGIONS)
}

fn is_constant(opcode: Opcode) -> bool {
    matches!(opcode, Opcode::Iconst | Opcode::F32const | Opcode::F64const | Opcode::Vconst)
}

/// Moves an instruction, with copies of the constants that it uses.
fn move_before(func: &mut Function, inst: Inst, before: Inst) {
    for i in 0..func.dfg.inst_args(inst).len() {
        let value = func.dfg.resolve_aliases(func.dfg.inst_args(inst)[i]);
        let ValueDef::Result(by, _) = func.dfg.value_def(value) else { continue };
        if is_constant(func.dfg.insts[by].opcode()) {
            let copy = func.dfg.clone_inst(by);
            func.layout.insert_inst(copy, before);
            func.dfg.inst_args_mut(inst)[i] = func.dfg.first_result(copy);
        }
    }
    func.layout.remove_inst(inst);
    func.layout.insert_inst(inst, before);
}
