//! The compiler: wasm bytes in, [`CellObject`] out.
//!
//! A [`Compiler`] holds the code generator for one processor and one set of settings, and the working memory that one
//! compilation leaves to the next. It can be shared between tasks.
//!
//! ```
//! use wasm_cell::{CompileOptions, Compiler, CompilerSettings};
//!
//! let compiler = Compiler::new(CompilerSettings::default())?;
//! let object = compiler.compile(b"\0asm\x01\0\0\0", &CompileOptions::default())?;
//! assert!(object.metadata.funcs.is_empty());
//! # Ok::<(), wasm_cell::CompileError>(())
//! ```

use crate::cpu::CpuFeatures;
use crate::env::ModuleEnv;
use crate::error::CompileError;
use crate::features;
use crate::function::{FunctionError, Worker};
use crate::generator::Generator;
use crate::header::ObjectHeader;
use crate::inheritance;
use crate::inline::Inlinable;
use crate::layout;
use crate::module::{self, Body, Module, ReadError};
use crate::object::CellObject;
use crate::parallel::{Helpers, WORTH_HELP};
use crate::reuse::{self, Donor, OldVersion, ReuseReport, ReuseTable};
use crate::symbols;
use crate::table_writes;
use crate::text::Text;
use crate::trap::TrapTable;
use crate::type_ids;
use crate::types::TypeHash;
use crate::validators::Validators;
use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use spin::Mutex;

/// How hard the code generator tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OptLevel {
    /// Compile fast.
    None,
    /// Optimise for speed.
    #[default]
    Speed,
    /// As [`OptLevel::Speed`], after Cranelift's own optimiser, set to speed and size. Compiling takes about a fourth longer, and code
    /// that its compiler has optimised already runs no faster for it.
    SpeedAndSize,
}

impl OptLevel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            OptLevel::None => "none",
            OptLevel::Speed => "speed",
            OptLevel::SpeedAndSize => "speed_and_size",
        }
    }
}

/// Everything that changes the generated code, but for [`CompileOptions`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct CompilerSettings {
    /// What the processor can do. The default is the x86-64 baseline.
    pub cpu: CpuFeatures,
    /// How hard the code generator tries.
    pub opt_level: OptLevel,
    /// Whether the code generator checks its input: for tests of the compiler.
    pub verify_ir: bool,
}

/// What one compilation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CompileOptions<'a> {
    /// Whether the platform gives 32-bit memories 4 GiB of index space and a guard
    /// ([`crate::types::MemoryStyle::Guarded`]). Otherwise every access is checked.
    pub guarded_memories: bool,
    /// Whether the address map has a row for every instruction, not only for calls: for disassembly and debuggers.
    pub full_address_map: bool,
    /// The salts of type ids that are not 0 where the code will run, by type. Types of the module that are not listed get
    /// salt 0, or the next that keeps the module's own types apart.
    pub type_salts: &'a [(TypeHash, u8)],
}

impl Default for CompileOptions<'_> {
    fn default() -> Self {
        CompileOptions { guarded_memories: true, full_address_map: false, type_salts: &[] }
    }
}

/// Compiles modules. See the [module](self) page.
pub struct Compiler {
    generator: Generator,
    settings: CompilerSettings,
    header: ObjectHeader,
    /// What the keys of all functions that it compiles begin with.
    common: reuse::Common,
    /// Workers that are not at work.
    workers: Mutex<Vec<Box<Worker>>>,
    validators: Validators,
    helpers: Option<&'static dyn Helpers>,
}

/// Workers kept for later; more are thrown away.
const SPARE_WORKERS: usize = 16;

impl Compiler {
    /// Builds the code generator.
    ///
    /// # Errors
    /// [`CompileError::Target`] if the settings make no code generator.
    pub fn new(settings: CompilerSettings) -> Result<Compiler, CompileError> {
        let generator = Generator::new(&settings)?;
        let header = header(&settings);
        let common = reuse::Common::of(&header, &settings);
        let (workers, validators) = (Mutex::default(), Validators::default());
        Ok(Compiler { generator, settings, header, common, workers, validators, helpers: None })
    }

    /// Compiles large modules with this help: with the same result, and sooner where processors are free.
    pub fn with_helpers(mut self, helpers: &'static dyn Helpers) -> Compiler {
        self.helpers = Some(helpers);
        self
    }

    /// The settings it was built with.
    pub fn settings(&self) -> &CompilerSettings {
        &self.settings
    }

    /// Compiles one module.
    ///
    /// # Errors
    /// [`CompileError::Invalid`] with offset and reason, [`CompileError::UnsupportedFeature`] with the name of the
    /// proposal, [`CompileError::Limit`] for a module beyond `kernel_config::limits`, and [`CompileError::Codegen`] for a
    /// function that the code generator refuses.
    pub fn compile(&self, wasm: &[u8], options: &CompileOptions<'_>) -> Result<CellObject, CompileError> {
        self.compile_reusing(wasm, options, None).map(|(object, _)| object)
    }

    /// Compiles one module as the next version of another: code of functions that did not change is taken over, and the
    /// offsets in the data block are those of the old version as far as possible. The module is validated as a whole all
    /// the same. The object is the one that compiling every function for that layout gives.
    ///
    /// An old version of another compiler, processor or settings, or one that kept no [`ReuseTable`], is no obstacle:
    /// nothing is taken over from it but the layout.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn compile_reusing(
        &self,
        wasm: &[u8],
        options: &CompileOptions<'_>,
        old: Option<OldVersion<'_>>,
    ) -> Result<(CellObject, ReuseReport), CompileError> {
        let mut report = ReuseReport::default();
        let mut module = module::read(wasm, options.guarded_memories, &self.validators).map_err(|e| match e {
            ReadError::Invalid(e) => features::diagnose(wasm, &e),
            ReadError::Excluded(e) => {
                CompileError::UnsupportedFeature { feature: features::GC, offset: 0, reason: e.0.to_string() }
            }
            ReadError::Other(e) => e,
        })?;
        module.meta.type_ids = type_ids::assign(&module.meta.types, options.type_salts)?;
        module.meta.builtins = layout::builtins(&module.meta, self.settings.cpu).into();
        match old {
            Some(old) => {
                (module.meta.layout, report.layout) = inheritance::data_layout(&module.meta, old.metadata)?;
            }
            None => module.meta.layout = layout::data_layout(&module.meta)?,
        }
        module.meta.writes_tables = table_writes::any(&module.meta, &module.bodies);
        let bodies = core::mem::take(&mut module.bodies);
        let donor = old.and_then(Donor::new);
        let (text, reuse) =
            self.compile_bodies(&mut module, bodies, options, donor, &mut report).map_err(|e| match e {
                FunctionError::Invalid(e) => features::diagnose(wasm, &e),
                FunctionError::Other(e) => e,
            })?;
        Ok((self.assemble(module, text, reuse)?, report))
    }

    /// The code generator.
    pub(crate) fn generator(&self) -> &Generator {
        &self.generator
    }

    /// A worker, with what it has allocated before.
    pub(crate) fn worker(&self) -> Box<Worker> {
        self.workers.lock().pop().unwrap_or_default()
    }

    /// Keeps a worker for the next compilation. One that met an error is dropped instead.
    pub(crate) fn give_back(&self, worker: Box<Worker>) {
        let mut workers = self.workers.lock();
        if workers.len() < SPARE_WORKERS {
            workers.push(worker);
        }
    }

    /// Compiles the bodies in order, or takes their code over, and fills in where their code lies.
    fn compile_bodies(
        &self,
        module: &mut Module<'_>,
        bodies: Vec<Body<'_>>,
        options: &CompileOptions<'_>,
        mut donor: Option<Donor<'_>>,
        report: &mut ReuseReport,
    ) -> Result<(Text, ReuseTable), FunctionError> {
        let wasm_bytes: u64 = bodies.iter().map(|b| b.body.range().end - b.body.range().start).sum();
        let mut text = Text::new(2 * wasm_bytes as usize + 64 * bodies.len() + 64);
        let mut reuse = ReuseTable::default();
        reuse.reserve(bodies.len());
        let mut places = Vec::with_capacity(bodies.len());
        let inlinable = &match self.settings.opt_level {
            OptLevel::None => Inlinable::default(),
            _ => Inlinable::find(&module.meta, &bodies),
        };
        let (cpu, frontend) = (self.settings.cpu, self.generator.frontend_config());
        let env = ModuleEnv { meta: &module.meta, cpu, inlinable, frontend };
        let base = self.common.base(options, &module.meta);
        if let Some(helpers) = self.helpers.filter(|_| donor.is_none() && wasm_bytes >= WORTH_HELP) {
            let made = self.compile_with_help(helpers, &env, bodies, options, base, (text, report))?;
            return Ok(finish(module, made.text, made.reuse, made.places));
        }
        let mut worker = self.worker();
        worker.start_module(base);
        for (i, body) in bodies.into_iter().enumerate() {
            let id = env.type_id(env.type_of(body.validate.index));
            let (fingerprint, taken_over) = match &mut donor {
                Some(donor) => {
                    let fingerprint = worker.fingerprint(&env, &body)?;
                    let found = donor.find(&fingerprint.key, i);
                    (
                        Some(fingerprint),
                        found.and_then(|k| worker.take_over(donor, k, &env, body.validate.index)).is_some(),
                    )
                }
                None => (None, false),
            };
            let fingerprint = match fingerprint {
                Some(fingerprint) if taken_over => fingerprint,
                Some(fingerprint) => {
                    worker.compile(&self.generator, &env, body, options, &mut |_, _| ())?;
                    fingerprint
                }
                None => {
                    self.compile_body(&mut worker, &env, body, options, &mut reuse)?;
                    report.count(false, worker.code.code.len());
                    places.push(text.append(id, &worker.code).map_err(FunctionError::Other)?);
                    continue;
                }
            };
            report.count(taken_over, worker.code.code.len());
            worker.keep(&fingerprint, &mut reuse);
            places.push(text.append(id, &worker.code).map_err(FunctionError::Other)?);
        }
        self.give_back(worker);
        Ok(finish(module, text, reuse, places))
    }

    /// Compiles one body into the worker's code, and notes it in `reuse`. After an error the worker must be thrown away.
    pub(crate) fn compile_body(
        &self,
        worker: &mut Worker,
        env: &ModuleEnv<'_>,
        body: Body<'_>,
        options: &CompileOptions<'_>,
        reuse: &mut ReuseTable,
    ) -> Result<(), FunctionError> {
        let fingerprint = worker.compile_with_fingerprint(&self.generator, env, body, options)?;
        worker.keep(&fingerprint, reuse);
        Ok(())
    }

    /// Puts the image together.
    fn assemble(&self, module: Module<'_>, mut text: Text, reuse: ReuseTable) -> Result<CellObject, CompileError> {
        let Module { mut meta, mut rodata, .. } = module;
        meta.image = layout::image_layout(text.bytes.len(), rodata.len(), text.eh_frame.len(), meta.layout.size)?;
        let data_references = text.resolve(meta.imported_funcs.len() as u32, &meta.funcs, &meta.image);
        let symbols = symbols::symbols(&meta, text.stubs());
        rodata.resize((meta.image.eh_frame_offset - meta.image.rodata_offset) as usize, 0);
        rodata.extend_from_slice(&text.eh_frame.finish(meta.image.eh_frame_offset));
        meta.traps = TrapTable { sites: text.traps.into() };
        meta.addresses = text.addresses.into();
        meta.inlined = text.inlined.into();
        Ok(CellObject {
            header: self.header.clone(),
            text: text.bytes,
            rodata,
            symbols,
            data_references,
            metadata: meta,
            reuse,
        })
    }
}

/// Completes the text of a module whose functions lie at these offsets with these sizes.
fn finish(
    module: &mut Module<'_>,
    mut text: Text,
    mut reuse: ReuseTable,
    places: Vec<(u32, u32)>,
) -> (Text, ReuseTable) {
    reuse.shrink();
    for (func, (offset, size)) in module.meta.funcs.iter_mut().zip(places) {
        (func.offset, func.size) = (offset, size);
    }
    text.append_stubs();
    (text, reuse)
}

/// The header of every object that these settings make.
fn header(settings: &CompilerSettings) -> ObjectHeader {
    ObjectHeader { settings: format!("x86_64 opt_level={}", settings.opt_level.name()), cpu: settings.cpu }
}
