//! Adapters between C's calling convention and that of wasm functions, one per signature (D5).
//!
//! A register-only signature needs none: both conventions are the same there. For the others:
//!
//! - arguments are C's (System V psABI, 3.2.3): registers first, the rest on the stack, popped by the caller;
//! - one result is returned as in C;
//! - several results are a C struct in memory that the caller provides: its address is the first argument, and what the
//!   function returns. [`results_layout`] gives the fields. In C: `struct R *f(struct R *results, …)`.
//!
//! An adapter calls one fixed function, whose address stands in an 8-byte literal behind its code. Adapters of one
//! signature differ in nothing else, so the code is made once and copied.

use crate::compiler::{CompileOptions, Compiler};
use crate::eh_frame::EhFrame;
use crate::error::CompileError;
use crate::function::Worker;
use crate::generator::Effort;
use crate::translate::{clif_type, constant_word, namespace, signature};
use crate::types::{FuncType, ValType};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use cranelift_codegen::ir::{
    AbiParam, ExternalName, GlobalValueData, InstBuilder, MemFlagsData, Signature, StackSlotData, StackSlotKind,
    UserExternalName, UserFuncName, Value, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::FunctionBuilder;

/// Alignment of the code and its literal.
pub const ADAPTER_ALIGN: usize = 16;

/// Position-independent code with a literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adapter {
    /// Code, padding, and the literal, zero, as its last 8 bytes. Its place must be aligned to [`ADAPTER_ALIGN`]; so is
    /// its length.
    pub code: Vec<u8>,
    /// Offset of the literal: write the address of the function to call there.
    pub literal_offset: u32,
    /// `.eh_frame` with terminator, for a place directly behind `code`.
    pub eh_frame: Vec<u8>,
}

/// Which side calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    NativeToWasm,
    WasmToNative,
}

/// Layout of several results as a C struct: offset of each, and size and alignment of the whole, in bytes.
pub fn results_layout(ty: &FuncType) -> (Box<[u32]>, u32, u32) {
    let (mut size, mut align) = (0u32, 1);
    let offsets = ty
        .results
        .iter()
        .map(|t| {
            let bytes = match t {
                ValType::I32 | ValType::F32 => 4,
                ValType::I64 | ValType::F64 | ValType::Ref(_) => 8,
                ValType::V128 => 16,
            };
            let offset = size.next_multiple_of(bytes);
            size = offset + bytes;
            align = align.max(bytes);
            offset
        })
        .collect();
    (offsets, size.next_multiple_of(align), align)
}

/// The C signature of a wasm function type.
fn c_signature(ty: &FuncType) -> Signature {
    let mut c = Signature { call_conv: CallConv::SystemV, ..signature(ty) };
    if ty.results.len() > 1 {
        c.params.insert(0, AbiParam::new(types::I64));
        c.returns.clear();
        c.returns.push(AbiParam::new(types::I64));
    }
    c
}

impl Compiler {
    /// A C function of this type that calls a wasm function.
    ///
    /// # Errors
    /// [`CompileError::Codegen`] if the code generator refuses the signature.
    pub fn compile_native_to_wasm(&self, ty: &FuncType) -> Result<Adapter, CompileError> {
        self.compile_adapter(ty, Direction::NativeToWasm)
    }

    /// A wasm function of this type that calls a C function.
    ///
    /// # Errors
    /// [`CompileError::Codegen`] if the code generator refuses the signature.
    pub fn compile_wasm_to_native(&self, ty: &FuncType) -> Result<Adapter, CompileError> {
        self.compile_adapter(ty, Direction::WasmToNative)
    }

    fn compile_adapter(&self, ty: &FuncType, direction: Direction) -> Result<Adapter, CompileError> {
        let codegen = |reason: String| CompileError::Codegen { function: 0, offset: 0, reason };
        let mut worker = self.worker();
        build(&mut worker, ty, direction, self);
        worker.generate(self.generator(), Effort::Straight, 0, &CompileOptions::default()).map_err(codegen)?;
        let adapter = finish(&worker).map_err(codegen)?;
        self.give_back(worker);
        Ok(adapter)
    }
}

/// Builds the adapter's IR.
fn build(worker: &mut Worker, ty: &FuncType, direction: Direction, compiler: &Compiler) {
    let (own, callee) = match direction {
        Direction::NativeToWasm => (c_signature(ty), signature(ty)),
        Direction::WasmToNative => (signature(ty), c_signature(ty)),
    };
    let func = worker.start(UserFuncName::user(namespace::FUNC, 0));
    func.0.signature = own;
    let mut b = FunctionBuilder::new(func.0, func.1);
    let entry = b.create_block();
    b.append_block_params_for_function_params(entry);
    b.switch_to_block(entry);
    b.seal_block(entry);

    let name = b.func.declare_imported_user_function(UserExternalName::new(namespace::DATA, 0));
    let literal = b.create_global_value(GlobalValueData::Symbol {
        name: ExternalName::user(name),
        offset: 0.into(),
        colocated: true,
        tls: false,
    });
    let literal = b.ins().symbol_value(types::I64, literal);
    let target = b.ins().load(types::I64, constant_word(), literal, 0);
    let sig = b.import_signature(callee);

    let params: Vec<Value> = b.block_params(entry).to_vec();
    let flags = MemFlagsData::trusted();
    let several = ty.results.len() > 1;
    let (offsets, size, align) = results_layout(ty);
    match (direction, several) {
        (_, false) => {
            let call = b.ins().call_indirect(sig, target, &params);
            let results = b.inst_results(call).to_vec();
            b.ins().return_(&results);
        }
        (Direction::NativeToWasm, true) => {
            let (out, args) = params.split_first().expect("the C signature has the results' address");
            let call = b.ins().call_indirect(sig, target, args);
            let results = b.inst_results(call).to_vec();
            for (value, offset) in results.iter().zip(&offsets) {
                b.ins().store(flags, *value, *out, *offset as i32);
            }
            b.ins().return_(&[*out]);
        }
        (Direction::WasmToNative, true) => {
            let align_log2 = align.trailing_zeros() as u8;
            let slot = b.create_sized_stack_slot(StackSlotData::new(StackSlotKind::ExplicitSlot, size, align_log2));
            let out = b.ins().stack_addr(types::I64, slot, 0);
            let mut args = Vec::with_capacity(params.len() + 1);
            args.push(out);
            args.extend_from_slice(&params);
            b.ins().call_indirect(sig, target, &args);
            let mut results = Vec::with_capacity(ty.results.len());
            for (t, offset) in ty.results.iter().zip(&offsets) {
                results.push(b.ins().load(clif_type(*t), flags, out, *offset as i32));
            }
            b.ins().return_(&results);
        }
    }
    b.finalize(compiler.generator().frontend_config());
}

/// Adds the literal and resolves the references to it.
fn finish(worker: &Worker) -> Result<Adapter, String> {
    let function = &worker.code;
    let mut code = function.code.clone();
    let literal_offset = (code.len() + 8).next_multiple_of(ADAPTER_ALIGN) - 8;
    code.resize(literal_offset, 0xcc);
    code.resize(literal_offset + 8, 0);
    for r in &function.references {
        let at = r.offset as usize;
        let value = (literal_offset as i32).wrapping_add(r.addend).wrapping_sub(r.offset as i32);
        let field = code.get_mut(at..at + 4).ok_or_else(|| "a reference lies outside the adapter".to_string())?;
        field.copy_from_slice(&value.to_le_bytes());
    }
    let mut eh_frame = EhFrame::new();
    eh_frame.add_function(0, function.code.len() as u32, function.popped, &function.unwind);
    let eh_frame = eh_frame.finish(code.len() as u32);
    Ok(Adapter { code, literal_offset: literal_offset as u32, eh_frame })
}
