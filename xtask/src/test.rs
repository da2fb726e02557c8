//! `cargo xtask test`: all that must hold before a change goes in.

use crate::stage::{self, Outcome, Summary, cargo, totals};
use std::process::ExitCode;
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
    ("clippy", &["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"]),
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
    ending: Ending,
    /// A line of the console that must be there.
    says: &'static str,
}

const RUNS: [Run; 5] = [
    Run {
        name: "a result",
        line: "run=factorial.wasm invoke=factorial args=20",
        ending: Ending::Success,
        says: "2432902008176640000",
    },
    Run { name: "a trap", line: "run=factorial.wasm invoke=stop", ending: Ending::Failure, says: "unreachable" },
    Run { name: "a missing file", line: "run=missing.wasm invoke=f", ending: Ending::Failure, says: "factorial.wasm" },
    Run {
        name: "a missing function",
        line: "run=factorial.wasm invoke=factorail args=1",
        ending: Ending::Failure,
        says: "factorial",
    },
    Run {
        name: "an unknown word",
        line: "ruin=factorial.wasm",
        ending: Ending::Failure,
        says: "unknown word `ruin=factorial.wasm`",
    },
];

/// (module (func $f (export "factorial") (param i64) (result i64) …) (func (export "stop") unreachable))
const FACTORIAL: &[u8] = &[
    0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0, // magic and version
    1, 9, 2, 0x60, 1, 0x7e, 1, 0x7e, 0x60, 0, 0, // types: [i64] -> [i64], [] -> []
    3, 3, 2, 0, 1, // functions
    7, 20, 2, 9, b'f', b'a', b'c', b't', b'o', b'r', b'i', b'a', b'l', 0, 0, 4, b's', b't', b'o', b'p', 0, 1, 10, 26,
    2, // code
    20, 0, 0x20, 0, 0x50, 0x04, 0x7e, 0x42, 1, 0x05, // local.get 0; i64.eqz; if (result i64) i64.const 1 else
    0x20, 0, 0x20, 0, 0x42, 1, 0x7d, 0x10, 0, 0x7e, 0x0b, 0x0b, // n * factorial(n - 1) end end
    3, 0, 0x00, 0x0b, // unreachable end
];

/// Boots the kernel on several machines.
fn boot_stages(summary: &mut Summary) {
    let (qemu, image) = match (qemu::ensure(), kernel::build()) {
        (Ok(qemu), Ok(image)) => (qemu, image),
        (Err(error), _) => return summary.stage("boot", || failed(error.to_string())),
        (_, Err(error)) => return summary.stage("boot", || failed(error.to_string())),
    };
    let standard = Machine::new(qemu, image);
    let small = Machine { cpu: "qemu64".into(), memory: 128, ..standard.clone() };
    let q35 = Machine { board: "q35".into(), memory: 6144, ..standard.clone() };
    for (name, machine) in [
        ("boot, checks", &standard),
        ("boot, checks, qemu64 and 128 MiB", &small),
        ("boot, checks, q35 and 6 GiB", &q35),
    ] {
        summary.stage(name, || checks(machine));
    }
    summary.stage("boot, modules", || modules(&standard));
}

fn failed(output: String) -> Outcome {
    Outcome { output, ..Outcome::default() }
}

/// Runs the kernel's own checks.
fn checks(machine: &Machine) -> Outcome {
    let mut outcome = Outcome::default();
    let ending = machine.run("test", None, |line| {
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
    let archive = archive::Builder::new().file("factorial.wasm", FACTORIAL).finish();
    let mut outcome = Outcome::default();
    for run in &RUNS {
        let mut console = String::new();
        let ending = machine.run(run.line, Some(&archive), |line| {
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
