//! Tables: access with bounds check, size and growth, bulk operations.
//!
//! The bounds of a table that is defined here and cannot grow are constants. An access beyond the bounds goes to an address
//! that is never mapped, chosen without a branch, so that none can be mispredicted (Spectre variant 1), and faults.

use super::{FuncTranslator, Translated};
use crate::abi;
use crate::builtin::Builtin;
use crate::trap::TrapCode;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Type, Value, types};
use wasmparser::Operator;

/// Where accesses out of bounds go: into the last page of the address space, which every port leaves unmapped.
pub(super) const NOWHERE: i64 = -16;

impl FuncTranslator<'_> {
    /// Address of the element at `index`; one where accesses fault if there is none.
    fn element_address(&mut self, table: u32, index: Value) -> Value {
        let out = match self.constant_table_len(table) {
            // Compared as it is, so that nothing waits for the wider index.
            Some(len) => self.builder.ins().icmp_imm_u(IntCC::UnsignedGreaterThanOrEqual, index, len),
            None => {
                let (index, len) = (self.widen_index(index), self.table_len(table));
                self.builder.ins().icmp(IntCC::UnsignedGreaterThanOrEqual, index, len)
            }
        };
        let index = self.widen_index(index);
        let record = self.env.meta.layout.tables[table as usize] as i32;
        let base = self.load_constant_word(record + abi::RECORD_BASE);
        let offset = self.builder.ins().ishl_imm_u(index, i64::from(abi::TABLE_ELEMENT.trailing_zeros()));
        let address = self.builder.ins().iadd(base, offset);
        let nowhere = self.builder.ins().iconst(types::I64, NOWHERE);
        self.builder.ins().select_spectre_guard(out, nowhere, address)
    }

    /// Number of elements of a table that is defined here and cannot grow, if the comparison with an index can hold it.
    fn constant_table_len(&self, table: u32) -> Option<i64> {
        let ty = &self.env.meta.tables[table as usize].ty;
        let is_fixed = table >= self.env.meta.imported_tables && ty.max == Some(ty.min);
        i64::try_from(ty.min).ok().filter(|len| is_fixed && *len <= i64::from(u32::MAX))
    }

    /// Current number of elements.
    fn table_len(&mut self, table: u32) -> Value {
        if let Some(len) = self.constant_table_len(table) {
            return self.builder.ins().iconst(types::I64, len);
        }
        let record = self.env.meta.layout.tables[table as usize] as i32;
        let descriptor = self.load_constant_word(record + abi::RECORD_DESCRIPTOR);
        let flags = MemFlagsData::trusted().with_alias_region(Some(self.regions.lengths));
        self.builder.ins().load(types::I64, flags, descriptor, abi::TABLE_LEN)
    }

    fn element_flags(&self) -> MemFlagsData {
        MemFlagsData::new()
            .with_aligned()
            .with_alias_region(Some(self.regions.tables))
            .with_trap_code(Some(Self::trap_code(TrapCode::TableOutOfBounds)))
    }

    /// The element at `index`; traps if there is none.
    pub(super) fn table_element(&mut self, table: u32, index: Value) -> Value {
        let address = self.element_address(table, index);
        let flags = self.element_flags();
        self.builder.ins().load(types::I64, flags, address, 0)
    }

    fn table_set(&mut self, table: u32) {
        let (index, value) = self.pop2();
        let address = self.element_address(table, index);
        let flags = self.element_flags();
        self.builder.ins().store(flags, value, address, 0);
    }

    fn table_index_type(&self, table: u32) -> Type {
        if self.env.meta.tables[table as usize].ty.is64 { types::I64 } else { types::I32 }
    }

    fn table_size(&mut self, table: u32) {
        let len = self.table_len(table);
        let len = self.narrow(len, self.table_index_type(table));
        self.push(len);
    }

    fn table_grow(&mut self, table: u32) -> Translated {
        let (init, delta) = self.pop2();
        let delta = self.widen_index(delta);
        let index = self.const32(table);
        let previous = self.call_builtin_value(Builtin::TableGrow, &[index, delta, init])?;
        let previous = self.narrow(previous, self.table_index_type(table));
        self.push(previous);
        Ok(())
    }

    fn table_fill(&mut self, table: u32) -> Translated {
        let (dst, value, len) = self.pop3();
        let (dst, len) = (self.widen_index(dst), self.widen_index(len));
        let index = self.const32(table);
        let status = self.call_builtin_value(Builtin::TableFill, &[index, dst, value, len])?;
        self.trap_if(status, TrapCode::TableOutOfBounds);
        Ok(())
    }

    /// `table.copy` and `table.init`: two indices, then three operands.
    fn table_bulk(&mut self, builtin: Builtin, first: u32, second: u32) -> Translated {
        let (dst, src, len) = self.pop3();
        let (dst, src, len) = (self.widen_index(dst), self.widen_index(src), self.widen_index(len));
        let (first, second) = (self.const32(first), self.const32(second));
        let status = self.call_builtin_value(builtin, &[first, second, dst, src, len])?;
        self.trap_if(status, TrapCode::TableOutOfBounds);
        Ok(())
    }
}

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    match op {
        Operator::TableGet { table } => {
            let index = t.pop();
            let element = t.table_element(*table, index);
            t.push(element);
        }
        Operator::TableSet { table } => t.table_set(*table),
        Operator::TableSize { table } => t.table_size(*table),
        Operator::TableGrow { table } => t.table_grow(*table)?,
        Operator::TableFill { table } => t.table_fill(*table)?,
        Operator::TableCopy { dst_table, src_table } => t.table_bulk(Builtin::TableCopy, *dst_table, *src_table)?,
        Operator::TableInit { elem_index, table } => t.table_bulk(Builtin::TableInit, *table, *elem_index)?,
        Operator::ElemDrop { elem_index } => {
            let segment = t.const32(*elem_index);
            t.call_builtin(Builtin::ElemDrop, &[segment])?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}
