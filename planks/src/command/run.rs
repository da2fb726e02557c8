//! `planks run`: a program.

use super::objects::{self, Objects};
use super::{Ending, Output, Run};
use crate::environment;
use crate::failure::{Failure, Kind};
use crate::input::{self, Input};
use crate::progress;
use crate::value;
use crate::wasi::{self, Exit, Wasi};
use clap::Args;
use namespace_bridge::coredump::{Coredump, DEFAULT_MEMORY_LIMIT, State};
use namespace_bridge::{CallError, CrateNamespace, LoadError, LoadOptions, StrongCrateRef, Trap, Val};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Run a module: its function _start, else its start section, else main; or any function with --invoke.
///
/// The module may import WASI (wasi_snapshot_preview1). Without --dir and --env it sees its arguments, the standard
/// streams, clocks and random bytes, no file and no variable.
///
/// A trap is reported with its backtrace: cell, function, and offset in the module; with file and line too if the
/// module has DWARF (compiled with -g).
#[derive(Args, Debug)]
pub struct RunArgs {
    /// The module (binary or text) or cell object; `-` for standard input
    file: String,
    /// Call this exported function; its arguments are read by its types, its results are printed with theirs
    #[arg(long, value_name = "FUNCTION")]
    invoke: Option<String>,
    /// Give the program a directory, under another name if one follows after ::
    #[arg(long = "dir", value_name = "DIR[::NAME]")]
    dirs: Vec<String>,
    /// Set a variable of the program's environment
    #[arg(long = "env", value_name = "NAME=VALUE")]
    variables: Vec<String>,
    /// Load another module first, as cell NAME, for the module to import from
    #[arg(long = "cell", value_name = "NAME=FILE")]
    cells: Vec<String>,
    /// Check every memory access instead of relying on guard pages
    #[arg(long)]
    checked_memories: bool,
    /// Write a core dump to FILE when the module traps: stack, memories and globals, as wasm's tool conventions say;
    /// 1 GiB of memory contents at most
    #[arg(long, value_name = "FILE")]
    coredump: Option<String>,
    #[command(flatten)]
    objects: Objects,
    /// Arguments of the program or of the invoked function
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for RunArgs {
    fn run(self, out: &mut Output) -> Result<Ending, Failure> {
        let host = environment::namespace(&Arc::new(Mutex::new(self.guest()?)))?;
        let namespace = CrateNamespace::new("run", Some(host));
        for cell in &self.cells {
            let (name, file) =
                cell.split_once('=').ok_or_else(|| Failure::usage(format!("--cell {cell}: write NAME=FILE")))?;
            if let Err(ended) = self.load(&namespace, name, file) {
                return self.end(ended, &namespace);
            }
        }
        out.flush()?;
        let ran = self.load(&namespace, &input::stem(&self.file), &self.file).and_then(|cell| self.start(&cell));
        match ran {
            Ok(results) => self.show(&results, out),
            Err(ended) => self.end(ended, &namespace),
        }
    }
}

/// Why a program did not return.
enum Ended {
    /// It ended itself.
    Exit(u32),
    /// It trapped.
    Trapped(Trap),
    /// It could not be run.
    Failed(Failure),
}

impl From<Failure> for Ended {
    fn from(f: Failure) -> Ended {
        Ended::Failed(f)
    }
}

impl From<Trap> for Ended {
    fn from(trap: Trap) -> Ended {
        match trap.downcast_ref::<Exit>() {
            Some(Exit(status)) => Ended::Exit(*status),
            None => Ended::Trapped(trap),
        }
    }
}

impl From<LoadError> for Ended {
    fn from(e: LoadError) -> Ended {
        match e {
            LoadError::Trap { trap, .. } => trap.into(),
            other => Ended::Failed(other.into()),
        }
    }
}

impl RunArgs {
    fn end(&self, ended: Ended, namespace: &CrateNamespace) -> Result<Ending, Failure> {
        match ended {
            Ended::Exit(0) => Ok(Ending::Success),
            // As a process of the system: the low 8 bits.
            Ended::Exit(status) => Ok(Ending::Status((status & 0xff) as u8)),
            Ended::Failed(failure) => Err(failure),
            Ended::Trapped(trap) => {
                if let Some(path) = &self.coredump {
                    dump(&trap, namespace, path);
                }
                Err(Failure::trap(&trap))
            }
        }
    }

    fn guest(&self) -> Result<Wasi, Failure> {
        let mut args = vec![self.file.clone()];
        if self.invoke.is_none() {
            args.extend(self.args.iter().cloned());
        }
        if args.iter().any(|a| a.contains('\0')) {
            return Err(Failure::usage("an argument of the program contains a zero byte"));
        }
        let mut wasi = Wasi::new(args, wasi::Input::Stdin, wasi::Output::Stdout, wasi::Output::Stderr);
        for variable in &self.variables {
            let (name, value) = variable
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| Failure::usage(format!("--env {variable}: write NAME=VALUE")))?;
            wasi.set_env(name, value);
        }
        for dir in &self.dirs {
            let (host, name) = dir.split_once("::").unwrap_or((dir, dir));
            wasi.preopen(Path::new(host), name).map_err(|e| Failure::file(host, e))?;
        }
        Ok(wasi)
    }

    fn load(&self, namespace: &Arc<CrateNamespace>, name: &str, path: &str) -> Result<StrongCrateRef, Ended> {
        let options = LoadOptions::default().guarded_memories(!self.checked_memories);
        let input = input::module(path)?;
        let wasm = match &input {
            Input::Object(elf) => {
                self.objects.check(path, elf)?;
                return Ok(namespace.load_elf(name, elf, options)?);
            }
            Input::Wasm(wasm) => wasm,
        };
        namespace_bridge::compiler().map_err(|e| Failure::new(Kind::System, e.to_string()))?;
        // Only compilation has a progress display: loading runs the start function, which may use the terminal.
        let cache = self.objects.cache()?;
        let compile = || objects::module(cache.as_ref(), name, wasm, &options);
        let module = match progress::during(&format!("compiling {path}"), compile) {
            Err(LoadError::Compile { source, .. }) => return Err(Failure::compile(path, &source).into()),
            module => module?,
        };
        Ok(namespace.load_module(name, &module, options)?)
    }

    /// Runs what the options say; the results of an invoked function.
    fn start(&self, cell: &StrongCrateRef) -> Result<Vec<Val>, Ended> {
        let exports = |name: &str| cell.get_function_section(name).is_some();
        if let Some(function) = &self.invoke {
            if exports("_initialize") && function != "_initialize" {
                self.enter(cell, "_initialize", &[])?;
            }
            return self.enter(cell, function, &self.args);
        }
        if exports("_start") {
            return self.enter(cell, "_start", &[]);
        }
        let started = cell.module().is_some_and(|m| m.metadata().start.is_some());
        if exports("main") && !started {
            return self.enter(cell, "main", &self.args);
        }
        if started {
            return Ok(Vec::new());
        }
        let functions: Vec<String> =
            cell.exports().into_iter().filter(|(name, _)| exports(name)).map(|(name, _)| name).collect();
        let hint = match functions.len() {
            0 => "it exports no function".to_string(),
            _ => format!("choose a function with --invoke: {}", functions.join(", ")),
        };
        Err(Failure::usage(format!("{}: neither _start nor main nor a start section; {hint}", self.file)).into())
    }

    fn enter(&self, cell: &StrongCrateRef, function: &str, args: &[String]) -> Result<Vec<Val>, Ended> {
        let func = cell.func(function).map_err(|e| Failure::new(Kind::Link, e.to_string()))?;
        let ty = func.ty();
        let args = value::parse_arguments(ty, args).map_err(|e| Failure::usage(format!("{function}: {e}")))?;
        let mut results: Vec<Val> = ty.results.iter().map(Val::default_for).collect();
        match func.call(&args, &mut results) {
            Ok(()) => Ok(results),
            Err(CallError::Trap(trap)) => Err(trap.into()),
            Err(other) => Err(Failure::usage(format!("{function}: {other}")).into()),
        }
    }

    fn show(&self, results: &[Val], out: &mut Output) -> Result<Ending, Failure> {
        if out.json && self.invoke.is_some() {
            let values: Vec<Value> = results.iter().map(value::to_json).collect();
            out.value(&json!({ "results": values }))?;
        } else if self.invoke.is_some() || !results.is_empty() {
            out.print(value::show_all(results))?;
        }
        Ok(Ending::Success)
    }
}

/// Writes the core dump of a trap. What becomes of it is told on standard error: the result of the run is the trap.
fn dump(trap: &Trap, namespace: &CrateNamespace, path: &str) {
    let mut cells = Vec::new();
    namespace.for_each_crate(false, |_, cell| {
        cells.push(cell.clone());
        true
    });
    let state = State::of(&cells);
    let dump = Coredump::new(trap, &state, DEFAULT_MEMORY_LIMIT);
    let written = File::create(path).and_then(|file| {
        let mut file = BufWriter::new(file);
        dump.write(|bytes| file.write_all(bytes))?;
        file.flush()
    });
    match (written, dump.left_out()) {
        (Ok(()), 0) => super::output::tell(format_args!("planks: core dump in {path}")),
        (Ok(()), n) => super::output::tell(format_args!(
            "planks: core dump in {path}, without {n} bytes of memory that are beyond its limit"
        )),
        (Err(e), _) => super::output::tell(format_args!("planks: no core dump: {path}: {e}")),
    }
}
