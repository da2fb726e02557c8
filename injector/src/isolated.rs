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
use std::time::{Duration, Instant};

/// Processor time without a word after which a process counts as hung: hundreds of times what a fault takes. The machine may be
/// busy, so it is not the time that passes.
const LONGEST: Duration = Duration::from_secs(10);

/// The same for the first fault. Compiling the workloads is part of it.
const LONGEST_AT_FIRST: Duration = Duration::from_secs(120);

/// Time without a word after which a process counts as asleep for ever, if it has used less than [`AWAKE`] of the processor.
const SILENCE: Duration = Duration::from_secs(60);

/// What a process that does something uses of the processor in [`SILENCE`], however busy the machine is.
const AWAKE: Duration = Duration::from_millis(500);

/// Time between two looks at a silent process.
const LOOK: Duration = Duration::from_millis(250);

/// Injects in this process, and tells of each fault on standard output. To be called by the process that [`campaign`] starts.
pub fn child(plan: &Plan) -> Result<(), SetupError> {
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
        let mut silence = Silence::begin(&process.child, LONGEST_AT_FIRST);
        let death = loop {
            match process.lines.recv_timeout(LOOK) {
                Ok(line) if line == "end" => break None,
                Ok(line) => {
                    let Some((number, verdict)) = from_line(&line) else { continue };
                    observe(number, &verdict);
                    report.count(plan.kind, number, verdict);
                    next = number + 1;
                    silence = Silence::begin(&process.child, LONGEST);
                }
                Err(RecvTimeoutError::Timeout) if !silence.is_too_long(&process.child) => {}
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

/// A time in which a process has not said anything.
struct Silence {
    since: Instant,
    /// Processor time of the process at its beginning.
    used: Option<Duration>,
    longest: Duration,
}

impl Silence {
    fn begin(process: &Child, longest: Duration) -> Silence {
        Silence { since: Instant::now(), used: processor_time(process), longest }
    }

    /// Whether the process will never say anything again.
    fn is_too_long(&self, process: &Child) -> bool {
        let passed = self.since.elapsed();
        match processor_time(process).zip(self.used) {
            Some((now, then)) => {
                let used = now.saturating_sub(then);
                used > self.longest || passed > SILENCE && used < AWAKE
            }
            // Where nobody can tell, time has to do.
            None => passed > self.longest + SILENCE,
        }
    }
}

/// Processor time that a process has used (proc_pid_stat(5): `utime` and `stime`, in hundredths of a second).
fn processor_time(process: &Child) -> Option<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).ok()?;
    // The name, in parentheses, may contain anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks: u64 = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(10 * ticks))
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
