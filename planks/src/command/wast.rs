//! `planks wast`: spec scripts, here and in the kernel.

use super::machine::machine;
use super::{Ending, Output, Run};
use crate::failure::{Failure, Kind};
use crate::progress;
use crate::wast::json;
use crate::wast::{Exclusions, FileReport, Kernel, Options, ScriptFile, Totals, builtin_suite};
use crate::wast::{collect, differences, run};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;
use xtask::kernel;
use xtask::machine::Machine;

/// Run spec scripts (.wast) and count what passes and fails; exit code 1 if anything fails.
#[derive(Args, Debug)]
pub struct WastArgs {
    /// Scripts, or directories of them
    #[arg(required_unless_present = "suite")]
    paths: Vec<PathBuf>,
    /// Run the built-in WebAssembly testsuite: wasm 3.0 and all proposals
    #[arg(long)]
    suite: bool,
    /// Of the built-in testsuite, run only files whose path contains this
    #[arg(long, value_name = "TEXT", requires = "suite")]
    only: Option<String>,
    /// Run the scripts in the kernel too, compiled there, under QEMU; every count of every file must be the same
    #[arg(long)]
    boot: bool,
    /// With --boot: the kernel image, built with feature `conformance`; otherwise it is built from the source tree
    #[arg(long, value_name = "FILE", requires = "boot")]
    kernel: Option<PathBuf>,
    /// Assertions that may fail: a file of lines `PATH:LINE REASON` (the built-in testsuite has its own list)
    #[arg(long, value_name = "FILE")]
    exclude: Option<PathBuf>,
    /// Scripts (and with --boot, machines) at a time; by default, one for each processor
    #[arg(short, long, value_name = "N")]
    jobs: Option<usize>,
    /// Show files that passed too
    #[arg(short, long)]
    verbose: bool,
}

impl WastArgs {
    fn exclusions(&self) -> Result<Exclusions, Failure> {
        let text = match &self.exclude {
            Some(path) => std::fs::read_to_string(path).map_err(|e| Failure::file(&path.display().to_string(), e))?,
            None if self.suite => return Exclusions::builtin().map_err(|e| Failure::new(Kind::System, e)),
            None => String::new(),
        };
        Exclusions::parse(&text).map_err(Failure::usage)
    }
}

impl Run for WastArgs {
    fn run(self, out: &mut Output) -> Result<Ending, Failure> {
        let options = Options {
            jobs: self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            exclusions: self.exclusions()?,
        };
        let mut files = collect(&self.paths).map_err(|e| Failure::new(Kind::File, e))?;
        if self.suite {
            let mut suite = builtin_suite();
            suite.retain(|f| self.only.as_ref().is_none_or(|only| f.name.contains(only)));
            if suite.is_empty() {
                return Err(Failure::usage("no file of the testsuite has that in its path"));
            }
            files.extend(suite);
        }
        // Before anything runs for long.
        let machine = if self.boot { Some(machine(self.kernel.as_deref(), kernel::build_testing)?) } else { None };
        let start = Instant::now();
        let mut written = Ok(());
        let reports = run(&files, &options, |report| {
            if written.is_ok() {
                written = self.show(out, report);
            }
        });
        written?;
        let total = summarise(out, &reports, start.elapsed().as_secs_f64())?;
        let same = match machine {
            Some(machine) => in_kernel(out, machine, &options, &files, &reports)?,
            None => true,
        };
        Ok(if total.failed == 0 && same { Ending::Success } else { Ending::Status(Kind::Failed.exit_code()) })
    }
}

impl WastArgs {
    fn show(&self, out: &mut Output, report: &FileReport) -> Result<(), Failure> {
        if out.json {
            out.value(&json::file(report))?;
        } else {
            for f in &report.failures {
                out.line(format_args!("{}:{}: {}", report.name, f.line, f.reason))?;
            }
            let quiet = report.totals.failed == 0 && self.suite && !self.verbose;
            if !quiet {
                out.line(format_args!("{:<48} {}", report.name, report.totals.summary()))?;
            }
        }
        out.flush()
    }
}

/// Runs the scripts in the kernel. Whether each did there what it did here.
fn in_kernel(
    out: &mut Output,
    machine: Machine,
    options: &Options,
    files: &[ScriptFile],
    here: &[FileReport],
) -> Result<bool, Failure> {
    let start = Instant::now();
    let kernel = Kernel::new(machine, options.jobs, options.exclusions.clone());
    let reports = progress::during("running the scripts in the kernel", || kernel.run(files));
    let mut total = Totals::default();
    reports.values().for_each(|r| total += &r.totals);
    let (differences, seconds) = (differences(here, &reports), start.elapsed().as_secs_f64());
    if out.json {
        out.value(&json!({ "kernel": json::totals(&total), "seconds": seconds, "differences": differences }))?;
        return Ok(differences.is_empty());
    }
    for difference in &differences {
        out.line(difference)?;
    }
    out.line(format_args!("{:<48} {:3} files  {}  ({seconds:.1} s)", "in the kernel", total.files, total.summary()))?;
    let same = if differences.is_empty() { "every count of every file is the same" } else { "that is not the same" };
    out.line(same)?;
    Ok(differences.is_empty())
}

fn summarise(out: &mut Output, reports: &[FileReport], seconds: f64) -> Result<Totals, Failure> {
    let mut total = Totals::default();
    let mut directories: BTreeMap<&str, Totals> = BTreeMap::new();
    for r in reports {
        total += &r.totals;
        *directories.entry(r.directory()).or_default() += &r.totals;
    }
    if out.json {
        let directories: BTreeMap<&str, Value> = directories.iter().map(|(d, t)| (*d, json::totals(t))).collect();
        out.value(&json!({ "directories": directories, "total": json::totals(&total), "seconds": seconds }))?;
        return Ok(total);
    }
    if directories.len() > 1 {
        out.line("")?;
        for (directory, t) in &directories {
            out.line(format_args!("{directory:<48} {:3} files  {}", t.files, t.summary()))?;
        }
    }
    if reports.len() > 1 {
        out.line(format_args!("{:<48} {:3} files  {}  ({seconds:.1} s)", "total", total.files, total.summary()))?;
    }
    Ok(total)
}
