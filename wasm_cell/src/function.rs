//! Compiling one function: body to machine code with symbolic references.
//!
//! The result depends on the module's environment and the body alone, so bodies can be compiled in any order, on any
//! task, and kept apart from the cell they end up in.

use crate::compiler::CompileOptions;
use crate::env::ModuleEnv;
use crate::error::CompileError;
use crate::generator::{Effort, Generated, Generator, Place};
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
use core::ops::Range;
use cranelift_codegen::binemit::Reloc;
use cranelift_codegen::ir::{self, ExternalName, SourceLoc, UserFuncName};
use cranelift_codegen::isa::unwind::UnwindInst;
use cranelift_codegen::{Context, FinalizedRelocTarget};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use wasmparser::{FuncToValidate, FuncValidatorAllocations, Operator};

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

/// Instructions of a function after which the register allocator gets new working memory: it clears its sets again and again, and that takes
/// as long as they once were large.
const LARGE: usize = 1000;

/// Compiles functions one after the other, reusing its allocations.
pub(crate) struct Worker {
    context: Context,
    /// Working memory of the register allocator.
    registers: regalloc2::Ctx,
    places: Vec<Place>,
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
            places: Vec::new(),
            builder: FunctionBuilderContext::new(),
            scratch: Scratch::default(),
            validation: FuncValidatorAllocations::default(),
            fingerprints: Fingerprints::default(),
            code: FunctionCode::default(),
        }
    }
}

impl Worker {
    /// Compiles `body` into `self.code`, and gives its fingerprint. After an error the worker must be thrown away.
    pub fn compile_with_fingerprint(
        &mut self,
        generator: &Generator,
        env: &ModuleEnv<'_>,
        body: Body<'_>,
        options: &CompileOptions<'_>,
    ) -> Result<Fingerprint, FunctionError> {
        let (function, contents) = (body.validate.index, body.body.clone());
        let start = contents.range().start;
        let mut fingerprints = core::mem::take(&mut self.fingerprints);
        fingerprints.start(env, function);
        self.compile(generator, env, body, options, &mut |op, place| {
            let place = (place.start - start) as usize..(place.end - start) as usize;
            fingerprints.add(env, function, &contents, op, place);
        })?;
        let fingerprint = fingerprints.end(env, function, &contents);
        self.fingerprints = fingerprints;
        fingerprint.map_err(FunctionError::Invalid)
    }

    /// Compiles `body` into `self.code`, and shows its instructions to `see`. After an error the worker must be thrown away.
    pub fn compile(
        &mut self,
        generator: &Generator,
        env: &ModuleEnv<'_>,
        body: Body<'_>,
        options: &CompileOptions<'_>,
        see: &mut dyn FnMut(&Operator<'_>, Range<u64>),
    ) -> Result<(), FunctionError> {
        let function = body.validate.index;
        let offset = body.body.range().start;
        let codegen = |reason: String| FunctionError::Other(CompileError::Codegen { function, offset, reason });

        let type_index = env.type_of(function);
        let mut validator = body.validate.into_validator(core::mem::take(&mut self.validation));
        let (func, _) = self.start(UserFuncName::user(namespace::FUNC, function));
        translate::set_signature(&mut func.signature, env.func_type(type_index));
        let builder = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
        let translated =
            translate::translate(builder, env, &mut self.scratch, type_index, &body.body, &mut validator, see);
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
        let fingerprint = self.fingerprints.of(env, index, &body.body, &mut validator);
        self.validation = validator.into_allocations();
        fingerprint.map_err(FunctionError::Invalid)
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

    /// Starts a function. Its signature is to be set.
    pub fn start(&mut self, name: UserFuncName) -> (&mut ir::Function, &mut FunctionBuilderContext) {
        self.context.clear();
        self.scratch.instances.clear();
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
        let Worker { context, registers, places, scratch, code, .. } = self;
        let instances = &scratch.instances;
        let is_large = context.func.dfg.num_insts() > LARGE;
        generator.generate(context, (&mut *registers, places), effort, memory_bytes, |func, made| {
            code.collect(func, made, instances, options)
        })?;
        if is_large {
            *registers = regalloc2::Ctx::default();
        }
        Ok(())
    }
}

impl FunctionCode {
    /// Takes over the code that was generated for `func`; `instances` are the bodies in it that stand in place of calls.
    fn collect(
        &mut self,
        func: &ir::Function,
        made: Generated<'_>,
        instances: &[Instance],
        options: &CompileOptions<'_>,
    ) -> Result<(), String> {
        let out = self;
        out.clear();
        out.code.extend_from_slice(made.code);
        out.placement = Placement::of(made.alignment, made.blocks.0, made.blocks.1, made.code.len() as u32);
        out.popped = translate::popped(&func.signature);
        out.unwind.extend_from_slice(made.unwind);

        for reloc in made.references {
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

        let locations = made.places;
        let place = |loc: SourceLoc| Instance::place(instances, loc);
        // Rows where code stands in place of a call.
        let mut note = |code_offset: u32, call: Option<u32>| {
            out.inlined.extend(call.map(|wasm_offset| AddressMapping { code_offset, wasm_offset }));
        };
        for trap in made.traps {
            let code = trap_code(trap.code).ok_or_else(|| format!("the code traps with {}", trap.code))?;
            let (wasm_offset, call) = location(locations, trap.offset).map_or((0, None), place);
            note(trap.offset, call);
            out.traps.push(TrapSite { code_offset: trap.offset, wasm_offset, code });
        }
        for return_address in made.calls {
            if let Some(loc) = location(locations, return_address - 1) {
                let (wasm_offset, call) = place(loc);
                note(return_address - 1, call);
                out.addresses.push(AddressMapping { code_offset: return_address, wasm_offset });
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
fn location(locations: &[Place], code_offset: u32) -> Option<SourceLoc> {
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
