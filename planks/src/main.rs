//! `planks`: run, compile, test and inspect wasm cells.
#![cfg_attr(alloc_error_hook, feature(alloc_error_hook))] // makes errors of allocations that failed

use clap::{Parser, Subcommand};
use injector::heap::FailingAllocator;
use planks::command::{self, Ending, Output, Run};
use planks::failure::{Failure, Kind};
use runtime_port::heap::{Reserve, is_exhaustion};
use std::alloc::System;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// The reserve is for steps that must not fail; `inject` refuses allocations.
#[global_allocator]
static ALLOCATOR: Reserve<FailingAllocator<System>> = Reserve::behind(FailingAllocator::new(System));

/// Exit code of a defect of this program.
const INTERNAL: u8 = 70;

const EXIT_CODES: &str = "Exit codes:
    0  success
    1  the module trapped, or assertions of a script failed
    2  the command line, or a command of the shell, was not understood
    3  the input is no valid module, or needs a feature that is refused
    4  imports cannot be linked, or a name is taken or unknown
    5  a file cannot be read or written
    6  the system lacks something: memory, an emulator
   70  a defect of planks
  141  the reader of the output went away
A program that ends itself (WASI proc_exit) gives its own status.";

/// WebAssembly modules as components of a system: compiled, linked, called, inspected.
#[derive(Parser)]
#[command(name = "planks", version, after_help = EXIT_CODES)]
struct Cli {
    /// Results as JSON, one value a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    Run(command::RunArgs),
    Compile(command::CompileArgs),
    Objdump(command::ObjdumpArgs),
    Wast(command::WastArgs),
    Shell(command::ShellArgs),
    Swap(command::SwapArgs),
    Watch(command::WatchArgs),
    Demo(command::DemoArgs),
    #[cfg(feature = "bench")]
    Bench(command::BenchArgs),
    Boot(command::BootArgs),
    Inject(command::InjectArgs),
}

fn main() -> ExitCode {
    #[cfg(alloc_error_hook)]
    {
        std::alloc::set_alloc_error_hook(|_| runtime_port::heap::exhausted());
        injector::heap::failures_unwind();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            let code = if e.use_stderr() { 2 } else { 0 };
            // Nobody is left to tell when this fails.
            let _ = e.print();
            return ExitCode::from(code);
        }
    };
    let json = cli.json;
    match catch_unwind(AssertUnwindSafe(|| execute(cli))) {
        Ok(Ok(Ending::Success)) => ExitCode::SUCCESS,
        Ok(Ok(Ending::Status(status))) => ExitCode::from(status),
        Ok(Err(failure)) => report(&failure, json),
        Err(payload) if is_exhaustion(&*payload) => report(&Failure::new(Kind::System, "out of memory"), json),
        Err(_) => {
            command::output::tell(format_args!("planks: this is a defect of planks, please report it"));
            ExitCode::from(INTERNAL)
        }
    }
}

fn execute(cli: Cli) -> Result<Ending, Failure> {
    let mut out = Output::new(cli.json);
    let ending = match cli.command {
        Commands::Run(args) => args.run(&mut out),
        Commands::Compile(args) => args.run(&mut out),
        Commands::Objdump(args) => args.run(&mut out),
        Commands::Wast(args) => args.run(&mut out),
        Commands::Shell(args) => args.run(&mut out),
        Commands::Swap(args) => args.run(&mut out),
        Commands::Watch(args) => args.run(&mut out),
        Commands::Demo(args) => args.run(&mut out),
        #[cfg(feature = "bench")]
        Commands::Bench(args) => args.run(&mut out),
        Commands::Boot(args) => args.run(&mut out),
        Commands::Inject(args) => args.run(&mut out),
    };
    out.flush()?;
    ending
}

/// Says why the command failed: to people on standard error, to scripts as JSON on standard output too.
fn report(failure: &Failure, json: bool) -> ExitCode {
    use std::io::Write;
    if json {
        let _ = writeln!(std::io::stdout(), "{}", failure.to_json());
    } else {
        let _ = writeln!(std::io::stderr(), "planks: {failure}");
    }
    ExitCode::from(failure.kind.exit_code())
}
