//! One function body: wasm instructions to Cranelift IR.
//!
//! [`FuncTranslator`] drives the validator instruction by instruction and, where code is reachable, translates each
//! into IR. Wasm's operand stack is a `Vec` of SSA values; locals are the builder's variables. Values of type `v128`
//! may have any 128-bit vector type on the operand stack and are [`V128`] wherever control flow joins, in locals, in
//! globals and in calls.
//!
//! Explicit traps ([`FuncTranslator::trap_if`]) are cold blocks that call the cell's trap stub for the code (D8). What
//! the code refers to outside itself is symbolic: [`namespace`] lists the name spaces of `UserExternalName`.

mod atomic;
mod builtin;
mod call;
mod control;
mod divide;
mod global;
mod idiom;
mod inline;
mod known;
mod memory;
mod numeric;
mod operand;
mod reference;
mod simd;
mod table;
mod trap;
mod wide;

pub(crate) use inline::Instance;

use crate::builtin::Builtin;
use crate::env::ModuleEnv;
use crate::error::CompileError;
use crate::features;
use crate::generator::Effort;
use crate::inline::Budget;
use crate::module::check_limit;
use crate::trap::TrapCode;
use crate::types::{FLOAT_ARGS, FLOAT_RESULTS, FuncType, INT_ARGS, INT_RESULTS, ValType};
use alloc::string::String;
use alloc::vec::Vec;
use control::Frame;
use core::fmt;
use core::ops::Range;
use cranelift_codegen::cursor::{Cursor, FuncCursor};
use cranelift_codegen::ir::{
    self, AbiParam, AliasRegion, AliasRegionData, Block, ExternalName, FuncRef, GlobalValue, GlobalValueData,
    InstBuilder, MemFlagsData, SigRef, Signature, SourceLoc, Type, UserExternalName, Value, ValueDef, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, Variable};
use hashbrown::HashMap;
use kernel_config::limits;
use known::{Known, What};
use wasmparser::{
    FuncValidator, FunctionBody, Operator, OperatorsReader, OperatorsReaderAllocations, ValidatorResources,
};

/// Name spaces of the symbols that code refers to.
pub(crate) mod namespace {
    /// Functions of this module, by function index.
    pub const FUNC: u32 = 0;
    /// The data block (index 0).
    pub const DATA: u32 = 1;
    /// Trap stubs, by trap code.
    pub const TRAP_STUB: u32 = 2;
}

/// The canonical type of `v128` values.
pub(crate) const V128: Type = types::I8X16;

/// Largest number of SSA values and branch arguments of one function: bounds the memory that a small body with large
/// arities can make the compiler use. The register allocator's own limit is about 2 million values.
const IR_BUDGET: usize = 4 << 20;

/// Bytes of a body that counts as one with loops without having them: others may call it in theirs.
const SMALL: usize = 128;

/// Why a body was not translated.
#[derive(Debug)]
pub(crate) enum TranslateError {
    /// It is not valid.
    Invalid(wasmparser::Error),
    /// It exceeds a limit or needs a refused feature.
    Refused(CompileError),
    /// The compiler cannot translate it.
    Unsupported(String),
}

impl From<CompileError> for TranslateError {
    fn from(e: CompileError) -> Self {
        TranslateError::Refused(e)
    }
}

impl From<wasmparser::Error> for TranslateError {
    fn from(e: wasmparser::Error) -> Self {
        TranslateError::Invalid(e)
    }
}

/// Result of translating something.
pub(crate) type Translated<T = ()> = Result<T, TranslateError>;

/// An error that says the compiler lacks something. `what` is the instruction.
pub(crate) fn unsupported<T>(what: impl fmt::Debug) -> Translated<T> {
    Err(TranslateError::Unsupported(alloc::format!("no translation of {what:?}")))
}

/// Allocations that one translation leaves to the next.
#[derive(Default)]
pub(crate) struct Scratch {
    stack: Vec<Value>,
    control: Vec<Frame>,
    locals: Vec<Variable>,
    func_refs: HashMap<u32, FuncRef>,
    sig_refs: HashMap<u32, SigRef>,
    builtin_sigs: HashMap<Builtin, SigRef>,
    stubs: HashMap<TrapCode, FuncRef>,
    known: Known,
    block_args: Vec<ir::BlockArg>,
    values: Vec<Value>,
    operators: OperatorsReaderAllocations,
    inlining: inline::Allocations,
    /// Bodies that were put in place of calls.
    pub instances: Vec<Instance>,
}

/// Alias regions: accesses of different regions never touch the same bytes.
#[derive(Clone, Copy)]
pub(crate) struct Regions {
    /// Linear memories.
    pub heap: AliasRegion,
    /// Lengths in memory and table descriptors.
    pub lengths: AliasRegion,
    /// Elements of tables.
    pub tables: AliasRegion,
    /// Mutable globals.
    pub globals: AliasRegion,
}

/// Where a memory access goes: `base + offset`, bounds already taken care of.
#[derive(Clone, Copy)]
pub(crate) struct Address {
    /// Address without the static offset.
    pub base: Value,
    /// Static offset for the load or store.
    pub offset: i32,
    /// Flags for the load or store: heap region, trap code.
    pub flags: MemFlagsData,
}

/// Translates one function.
pub(crate) struct FuncTranslator<'a> {
    /// Where instructions go.
    pub builder: FunctionBuilder<'a>,
    /// The module.
    pub env: &'a ModuleEnv<'a>,
    /// Alias regions of this function.
    pub regions: Regions,
    /// The address of the data block, as a global value.
    data: GlobalValue,
    scratch: Scratch,
    /// Whether the current position can be reached.
    reachable: bool,
    /// Whether the top operand is what the last instruction, a comparison, has found, not yet widened to an `i32`.
    compared: bool,
    /// Blocks opened in unreachable code.
    unreachable_depth: u32,
    /// Branch arguments made so far, against [`IR_BUDGET`].
    branch_args: usize,
    /// What the function deserves.
    pub effort: Effort,
    /// Loops that are open at the current position.
    loops_open: u32,
    /// The first block.
    entry: Block,
    /// Type of the function, or of the one whose body is being put in place of a call.
    ty: &'a FuncType,
    /// The call in whose place what is being translated is put.
    inside: Option<inline::Inside>,
    /// What else may be put in place of calls.
    budget: Budget,
}

/// The Cranelift type of a wasm type.
pub(crate) fn clif_type(ty: ValType) -> Type {
    match ty {
        ValType::I32 => types::I32,
        ValType::I64 | ValType::Ref(_) => types::I64,
        ValType::F32 => types::F32,
        ValType::F64 => types::F64,
        ValType::V128 => V128,
    }
}

/// The Cranelift type of a type as the parser has it.
fn clif_type_of(ty: wasmparser::ValType) -> Type {
    match ty {
        wasmparser::ValType::I32 => types::I32,
        wasmparser::ValType::I64 | wasmparser::ValType::Ref(_) => types::I64,
        wasmparser::ValType::F32 => types::F32,
        wasmparser::ValType::F64 => types::F64,
        wasmparser::ValType::V128 => V128,
    }
}

/// The signature of a wasm function (docs/CELL_ABI.md, "Functions").
pub(crate) fn signature(ty: &FuncType) -> Signature {
    let mut signature = Signature::new(CallConv::Tail);
    set_signature(&mut signature, ty);
    signature
}

/// Makes a signature that of a wasm function; it keeps its memory.
pub(crate) fn set_signature(signature: &mut Signature, ty: &FuncType) {
    signature.clear(CallConv::Tail);
    signature.params.extend(ty.params.iter().map(|t| AbiParam::new(clif_type(*t))));
    signature.returns.extend(ty.results.iter().map(|t| AbiParam::new(clif_type(*t))));
}

/// Bytes of stack arguments that a function of this signature pops.
pub(crate) fn popped(signature: &Signature) -> u32 {
    if signature.call_conv != CallConv::Tail {
        return 0;
    }
    let is_integer = |p: &&AbiParam| p.value_type.is_int() && p.value_type.bits() <= 64;
    let integer_results = signature.returns.iter().filter(is_integer).count();
    let float_results = signature.returns.len() - integer_results;
    // The address of the return area is the first integer argument.
    let mut integers = usize::from(integer_results > INT_RESULTS || float_results > FLOAT_RESULTS);
    let (mut floats, mut bytes) = (0, 0u32);
    for param in &signature.params {
        let (used, registers) = if is_integer(&param) { (&mut integers, INT_ARGS) } else { (&mut floats, FLOAT_ARGS) };
        if *used < registers {
            *used += 1;
            continue;
        }
        let size = param.value_type.bytes().max(8);
        bytes = bytes.next_multiple_of(size) + size;
    }
    bytes.next_multiple_of(16)
}

/// Flags of loads of words that never change while code of the cell runs.
pub(crate) fn constant_word() -> MemFlagsData {
    MemFlagsData::trusted().with_readonly().with_can_move()
}

/// Translates `body` into `builder.func`, whose signature is set. Validates on the way, and shows each instruction, with its place in the module, to
/// `see`.
pub(crate) fn translate(
    builder: FunctionBuilder<'_>,
    env: &ModuleEnv<'_>,
    scratch: &mut Scratch,
    type_index: u32,
    body: &FunctionBody<'_>,
    validator: &mut FuncValidator<ValidatorResources>,
    see: &mut dyn FnMut(&Operator<'_>, Range<u64>),
) -> Translated<Effort> {
    // One lifetime for both: the translator keeps them side by side.
    fn with<'a>(
        builder: FunctionBuilder<'a>,
        env: &'a ModuleEnv<'a>,
        scratch: &mut Scratch,
        type_index: u32,
        body: &FunctionBody<'_>,
        validator: &mut FuncValidator<ValidatorResources>,
        see: &mut dyn FnMut(&Operator<'_>, Range<u64>),
    ) -> Translated<Effort> {
        let mut t = FuncTranslator::new(builder, env, core::mem::take(scratch), env.func_type(type_index));
        if body.as_bytes().len() < SMALL {
            t.effort = Effort::Loops;
        }
        let result = t.body(body, validator, see);
        let effort = t.effort;
        *scratch = t.finish(result.is_ok());
        result.map(|()| effort)
    }
    with(builder, env, scratch, type_index, body, validator, see)
}

impl<'a> FuncTranslator<'a> {
    fn new(mut builder: FunctionBuilder<'a>, env: &'a ModuleEnv<'a>, mut scratch: Scratch, ty: &'a FuncType) -> Self {
        scratch.stack.clear();
        scratch.control.clear();
        scratch.locals.clear();
        scratch.func_refs.clear();
        scratch.sig_refs.clear();
        scratch.builtin_sigs.clear();
        scratch.stubs.clear();
        scratch.inlining.clear();
        scratch.instances.clear();
        scratch.known.clear();

        let entry = builder.create_block();
        builder.append_block_params_for_function_params(entry);
        builder.switch_to_block(entry);
        builder.seal_block(entry);

        let mut region = |user_id, description: &'static str| {
            builder.func.dfg.alias_regions.insert(AliasRegionData { user_id, description: description.into() })
        };
        let regions = Regions {
            heap: region(0, "heap"),
            lengths: region(1, "lengths"),
            tables: region(2, "tables"),
            globals: region(3, "globals"),
        };

        let name = builder.func.declare_imported_user_function(UserExternalName::new(namespace::DATA, 0));
        let data = builder.create_global_value(GlobalValueData::Symbol {
            name: ExternalName::user(name),
            offset: 0.into(),
            colocated: true,
            tls: false,
        });
        FuncTranslator {
            builder,
            env,
            regions,
            data,
            scratch,
            reachable: true,
            compared: false,
            unreachable_depth: 0,
            branch_args: 0,
            effort: Effort::Straight,
            loops_open: 0,
            entry,
            ty,
            inside: None,
            budget: Budget::default(),
        }
    }

    /// Gives the allocations back. After a failed translation the builder's context must be thrown away.
    fn finish(self, complete: bool) -> Scratch {
        if complete {
            self.builder.finalize(self.env.frontend);
        }
        self.scratch
    }

    fn body(
        &mut self,
        body: &FunctionBody<'_>,
        validator: &mut FuncValidator<ValidatorResources>,
        see: &mut dyn FnMut(&Operator<'_>, Range<u64>),
    ) -> Translated {
        self.budget = Budget::of(body.as_bytes().len());
        let mut reader = body.get_binary_reader();
        self.declare_params();
        for _ in 0..reader.read_var_u32()? {
            let offset = reader.original_position();
            let count = reader.read()?;
            let ty = reader.read()?;
            check_limit(
                "locals of a function",
                self.scratch.locals.len().saturating_add(count as usize),
                limits::LOCALS,
            )?;
            validator.define_locals(offset, count, ty)?;
            self.declare_locals(count, clif_type_of(ty));
        }
        self.push_function_frame();
        reader.set_features(*validator.features());
        let mut reader = OperatorsReader::new_with_allocs(reader, core::mem::take(&mut self.scratch.operators));
        while !reader.eof() {
            let (op, offset) = reader.read_with_offset()?;
            validator.op(offset, &op)?;
            see(&op, offset..reader.original_position());
            self.builder.set_srcloc(SourceLoc::new(offset as u32));
            check_limit("nested blocks of a function", validator.control_stack_height() as usize, limits::NESTING)?;
            self.operator(&op, offset)?;
            self.check_size()?;
        }
        reader.finish()?;
        self.scratch.operators = reader.into_allocations();
        Ok(())
    }

    fn check_size(&self) -> Translated {
        if self.builder.func.dfg.num_values() + self.branch_args > IR_BUDGET {
            return Err(TranslateError::Unsupported("the function is too large for the code generator".into()));
        }
        Ok(())
    }

    fn declare_params(&mut self) {
        let entry = self.entry;
        for (i, ty) in self.ty.params.iter().enumerate() {
            let var = self.builder.declare_var(clif_type(*ty));
            let value = self.builder.block_params(entry)[i];
            self.builder.def_var(var, value);
            self.scratch.locals.push(var);
        }
    }

    fn declare_locals(&mut self, count: u32, ty: Type) {
        if count == 0 {
            return;
        }
        let zero = self.zero(ty);
        for _ in 0..count {
            let var = self.builder.declare_var(ty);
            self.builder.def_var(var, zero);
            self.scratch.locals.push(var);
        }
    }

    /// Zero, or null, of a canonical type.
    pub fn zero(&mut self, ty: Type) -> Value {
        match ty {
            types::F32 => self.builder.ins().f32const(0.0),
            types::F64 => self.builder.ins().f64const(0.0),
            types::I32 | types::I64 => self.builder.ins().iconst(ty, 0),
            _ => {
                let zero = self.builder.func.dfg.constants.insert([0u8; 16].as_slice().into());
                self.builder.ins().vconst(V128, zero)
            }
        }
    }

    /// Translates one instruction that the validator has accepted.
    fn operator(&mut self, op: &Operator<'_>, offset: u64) -> Translated {
        if self.compared {
            self.settle_comparison(op);
        }
        // More than a third of all instructions only move operands.
        if self.reachable && global::translate(self, op)? {
            return Ok(());
        }
        if self.control(op)? || !self.reachable {
            return Ok(());
        }
        // Each family answers whether the instruction is one of its own.
        let done = numeric::translate(self, op)?
            || memory::translate(self, op)?
            || call::translate(self, op)?
            || reference::translate(self, op)?
            || table::translate(self, op)?
            || atomic::translate(self, op)?
            || wide::translate(self, op)?
            || simd::translate(self, op)?;
        if done {
            return Ok(());
        }
        match proposal(op) {
            features::GC => Err(TranslateError::Refused(CompileError::UnsupportedFeature {
                feature: features::GC,
                offset,
                reason: alloc::format!("{op:?}"),
            })),
            _ => unsupported(op),
        }
    }

    /// What is known here already, or else made now and known from here on.
    fn known(&mut self, what: What, make: impl FnOnce(&mut Self) -> Value) -> Value {
        if let Some(value) = self.scratch.known.here(what) {
            return value;
        }
        let value = make(self);
        self.scratch.known.learn_here(what, value);
        value
    }

    /// Address of the data block.
    pub fn data_block(&mut self) -> Value {
        if self.loops_open == 0 {
            return self.known(What::Data, |t| t.builder.ins().symbol_value(types::I64, t.data));
        }
        let data = self.data;
        self.made_at_start(What::Data, |start| start.ins().symbol_value(types::I64, data))
    }

    /// Loads a word of the data block that never changes while code of the cell runs.
    pub fn load_constant_word(&mut self, offset: i32) -> Value {
        let what = What::Word(offset);
        if let Some(value) = self.scratch.known.everywhere(what) {
            return value;
        }
        let data = self.data_block();
        if self.loops_open == 0 {
            return self.known(what, |t| t.builder.ins().load(types::I64, constant_word(), data, offset));
        }
        self.made_at_start(what, |start| {
            if let ValueDef::Result(inst, _) = start.func.dfg.value_def(data) {
                start.goto_after_inst(inst);
            }
            start.ins().load(types::I64, constant_word(), data, offset)
        })
    }

    /// What is made at the start of the function, so that it is known everywhere.
    fn made_at_start(&mut self, what: What, make: impl FnOnce(&mut FuncCursor<'_>) -> Value) -> Value {
        if let Some(value) = self.scratch.known.everywhere(what) {
            return value;
        }
        let mut start = FuncCursor::new(self.builder.func).at_first_insertion_point(self.entry);
        let value = make(&mut start);
        self.scratch.known.learn_everywhere(what, value);
        value
    }

    /// An index, delta or length widened to 64 bits.
    pub fn widen_index(&mut self, value: Value) -> Value {
        if self.type_of(value) != types::I32 {
            return value;
        }
        self.known(What::Wide(value), |t| t.builder.ins().uextend(types::I64, value))
    }

    /// The sum of two 64-bit values.
    fn sum(&mut self, a: Value, b: Value) -> Value {
        self.known(What::Sum(a, b), |t| t.builder.ins().iadd(a, b))
    }

    /// A `u32` constant.
    pub fn const32(&mut self, n: u32) -> Value {
        self.builder.ins().iconst(types::I32, i64::from(n))
    }
}

/// The proposal that an instruction comes from, in the parser's spelling.
pub(crate) fn proposal(op: &Operator<'_>) -> &'static str {
    macro_rules! proposal_of {
        ($(@$proposal:ident $op:ident $({ $($arg:ident: $argty:ty),* })? => $visit:ident ($($ann:tt)*))*) => {
            match op {
                $(Operator::$op { .. } => stringify!($proposal),)*
                _ => "",
            }
        };
    }
    wasmparser::for_each_operator!(proposal_of)
}
