//! `planks boot`: a module in ring 0, in an emulator, or the kernel's shell.

use super::{Ending, Output, Run};
use crate::failure::{Failure, Kind};
use crate::input::{self, Input};
use clap::Args;
use serde_json::json;
use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Duration;
use xtask::archive::Builder;
use xtask::kernel;
use xtask::machine::{self, Machine, MachineError, SHELL_GREETING};

/// Boot the kernel in QEMU and run a module in it: compiled, loaded and called in ring 0. Without a module, its shell.
///
/// The kernel is built from the source tree this program was built from, unless --kernel names an image. Its console is
/// the output.
#[derive(Args, Debug)]
pub struct BootArgs {
    /// The module, binary or text; `-` for standard input
    file: Option<String>,
    /// Call this exported function with the arguments that follow the file
    #[arg(long, value_name = "FUNCTION")]
    invoke: Option<String>,
    /// Run the kernel's own checks, those whose name contains PART
    #[arg(long, value_name = "PART", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with = "file")]
    test: Option<String>,
    /// Give the shell the modules (.wasm, .wat) and native objects (.o) of this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["file", "test"])]
    modules: Option<PathBuf>,
    /// Count instructions: runs are identical, and several times slower
    #[arg(long)]
    icount: bool,
    /// The kernel image
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Processor model for QEMU
    #[arg(long, value_name = "MODEL")]
    cpu: Option<String>,
    /// Board for QEMU: pc or q35
    #[arg(long, value_name = "BOARD")]
    machine: Option<String>,
    /// Memory in MiB
    #[arg(long, value_name = "MIB")]
    memory: Option<u32>,
    /// Give up after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Arguments of the function
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

impl Run for BootArgs {
    fn run(self, out: &mut Output) -> Result<Ending, Failure> {
        let shell = self.file.is_none() && self.test.is_none();
        let (command_line, files) = if shell { ("shell".into(), self.folder()?) } else { self.payload()? };
        let machine = self.machine()?;
        // The kernel's reports name its functions, and native cells link to them.
        let archive = files.symbols(&machine.image).finish();
        let mut typed = String::new();
        if shell && std::io::stdin().is_terminal() && !out.json {
            let ended = machine.interact(&command_line, Some(&archive));
            return Ok(ending_of(ended.map_err(|e| Failure::new(Kind::System, e.to_string()))?).0);
        } else if shell {
            let read = std::io::stdin().read_to_string(&mut typed);
            read.map_err(|e| Failure::file("standard input", e))?;
            typed.push_str("\nexit\n");
        }
        let typed: &[(&str, &str)] = if shell { &[(SHELL_GREETING, &typed)] } else { &[] };
        let mut console = Vec::new();
        let mut written = Ok(());
        let ended = machine.converse(&command_line, Some(&archive), typed, |line| {
            if out.json {
                console.push(line.to_string());
            } else if written.is_ok() {
                written = out.line(line).and_then(|()| out.flush());
            }
        });
        written?;
        let ended = ended.map_err(|e| Failure::new(Kind::System, e.to_string()))?;
        let (ending, word) = ending_of(ended);
        if out.json {
            out.value(&json!({ "ending": word, "console": console }))?;
        }
        Ok(ending)
    }
}

fn ending_of(ended: machine::Ending) -> (Ending, &'static str) {
    match ended {
        machine::Ending::Success => (Ending::Success, "success"),
        machine::Ending::Failure => (Ending::Status(Kind::Failed.exit_code()), "failure"),
        machine::Ending::Fatal => (Ending::Status(Kind::System.exit_code()), "fatal"),
    }
}

impl BootArgs {
    /// The modules and objects of the folder that is asked for, for the boot archive.
    fn folder(&self) -> Result<Builder, Failure> {
        let Some(folder) = &self.modules else { return Ok(Builder::new()) };
        let shown = folder.display().to_string();
        let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut paths: Vec<PathBuf> =
            entries.map_err(|e| Failure::file(&shown, e))?.into_iter().map(|e| e.path()).collect();
        paths.retain(|p| p.extension().is_some_and(|e| e == "wasm" || e == "wat" || e == "o"));
        paths.sort();
        let mut archive = Builder::new();
        for path in &paths {
            let shown = path.display().to_string();
            // The text format is assembled here: the kernel has no assembler.
            archive = match input::module(&shown)? {
                Input::Wasm(wasm) => archive.file(&format!("{}.wasm", input::stem(&shown)), &wasm),
                Input::Object(object) => archive.file(&format!("{}.o", input::stem(&shown)), &object),
            };
        }
        Ok(archive)
    }

    /// The kernel's command line, and the files it finds.
    fn payload(&self) -> Result<(String, Builder), Failure> {
        let Some(path) = &self.file else {
            let part = self.test.as_deref().unwrap_or_default();
            return Ok((if part.is_empty() { "test".into() } else { format!("test={part}") }, Builder::new()));
        };
        let wasm = match input::module(path)? {
            Input::Wasm(wasm) => wasm,
            Input::Object(_) => {
                return Err(Failure::usage(format!("{path}: the kernel compiles modules itself; give it one")));
            }
        };
        // The kernel's command line cannot hold every name a file can have.
        let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let name: String = input::stem(path).chars().map(plain).chain(".wasm".chars()).collect();
        let line = machine::run_command_line(&name, self.invoke.as_deref(), &self.args).map_err(|e| match e {
            MachineError::Word(_) => Failure::usage(e.to_string()),
            other => Failure::new(Kind::System, other.to_string()),
        })?;
        Ok((line, Builder::new().file(&name, &wasm)))
    }

    fn machine(&self) -> Result<Machine, Failure> {
        let mut machine = super::machine::machine(self.kernel.as_deref(), kernel::build)?;
        machine.timeout = Duration::from_secs(self.timeout);
        machine.board = self.machine.clone().unwrap_or(machine.board);
        machine.cpu = self.cpu.clone().unwrap_or(machine.cpu);
        machine.icount = self.icount;
        machine.memory = self.memory.unwrap_or(machine.memory);
        Ok(machine)
    }
}
