//! What translating one function body needs to know of its module.

use crate::builtin::Builtin;
use crate::cpu::CpuFeatures;
use crate::inline::Inlinable;
use crate::metadata::{ConstExpr, ConstOp, Metadata};
use crate::types::{FuncType, MemoryStyle, TypeId};
use cranelift_codegen::isa::TargetFrontendConfig;

/// The module as function bodies see it: complete before the first body is translated, immutable afterwards, so bodies
/// can be compiled in any order.
pub(crate) struct ModuleEnv<'a> {
    /// Types, imports, memories, tables, globals and the layout of the data block. Code offsets are not filled in yet.
    pub meta: &'a Metadata,
    /// What the processor can do.
    pub cpu: CpuFeatures,
    /// Functions that are translated in place of calls.
    pub inlinable: &'a Inlinable<'a>,
    /// What the builder wants to know of the target.
    pub frontend: TargetFrontendConfig,
}

impl<'a> ModuleEnv<'a> {
    /// Type index of a function.
    pub fn type_of(&self, func: u32) -> u32 {
        let imported = self.meta.imported_funcs.len();
        match self.meta.imported_funcs.get(func as usize) {
            Some(ty) => *ty,
            None => self.meta.funcs[func as usize - imported].ty,
        }
    }

    /// The function type at a type index.
    pub fn func_type(&self, ty: u32) -> &'a FuncType {
        &self.meta.types[ty as usize]
    }

    /// The id that code uses for the type at a type index.
    pub fn type_id(&self, ty: u32) -> TypeId {
        self.meta.type_ids[ty as usize].id
    }

    /// Whether the function comes from another cell.
    pub fn is_imported(&self, func: u32) -> bool {
        (func as usize) < self.meta.imported_funcs.len()
    }

    /// Offset in the data block of the slot of an imported function.
    pub fn import_slot(&self, func: u32) -> i32 {
        self.meta.layout.func_import_slots[func as usize] as i32
    }

    /// Offset in the data block of the slot that `ref.func` reads.
    pub fn escaped_slot(&self, func: u32) -> Option<i32> {
        let k = self.meta.escaped_funcs.binary_search(&func).ok()?;
        self.meta.layout.escaped_slots.get(k).map(|slot| *slot as i32)
    }

    /// Offset in the data block of a builtin's slot.
    pub fn builtin_slot(&self, builtin: Builtin) -> Option<i32> {
        let k = self.meta.builtins.iter().position(|b| *b == builtin)?;
        Some(self.meta.layout.builtin_slots as i32 + 8 * k as i32)
    }

    /// What the memory holds at least, in bytes, as far as code may depend on it: the largest power of two, so that little depends on it. 0 if
    /// there is not exactly one memory, or its accesses are checked.
    pub fn memory_floor(&self) -> u64 {
        match &*self.meta.memories {
            [memory] if memory.style == MemoryStyle::Guarded => {
                memory.ty.min.checked_ilog2().map_or(0, |log2| 1 << (log2 + memory.ty.page_size_log2).min(63))
            }
            _ => 0,
        }
    }

    /// The value of an immutable global that is known now.
    pub fn constant_global(&self, global: u32) -> Option<ConstOp> {
        let g = &self.meta.globals[global as usize];
        match &g.init {
            Some(ConstExpr(ops)) if !g.ty.mutable => match **ops {
                [
                    op @ (ConstOp::I32Const(_)
                    | ConstOp::I64Const(_)
                    | ConstOp::F32Const(_)
                    | ConstOp::F64Const(_)
                    | ConstOp::V128Const(_)
                    | ConstOp::RefNull),
                ] => Some(op),
                _ => None,
            },
            _ => None,
        }
    }
}
