//! `planks bench`: one table of everything that has a goal, beside wasmtime, wasmi and native code, measured interleaved in one run.
//!
//! A [`Line`] holds the figures of each [`Side`], round by round, so ratios are those of figures that were taken side by side.
//! [`calls`], [`running`], [`compiling`] and [`sizes`] measure; [`mod@print`], [`json`] and [`svg`] show; [`check`] compares with the goals.

mod calls;
pub mod check;
mod compiling;
mod heap;
pub mod json;
mod line;
pub mod print;
mod processors;
mod running;
mod sizes;
pub mod svg;

pub use compiling::Module;
pub use line::{Figures, Goal, Line, Side, Unit, Verdict};

use super::load::BenchError;
use super::measure::Effort;
use super::native::Toolchain;
use super::rival::Rival;

/// What was measured, and beside what.
#[derive(Clone, Debug)]
pub struct Table {
    /// The C compiler that made native code, if there is one.
    pub compiler: Option<&'static str>,
    /// Processors that were used.
    pub processors: usize,
    /// Rounds of short operations.
    pub rounds: usize,
    /// The lines.
    pub lines: Vec<Line>,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How much of each.
    pub effort: Effort,
    /// Only lines with this text in their key or name.
    pub only: String,
    /// Modules to compile.
    pub modules: Vec<Module>,
}

/// Processors of the rows about several, as the goals are written.
const PROCESSORS: usize = 2;

impl Plan {
    fn wants(&self, key: &str, what: &str) -> bool {
        key.contains(&self.only) || what.contains(&self.only)
    }
}

/// Measures what is wanted. From now on this process stays on two processors.
///
/// # Errors
/// Something that should run is refused, or two sides computed different things.
pub fn measure(plan: &Plan, mut progress: impl FnMut(&str)) -> Result<Table, BenchError> {
    let processors = processors::limit_to(PROCESSORS);
    let toolchain = Toolchain::find();
    let rival = Rival::new()?;
    let with = With { plan, rival: &rival, toolchain: toolchain.as_ref(), processors };
    let mut lines = Vec::new();
    let mut add = |line: Line| lines.push(line);
    calls::measure(&with, &mut progress, &mut add)?;
    compiling::measure(&with, &mut progress, &mut add)?;
    sizes::measure(&with, &mut progress, &mut add)?;
    running::measure(&with, &mut progress, &mut add)?;
    Ok(Table { compiler: toolchain.as_ref().map(Toolchain::name), processors, rounds: plan.effort.rounds, lines })
}

/// What the parts measure with.
struct With<'a> {
    plan: &'a Plan,
    rival: &'a Rival,
    toolchain: Option<&'a Toolchain>,
    processors: usize,
}

/// What the column of native code says where there is none.
const NO_COMPILER: &str = "no C compiler (clang, gcc or cc) was found";

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn plan(only: &str) -> Plan {
        let effort = Effort { rounds: 2, slice: Duration::from_micros(20) };
        Plan { effort, only: only.into(), modules: Vec::new() }
    }

    #[test]
    fn a_row_is_measured_on_every_side_and_its_json_can_be_read() {
        let table = measure(&plan("call.stateless"), |_| {}).unwrap();
        let read: serde_json::Value = serde_json::from_str(&json::table(&table).to_string()).unwrap();
        let row = &read["rows"][0];
        assert_eq!((read["schema"].as_str(), read["rows"].as_array().unwrap().len()), (Some(json::SCHEMA), 1));
        assert_eq!((row["key"].as_str(), row["unit"].as_str()), (Some("call.stateless"), Some("ns")));
        for side in ["planks", "wasmtime", "wasmi", "native"] {
            assert!(row["sides"][side]["median"].as_f64().unwrap() > 0.0, "{read}");
        }
    }

    #[test]
    fn every_call_memory_and_load_is_measured() {
        for (only, lines) in [("call.", 5), ("memory.", 1), ("load.", 2)] {
            let table = measure(&plan(only), |_| {}).unwrap();
            assert_eq!(table.lines.len(), lines, "{only}");
            assert!(table.lines.iter().all(|l| l.ratio(Side::Wasmtime).is_some()), "{:?}", table.lines);
        }
    }

    #[test]
    fn a_module_is_compiled_by_every_compiler() {
        let modules =
            vec![Module { name: "generated".into(), bytes: Ok(super::super::reload::generated(20).unwrap()) }];
        let table = measure(&Plan { modules, ..plan("generated") }, |_| {}).unwrap();
        let keys: Vec<&str> = table.lines.iter().map(|l| l.key.as_str()).collect();
        assert_eq!(keys, ["compile.one_thread.generated", "compile.two_threads.generated", "code.generated"]);
        assert!(table.lines[0].ratio(Side::Wasmi).is_some());
    }

    #[test]
    fn a_kernel_runs_alone_and_all_of_them_give_a_mean_and_a_worst() {
        let one = measure(&plan("kernels.fib"), |_| {}).unwrap();
        assert_eq!(one.lines.len(), 1);
        let all = measure(&plan("run time"), |_| {}).unwrap();
        let keys: Vec<&str> = all.lines.iter().map(|l| l.key.as_str()).collect();
        assert_eq!(keys, ["kernels.mean", "kernels.worst"]);
        let lines = one.lines.iter().chain(&all.lines);
        assert!(lines.into_iter().all(|l| l.ratio(Side::Wasmi).is_some()));
    }
}
