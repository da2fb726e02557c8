//! `planks inject`: make faults and see what they do.

use super::{Ending, Output, Run};
use crate::failure::{Failure, Kind};
use crate::progress;
use clap::{Args, builder::PossibleValuesParser, builder::TypedValueParser};
use injector::world::SetupError;
use injector::{Kind as Fault, Plan, Report, Row, isolated};
use serde_json::{Value, json};
use std::env::current_exe;
use std::process::Command;
use std::time::{Duration, Instant};

/// Inject faults, and check after each that the caller got its error and nothing else happened.
///
/// The same seed makes the same faults. Exit code 1 if one of them was not recovered from.
#[derive(Args, Debug)]
pub struct InjectArgs {
    /// Where all randomness comes from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many faults of each kind
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// Number of the first fault
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only the fault with this number: repeats one that a report names
    #[arg(long, conflicts_with_all = ["first", "count"])]
    only: Option<u64>,
    /// What goes wrong; by default, every kind in turn
    #[arg(long, value_parser = PossibleValuesParser::new(Fault::ALL.map(Fault::name)).try_map(|n| n.parse::<Fault>()))]
    kind: Vec<Fault>,
    /// Tasks that inject at the same time (kind `guest`; the others have the process for themselves)
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    tasks: u32,
    /// Injects in this process and tells the one that started it
    #[arg(long, hide = true)]
    child: bool,
}

impl Run for InjectArgs {
    fn run(mut self, out: &mut Output) -> Result<Ending, Failure> {
        if let Some(number) = self.only {
            (self.first, self.count) = (number, 1);
        }
        let tasks = |kind| if kind == Fault::Guest { self.tasks } else { 1 };
        let plan = |kind| Plan { first: self.first, tasks: tasks(kind), ..Plan::new(kind, self.seed, self.count) };
        let failed = |e: SetupError| Failure::new(Kind::System, e.to_string());
        if self.child {
            let kind = *self.kind.first().ok_or_else(|| Failure::usage("--child needs a kind"))?;
            return isolated::child(&plan(kind)).map(|()| Ending::Success).map_err(failed);
        }
        let mut kinds = self.kind.clone();
        if kinds.is_empty() {
            kinds.extend(Fault::ALL.into_iter().filter(|k| *k != Fault::Heap || injector::heap::is_possible()));
        }
        if kinds.contains(&Fault::Refusal) && !injector::refuse::install(&runtime_port::hosted::HOSTED) {
            return Err(Failure::new(Kind::System, "the platform is in use already"));
        }
        let mut report = Report::default();
        let start = Instant::now();
        for kind in kinds {
            let what = format!("injecting {} faults of kind {kind}", self.count);
            let inject = || match kind.may_end_process() {
                true => isolated::campaign(&plan(kind), |part| self.child(part), |_, _| {}),
                false => injector::run(&plan(kind), |_, _| {}),
            };
            report.merge(progress::during(&what, inject).map_err(failed)?);
        }
        let elapsed = start.elapsed();
        if out.json {
            out.value(&self.to_json(&report, elapsed))?;
        } else {
            out.print(&report)?;
            let all = report.total().injected;
            let each = elapsed.as_secs_f64() * 1e6 / all.max(1) as f64;
            out.line(format_args!(
                "{all} faults in {:.1} s, {each:.1} µs each, seed {}",
                elapsed.as_secs_f64(),
                self.seed
            ))?;
        }
        Ok(if report.total().lost == 0 { Ending::Success } else { Ending::Status(Kind::Failed.exit_code()) })
    }
}

impl InjectArgs {
    /// The command that makes part of the faults in a process of its own.
    fn child(&self, part: &Plan) -> Command {
        // Without a path to this program the start fails, with a reason.
        let mut command = Command::new(current_exe().unwrap_or_default());
        command.args(["inject", "--child", "--kind", part.kind.name()]);
        command.args(["--seed", &part.seed.to_string(), "--first", &part.first.to_string()]);
        command.args(["--count", &part.count.to_string()]);
        command
    }

    fn to_json(&self, report: &Report, elapsed: Duration) -> Value {
        let numbers = |r: Row| json!({ "injected": r.injected, "detected": r.detected, "manifested": r.manifested, "recovered": r.recovered, "lost": r.lost });
        let rows = report.rows().map(|(kind, fault, row)| {
            let mut value = json!({ "kind": kind.name(), "fault": fault });
            value
                .as_object_mut()
                .into_iter()
                .for_each(|o| o.extend(numbers(row).as_object().cloned().unwrap_or_default()));
            value
        });
        let losses = report.losses().iter().map(|l| {
            json!({
                "kind": l.kind.name(), "fault": l.fault, "number": l.number, "place": l.place, "what": l.what,
            })
        });
        let kinds = report.kinds().into_iter().map(|(k, r)| (k.name().to_string(), numbers(r)));
        json!({
            "seed": self.seed, "first": self.first, "count": self.count, "tasks": self.tasks,
            "seconds": elapsed.as_secs_f64(), "total": numbers(report.total()),
            "kinds": Value::Object(kinds.collect()), "faults": rows.collect::<Vec<_>>(),
            "losses": losses.collect::<Vec<_>>(),
        })
    }
}
