//! Linear memories: addresses, loads and stores, size and growth, bulk operations.
//!
//! A *guarded* memory needs no check for static offsets below the guard: the index is 32 bits wide, so the access
//! either is in bounds or faults in memory that is reserved and not mapped. In a *checked* memory, and beyond the guard,
//! `offset + size` is a constant `C`, and the access is in bounds iff `index <= length - C`, without wrap-around. That
//! `length >= C` is known when the memory's minimum is that large, since memories only grow; otherwise it is checked
//! as well. The address of a checked access passes through a select on the check's own condition, so that a
//! mispredicted branch cannot read beyond the memory (Spectre variant 1).

use super::{Address, FuncTranslator, Translated};
use crate::abi;
use crate::builtin::Builtin;
use crate::trap::TrapCode;
use crate::types::MemoryStyle;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use kernel_config::memory::MEMORY_GUARD;
use wasmparser::{MemArg, MemArgTarget, Operator};

impl FuncTranslator<'_> {
    /// Pops the index of a memory access of `size` bytes and checks it. What is returned can be accessed at once:
    /// it is in bounds, or the access itself faults with the memory trap.
    pub fn memory_address(&mut self, memarg: &MemArg, size: u32) -> Address {
        let index = self.pop();
        self.memory_address_of(index, memarg, size)
    }

    /// As [`Self::memory_address`], for an index that was popped already.
    pub fn memory_address_of(&mut self, index: Value, memarg: &MemArg, size: u32) -> Address {
        let MemArgTarget::Memory(memory) = memarg.target else {
            unreachable!("arrays need the gc feature, which validation refuses");
        };
        let flags = MemFlagsData::new()
            .with_alias_region(Some(self.regions.heap))
            .with_trap_code(Some(Self::trap_code(TrapCode::MemoryOutOfBounds)));
        let index = self.widen_index(index);
        let base = self.memory_base(memory);
        let guarded = self.env.meta.memories[memory as usize].style == MemoryStyle::Guarded;
        if guarded && memarg.offset + u64::from(size) <= MEMORY_GUARD {
            let base = self.builder.ins().iadd(base, index);
            return Address { base, offset: memarg.offset as i32, flags };
        }
        let out = self.out_of_bounds(memory, index, memarg.offset, size);
        self.trap_if(out, TrapCode::MemoryOutOfBounds);
        let address = self.builder.ins().iadd(base, index);
        let address = self.builder.ins().iadd_imm_s(address, memarg.offset as i64);
        let null = self.builder.ins().iconst(types::I64, 0);
        let base = self.builder.ins().select_spectre_guard(out, null, address);
        Address { base, offset: 0, flags }
    }

    /// The address as one value, for instructions without a static offset.
    pub fn flatten(&mut self, address: Address) -> Value {
        if address.offset == 0 {
            return address.base;
        }
        self.builder.ins().iadd_imm_s(address.base, i64::from(address.offset))
    }

    /// Whether an access of `size` bytes at `index + offset` leaves the memory. `index` is 64 bits wide.
    fn out_of_bounds(&mut self, memory: u32, index: Value, offset: u64, size: u32) -> Value {
        let Some(end) = offset.checked_add(u64::from(size)) else {
            return self.builder.ins().iconst(types::I8, 1);
        };
        let ty = self.env.meta.memories[memory as usize].ty;
        let min_bytes = ty.min.saturating_mul(1 << ty.page_size_log2);
        let bytes = self.memory_bytes(memory);
        let end_value = self.builder.ins().iconst(types::I64, end as i64);
        let last = self.builder.ins().isub(bytes, end_value);
        let beyond = self.builder.ins().icmp(IntCC::UnsignedGreaterThan, index, last);
        if min_bytes >= end {
            return beyond;
        }
        let too_small = self.builder.ins().icmp(IntCC::UnsignedLessThan, bytes, end_value);
        self.builder.ins().bor(too_small, beyond)
    }

    /// Base address of a memory.
    fn memory_base(&mut self, memory: u32) -> Value {
        let record = self.env.meta.layout.memories[memory as usize] as i32;
        self.load_constant_word(record + abi::RECORD_BASE)
    }

    /// Current length of a memory in bytes.
    fn memory_bytes(&mut self, memory: u32) -> Value {
        let record = self.env.meta.layout.memories[memory as usize] as i32;
        let descriptor = self.load_constant_word(record + abi::RECORD_DESCRIPTOR);
        let flags = MemFlagsData::trusted().with_alias_region(Some(self.regions.lengths));
        self.builder.ins().load(types::I64, flags, descriptor, abi::MEMORY_BYTES)
    }
}

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    let _ = (t, op);
    Ok(false)
}
