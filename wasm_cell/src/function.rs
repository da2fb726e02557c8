//! Compiling one function: body to machine code with symbolic references.
//!
//! The result depends on the module's environment and the body alone, so bodies can be compiled in any order, on any
//! task, and kept apart from the cell they end up in.

use crate::compiler::CompileOptions;
use crate::env::ModuleEnv;
use crate::error::CompileError;
use crate::generator::{Effort, Generator};
use crate::metadata::AddressMapping;
use crate::module::Body;
use crate::placement::Placement;
use crate::reuse::fingerprint::{Fingerprint, Fingerprints};
use crate::reuse::{Donor, ReuseTable};
use crate::translate::{self, Instance, Scratch, TranslateError, namespace};
use crate::trap::{TrapCode, TrapSite};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::{self, ExternalName, Signature, SourceLoc, UserFuncName};
use cranelift_codegen::isa::unwind::UnwindInst;
use cranelift_codegen::{CompiledCode, Context, Final, FinalizedRelocTarget, MachSrcLoc};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use wasmparser::{FuncToValidate, FuncValidatorAllocations, FunctionBody};

/// What a reference in the code points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A function of the module, by function index.
    Func(u32),
    /// The data block.
    Data,
    /// The stub of a trap code.
    TrapStub(TrapCode),
}

/// A 4-byte PC-relative field: `target + addend - address of the field`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    /// Offset of the field.
    pub offset: u32,
    /// Added to the target's address.
    pub addend: i32,
    /// What it points to.
    pub target: Target,
}

/// Machine code of one function. Offsets are relative to its first byte.
#[derive(Default)]
pub(crate) struct FunctionCode {
    pub code: Vec<u8>,
    pub placement: Placement,
    pub references: Vec<Reference>,
    pub traps: Vec<TrapSite>,
    pub addresses: Vec<AddressMapping>,
    /// Bytes of stack arguments that it pops.
    pub popped: u32,
    /// Wasm offsets of calls in whose place code stands ([`crate::metadata::Metadata::inlined`]).
    pub inlined: Vec<AddressMapping>,
    pub unwind: Vec<(u32, UnwindInst)>,
    /// Unwind rows as they stand in `.eh_frame`, instead of `unwind`, when the code was taken over from there.
    pub rows: Vec<u8>,
}

impl FunctionCode {
    pub fn clear(&mut self) {
        self.code.clear();
        self.references.clear();
        self.traps.clear();
        self.addresses.clear();
        self.popped = 0;
        self.inlined.clear();
        self.unwind.clear();
        self.rows.clear();
    }
}

/// Why a function was not compiled.
pub(crate) enum FunctionError {
    /// It is not valid.
    Invalid(wasmparser::Error),
    /// Anything else.
    Other(CompileError),
}

/// Compiles functions one after the other, reusing its allocations.
pub(crate) struct Worker {
    context: Context,
    registers: regalloc2::Ctx,
    builder: FunctionBuilderContext,
    scratch: Scratch,
    validation: FuncValidatorAllocations,
    fingerprints: Fingerprints,
    /// The function compiled last.
    pub code: FunctionCode,
}

impl Default for Worker {
    fn default() -> Self {
        Worker {
            context: Context::new(),
            registers: regalloc2::Ctx::default(),
            builder: FunctionBuilderContext::new(),
            scratch: Scratch::default(),
            validation: FuncValidatorAllocations::default(),
            fingerprints: Fingerprints::default(),
            code: FunctionCode::default(),
        }
    }
}

impl Worker {
    /// Compiles `body` into `self.code`. After an error the worker must be thrown away.
    pub fn compile(
        &mut self,
        generator: &Generator,
        env: &ModuleEnv<'_>,
        body: Body<'_>,
        options: &CompileOptions<'_>,
    ) -> Result<(), FunctionError> {
        let function = body.validate.index;
        let offset = body.body.range().start;
        let codegen = |reason: String| FunctionError::Other(CompileError::Codegen { function, offset, reason });

        let type_index = env.type_of(function);
        let signature = translate::signature(env.func_type(type_index));
        let mut validator = body.validate.into_validator(core::mem::take(&mut self.validation));
        self.start(signature, UserFuncName::user(namespace::FUNC, function));
        let builder = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
        let translated = translate::translate(builder, env, &mut self.scratch, type_index, &body.body, &mut validator);
        let effort = translated.map_err(|e| match e {
            TranslateError::Invalid(e) => FunctionError::Invalid(e),
            TranslateError::Refused(e) => FunctionError::Other(e),
            TranslateError::Unsupported(reason) => codegen(reason),
        })?;
        self.validation = validator.into_allocations();

        self.generate(generator, effort, env.memory_floor(), options).map_err(codegen)
    }

    /// Prepares for fingerprints of functions of a module; `base` is what all of them depend on.
    pub fn start_module(&mut self, base: [u8; 32]) {
        self.fingerprints.base = base;
    }

    /// The fingerprint of a function whose body is validated on the way.
    pub fn fingerprint(&mut self, env: &ModuleEnv<'_>, body: &Body<'_>) -> Result<Fingerprint, FunctionError> {
        let FuncToValidate { resources, index, ty, features, .. } = &body.validate;
        let (resources, index, ty, features) = (resources.clone(), *index, *ty, *features);
        let validate = FuncToValidate { resources, index, ty, features };
        let mut validator = validate.into_validator(core::mem::take(&mut self.validation));
        let fingerprint = self.fingerprints.of(env, index, &body.body, Some(&mut validator));
        self.validation = validator.into_allocations();
        fingerprint.map_err(FunctionError::Invalid)
    }

    /// The fingerprint of a function whose body is known to be valid.
    pub fn fingerprint_of_valid(
        &mut self,
        env: &ModuleEnv<'_>,
        function: u32,
        body: &FunctionBody<'_>,
    ) -> Result<Fingerprint, FunctionError> {
        self.fingerprints.of(env, function, body, None).map_err(FunctionError::Invalid)
    }

    /// Takes over the code of function `i` of `donor` for `function`, that of the last fingerprint, into `self.code`.
    pub fn take_over(&mut self, donor: &Donor<'_>, i: usize, env: &ModuleEnv<'_>, function: u32) -> Option<()> {
        donor.copy(i, &self.fingerprints.callees, env.meta, function, &mut self.code)
    }

    /// Notes the function compiled or taken over last, which is that of the last fingerprint, for later versions.
    pub fn keep(&self, fingerprint: &Fingerprint, table: &mut ReuseTable) {
        let names = &self.fingerprints;
        table.push(fingerprint, names.callees.split_at(names.own_callees), |f| names.ordinal(f), &self.code);
    }

    /// Starts a function.
    pub fn start(
        &mut self,
        signature: Signature,
        name: UserFuncName,
    ) -> (&mut ir::Function, &mut FunctionBuilderContext) {
        self.context.clear();
        self.scratch.instances.clear();
        self.context.func.signature = signature;
        self.context.func.name = name;
        (&mut self.context.func, &mut self.builder)
    }

    /// Generates code for the function that was built, into `self.code`.
    pub fn generate(
        &mut self,
        generator: &Generator,
        effort: Effort,
        memory_bytes: u64,
        options: &CompileOptions<'_>,
    ) -> Result<(), String> {
        let compiled = generator.generate(&mut self.context, &mut self.registers, effort, memory_bytes)?;
        self.collect(&compiled, options)
    }

    /// Takes over the generated code.
    fn collect(&mut self, compiled: &CompiledCode, options: &CompileOptions<'_>) -> Result<(), String> {
        let func = &self.context.func;
        let buffer = &compiled.buffer;
        let out = &mut self.code;
        out.clear();
        out.code.extend_from_slice(buffer.data());
        out.placement =
            Placement::of(buffer.alignment, &compiled.bb_starts, &compiled.bb_edges, buffer.data().len() as u32);
        out.popped = translate::popped(&func.signature);
        out.unwind.extend(buffer.unwind_info.iter().cloned());

        for reloc in buffer.relocs() {
            if !matches!(reloc.kind, Reloc::X86PCRel4 | Reloc::X86CallPCRel4) {
                return Err(format!("the code needs a relocation of kind {:?}", reloc.kind));
            }
            let FinalizedRelocTarget::ExternalName(ExternalName::User(name)) = &reloc.target else {
                return Err(format!("the code refers to {:?}", reloc.target));
            };
            let name = &func.params.user_named_funcs()[*name];
            let target = match name.namespace {
                namespace::FUNC => Target::Func(name.index),
                namespace::DATA => Target::Data,
                _ => match u8::try_from(name.index).ok().and_then(TrapCode::from_u8) {
                    Some(code) => Target::TrapStub(code),
                    None => return Err(format!("the code refers to {name}")),
                },
            };
            let addend = i32::try_from(reloc.addend).map_err(|e| e.to_string())?;
            out.references.push(Reference { offset: reloc.offset, addend, target });
        }

        let locations = buffer.get_srclocs_sorted();
        let place = |loc: SourceLoc| Instance::place(&self.scratch.instances, loc);
        // Rows where code stands in place of a call.
        let mut note = |code_offset: u32, call: Option<u32>| {
            out.inlined.extend(call.map(|wasm_offset| AddressMapping { code_offset, wasm_offset }));
        };
        for trap in buffer.traps() {
            let code = trap_code(trap.code).ok_or_else(|| format!("the code traps with {}", trap.code))?;
            let (wasm_offset, call) = location(locations, trap.offset).map_or((0, None), place);
            note(trap.offset, call);
            out.traps.push(TrapSite { code_offset: trap.offset, wasm_offset, code });
        }
        for site in buffer.call_sites() {
            if let Some(loc) = location(locations, site.ret_addr - 1) {
                let (wasm_offset, call) = place(loc);
                note(site.ret_addr - 1, call);
                out.addresses.push(AddressMapping { code_offset: site.ret_addr, wasm_offset });
            }
        }
        if options.full_address_map {
            out.addresses.sort_by_key(|a| a.code_offset);
            let calls = out.addresses.len();
            for l in locations.iter().filter(|l| !l.loc.is_default()) {
                // At the return address of a call, the call's row stays.
                if out.addresses[..calls].binary_search_by_key(&l.start, |a| a.code_offset).is_err() {
                    let (wasm_offset, call) = place(l.loc);
                    note(l.start, call);
                    out.addresses.push(AddressMapping { code_offset: l.start, wasm_offset });
                }
            }
        }
        // One instruction may trap in several ways.
        out.inlined.sort_by_key(|a| a.code_offset);
        out.inlined.dedup_by_key(|a| a.code_offset);
        out.addresses.sort_by_key(|a| a.code_offset);
        out.addresses.dedup_by_key(|a| a.code_offset);
        out.traps.sort_by_key(|t| t.code_offset);
        out.traps.dedup_by_key(|t| t.code_offset);
        Ok(())
    }
}

/// Where the instruction at a code offset comes from.
fn location(locations: &[MachSrcLoc<Final>], code_offset: u32) -> Option<SourceLoc> {
    let i = locations.partition_point(|l| l.start <= code_offset).checked_sub(1)?;
    let l = locations.get(i)?;
    (code_offset < l.end && !l.loc.is_default()).then_some(l.loc)
}

/// Our code for one of Cranelift's. The numbers of ours are Cranelift's user codes.
fn trap_code(code: ir::TrapCode) -> Option<TrapCode> {
    match code {
        ir::TrapCode::STACK_OVERFLOW => Some(TrapCode::StackOverflow),
        ir::TrapCode::INTEGER_OVERFLOW => Some(TrapCode::IntegerOverflow),
        ir::TrapCode::HEAP_OUT_OF_BOUNDS => Some(TrapCode::MemoryOutOfBounds),
        ir::TrapCode::INTEGER_DIVISION_BY_ZERO => Some(TrapCode::IntegerDivisionByZero),
        ir::TrapCode::BAD_CONVERSION_TO_INTEGER => Some(TrapCode::BadConversionToInteger),
        other => TrapCode::from_u8(other.as_raw().get()),
    }
}
