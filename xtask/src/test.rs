//! `cargo xtask test`: all that must hold before a change goes in.

use crate::stage::{self, Outcome, Summary, cargo, totals};
use std::{process::ExitCode, time::Duration};
use xtask::{
    archive, kernel,
    machine::{Ending, Machine},
    qemu,
};

/// Runs all stages, also behind one that fails, so that one run tells everything.
pub fn run() -> ExitCode {
    let root = kernel::workspace();
    let mut summary = Summary::default();
    for (name, args) in CARGO_STAGES {
        summary.stage(name, || {
            let mut cargo = cargo(&root, args);
            cargo.env("RUSTDOCFLAGS", "-D warnings");
            stage::command(cargo)
        });
    }
    summary.stage("tests", || stage::tests(cargo(&root, &["test", "--release", "--workspace", "--no-fail-fast"])));
    let model = ["test", "--manifest-path", "tests/model/Cargo.toml"];
    summary.stage("model checks", || stage::tests(cargo(&root, &model)));
    summary.stage("kernel image", || stage::command(cargo(&root, &kernel::BUILD)));
    boot_stages(&mut summary);
    match summary.finish() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Checks that need only cargo. Release builds, so that they share what the tests compile.
const CARGO_STAGES: [(&str, &[&str]); 5] = [
    ("formatting", &["fmt", "--all", "--check"]),
    ("clippy", &["clippy", "--release", "--keep-going", "--workspace", "--all-targets", "--", "-D", "warnings"]),
    (
        "clippy, kernel",
        &[
            "clippy",
            "-p",
            "nano_core",
            "-p",
            "runtime_port",
            "--features",
            "nano_core/bare_metal",
            "--profile",
            "kernel",
            "--",
            "-D",
            "warnings",
        ],
    ),
    ("documentation", &["doc", "--release", "--workspace", "--no-deps"]),
    (
        "documentation, bare metal",
        &["doc", "-p", "runtime_port", "--features", "bare_metal", "--profile", "kernel", "--no-deps"],
    ),
];

/// A boot with a run of the module `factorial`.
struct Run {
    name: &'static str,
    line: &'static str,
    /// How much of the archive the kernel gets.
    archive: Part,
    ending: Ending,
    /// A line of the console that must be there.
    says: &'static str,
}

/// A part of the boot archive.
#[derive(Clone, Copy)]
enum Part {
    All,
    Half,
    None,
}

#[rustfmt::skip] // a table
const RUNS: [Run; 7] = [
    Run { name: "a result", line: "run=factorial.wasm invoke=factorial args=20", archive: Part::All, ending: Ending::Success, says: "2432902008176640000" },
    Run { name: "a trap", line: "run=factorial.wasm invoke=stop", archive: Part::All, ending: Ending::Failure, says: "unreachable in factorial!stop" },
    Run { name: "a missing file", line: "run=missing.wasm invoke=f", archive: Part::All, ending: Ending::Failure, says: "factorial.wasm" },
    Run { name: "a missing function", line: "run=factorial.wasm invoke=factorail args=1", archive: Part::All, ending: Ending::Failure, says: "similar names: factorial" },
    Run { name: "a truncated archive", line: "run=factorial.wasm", archive: Part::Half, ending: Ending::Failure, says: "the archive ends within" },
    Run { name: "no archive", line: "run=factorial.wasm", archive: Part::None, ending: Ending::Failure, says: "no boot archive" },
    Run { name: "an unknown word", line: "ruin=factorial.wasm", archive: Part::All, ending: Ending::Failure, says: "unknown word `ruin=factorial.wasm`" },
];

/// A sample of faults in ring 0. `cargo xtask boot --inject 10000` makes more of them.
const INJECTION: &str = "inject=200 seed=1";

const FACTORIAL: &str = r#"
(module
  (func $factorial (export "factorial") (param i64) (result i64)
    (if (result i64) (i64.eqz (local.get 0))
      (then (i64.const 1))
      (else (i64.mul (local.get 0) (call $factorial (i64.sub (local.get 0) (i64.const 1)))))))
  (func (export "stop") unreachable))
"#;

/// Boots the kernel on several machines.
fn boot_stages(summary: &mut Summary) {
    let (qemu, image) = match (qemu::ensure(), kernel::build()) {
        (Ok(qemu), Ok(image)) => (qemu, image),
        (Err(error), _) => return summary.stage("boot", || failed(error.to_string())),
        (_, Err(error)) => return summary.stage("boot", || failed(error.to_string())),
    };
    // Far more than a boot takes, for a loaded host.
    let standard = Machine { timeout: Duration::from_secs(600), ..Machine::new(qemu, image) };
    let small = Machine { cpu: "qemu64".into(), memory: 128, ..standard.clone() };
    // Frames come from the highest range first, here from above 4 GiB. Not all checks: some use up all memory.
    let large = Machine { board: "q35".into(), memory: 6144, ..standard.clone() };
    let boots = [
        ("boot, checks", &standard, "test"),
        ("boot, checks on qemu64 with 128 MiB", &small, "test"),
        ("boot, checks of cells on q35 with 6 GiB", &large, "test=cell"),
    ];
    for (name, machine, line) in boots {
        summary.stage(name, || checks(machine, line));
    }
    summary.stage("boot, modules", || modules(&standard));
    // Last: the image takes the place of the other one.
    summary.stage("boot, fault injection", || match kernel::build_injecting() {
        Ok(image) => checks(&Machine { image, ..standard.clone() }, INJECTION),
        Err(error) => failed(error.to_string()),
    });
}

fn failed(output: String) -> Outcome {
    Outcome { output, ..Outcome::default() }
}

/// Runs the kernel's own checks.
fn checks(machine: &Machine, line: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let ending = machine.run(line, None, |line| {
        outcome.output.push_str(line);
        outcome.output.push('\n');
        if let Some(counts) = totals(line) {
            outcome.counts = counts;
            outcome.closing.push(line.to_owned());
        }
    });
    match ending {
        Ok(ending) => outcome.success = ending == Ending::Success && outcome.counts.0 > 0,
        Err(error) => outcome.output.push_str(&error.to_string()),
    }
    outcome
}

/// Runs a module from the boot archive, well and badly.
fn modules(machine: &Machine) -> Outcome {
    let module = match wat::parse_str(FACTORIAL) {
        Ok(module) => module,
        Err(error) => return failed(error.to_string()),
    };
    let archive = archive::Builder::new().file("factorial.wasm", &module).finish();
    let mut outcome = Outcome::default();
    for run in &RUNS {
        let mut console = String::new();
        let archive = match run.archive {
            Part::All => Some(&archive[..]),
            Part::Half => Some(&archive[..archive.len() / 2]),
            Part::None => None,
        };
        let ending = machine.run(run.line, archive, |line| {
            console.push_str(line);
            console.push('\n');
        });
        match ending {
            Ok(ending) if ending == run.ending && console.contains(run.says) => outcome.counts.0 += 1,
            other => {
                outcome.counts.1 += 1;
                outcome.output.push_str(&format!(
                    "{}: {other:?} instead of {:?} and `{}`\n{console}\n",
                    run.name, run.ending, run.says
                ));
            }
        }
    }
    outcome.success = outcome.counts.1 == 0;
    outcome.closing.push(format!("{} passed, {} failed", outcome.counts.0, outcome.counts.1));
    outcome
}
