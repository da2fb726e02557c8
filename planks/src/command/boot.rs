//! `planks boot`: a module in ring 0, in an emulator.

use super::{Ending, Output, Run};
use crate::failure::{Failure, Kind};
use crate::input::{self, Input};
use crate::progress;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;
use xtask::archive::Builder;
use xtask::machine::{self, Machine, MachineError};
use xtask::{kernel, qemu};

/// Boot the kernel in QEMU and run a module in it: compiled, loaded and called in ring 0.
///
/// The kernel is built from the source tree this program was built from, unless --kernel names an image. Its console is
/// the output.
#[derive(Args, Debug)]
pub struct BootArgs {
    /// The module, binary or text; `-` for standard input
    #[arg(required_unless_present = "test")]
    file: Option<String>,
    /// Call this exported function with the arguments that follow the file
    #[arg(long, value_name = "FUNCTION")]
    invoke: Option<String>,
    /// Run the kernel's own checks, those whose name contains PART
    #[arg(long, value_name = "PART", num_args = 0..=1, require_equals = true, default_missing_value = "", conflicts_with = "file")]
    test: Option<String>,
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
        let (command_line, archive) = self.payload()?;
        let machine = self.machine()?;
        let mut console = Vec::new();
        let mut written = Ok(());
        let ended = machine.run(&command_line, archive.as_deref(), |line| {
            if out.json {
                console.push(line.to_string());
            } else if written.is_ok() {
                written = out.line(line).and_then(|()| out.flush());
            }
        });
        written?;
        let ended = ended.map_err(|e| Failure::new(Kind::System, e.to_string()))?;
        let (ending, word) = match ended {
            machine::Ending::Success => (Ending::Success, "success"),
            machine::Ending::Failure => (Ending::Status(Kind::Failed.exit_code()), "failure"),
            machine::Ending::Fatal => (Ending::Status(Kind::System.exit_code()), "fatal"),
        };
        if out.json {
            out.value(&json!({ "ending": word, "console": console }))?;
        }
        Ok(ending)
    }
}

impl BootArgs {
    /// The kernel's command line, and the files it finds.
    fn payload(&self) -> Result<(String, Option<Vec<u8>>), Failure> {
        let Some(path) = &self.file else {
            let part = self.test.as_deref().unwrap_or_default();
            return Ok((if part.is_empty() { "test".into() } else { format!("test={part}") }, None));
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
        Ok((line, Some(Builder::new().file(&name, &wasm).finish())))
    }

    fn machine(&self) -> Result<Machine, Failure> {
        let system = |e: &dyn std::fmt::Display| Failure::new(Kind::System, e.to_string());
        // What is cheap to check comes before the build of a kernel.
        if let Some(image) = self.kernel.as_ref().filter(|i| !i.is_file()) {
            return Err(Failure::file(&image.display().to_string(), "no such kernel image"));
        }
        let qemu = qemu::find().map_err(|e| system(&e))?;
        let image = match &self.kernel {
            Some(image) => image.clone(),
            None => progress::during("building the kernel", kernel::build).map_err(|e| system(&e))?,
        };
        let mut machine = Machine::new(qemu, image);
        machine.timeout = Duration::from_secs(self.timeout);
        machine.board = self.machine.clone().unwrap_or(machine.board);
        machine.cpu = self.cpu.clone().unwrap_or(machine.cpu);
        machine.memory = self.memory.unwrap_or(machine.memory);
        Ok(machine)
    }
}
