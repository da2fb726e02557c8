//! Linear memories: addresses, loads and stores, size and growth, bulk operations.
//!
//! A *guarded* memory needs no check for static offsets below the guard: the index is 32 bits wide, so the access
//! either is in bounds or faults in memory that is reserved and not mapped. In a *checked* memory, and beyond the guard,
//! `offset + size` is a constant `C`, and the access is in bounds iff `index <= length - C`, without wrap-around. That
//! `length >= C` is known when the memory's minimum is that large, since memories only grow; otherwise it is checked
//! as well. An access out of bounds goes to an address that is never mapped, chosen without a branch, so that none can
//! be mispredicted (Spectre variant 1), and faults.

use super::table::NOWHERE;
use super::{Address, FuncTranslator, Translated};
use crate::abi;
use crate::builtin::Builtin;
use crate::generator::Effort;
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
        let base = self.memory_base(memory);
        let guarded = self.env.meta.memories[memory as usize].style == MemoryStyle::Guarded;
        if guarded
            && let Some(offset) = self.constant32(index).and_then(|index| memarg.offset.checked_add(index.into()))
            && offset + u64::from(size) <= MEMORY_GUARD
        {
            return Address { base, offset: offset as i32, flags };
        }
        let index = self.widen_index(index);
        if guarded && memarg.offset + u64::from(size) <= MEMORY_GUARD {
            let base = self.sum(base, index);
            return Address { base, offset: memarg.offset as i32, flags };
        }
        // Of the checks of one index, much is the same.
        self.effort = Effort::Loops;
        let out = self.out_of_bounds(memory, index, memarg.offset, size);
        let address = self.sum(base, index);
        let address = self.builder.ins().iadd_imm_s(address, memarg.offset as i64);
        let nowhere = self.builder.ins().iconst(types::I64, NOWHERE);
        let base = self.builder.ins().select_spectre_guard(out, nowhere, address);
        Address { base, offset: 0, flags }
    }

    /// The value of a 32-bit constant.
    fn constant32(&self, value: Value) -> Option<u32> {
        self.integer(value).filter(|_| self.type_of(value) == types::I32).map(|bits| bits as u32)
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

impl FuncTranslator<'_> {
    fn load(&mut self, memarg: &MemArg, ty: Type, size: u32) {
        let a = self.memory_address(memarg, size);
        let v = self.builder.ins().load(ty, a.flags, a.base, a.offset);
        self.push(v);
    }

    fn store(&mut self, memarg: &MemArg, size: u32) {
        let value = self.pop();
        let a = self.memory_address(memarg, size);
        let value = self.canonical(value);
        self.builder.ins().store(a.flags, value, a.base, a.offset);
    }

    /// Type of indices of a memory.
    fn memory_index_type(&self, memory: u32) -> Type {
        if self.env.meta.memories[memory as usize].ty.is64 { types::I64 } else { types::I32 }
    }

    fn memory_size(&mut self, memory: u32) {
        let ty = self.env.meta.memories[memory as usize].ty;
        let bytes = self.memory_bytes(memory);
        let pages = self.builder.ins().ushr_imm_u(bytes, i64::from(ty.page_size_log2));
        let pages = self.narrow(pages, self.memory_index_type(memory));
        self.push(pages);
    }

    /// A 64-bit result as an index of type `ty`.
    pub(super) fn narrow(&mut self, value: Value, ty: Type) -> Value {
        if ty == types::I32 { self.builder.ins().ireduce(types::I32, value) } else { value }
    }

    fn memory_grow(&mut self, memory: u32) -> Translated {
        let delta = self.pop();
        let delta = self.widen_index(delta);
        let index = self.const32(memory);
        let previous = self.call_builtin_value(Builtin::MemoryGrow, &[index, delta])?;
        let previous = self.narrow(previous, self.memory_index_type(memory));
        self.push(previous);
        Ok(())
    }

    fn memory_fill(&mut self, memory: u32) -> Translated {
        let (dst, value, len) = self.pop3();
        let (dst, len) = (self.widen_index(dst), self.widen_index(len));
        let index = self.const32(memory);
        let status = self.call_builtin_value(Builtin::MemoryFill, &[index, dst, value, len])?;
        self.trap_if(status, TrapCode::MemoryOutOfBounds);
        Ok(())
    }

    fn memory_copy(&mut self, dst_memory: u32, src_memory: u32) -> Translated {
        let (dst, src, len) = self.pop3();
        let (dst, src, len) = (self.widen_index(dst), self.widen_index(src), self.widen_index(len));
        let (d, s) = (self.const32(dst_memory), self.const32(src_memory));
        let status = self.call_builtin_value(Builtin::MemoryCopy, &[d, s, dst, src, len])?;
        self.trap_if(status, TrapCode::MemoryOutOfBounds);
        Ok(())
    }

    fn memory_init(&mut self, memory: u32, segment: u32) -> Translated {
        let (dst, src, len) = self.pop3();
        let (dst, src, len) = (self.widen_index(dst), self.widen_index(src), self.widen_index(len));
        let (m, s) = (self.const32(memory), self.const32(segment));
        let status = self.call_builtin_value(Builtin::MemoryInit, &[m, s, dst, src, len])?;
        self.trap_if(status, TrapCode::MemoryOutOfBounds);
        Ok(())
    }
}

/// `extending!(t, memarg, uload8, ty, size)`: a load that widens to `ty`.
macro_rules! extending {
    ($t:ident, $memarg:ident, $load:ident, $ty:expr, $size:literal) => {{
        let a = $t.memory_address($memarg, $size);
        let v = $t.builder.ins().$load($ty, a.flags, a.base, a.offset);
        $t.push(v);
    }};
    // The 32-bit ones have only one result type.
    ($t:ident, $memarg:ident, $load:ident, $size:literal) => {{
        let a = $t.memory_address($memarg, $size);
        let v = $t.builder.ins().$load(a.flags, a.base, a.offset);
        $t.push(v);
    }};
}

/// `narrowing!(t, memarg, istore8, size)`: a store of the low bits.
macro_rules! narrowing {
    ($t:ident, $memarg:ident, $store:ident, $size:literal) => {{
        let value = $t.pop();
        let a = $t.memory_address($memarg, $size);
        $t.builder.ins().$store(a.flags, value, a.base, a.offset);
    }};
}

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    use Operator::*;
    match op {
        I32Load { memarg } => t.load(memarg, types::I32, 4),
        I64Load { memarg } => t.load(memarg, types::I64, 8),
        F32Load { memarg } => t.load(memarg, types::F32, 4),
        F64Load { memarg } => t.load(memarg, types::F64, 8),
        I32Load8S { memarg } => extending!(t, memarg, sload8, types::I32, 1),
        I32Load8U { memarg } => extending!(t, memarg, uload8, types::I32, 1),
        I32Load16S { memarg } => extending!(t, memarg, sload16, types::I32, 2),
        I32Load16U { memarg } => extending!(t, memarg, uload16, types::I32, 2),
        I64Load8S { memarg } => extending!(t, memarg, sload8, types::I64, 1),
        I64Load8U { memarg } => extending!(t, memarg, uload8, types::I64, 1),
        I64Load16S { memarg } => extending!(t, memarg, sload16, types::I64, 2),
        I64Load16U { memarg } => extending!(t, memarg, uload16, types::I64, 2),
        I64Load32S { memarg } => extending!(t, memarg, sload32, 4),
        I64Load32U { memarg } => extending!(t, memarg, uload32, 4),
        I32Store { memarg } | F32Store { memarg } => t.store(memarg, 4),
        I64Store { memarg } | F64Store { memarg } => t.store(memarg, 8),
        I32Store8 { memarg } | I64Store8 { memarg } => narrowing!(t, memarg, istore8, 1),
        I32Store16 { memarg } | I64Store16 { memarg } => narrowing!(t, memarg, istore16, 2),
        I64Store32 { memarg } => narrowing!(t, memarg, istore32, 4),
        MemorySize { mem } => t.memory_size(*mem),
        MemoryGrow { mem } => t.memory_grow(*mem)?,
        MemoryFill { mem } => t.memory_fill(*mem)?,
        MemoryCopy { dst_mem, src_mem } => t.memory_copy(*dst_mem, *src_mem)?,
        MemoryInit { data_index, mem } => t.memory_init(*mem, *data_index)?,
        DataDrop { data_index } => {
            let segment = t.const32(*data_index);
            t.call_builtin(Builtin::DataDrop, &[segment])?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}
