//! Calls: direct, imported, indirect, by reference, and their tail forms.
//!
//! A call inside the module is a near call. An imported function is called through its slot, which holds a stable entry.
//! `call_indirect` compares the type id in front of the callee's code with the expected one; a null callee makes that
//! load fault at address -4 (D4).

use super::{FuncTranslator, Translated, namespace, signature};
use crate::trap::TrapCode;
use alloc::vec::Vec;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    ExtFuncData, ExternalName, FuncRef, Inst, InstBuilder, MemFlagsData, SigRef, UserExternalName, Value, types,
};
use kernel_config::cell::TYPE_ID_OFFSET;
use wasmparser::Operator;

/// Whether the callee returns here or to our caller.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Call,
    Tail,
}

impl FuncTranslator<'_> {
    fn sig_ref(&mut self, ty: u32) -> SigRef {
        if let Some(sig) = self.scratch.sig_refs.get(&ty) {
            return *sig;
        }
        let sig = self.builder.import_signature(signature(self.env.func_type(ty)));
        self.scratch.sig_refs.insert(ty, sig);
        sig
    }

    fn func_ref(&mut self, func: u32) -> FuncRef {
        if let Some(f) = self.scratch.func_refs.get(&func) {
            return *f;
        }
        let signature = self.sig_ref(self.env.type_of(func));
        let name = self.builder.func.declare_imported_user_function(UserExternalName::new(namespace::FUNC, func));
        let f = self.builder.import_function(ExtFuncData {
            name: ExternalName::user(name),
            signature,
            colocated: true,
            patchable: false,
        });
        self.scratch.func_refs.insert(func, f);
        f
    }

    /// Pops the arguments for a function of type `ty`.
    pub(super) fn pop_args(&mut self, ty: u32) -> Vec<Value> {
        let count = self.env.func_type(ty).params.len();
        let mut args = core::mem::take(&mut self.scratch.values);
        args.clear();
        let start = self.scratch.stack.len() - count;
        for i in start..self.scratch.stack.len() {
            let value = self.scratch.stack[i];
            args.push(self.canonical(value));
        }
        self.scratch.stack.truncate(start);
        self.branch_args += count;
        args
    }

    /// Makes a call's results operands, or ends the block behind a tail call.
    fn finish_call(&mut self, call: Inst, kind: Kind, args: Vec<Value>) {
        self.scratch.values = args;
        self.scratch.known.forget_at_call();
        match kind {
            Kind::Call => self.scratch.stack.extend_from_slice(self.builder.inst_results(call)),
            Kind::Tail => self.reachable = false,
        }
    }

    fn call(&mut self, func: u32, kind: Kind) -> Translated {
        let ty = self.env.type_of(func);
        if self.env.is_imported(func) {
            let callee = self.load_constant_word(self.env.import_slot(func));
            self.call_address(ty, callee, kind);
            return Ok(());
        }
        if kind == Kind::Call && self.inline(func)? {
            return Ok(());
        }
        let f = self.func_ref(func);
        let args = self.pop_args(ty);
        let call = match kind {
            Kind::Call => self.builder.ins().call(f, &args),
            Kind::Tail => self.builder.ins().return_call(f, &args),
        };
        self.finish_call(call, kind, args);
        Ok(())
    }

    /// Calls the function at `callee`, known to be of type `ty`.
    fn call_address(&mut self, ty: u32, callee: Value, kind: Kind) {
        let sig = self.sig_ref(ty);
        let args = self.pop_args(ty);
        let call = match kind {
            Kind::Call => self.builder.ins().call_indirect(sig, callee, &args),
            Kind::Tail => self.builder.ins().return_call_indirect(sig, callee, &args),
        };
        self.finish_call(call, kind, args);
    }

    fn call_indirect(&mut self, table: u32, ty: u32, kind: Kind) {
        let index = self.pop();
        let callee = self.table_element(table, index);
        // Type ids are part of the text, so they never change.
        let flags = MemFlagsData::new()
            .with_aligned()
            .with_readonly()
            .with_trap_code(Some(Self::trap_code(TrapCode::IndirectCallToNull)));
        let id = self.builder.ins().load(types::I32, flags, callee, TYPE_ID_OFFSET);
        let expected = self.env.type_id(ty);
        let differs = self.builder.ins().icmp_imm_u(IntCC::NotEqual, id, i64::from(expected.0));
        self.trap_if(differs, TrapCode::BadSignature);
        self.call_address(ty, callee, kind);
    }

    fn call_ref(&mut self, ty: u32, kind: Kind) {
        let callee = self.pop();
        self.check_non_null(callee, TrapCode::NullReference);
        self.call_address(ty, callee, kind);
    }
}

/// Translates `op` if it belongs here; false if it does not.
pub(super) fn translate(t: &mut FuncTranslator<'_>, op: &Operator<'_>) -> Translated<bool> {
    use Operator::*;
    match op {
        Call { function_index } => t.call(*function_index, Kind::Call)?,
        ReturnCall { function_index } => t.call(*function_index, Kind::Tail)?,
        CallIndirect { type_index, table_index } => t.call_indirect(*table_index, *type_index, Kind::Call),
        ReturnCallIndirect { type_index, table_index } => t.call_indirect(*table_index, *type_index, Kind::Tail),
        CallRef { type_index } => t.call_ref(*type_index, Kind::Call),
        ReturnCallRef { type_index } => t.call_ref(*type_index, Kind::Tail),
        _ => return Ok(false),
    }
    Ok(true)
}
