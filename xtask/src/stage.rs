//! Stages of the test command: run something, time it, keep what it printed, count its tests.

use std::{
    io::{self, Write},
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

/// What all stages together did.
#[derive(Debug, Default)]
pub struct Summary {
    /// Tests that passed.
    pub passed: u64,
    /// Tests that failed; a stage that fails without a failed test counts as one.
    pub failed: u64,
    /// Names of the stages that failed.
    pub failures: Vec<String>,
    /// The runners' own closing lines.
    pub closing: Vec<String>,
}

/// What one stage did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Whether it did what it should.
    pub success: bool,
    /// Everything it printed.
    pub output: String,
    /// Tests that passed and failed.
    pub counts: (u64, u64),
    /// Closing lines of its test runners.
    pub closing: Vec<String>,
}

impl Outcome {
    /// Counts one test.
    pub fn count(&mut self, passed: bool, why: impl FnOnce() -> String) {
        match passed {
            true => self.counts.0 += 1,
            false => {
                self.counts.1 += 1;
                self.output.push_str(&why());
                self.output.push('\n');
            }
        }
    }

    /// Says what the tests counted so far did.
    pub fn close(mut self) -> Self {
        self.success = self.counts.1 == 0;
        self.closing.push(format!("{} passed, {} failed", self.counts.0, self.counts.1));
        self
    }
}

impl Summary {
    /// Runs a stage and prints one line about it, and its output if it fails.
    pub fn stage(&mut self, name: &str, run: impl FnOnce() -> Outcome) {
        print!("{name} ... ");
        // A line that is not shown yet is no reason to stop.
        let _ = io::stdout().flush();
        let start = Instant::now();
        let outcome = run();
        let seconds = start.elapsed().as_secs_f64();
        let (passed, failed) = outcome.counts;
        let counted = if passed + failed > 0 { format!(", {passed} passed, {failed} failed") } else { String::new() };
        let result = if outcome.success { "ok" } else { "FAILED" };
        println!("{result} ({seconds:.1} s{counted})");
        self.passed += passed;
        self.failed += failed;
        self.closing.extend(outcome.closing.into_iter().map(|line| format!("{name}: {line}")));
        if !outcome.success {
            self.failed += u64::from(failed == 0);
            self.failures.push(name.to_owned());
            println!("{}", outcome.output.trim_end());
        }
    }

    /// Prints what all stages did, the totals last and alone on their line. Returns whether all is well.
    pub fn finish(self) -> bool {
        println!();
        self.closing.iter().for_each(|line| println!("{line}"));
        for stage in &self.failures {
            println!("failed stage: {stage}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0 && self.failures.is_empty()
    }
}

/// cargo with these arguments, in the source tree.
pub fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(args).current_dir(root).env("CARGO_TERM_COLOR", "never");
    cargo
}

/// Runs a command to its end; both its outputs, in the order of their writing.
pub fn command(mut command: Command) -> Outcome {
    let run = || -> io::Result<(bool, String)> {
        let (mut reader, writer) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn()?;
        drop(command); // holds the pipe's writing end
        let mut output = Vec::new();
        io::copy(&mut reader, &mut output)?;
        Ok((child.wait()?.success(), String::from_utf8_lossy(&output).into_owned()))
    };
    match run() {
        Ok((success, output)) => Outcome { success, output, ..Outcome::default() },
        Err(error) => Outcome { output: error.to_string(), ..Outcome::default() },
    }
}

/// Runs `cargo test` and counts its tests.
pub fn tests(command_: Command) -> Outcome {
    let mut outcome = command(command_);
    let mut runner = "tests";
    for line in outcome.output.lines() {
        if let Some(name) = line.trim_start().strip_prefix("Running ").or(line.trim_start().strip_prefix("Doc-tests "))
        {
            runner = name;
        }
        if let Some((passed, failed)) = test_result(line) {
            outcome.counts.0 += passed;
            outcome.counts.1 += failed;
            if passed + failed > 0 {
                outcome.closing.push(format!("{runner}: {line}"));
            }
        }
    }
    outcome
}

/// The numbers of a closing line of Rust's test runner.
fn test_result(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix("test result: ")?;
    let number = |word: &str| {
        let end = rest.find(word)?;
        rest[..end].trim_end().rsplit(' ').next()?.parse().ok()
    };
    Some((number("passed")?, number("failed;")?))
}

/// The numbers of a line `N passed, N failed`.
pub fn totals(line: &str) -> Option<(u64, u64)> {
    let (passed, failed) = line.split_once(" passed, ")?;
    Some((passed.parse().ok()?, failed.strip_suffix(" failed")?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_lines_are_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(test_result(line), Some((12, 3)));
        assert_eq!(test_result("test x ... ok"), None);
        assert_eq!(totals("32 passed, 0 failed"), Some((32, 0)));
        assert_eq!(totals("test a passed, 0 failed"), None);
    }

    #[test]
    fn a_failing_command_keeps_what_it_said() {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo out; echo err >&2; exit 3"]);
        let outcome = command(shell);
        assert!(!outcome.success);
        assert_eq!(outcome.output, "out\nerr\n");
        assert!(!command(Command::new("/nonexistent/program")).success);
    }

    #[test]
    fn a_failed_stage_without_tests_counts_as_one_failure() {
        let mut summary = Summary::default();
        summary.stage("first", || Outcome { success: true, counts: (5, 0), ..Outcome::default() });
        summary.stage("second", Outcome::default);
        assert_eq!((summary.passed, summary.failed), (5, 1));
        assert!(!summary.finish());
    }
}
