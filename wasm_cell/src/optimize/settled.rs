//! Functions that optimisers leave as they are.
//!
//! What replaces a computation looks at what its operands are computed from, at operands that are the same, at another one that is equal, or
//! at a loop. A function of one block that computes one value from its parameters and results of calls has nothing of that: wrappers, small
//! operators, functions that are not done yet.

use cranelift_codegen::ir::{Function, Opcode, ValueDef};

/// Most instructions of such a function.
const INSTRUCTIONS: usize = 8;

/// Whether it is one.
pub(crate) fn is_settled(func: &Function) -> bool {
    let Some(entry) = func.layout.entry_block() else { return false };
    if func.layout.last_block() != Some(entry) || func.dfg.num_insts() > INSTRUCTIONS {
        return false;
    }
    let mut computing = None;
    for inst in func.layout.block_insts(entry) {
        let opcode = func.dfg.insts[inst].opcode();
        if !opcode.is_call() && opcode != Opcode::Return && computing.replace(inst).is_some() {
            return false;
        }
    }
    let Some(inst) = computing else { return true };
    let operands = func.dfg.inst_args(inst);
    operands.iter().enumerate().all(|(i, operand)| {
        let operand = func.dfg.resolve_aliases(*operand);
        let is_given = match func.dfg.value_def(operand) {
            ValueDef::Param(..) => true,
            ValueDef::Result(by, _) => func.dfg.insts[by].opcode().is_call(),
            _ => false,
        };
        is_given && operands[..i].iter().all(|other| func.dfg.resolve_aliases(*other) != operand)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::is_settled;
    use alloc::format;
    use cranelift_codegen::Context;
    use cranelift_codegen::control::ControlPlane;
    use cranelift_codegen::ir::{
        AbiParam, Function, InstBuilder, MemFlagsData, Signature, Type, UserFuncName, Value, condcodes::IntCC, types,
    };
    use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
    use cranelift_codegen::settings::{self, Configurable};
    use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

    fn optimiser() -> OwnedTargetIsa {
        let mut flags = settings::builder();
        flags.set("opt_level", "speed").unwrap();
        let isa = cranelift_codegen::isa::lookup_by_name("x86_64-unknown-none-elf").unwrap();
        isa.finish(settings::Flags::new(flags)).unwrap()
    }

    /// A function of three parameters and a result of this type.
    fn function(ty: Type, body: impl FnOnce(&mut FunctionBuilder<'_>, &[Value]) -> Value) -> Function {
        let mut signature = Signature::new(CallConv::Tail);
        signature.params.extend([AbiParam::new(ty); 3]);
        let mut func = Function::with_name_signature(UserFuncName::default(), signature);
        let mut context = FunctionBuilderContext::new();
        let mut b = FunctionBuilder::new(&mut func, &mut context);
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        b.seal_all_blocks();
        let params = b.block_params(entry).to_vec();
        let result = body(&mut b, &params);
        b.ins().return_(&[result]);
        let result = AbiParam::new(b.func.dfg.value_type(result));
        b.func.signature.returns.push(result);
        b.finalize(optimiser().frontend_config());
        func
    }

    #[track_caller]
    fn assert_settled(func: Function) {
        assert!(is_settled(&func), "{func}");
        let before = format!("{func}");
        let mut context = Context::for_function(func);
        context.optimize(&*optimiser(), &mut ControlPlane::default()).unwrap();
        assert_eq!(format!("{}", context.func), before);
    }

    #[test]
    fn the_optimiser_changes_nothing_of_what_is_settled() {
        assert_settled(function(types::I32, |_, p| p[1]));
        for ty in [types::I32, types::I64] {
            assert_settled(function(ty, |b, p| b.ins().iadd(p[0], p[1])));
            assert_settled(function(ty, |b, p| b.ins().isub(p[1], p[0])));
            assert_settled(function(ty, |b, p| b.ins().imul(p[0], p[1])));
            assert_settled(function(ty, |b, p| b.ins().band(p[0], p[1])));
            assert_settled(function(ty, |b, p| b.ins().bor(p[0], p[1])));
            assert_settled(function(ty, |b, p| b.ins().bxor(p[0], p[1])));
            assert_settled(function(ty, |b, p| b.ins().ishl(p[0], p[1])));
            assert_settled(function(ty, |b, p| b.ins().sshr(p[0], p[1])));
            assert_settled(function(ty, |b, p| b.ins().rotl(p[0], p[1])));
            assert_settled(function(ty, |b, p| b.ins().icmp(IntCC::SignedLessThan, p[0], p[1])));
            assert_settled(function(ty, |b, p| b.ins().select(p[0], p[1], p[2])));
            assert_settled(function(ty, |b, p| b.ins().clz(p[0])));
            assert_settled(function(ty, |b, p| b.ins().popcnt(p[0])));
            assert_settled(function(ty, |b, _| b.ins().iconst(ty, 7)));
        }
        assert_settled(function(types::I32, |b, p| b.ins().uextend(types::I64, p[0])));
        assert_settled(function(types::I64, |b, p| b.ins().ireduce(types::I32, p[0])));
        assert_settled(function(types::I64, |b, p| b.ins().load(types::I32, MemFlagsData::trusted(), p[0], 8)));
        for ty in [types::F32, types::F64] {
            assert_settled(function(ty, |b, p| b.ins().fadd(p[0], p[1])));
            assert_settled(function(ty, |b, p| b.ins().fdiv(p[0], p[1])));
            assert_settled(function(ty, |b, p| b.ins().fneg(p[0])));
            assert_settled(function(ty, |b, p| b.ins().sqrt(p[0])));
        }
    }

    #[test]
    fn more_than_that_is_the_optimisers_work() {
        let twice = function(types::I32, |b, p| {
            let sum = b.ins().iadd(p[0], p[1]);
            b.ins().iadd(sum, p[2])
        });
        let constant = function(types::I32, |b, p| {
            let zero = b.ins().iconst(types::I32, 0);
            b.ins().iadd(p[0], zero)
        });
        let same = function(types::I32, |b, p| b.ins().isub(p[0], p[0]));
        let blocks = function(types::I32, |b, p| {
            let next = b.create_block();
            b.ins().jump(next, &[]);
            b.switch_to_block(next);
            b.seal_block(next);
            p[0]
        });
        for func in [twice, constant, same, blocks] {
            assert!(!is_settled(&func), "{func}");
        }
    }
}
