//! Addresses: constants go into the access, small shifts become scaled indices.
//!
//! An index is computed modulo 2^32, so `index + 8` cannot be part of an address unless the sum is known not to wrap. Where
//! [`Ranges`] knows, the constant moves from the sum to the access. Whatever the index, the access stays below the memory's guard
//! then, because constants beyond it are left where they are: a memory cannot be left by way of a range. Scaling, which could leave
//! it, relies on nothing but the bits of the index itself.

use super::Edges;
use super::pattern::{binary, constant, extended, plus_constant};
use super::range::Range;
use super::ranges::Ranges;
use crate::trap::TrapCode;
use alloc::vec::Vec;
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::ir::{Block, Function, Inst, InstBuilder, InstructionData, Opcode, Value, ValueDef, types};
use hashbrown::HashMap;
use kernel_config::memory::MEMORY_GUARD;

/// Bytes of the widest access.
const WIDEST: u64 = 16;

/// What becomes of an access: `base + (index << scale) + offset`.
pub(super) struct Access {
    inst: Inst,
    base: Value,
    index: Value,
    scale: u32,
    offset: u32,
}

/// Looks at all accesses.
pub(super) fn plan(func: &Function, edges: &Edges, domtree: &DominatorTree) -> Vec<Access> {
    let mut ranges = Ranges::new(func, edges, domtree);
    let mut bits = Ranges::of_bits(func, edges, domtree);
    let mut accesses = Vec::new();
    for block in func.layout.blocks() {
        for inst in func.layout.block_insts(block) {
            if let Some(access) = access(func, inst, block, &mut ranges, &mut bits) {
                accesses.push(access);
            }
        }
    }
    accesses
}

fn access(func: &Function, inst: Inst, block: Block, ranges: &mut Ranges<'_>, bits: &mut Ranges<'_>) -> Option<Access> {
    let (address, offset) = match func.dfg.insts[inst] {
        InstructionData::Load { arg, offset, .. } => (arg, offset),
        InstructionData::Store { args, offset, .. } => (args[1], offset),
        _ => return None,
    };
    if !is_memory_access(func, inst) {
        return None;
    }
    let (Opcode::Iadd, [a, b]) = binary(func, address)? else { return None };
    let (base, mut index) = match (extended(func, b), extended(func, a)) {
        (Some(index), _) => (a, index),
        (None, Some(index)) => (b, index),
        _ => return None,
    };
    let mut offset = u64::from(u32::try_from(i32::from(offset)).ok()?);
    let (mut scale, mut changed) = (0, false);
    loop {
        if let Some((inner, c)) = plus_constant(func, index)
            && let range = if scale == 0 { ranges.at(inner, block) } else { bits.of(inner) }
            && let Some(sum) = offset_with(range, c, scale, offset)
        {
            (index, offset, changed) = (inner, sum, true);
        } else if let Some((Opcode::Ishl, [inner, by])) = binary(func, index)
            && let Some(by) = constant(func, by)
            && scale + by <= 3
            && u64::from(bits.of(inner).high) << (scale + by) <= u64::from(u32::MAX)
        {
            (index, scale, changed) = (inner, scale + by, true);
        } else {
            break;
        }
    }
    let offset = u32::try_from(offset).ok()?;
    changed.then_some(Access { inst, base, index, scale, offset })
}

/// Whether an access is one of a linear memory.
pub(super) fn is_memory_access(func: &Function, inst: Inst) -> bool {
    let code = func.dfg.insts[inst].memflags_trap_code(&func.dfg);
    code.and_then(|code| TrapCode::from_u8(code.as_raw().get())) == Some(TrapCode::MemoryOutOfBounds)
}

/// The offset of an access with `c` added to it instead of to an index in `range`, if that is the same and stays below the guard.
fn offset_with(range: Range, c: u32, scale: u32, offset: u64) -> Option<u64> {
    let sum = if u64::from(range.high) + u64::from(c) <= u64::from(u32::MAX) {
        offset.checked_add(u64::from(c) << scale)?
    } else if u64::from(range.low) + u64::from(c) > u64::from(u32::MAX) {
        offset.checked_sub(u64::from(c.wrapping_neg()) << scale)?
    } else {
        return None;
    };
    (sum + WIDEST <= MEMORY_GUARD).then_some(sum)
}

/// Makes the accesses what was planned.
pub(super) fn apply(func: &mut Function, accesses: Vec<Access>) {
    let mut extensions: HashMap<(Value, u32), Value> = HashMap::new();
    for access in accesses {
        let index =
            *extensions.entry((access.index, access.scale)).or_insert_with(|| extend(func, access.index, access.scale));
        let mut cursor = FuncCursor::new(func).at_inst(access.inst);
        cursor.use_srcloc(access.inst);
        let address = cursor.ins().iadd(access.base, index);
        let displacement = (access.offset as i32).into();
        match &mut func.dfg.insts[access.inst] {
            InstructionData::Load { arg, offset, .. } => (*arg, *offset) = (address, displacement),
            InstructionData::Store { args, offset, .. } => (args[1], *offset) = (address, displacement),
            _ => {}
        }
    }
}

/// An index with 64 bits, scaled, made where the index is made.
fn extend(func: &mut Function, index: Value, scale: u32) -> Value {
    let mut cursor = match func.dfg.value_def(index) {
        ValueDef::Result(inst, _) => FuncCursor::new(func).after_inst(inst),
        ValueDef::Param(block, _) => FuncCursor::new(func).at_first_insertion_point(block),
        ValueDef::Union(..) => unreachable!("the optimiser leaves no unions"),
    };
    let wide = cursor.ins().uextend(types::I64, index);
    if scale == 0 { wide } else { cursor.ins().ishl_imm_u(wide, i64::from(scale)) }
}
