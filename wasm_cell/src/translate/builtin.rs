//! Calls of the runtime's builtins through their slots.

use super::{FuncTranslator, Translated, unsupported};
use crate::abi;
use crate::builtin::Builtin;
use cranelift_codegen::ir::{AbiParam, InstBuilder, Signature, Type, Value, types};
use cranelift_codegen::isa::CallConv;

impl FuncTranslator<'_> {
    /// Calls a builtin and gives its result, if it has one. The instance address is not among `args`: it is put in
    /// front where the builtin takes it.
    pub fn call_builtin(&mut self, builtin: Builtin, args: &[Value]) -> Translated<Option<Value>> {
        let Some(slot) = self.env.builtin_slot(builtin) else {
            return unsupported(builtin);
        };
        let sig = match self.scratch.builtin_sigs.get(&builtin) {
            Some(sig) => *sig,
            None => {
                let sig = self.builder.import_signature(builtin_signature(builtin));
                self.scratch.builtin_sigs.insert(builtin, sig);
                sig
            }
        };
        let callee = self.load_constant_word(slot);
        let call = if takes_instance(builtin) {
            let mut with_instance = core::mem::take(&mut self.scratch.values);
            with_instance.clear();
            with_instance.push(self.load_constant_word(abi::HEADER_INSTANCE));
            with_instance.extend_from_slice(args);
            let call = self.builder.ins().call_indirect(sig, callee, &with_instance);
            self.scratch.values = with_instance;
            call
        } else {
            self.builder.ins().call_indirect(sig, callee, args)
        };
        self.scratch.known.forget_at_call();
        Ok(self.builder.inst_results(call).first().copied())
    }

    /// Calls a builtin that has a result.
    pub fn call_builtin_value(&mut self, builtin: Builtin, args: &[Value]) -> Translated<Value> {
        match self.call_builtin(builtin, args)? {
            Some(value) => Ok(value),
            None => unsupported(builtin),
        }
    }
}

/// Whether the first argument is the instance address.
fn takes_instance(builtin: Builtin) -> bool {
    use Builtin::*;
    !matches!(builtin, CeilF32 | FloorF32 | TruncF32 | NearestF32 | CeilF64 | FloorF64 | TruncF64 | NearestF64)
}

/// Signature of a builtin (see [`Builtin`]).
fn builtin_signature(builtin: Builtin) -> Signature {
    use Builtin::*;
    use types::{F32, F64, I32, I64};
    let (params, result): (&[Type], Option<Type>) = match builtin {
        MemoryGrow => (&[I64, I32, I64], Some(I64)),
        MemoryCopy | TableCopy | MemoryInit | TableInit => (&[I64, I32, I32, I64, I64, I64], Some(I32)),
        MemoryFill => (&[I64, I32, I64, I32, I64], Some(I32)),
        DataDrop | ElemDrop => (&[I64, I32], None),
        TableGrow => (&[I64, I32, I64, I64], Some(I64)),
        TableFill => (&[I64, I32, I64, I64, I64], Some(I32)),
        AtomicWait32 => (&[I64, I32, I64, I32, I64], Some(I64)),
        AtomicWait64 => (&[I64, I32, I64, I64, I64], Some(I64)),
        AtomicNotify => (&[I64, I32, I64, I32], Some(I64)),
        CeilF32 | FloorF32 | TruncF32 | NearestF32 => (&[F32], Some(F32)),
        CeilF64 | FloorF64 | TruncF64 | NearestF64 => (&[F64], Some(F64)),
    };
    Signature {
        params: params.iter().map(|t| AbiParam::new(*t)).collect(),
        returns: result.iter().map(|t| AbiParam::new(*t)).collect(),
        call_conv: CallConv::SystemV,
    }
}
