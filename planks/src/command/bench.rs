//! `planks bench`: the table of everything that has a goal, and closer looks at one thing each.

use super::{Ending, Output, Run};
use crate::atomic_file;
use crate::bench::gate;
use crate::bench::kernels;
use crate::bench::load::{self, BenchError};
use crate::bench::measure::Effort;
use crate::bench::pass_timing;
use crate::bench::reload;
use crate::bench::report::{self, Row};
use crate::bench::table::{self, Module, Plan};
use crate::bench::{swap, trap};
use crate::failure::{Failure, Kind};
use crate::input::{self, Input};
use crate::progress;
use clap::{Args, Subcommand};
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

/// Measure this system, wasmtime, wasmi and native code side by side, in one run
///
/// Without a subcommand: one table of everything that has a goal. The subcommands look closer at one thing each.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    table: TableArgs,
}

#[derive(Args, Debug)]
struct TableArgs {
    /// Compare with the goals; exit code 1 and a line for each that is missed
    #[arg(long)]
    check: bool,
    /// Also draw the table as a chart
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Measure only rows with this text in their key (see --json) or name
    #[arg(long, value_name = "TEXT", default_value = "")]
    filter: String,
    /// Compile this module (binary or text) instead of those that the tests fetch from npm
    #[arg(long, value_name = "FILE")]
    module: Vec<String>,
    /// Rounds; in each, every side runs once
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Least milliseconds of one side in one round
    #[arg(long, value_name = "MS", default_value_t = 2)]
    slice: u64,
}

#[derive(Subcommand, Debug)]
enum What {
    /// Loading modules, calling them, getting out of them by a trap
    Load(LoadArgs),
    /// Live swap: a storm of callers and swaps, and what each step costs
    Swap(SwapArgs),
    /// Traps, from the faulting instruction to the caller's `Err`, and what being ready for them costs
    Trap(TrapArgs),
    /// The next version of a module of which one function changed, beside compiling it in full
    Reload(ReloadArgs),
    /// Running code: kernels in C, beside wasmtime and the C compiler's own code
    Kernels(KernelsArgs),
    /// Calling cells whose state is behind a gate
    Gate(EffortArgs),
}

#[derive(Args, Debug)]
struct TrapArgs {
    #[command(flatten)]
    effort: EffortArgs,
    /// Measure only rows with this text in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    row: String,
}

#[derive(Args, Debug)]
struct KernelsArgs {
    #[command(flatten)]
    effort: EffortArgs,
    /// Run only kernels with this text in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    row: String,
}

#[derive(Args, Debug)]
struct SwapArgs {
    /// Swaps that the storm tries; about one in four is made to fail
    #[arg(long, value_name = "N", default_value_t = 135_000)]
    swaps: u64,
    /// Tasks of the storm that call
    #[arg(long, value_name = "N", default_value_t = 2)]
    callers: u32,
    /// Where the storm's randomness comes from
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Measure only rows with this text in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    row: String,
}

#[derive(Args, Debug)]
struct EffortArgs {
    /// Rounds; in each, every candidate runs once
    #[arg(long, default_value_t = Effort::default().rounds)]
    rounds: usize,
    /// Least milliseconds of one candidate in one round
    #[arg(long, value_name = "MS", default_value_t = 10)]
    slice: u64,
}

impl EffortArgs {
    fn effort(&self) -> Effort {
        Effort { rounds: self.rounds, slice: Duration::from_millis(self.slice) }
    }
}

#[derive(Args, Debug)]
struct ReloadArgs {
    /// Measure this module (binary or text) instead of a generated one
    #[arg(long, value_name = "FILE")]
    module: Vec<String>,
    /// Rounds; in each, another function is the one that changed
    #[arg(long, default_value_t = RELOAD_ROUNDS)]
    rounds: usize,
}

#[derive(Args, Debug)]
struct LoadArgs {
    /// Also measure the compilation of this module (binary or text)
    #[arg(long, value_name = "FILE")]
    module: Vec<String>,
    #[command(flatten)]
    effort: EffortArgs,
    /// Measure the compilation of the given modules only
    #[arg(long, requires = "module")]
    only_modules: bool,
}

/// Rounds of compiling a large module: each takes seconds.
const COMPILE_ROUNDS: usize = 3;
/// Rounds of reloading; each compiles the module in full, too.
const RELOAD_ROUNDS: usize = 5;

impl Run for BenchArgs {
    fn run(self, out: &mut Output) -> Result<Ending, Failure> {
        pass_timing::stop();
        let Some(what) = self.what else { return self.table.run(out) };
        let rows = match what {
            What::Load(args) => args.rows()?,
            What::Swap(args) => {
                let mut plan = injector::storm::Plan::new(args.seed, args.swaps);
                plan.callers = args.callers;
                swap::rows(&plan, &args.row, say).map_err(failed)?
            }
            What::Trap(args) => trap::rows(args.effort.effort(), &args.row, say).map_err(failed)?,
            What::Reload(args) => args.rows()?,
            What::Kernels(args) => {
                let rows = kernels::rows(args.effort.effort(), &args.row, say).map_err(failed)?;
                if !out.json {
                    out.print(report::overview(&rows))?;
                    return Ok(verdict(&rows));
                }
                rows
            }
            What::Gate(args) => gate::rows(args.effort(), say).map_err(failed)?,
        };
        if out.json {
            out.print(report::json(&rows))?;
        } else {
            out.print(report::text(&rows))?;
        }
        Ok(verdict(&rows))
    }
}

fn verdict(rows: &[Row]) -> Ending {
    if rows.iter().all(Row::meets_goal) { Ending::Success } else { Ending::Status(1) }
}

impl TableArgs {
    fn run(self, out: &mut Output) -> Result<Ending, Failure> {
        let modules = if self.module.is_empty() {
            progress::during("fetching modules", || Module::third_party(&self.filter))
        } else {
            self.module.iter().map(|path| module(path)).collect::<Result<_, _>>()?
        };
        let effort = Effort { rounds: self.rounds.into(), slice: Duration::from_millis(self.slice) };
        let plan = Plan { effort, only: self.filter, modules };
        let table = table::measure(&plan, say).map_err(failed)?;
        if table.lines.is_empty() {
            return Err(Failure::usage(format!("no row has `{}` in its key or name", plan.only)));
        }
        if let Some(path) = &self.svg {
            atomic_file::write(path, table::svg::chart(&table).as_bytes())?;
        }
        if out.json {
            out.value(&table::json::table(&table))?;
        } else {
            out.print(table::print::text(&table))?;
        }
        if !self.check {
            return Ok(Ending::Success);
        }
        let checked = table::check::check(&table);
        if !out.json {
            out.line("")?;
            for miss in &checked.missed {
                out.line(miss)?;
            }
            out.line(format_args!("{} goals met, {} not", checked.met, checked.missed.len()))?;
        }
        Ok(if checked.holds() { Ending::Success } else { Ending::Status(Kind::Failed.exit_code()) })
    }
}

/// A module to compile, with its path for a name.
fn module(path: &str) -> Result<Module, Failure> {
    match input::module(path)? {
        Input::Wasm(wasm) => Ok(Module { name: path.into(), bytes: Ok(wasm) }),
        Input::Object(_) => Err(Failure::usage(format!("{path}: is compiled already; give a module"))),
    }
}

impl ReloadArgs {
    fn rows(&self) -> Result<Vec<Row>, Failure> {
        if self.module.is_empty() {
            say("a generated module");
            let wasm = reload::generated(reload::FUNCTIONS).map_err(failed)?;
            return Ok(vec![reload::row("a generated module", &wasm, self.rounds).map_err(failed)?]);
        }
        let mut rows = Vec::new();
        for path in &self.module {
            let Input::Wasm(wasm) = input::module(path)? else {
                return Err(Failure::usage(format!("{path}: is compiled already; give a module")));
            };
            say(&format!("reload of {path}"));
            rows.push(reload::row(path, &wasm, self.rounds).map_err(failed)?);
        }
        Ok(rows)
    }
}

impl LoadArgs {
    fn rows(&self) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        if !self.only_modules {
            rows = load::rows(self.effort.effort(), say).map_err(failed)?;
        }
        for path in &self.module {
            let Input::Wasm(wasm) = input::module(path)? else {
                return Err(Failure::usage(format!("{path}: is compiled already; give a module")));
            };
            say(&format!("compilation of {path}"));
            rows.extend(load::compile_rows(path, &wasm, COMPILE_ROUNDS).map_err(failed)?);
        }
        Ok(rows)
    }
}

fn failed(e: BenchError) -> Failure {
    Failure::new(Kind::System, e.to_string())
}

/// Says what is being measured, to a person.
fn say(what: &str) {
    if std::io::stderr().is_terminal() {
        super::output::tell(format_args!("measuring: {what}"));
    }
}
