//! Locals, globals, and the operators that only move operands.
//!
//! Immutable globals with a constant initialiser are constants; other immutable globals are words that never change.
//! A mutable global that is imported lies elsewhere: the data block holds its address.

use super::{FuncTranslator, Translated, clif_type, constant_word};
use crate::metadata::ConstOp;
use cranelift_codegen::ir::immediates::{Ieee32, Ieee64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use wasmparser::Operator;

impl FuncTranslator<'_> {
    /// Address of a mutable global as base and offset.
    fn global_place(&mut self, global: u32) -> (Value, i32) {
        let offset = self.env.meta.layout.globals[global as usize] as i32;
        if global < self.env.meta.imported_globals {
            (self.load_constant_word(offset), 0)
        } else {
            (self.data_block(), offset)
        }
    }

    fn global_flags(&self) -> MemFlagsData {
        MemFlagsData::trusted().with_alias_region(Some(self.regions.globals))
    }

    fn global_get(&mut self, global: u32) {
        if let Some(constant) = self.env.constant_global(global)
            && let Some(value) = self.constant(constant)
        {
            self.push(value);
            return;
        }
        let ty = self.env.meta.globals[global as usize].ty;
        let clif = clif_type(ty.content);
        let value = if ty.mutable {
            let (base, offset) = self.global_place(global);
            let flags = self.global_flags();
            self.builder.ins().load(clif, flags, base, offset)
        } else {
            let offset = self.env.meta.layout.globals[global as usize] as i32;
            let data = self.data_block();
            self.builder.ins().load(clif, constant_word(), data, offset)
        };
        self.push(value);
    }

    fn global_set(&mut self, global: u32) {
        let value = self.pop();
        let value = self.canonical(value);
        let (base, offset) = self.global_place(global);
        let flags = self.global_flags();
        self.builder.ins().store(flags, value, base, offset);
    }

    /// The value of a constant instruction; `None` if it is none.
    fn constant(&mut self, op: ConstOp) -> Option<Value> {
        Some(match op {
            ConstOp::I32Const(n) => self.builder.ins().iconst(types::I32, i64::from(n)),
            ConstOp::I64Const(n) => self.builder.ins().iconst(types::I64, n),
            ConstOp::F32Const(bits) => self.builder.ins().f32const(Ieee32::with_bits(bits)),
            ConstOp::F64Const(bits) => self.builder.ins().f64const(Ieee64::with_bits(bits)),
            ConstOp::V128Const(bytes) => {
                let constant = self.builder.func.dfg.constants.insert(bytes.as_slice().into());
                self.builder.ins().vconst(super::V128, constant)
            }
            ConstOp::RefNull => self.builder.ins().iconst(types::I64, 0),
            _ => return None,
        })
    }

    fn local_set(&mut self, local: u32, value: Value) {
        let value = self.canonical(value);
        let var = self.scratch.locals[local as usize];
        self.builder.def_var(var, value);
    }
}

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    use Operator::*;
    match op {
        LocalGet { local_index } => {
            let var = t.scratch.locals[*local_index as usize];
            let value = t.builder.use_var(var);
            t.push(value);
        }
        LocalSet { local_index } => {
            let value = t.pop();
            t.local_set(*local_index, value);
        }
        LocalTee { local_index } => {
            let value = t.pop();
            t.push(value);
            t.local_set(*local_index, value);
        }
        GlobalGet { global_index } => t.global_get(*global_index),
        GlobalSet { global_index } => t.global_set(*global_index),
        Drop => {
            t.pop();
        }
        Select | TypedSelect { .. } => t.select(),
        _ => return Ok(false),
    }
    Ok(true)
}
