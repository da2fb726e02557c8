//! Runs scripts in the kernel: converts them, packs them into boot archives, boots several machines at a time.
//!
//! The kernel compiles their modules itself and prints the counts of each script; what they must be is what the same scripts
//! gave here ([`differences`]).

use super::convert::convert;
use super::{Exclusions, Failure, FileReport, Outcome, ScriptFile};
use conformance::script::encoding::encode;
use std::collections::BTreeMap;
use std::time::Duration;
use xtask::archive::Builder;
use xtask::machine::{Ending, Machine};

/// Memory of a machine, in MiB: what the largest memories and tables of the testsuite need.
const MEMORY: u32 = 1024;

/// Longest time for the scripts of one machine: far more than the whole testsuite takes in one, for a loaded host.
const TIMEOUT: Duration = Duration::from_secs(4 * 3600);

/// How to run scripts in the kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The machine to boot, with an image that carries the suites.
    pub machine: Machine,
    /// Machines at a time.
    pub jobs: usize,
    /// What may fail.
    pub exclusions: Exclusions,
}

impl Kernel {
    /// A kernel for this image.
    pub fn new(machine: Machine, jobs: usize, exclusions: Exclusions) -> Kernel {
        let machine = Machine { memory: MEMORY.max(machine.memory), timeout: TIMEOUT, ..machine };
        Kernel { machine, jobs, exclusions }
    }

    /// Runs the scripts; the reports by name. A script that the kernel did not come to is a failure of it.
    pub fn run(&self, files: &[ScriptFile]) -> BTreeMap<String, FileReport> {
        let shards = deal(files, self.jobs);
        std::thread::scope(|scope| {
            let machines: Vec<_> = shards.iter().map(|shard| scope.spawn(|| self.run_shard(shard))).collect();
            machines.into_iter().flat_map(|m| m.join().unwrap_or_default()).map(|r| (r.name.clone(), r)).collect()
        })
    }

    /// Runs scripts in one machine.
    fn run_shard(&self, files: &[&ScriptFile]) -> Vec<FileReport> {
        let mut reports = Vec::new();
        let mut archive = Builder::new();
        for file in files {
            let packed = convert(&file.name, &file.text, &self.exclusions.lines(&file.name))
                .map_err(|e| (e.line, e.to_string()))
                .and_then(|script| encode(&script).map_err(|e| (1, e.to_string())));
            match packed {
                Ok(bytes) => archive = archive.file(&format!("{}.script", file.name), &bytes),
                Err((line, reason)) => reports.push(failed(&file.name, line, reason)),
            }
        }
        let mut console = Console::default();
        let ending = self.machine.run("scripts", Some(&archive.finish()), |line| console.line(line));
        reports.append(&mut console.reports);
        let silent = files.iter().filter(|f| !reports.iter().any(|r| r.name == f.name)).collect::<Vec<_>>();
        let why = match ending {
            Ok(Ending::Success | Ending::Failure) => "the kernel has not reported this script".into(),
            Ok(Ending::Fatal) => format!("the kernel could not go on:\n{}", console.rest.join("\n")),
            Err(error) => format!("{error}:\n{}", console.rest.join("\n")),
        };
        for (i, file) in silent.into_iter().enumerate() {
            // It ended in the first one.
            let why = if i == 0 { &*why } else { "the kernel did not come to this script" };
            reports.push(failed(&file.name, 1, why.into()));
        }
        reports
    }
}

fn failed(name: &str, line: usize, reason: String) -> FileReport {
    let mut report = FileReport::new(name);
    report.record(line, Outcome::Failed(reason), false);
    report
}

/// What a machine's console says.
#[derive(Default)]
struct Console {
    reports: Vec<FileReport>,
    /// Of the script that runs.
    failures: Vec<Failure>,
    /// Lines that are neither, since the last script.
    rest: Vec<String>,
}

impl Console {
    fn line(&mut self, line: &str) {
        if let Some(mut report) = FileReport::from_line(line) {
            report.failures = std::mem::take(&mut self.failures);
            self.rest.clear();
            self.reports.push(report);
        } else if let Some(failure) = failure(line) {
            self.failures.push(failure);
        } else {
            self.rest.push(line.into());
        }
    }
}

fn failure(line: &str) -> Option<Failure> {
    let (line, reason) = line.strip_prefix("script failure: ")?.split_once(": ")?;
    Some(Failure { line: line.parse().ok()?, reason: reason.into() })
}

/// Deals scripts out to machines, so that each gets about the same amount of text.
fn deal(files: &[ScriptFile], machines: usize) -> Vec<Vec<&ScriptFile>> {
    let mut by_length: Vec<&ScriptFile> = files.iter().collect();
    by_length.sort_by_key(|f| std::cmp::Reverse(f.text.len()));
    let mut shards: Vec<(usize, Vec<&ScriptFile>)> = vec![(0, Vec::new()); machines.clamp(1, files.len().max(1))];
    for file in by_length {
        if let Some((length, shard)) = shards.iter_mut().min_by_key(|(length, _)| *length) {
            *length += file.text.len();
            shard.push(file);
        }
    }
    shards.into_iter().map(|(_, shard)| shard).collect()
}

/// What the kernel found otherwise than the same scripts did here: a line for each file, and its failures.
pub fn differences(here: &[FileReport], kernel: &BTreeMap<String, FileReport>) -> Vec<String> {
    let mut found = Vec::new();
    for report in here {
        let name = &report.name;
        match kernel.get(name) {
            Some(there) if there.totals == report.totals => {}
            Some(there) => {
                let (a, b) = (report.totals.summary(), there.totals.summary());
                found.push(format!(
                    "{name}: here {a}  commands {}; in the kernel {b}  commands {}",
                    report.totals.commands, there.totals.commands
                ));
                found.extend(there.failures.iter().map(|f| format!("  {name}:{}: {}", f.line, f.reason)));
            }
            None => found.push(format!("{name}: the kernel has no report of it")),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    fn file(name: &str, length: usize) -> ScriptFile {
        ScriptFile { name: name.into(), text: Cow::Owned(" ".repeat(length)) }
    }

    #[test]
    fn every_script_is_dealt_to_one_machine() {
        let files = [file("a", 5), file("b", 100), file("c", 60), file("d", 50)];
        let shards: Vec<Vec<&str>> = deal(&files, 2).iter().map(|s| s.iter().map(|f| &*f.name).collect()).collect();
        assert_eq!(shards, [vec!["b", "a"], vec!["c", "d"]]);
        assert_eq!(deal(&files, 9).len(), 4);
        assert_eq!(deal(&[], 2).len(), 1);
    }

    #[test]
    fn a_console_is_read_script_by_script() {
        let mut console = Console::default();
        let mut report = failed("a b.wast", 7, "expected i32 4: found".into());
        for line in ["nano_core: 256 MiB", "script failure: 7: expected i32 4: found", &report.to_line(), "panic"] {
            console.line(line);
        }
        assert_eq!((console.reports, console.rest), (vec![report.clone()], vec!["panic".to_string()]));
        let kernel = BTreeMap::from([(report.name.clone(), report.clone())]);
        assert!(differences(std::slice::from_ref(&report), &kernel).is_empty());
        report.totals.commands += 1;
        assert_eq!(differences(&[report], &kernel).len(), 2);
        assert_eq!(differences(&[failed("c", 1, String::new())], &kernel).len(), 1);
    }

    #[test]
    fn a_machine_that_never_starts_fails_every_script() {
        let machine = Machine::new("/nonexistent/qemu".into(), "image".into());
        let kernel = Kernel::new(machine, 2, Exclusions::default());
        let reports = kernel.run(&[file("a", 1), file("b", 1), file("c", 1)]);
        assert_eq!(reports.len(), 3);
        assert!(reports.values().all(|r| r.totals.failed == 1));
    }
}
