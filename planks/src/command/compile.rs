//! `planks compile`: a module to a cell object.

use super::{Ending, Output, Run};
use crate::atomic_file;
use crate::failure::{Failure, Kind};
use crate::input::{self, Input};
use crate::progress;
use crate::seal_key::SealKey;
use crate::shell::size;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;
use wasm_cell::{CellObject, CompileOptions, Compiler, CompilerSettings, CpuFeatures, OptLevel};

/// Compile a module to a cell object: a relocatable ELF file that `load`, objdump, gdb and ld understand.
#[derive(Args, Debug)]
pub struct CompileArgs {
    /// The module, binary or text; `-` for standard input
    file: String,
    /// Where to write the object; by default, the module's name with the ending .o
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Seal the object with the key in FILE instead of the user's own, which is made on first use
    #[arg(long, value_name = "FILE")]
    seal_key: Option<PathBuf>,
    #[command(flatten)]
    target: Target,
}

/// What code is generated for.
#[derive(Args, Debug)]
pub struct Target {
    /// Processor to generate code for
    #[arg(long, value_enum, default_value_t = Cpu::Native)]
    cpu: Cpu,
    /// How hard to optimise
    #[arg(long, value_enum, default_value_t = Opt::Speed)]
    opt: Opt,
    /// Check every memory access instead of relying on guard pages
    #[arg(long)]
    checked_memories: bool,
}

/// A processor.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Cpu {
    /// This one.
    Native,
    /// Any x86-64.
    Baseline,
    /// Any since Haswell and Zen (x86-64-v3).
    V3,
}

/// An optimisation level.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Opt {
    /// Compile fast.
    None,
    /// Run fast.
    Speed,
    /// Run fast, after Cranelift's own optimiser, set to size: for modules that their compiler has not optimised.
    Size,
}

impl Target {
    /// Compiles for it. `full_map`: a row for every instruction in the address map.
    pub fn compile(&self, path: &str, wasm: &[u8], full_map: bool) -> Result<CellObject, Failure> {
        let opt_level = match self.opt {
            Opt::None => OptLevel::None,
            Opt::Speed => OptLevel::Speed,
            Opt::Size => OptLevel::SpeedAndSize,
        };
        let cpu = match self.cpu {
            Cpu::Native => match namespace_bridge::compiler() {
                Ok(compiler) => compiler.settings().cpu,
                Err(e) => return Err(Failure::new(Kind::System, e.to_string())),
            },
            Cpu::Baseline => CpuFeatures::NONE,
            Cpu::V3 => CpuFeatures::V3,
        };
        let settings = CompilerSettings { cpu, opt_level, ..CompilerSettings::default() };
        let compiler = Compiler::new(settings).map_err(|e| Failure::new(Kind::System, e.to_string()))?;
        let guarded_memories = !self.checked_memories;
        let options = CompileOptions { guarded_memories, full_address_map: full_map, ..CompileOptions::default() };
        let compile = || compiler.compile(wasm, &options);
        progress::during(&format!("compiling {path}"), compile).map_err(|e| Failure::compile(path, &e))
    }
}

impl CompileArgs {
    /// Seals the object so that `run` and `load` accept it. Without a place for a key it stays unsealed: other tools do not mind.
    fn seal(&self, elf: &mut [u8]) -> Result<bool, Failure> {
        match SealKey::load(self.seal_key.as_deref()) {
            Ok(key) => key.seal(elf).map(|()| true),
            Err(failure) if self.seal_key.is_none() => {
                super::output::tell(format_args!("planks: the object is not sealed, so it cannot be run: {failure}"));
                Ok(false)
            }
            Err(failure) => Err(failure),
        }
    }
}

impl Run for CompileArgs {
    fn run(self, out: &mut Output) -> Result<Ending, Failure> {
        let wasm = match input::module(&self.file)? {
            Input::Wasm(wasm) => wasm,
            Input::Object(_) => return Err(Failure::usage(format!("{}: is compiled already", self.file))),
        };
        let start = Instant::now();
        let object = self.target.compile(&self.file, &wasm, false)?;
        let mut elf = object.to_elf().map_err(|e| Failure::compile(&self.file, &e))?;
        let sealed = self.seal(&mut elf)?;
        let elapsed = start.elapsed();
        let path = self.output.unwrap_or_else(|| PathBuf::from(input::stem(&self.file) + ".o"));
        atomic_file::write(&path, &elf)?;

        let (functions, code) = (object.metadata.funcs.len(), object.text.len());
        if out.json {
            out.value(&json!({
                "input": self.file, "output": path.to_string_lossy(), "functions": functions, "code_bytes": code,
                "object_bytes": elf.len(), "sealed": sealed, "seconds": elapsed.as_secs_f64(),
            }))?;
        } else {
            let (code, all) = (size(code as u64), size(elf.len() as u64));
            out.line(format_args!(
                "{} → {}: {functions} functions, {code} of code, {all} in all, {:.1} ms",
                self.file,
                path.display(),
                elapsed.as_secs_f64() * 1e3,
            ))?;
        }
        Ok(Ending::Success)
    }
}
