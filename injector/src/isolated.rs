//! Campaigns in processes of their own, for faults that can end a process: one that dies costs one fault, not the campaign.
//!
//! The process that injects tells of each fault in a line on its standard output. When it ends before its time, the fault it was at
//! is lost, and another process goes on behind it.
#![cfg(feature = "std")]

use crate::campaign::{Plan, run};
use crate::report::Report;
use crate::verdict::{Outcome, Verdict};
use crate::world::{SetupError, setup};
use alloc::{
    format,
    string::{String, ToString},
};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Time without a word after which a process counts as hung: thousands of times what a fault takes, for machines that are busy.
const SILENCE: Duration = Duration::from_secs(30);

/// The same for the first fault. Compiling the workloads is part of it.
const FIRST_SILENCE: Duration = Duration::from_secs(180);

/// Injects in this process, and tells of each fault on standard output. To be called by the process that [`campaign`] starts.
pub fn child(plan: &Plan) -> Result<(), SetupError> {
    tell("ready");
    let plan = Plan { stop_when_lost: true, ..plan.clone() };
    run(&plan, |number, verdict| tell(&to_line(number, verdict)))?;
    tell("end");
    Ok(())
}

fn tell(line: &str) {
    // Nobody is left to tell when this fails.
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Runs a campaign in processes that `command` makes for parts of it. `observe` is told of every fault.
pub fn campaign(
    plan: &Plan,
    mut command: impl FnMut(&Plan) -> Command,
    mut observe: impl FnMut(u64, &Verdict),
) -> Result<Report, SetupError> {
    let mut report = Report::default();
    let end = plan.first + plan.count;
    let mut next = plan.first;
    while next < end {
        let part = Plan { first: next, count: end - next, ..plan.clone() };
        let mut process = command(&part);
        process.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = Process::start(process)?;
        let mut silence = FIRST_SILENCE;
        let death = loop {
            match process.lines.recv_timeout(silence) {
                Ok(line) if line == "end" => break None,
                Ok(line) if line == "ready" => {}
                Ok(line) => {
                    let Some((number, verdict)) = from_line(&line) else { continue };
                    observe(number, &verdict);
                    report.count(plan.kind, number, verdict);
                    next = number + 1;
                    silence = SILENCE;
                }
                Err(e) => break Some(process.end(e == RecvTimeoutError::Timeout)),
            }
        };
        let Some(death) = death else {
            // All done, or one was lost and the rest is for a fresh process.
            continue;
        };
        if next == part.first && report.total().injected == 0 && plan.first == next && death.contains("exit status") {
            return Err(SetupError(format!("the process that injects ended at once: {death}")));
        }
        if next < end {
            let outcome = Outcome::Lost(death);
            let verdict = Verdict { fault: "process ended", place: String::new(), detected: false, outcome };
            observe(next, &verdict);
            report.count(plan.kind, next, verdict);
            next += 1;
        }
    }
    Ok(report)
}

/// A process that injects.
struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    fn start(mut command: Command) -> Result<Process, SetupError> {
        // Where things lie in memory is part of a fault that writes somewhere.
        runtime_port::hosted::process::make_expendable(&mut command);
        let mut child = command.spawn().map_err(|e| setup("process")(&e))?;
        let output = child.stdout.take().ok_or_else(|| setup("process")(&"has no output"))?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Process { child, lines })
    }

    /// Ends it if it hangs; says how it ended.
    fn end(&mut self, hung: bool) -> String {
        if hung {
            // It may end by itself meanwhile.
            let _ = self.child.kill();
        }
        match self.child.wait() {
            Ok(_) if hung => "the process hung".to_string(),
            // Its output is closed, so it is at its end.
            Ok(status) => format!("the process died: {status}"),
            Err(e) => e.to_string(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One line: number, outcome, whether it was detected, fault, place, and what did not hold.
fn to_line(number: u64, verdict: &Verdict) -> String {
    let (outcome, what) = match &verdict.outcome {
        Outcome::Quiet => ("quiet", ""),
        Outcome::Recovered => ("recovered", ""),
        Outcome::Lost(what) => ("lost", what.as_str()),
    };
    let clean = |s: &str| s.replace(['\t', '\n'], " ");
    let Verdict { fault, place, detected, .. } = verdict;
    format!("{number}\t{outcome}\t{detected}\t{fault}\t{}\t{}", clean(place), clean(what))
}

fn from_line(line: &str) -> Option<(u64, Verdict)> {
    let mut fields = line.split('\t');
    let number = fields.next()?.parse().ok()?;
    let outcome = fields.next()?;
    let detected = fields.next()? == "true";
    let name = fields.next()?;
    let fault = NAMES.into_iter().find(|n| *n == name)?;
    let place = fields.next()?.into();
    let outcome = match outcome {
        "quiet" => Outcome::Quiet,
        "recovered" => Outcome::Recovered,
        _ => Outcome::Lost(fields.next()?.into()),
    };
    Some((number, Verdict { fault, place, detected, outcome }))
}

/// Faults of the kinds that are run in processes of their own.
const NAMES: [&str; 2] = ["bit flip", "word"];
