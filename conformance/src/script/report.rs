//! What a run of scripts found: per file, per directory, in total; and as a line that the kernel's console carries.

use super::Outcome;
use alloc::{
    collections::BTreeMap,
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::ops::AddAssign;

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

    /// The counts as one line of a console: what [`FileReport::from_line`] reads.
    pub fn to_line(&self) -> String {
        let t = &self.totals;
        let refused: Vec<String> = t.refused.iter().map(|(feature, n)| format!("{feature}={n}")).collect();
        let refused = if refused.is_empty() { "-".to_string() } else { refused.join(",") };
        format!(
            "script: passed {} failed {} commands {} excluded {} refused {refused} in {}",
            t.passed, t.failed, t.commands, t.excluded, self.name
        )
    }

    /// The report, without its failures, that a line of a console carries; `None` if it carries none.
    pub fn from_line(line: &str) -> Option<FileReport> {
        let (counts, name) = line.strip_prefix("script: ")?.split_once(" in ")?;
        let mut report = FileReport::new(name);
        let mut words = counts.split(' ');
        let mut field = |name: &str| (words.next() == Some(name)).then(|| words.next()).flatten();
        let t = &mut report.totals;
        t.passed = field("passed")?.parse().ok()?;
        t.failed = field("failed")?.parse().ok()?;
        t.commands = field("commands")?.parse().ok()?;
        t.excluded = field("excluded")?.parse().ok()?;
        let refused = field("refused")?;
        for feature in refused.split(',').filter(|_| refused != "-") {
            let (feature, n) = feature.split_once('=')?;
            t.refused.insert(feature.to_string(), n.parse().ok()?);
        }
        Some(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_a_console_carries_the_counts() {
        let mut report = FileReport::new("proposals/a in b.wast");
        report.totals.passed = 12;
        report.totals.excluded = 1;
        assert_eq!(FileReport::from_line(&report.to_line()), Some(report.clone()));
        report.record(4, Outcome::Refused("gc".into()), true);
        report.record(5, Outcome::Refused("stack-switching".into()), true);
        assert_eq!(FileReport::from_line(&report.to_line()), Some(report));
    }

    #[test]
    fn other_lines_carry_nothing() {
        for line in
            ["", "script: ", "script: passed x failed 0 commands 0 excluded 0 refused - in a", "panic in task `boot`"]
        {
            assert_eq!(FileReport::from_line(line), None, "{line}");
        }
    }
}
