//! What a run of scripts found: per file, per directory, in total.

use super::Outcome;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// A directive that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Line of the file, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files.
    pub files: usize,
    /// Assertions that hold.
    pub passed: usize,
    /// Assertions and commands that do not.
    pub failed: usize,
    /// Commands (modules, registrations, invocations) that did what they must.
    pub commands: usize,
    /// Assertions that the list of exclusions names.
    pub excluded: usize,
    /// Directives that need a refused feature, by its name.
    pub refused: BTreeMap<String, usize>,
}

impl Totals {
    /// Counts a directive.
    pub fn count(&mut self, outcome: &Outcome, is_assertion: bool) {
        match outcome {
            Outcome::Passed if is_assertion => self.passed += 1,
            Outcome::Passed => self.commands += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Refused(feature) => *self.refused.entry(feature.clone()).or_default() += 1,
        }
    }

    /// Directives that need a refused feature.
    pub fn refused_count(&self) -> usize {
        self.refused.values().sum()
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        json!({
            "files": self.files, "passed": self.passed, "failed": self.failed, "commands": self.commands,
            "excluded": self.excluded, "refused": self.refused,
        })
    }

    /// In words: `passed 120  failed 0`, with what else there is.
    pub fn summary(&self) -> String {
        let mut s = format!("passed {}  failed {}", self.passed, self.failed);
        if self.excluded > 0 {
            s += &format!("  excluded {}", self.excluded);
        }
        if !self.refused.is_empty() {
            let by_name: Vec<String> = self.refused.iter().map(|(f, n)| format!("{f} {n}")).collect();
            s += &format!("  refused {} ({})", self.refused_count(), by_name.join(", "));
        }
        s
    }
}

impl AddAssign<&Totals> for Totals {
    fn add_assign(&mut self, other: &Totals) {
        self.files += other.files;
        self.passed += other.passed;
        self.failed += other.failed;
        self.commands += other.commands;
        self.excluded += other.excluded;
        for (feature, n) in &other.refused {
            *self.refused.entry(feature.clone()).or_default() += n;
        }
    }
}

/// What one file did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileReport {
    /// Name as shown.
    pub name: String,
    /// Counts; `files` is 1.
    pub totals: Totals,
    /// What failed, in order.
    pub failures: Vec<Failure>,
}

impl FileReport {
    /// A report of nothing yet.
    pub fn new(name: &str) -> FileReport {
        FileReport { name: name.to_string(), totals: Totals { files: 1, ..Totals::default() }, failures: Vec::new() }
    }

    /// Counts a directive at a line.
    pub fn record(&mut self, line: usize, outcome: Outcome, is_assertion: bool) {
        self.totals.count(&outcome, is_assertion);
        if let Outcome::Failed(reason) = outcome {
            self.failures.push(Failure { line, reason });
        }
    }

    /// Folds in what a thread of the script did.
    pub fn absorb(&mut self, thread: FileReport) {
        let files = self.totals.files;
        self.totals += &thread.totals;
        self.totals.files = files;
        self.failures.extend(thread.failures);
    }

    /// The directory part of the name.
    pub fn directory(&self) -> &str {
        self.name.rsplit_once('/').map_or(".", |(dir, _)| dir)
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let mut value = self.totals.to_json();
        let failures: Vec<Value> =
            self.failures.iter().map(|f| json!({ "line": f.line, "reason": f.reason })).collect();
        value["file"] = json!(self.name);
        value["failures"] = json!(failures);
        value
    }
}
