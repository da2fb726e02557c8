//! Cranelift, set up for one processor and one set of settings.
//!
//! Optimising and generating code are two steps, so that [`crate::optimize`] can work in between: Cranelift's optimiser, where it is asked
//! for, runs with one set of flags, its back end with another that differs in asking for no optimiser.

use crate::compiler::{CompilerSettings, OptLevel};
use crate::error::CompileError;
use crate::optimize;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::borrow::Borrow;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{Function, SourceLoc};
use cranelift_codegen::isa::unwind::UnwindInst;
use cranelift_codegen::isa::{self, OwnedTargetIsa, TargetFrontendConfig, TargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{CodegenError, Context, FinalizedMachReloc, MachTrap};

/// Optimiser and back end.
pub(crate) struct Generator {
    back_end: OwnedTargetIsa,
    /// Set up for Cranelift's optimiser, if that is asked for.
    optimiser: Option<OwnedTargetIsa>,
    /// Whether to optimise at all.
    optimises: bool,
}

/// What a function is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// It has loops, may well be called from one, or checks what it accesses.
    Loops,
    /// It goes straight through. The translation finds most of what was computed before.
    Straight,
}

/// What the back end has made of a function, where it has made it: that is kilobytes, better not moved. Offsets are those in the code.
pub(crate) struct Generated<'a> {
    pub code: &'a [u8],
    pub alignment: u32,
    /// Where blocks begin, and from which to which control passes.
    pub blocks: (&'a [u32], &'a [(u32, u32)]),
    pub unwind: &'a [(u32, UnwindInst)],
    pub references: &'a [FinalizedMachReloc],
    pub traps: &'a [MachTrap],
    /// Return addresses of calls, ascending.
    pub calls: &'a mut dyn Iterator<Item = u32>,
    /// Sorted.
    pub places: &'a [Place],
}

/// Where code from here to there comes from.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub start: u32,
    pub end: u32,
    pub loc: SourceLoc,
}

impl Generator {
    /// Sets it up.
    ///
    /// # Errors
    /// [`CompileError::Target`] if the settings make no code generator.
    pub fn new(settings: &CompilerSettings) -> Result<Generator, CompileError> {
        let optimiser = match settings.opt_level {
            OptLevel::SpeedAndSize => Some(isa(settings, OptLevel::SpeedAndSize)?),
            OptLevel::None | OptLevel::Speed => None,
        };
        let optimises = settings.opt_level != OptLevel::None;
        Ok(Generator { back_end: isa(settings, OptLevel::None)?, optimiser, optimises })
    }

    /// What builders of functions want to know of the target.
    pub fn frontend_config(&self) -> TargetFrontendConfig {
        self.back_end.frontend_config()
    }

    /// Generates code for the context's function, and shows it to `take`. `registers` and `places` are working memory. `memory_bytes`: what
    /// the memory it accesses holds at least, 0 if that is not known.
    ///
    /// The back end is called by itself: [`Context::compile`] would first do once more what [`Context::optimize`] has done.
    ///
    /// # Errors
    /// Cranelift's reason for refusing the function, or that of `take`.
    pub fn generate(
        &self,
        context: &mut Context,
        (registers, places): (&mut regalloc2::Ctx, &mut Vec<Place>),
        effort: Effort,
        memory_bytes: u64,
        take: impl FnOnce(&Function, Generated<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut control = ControlPlane::default();
        if self.optimises && optimize::settled::is_settled(&context.func) {
            context.verify_if(&*self.back_end).map_err(reason)?;
            context.flowgraph();
            context.func.dfg.resolve_all_aliases();
        } else {
            match self.optimiser.as_ref().filter(|_| effort == Effort::Loops) {
                Some(isa) => context.optimize(&**isa, &mut control).map_err(reason)?,
                None => prepare(context, &*self.back_end).map_err(reason)?,
            }
            match self.optimises {
                true => optimize::run(context, effort, memory_bytes),
                false => context.func.dfg.resolve_all_aliases(),
            }
        }
        optimize::sites::run(&mut context.func);
        context.verify_if(&*self.back_end).map_err(reason)?;
        let Context { func, domtree, .. } = context;
        // Not `?`, which moves what was made.
        match &self.back_end.compile_function(func, domtree, registers, false, &mut control) {
            Ok(made) => {
                let base = func.params.base_srcloc();
                let located = made.buffer.get_srclocs_sorted().iter();
                places.clear();
                places.extend(located.map(|l| Place { start: l.start, end: l.end, loc: l.loc.expand(base) }));
                let generated = Generated {
                    code: made.buffer.data(),
                    alignment: made.buffer.alignment,
                    blocks: (&made.bb_starts, &made.bb_edges),
                    unwind: &made.buffer.unwind_info,
                    references: made.buffer.relocs(),
                    traps: made.buffer.traps(),
                    calls: &mut made.buffer.call_sites().map(|site| site.ret_addr),
                    places,
                };
                take(func, generated)
            }
            Err(error) => Err(reason(error)),
        }
    }
}

/// What [`Context::optimize`] does where there is nothing to optimise, but for aliases: what follows resolves them.
fn prepare(context: &mut Context, isa: &dyn TargetIsa) -> Result<(), CodegenError> {
    context.verify_if(isa)?;
    context.flowgraph();
    context.eliminate_unreachable_code(isa)?;
    context.remove_constant_phis(isa)
}

fn reason(error: impl Borrow<CodegenError>) -> String {
    match error.borrow() {
        CodegenError::Verifier(errors) => format!("{errors}"),
        other => format!("{other}"),
    }
}

fn isa(settings: &CompilerSettings, level: OptLevel) -> Result<OwnedTargetIsa, CompileError> {
    let target = |e: &dyn core::fmt::Display| CompileError::Target(e.to_string());
    let mut flags = settings::builder();
    for (name, value) in [
        ("opt_level", level.name()),
        ("enable_verifier", if settings.verify_ir { "true" } else { "false" }),
        // Every reference is near, hence PC-relative; "pic" would go through a GOT, which cells do not have.
        ("is_pic", "false"),
        ("preserve_frame_pointers", "true"),
        ("unwind_info", "true"),
        ("enable_multi_ret_implicit_sret", "true"),
        ("enable_probestack", "true"),
        ("probestack_strategy", "inline"),
        ("probestack_size_log2", "12"),
        ("enable_heap_access_spectre_mitigation", "true"),
        ("enable_table_access_spectre_mitigation", "true"),
        // Where blocks begin: for where the function is best put.
        ("machine_code_cfg_info", "true"),
    ] {
        flags.set(name, value).map_err(|e| target(&e))?;
    }
    let mut isa = isa::lookup_by_name("x86_64-unknown-none-elf").map_err(|e| target(&e))?;
    for (name, on) in settings.cpu.settings() {
        if on {
            isa.enable(name).map_err(|e| target(&e))?;
        }
    }
    isa.finish(settings::Flags::new(flags)).map_err(|e| target(&e))
}
