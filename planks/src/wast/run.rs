//! Runs many scripts, several at a time, and reports them in order.

use super::convert::{convert, panic_reason};
use super::{Exclusions, FileReport, Outcome, ScriptFile};
use conformance::script;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

/// Stack of the thread that runs a script: the text parser recurses with the nesting of a script.
const SCRIPT_STACK: usize = 64 << 20;

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Scripts at a time.
    pub jobs: usize,
    /// What may fail.
    pub exclusions: Exclusions,
}

/// Runs the scripts; `each` sees the reports in the order of the files, as soon as they are there.
pub fn run(files: &[ScriptFile], options: &Options, mut each: impl FnMut(&FileReport)) -> Vec<FileReport> {
    // The longest first, so that none of them is alone at the end.
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(files[i].text.len()));
    let next = AtomicUsize::new(0);
    let (done, results) = mpsc::channel();
    let mut reports = Vec::with_capacity(files.len());
    std::thread::scope(|scope| {
        for n in 0..options.jobs.clamp(1, files.len().max(1)) {
            let (done, next, order) = (done.clone(), &next, &order);
            let work = move || {
                while let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let report = run_guarded(&files[i], &options.exclusions);
                    if done.send((i, report)).is_err() {
                        break;
                    }
                }
            };
            let thread = std::thread::Builder::new().name(format!("wast-{n}")).stack_size(SCRIPT_STACK);
            if let Err(e) = thread.spawn_scoped(scope, work) {
                log::error!("cannot start a thread for scripts: {e}");
            }
        }
        drop(done);
        let mut waiting: BTreeMap<usize, FileReport> = BTreeMap::new();
        for (i, report) in results {
            waiting.insert(i, report);
            while let Some(report) = waiting.remove(&reports.len()) {
                each(&report);
                reports.push(report);
            }
        }
    });
    reports
}

/// Runs a script. `excluded` names the lines of assertions that may fail, with the reasons.
pub fn run_script(name: &str, text: &str, excluded: &BTreeMap<usize, String>) -> FileReport {
    match convert(name, text, excluded) {
        Ok(script) => script::run_script(&Arc::new(script)),
        Err(unreadable) => {
            let mut report = FileReport::new(name);
            report.record(unreadable.line, Outcome::Failed(unreadable.to_string()), false);
            report
        }
    }
}

/// Runs one script; a panic that escapes a directive is a failure of the file.
fn run_guarded(file: &ScriptFile, exclusions: &Exclusions) -> FileReport {
    let run = || run_script(&file.name, &file.text, &exclusions.lines(&file.name));
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let mut report = FileReport::new(&file.name);
        report.record(1, Outcome::Failed(panic_reason(&*panic)), false);
        report
    })
}
