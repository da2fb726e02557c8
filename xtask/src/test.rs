//! `cargo xtask test`: all that must hold before a change goes in.

use crate::{
    stage::{self, Outcome, Summary, cargo, totals},
    test_machines, test_planks,
};
use std::{
    collections::HashSet,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};
use xtask::{
    archive, compilers, kernel, library,
    machine::{Ending, Input, Machine, SHELL_GREETING},
    packages, qemu, symbols, third_party,
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
    let mut found = compilers::Compilers::default();
    summary.stage("compilers of native cells", || {
        found = compilers::ensure();
        Outcome { success: true, closing: vec![found.line()], ..Outcome::default() }
    });
    summary.stage("tests", || {
        let mut tests =
            cargo(&root, &["test", "--release", "--workspace", "--features", "planks/bench", "--no-fail-fast"]);
        tests.env(compilers::VARIABLE, found.found.join(","));
        stage::tests(tests)
    });
    let model = ["test", "--manifest-path", "tests/model/Cargo.toml"];
    summary.stage("model checks", || stage::tests(cargo(&root, &model)));
    summary.stage("kernel image", || stage::command(cargo(&root, &kernel::BUILD)));
    boot_stages(&mut summary);
    match summary.finish() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Runs the stages in QEMU only.
pub fn run_boots() -> ExitCode {
    let mut summary = Summary::default();
    boot_stages(&mut summary);
    match summary.finish() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// Checks that need only cargo. Release builds, so that they share what the tests compile.
const CARGO_STAGES: [(&str, &[&str]); 5] = [
    ("formatting", &["fmt", "--all", "--check"]),
    (
        "clippy",
        &[
            "clippy",
            "--release",
            "--keep-going",
            "--workspace",
            "--features",
            "planks/bench",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
    ),
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
    ("documentation", &["doc", "--release", "--workspace", "--features", "planks/bench", "--no-deps"]),
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

/// A short storm of swaps in ring 0. `cargo xtask boot --storm 100000` is a longer one.
const STORM: &str = "storm=3000 seed=1";

/// A sample of faults in ring 0. `cargo xtask boot --inject 10000` makes more of them.
const INJECTION: &str = "inject=200 seed=1";

const FACTORIAL: &str = r#"
(module
  (import "console" "print_i32" (func $print (param i32)))
  (func $factorial (export "factorial") (param i64) (result i64)
    (if (result i64) (i64.eqz (local.get 0))
      (then (i64.const 1))
      (else (i64.mul (local.get 0) (call $factorial (i64.sub (local.get 0) (i64.const 1)))))))
  (func (export "stop") unreachable)
  (func (export "endless") (call $print (i32.const 7777)) (loop (br 0))))
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
    let large = Machine { board: "q35".into(), memory: 8192, ..standard.clone() };
    // Only the interval timer ticks there.
    let old = Machine { cpu: "max,-apic".into(), ..standard.clone() };
    // No interrupt lines reach the processor there.
    let micro = Machine { board: "microvm".into(), ..standard.clone() };
    let boots = [
        ("boot, checks on qemu64 with 128 MiB", &small, "test"),
        ("boot, checks of cells on q35 with 8 GiB", &large, "test=cell"),
        ("boot, checks of tasks without a local interrupt controller", &old, "test=task"),
        ("boot, checks of tasks on microvm", &micro, "test=task"),
    ];
    summary.stage("boot, size of the image", || size(&standard));
    summary.stage("boot, what native cells link to", || linkable(&standard));
    for (name, machine, line) in boots {
        summary.stage(name, || checks(machine, line, None));
    }
    summary.stage("boot, processors and memories", || test_machines::machines(&standard));
    summary.stage("boot, machines that lack something", || test_machines::lacking(&standard));
    summary.stage("boot, the command of the README", || test_machines::readme(&standard));
    summary.stage("boot, instructions to the shell", || test_machines::start(&standard));
    summary.stage("boot, modules", || modules(&standard));
    summary.stage("boot, faults of the kernel", || faults(&standard));
    summary.stage("boot, shell", || shell(&standard));
    summary.stage("boot, planks", || test_planks::stage(&standard.image));
    // Last: the image takes the place of the other one.
    match kernel::build_testing() {
        Ok(image) => {
            let machine = Machine { image, ..standard.clone() };
            summary.stage("boot, checks", || all_checks(&machine));
            summary.stage("boot, third-party modules", || third_party(&machine));
            summary.stage("boot, testsuite", || scripts(&machine));
            summary.stage("boot, fault injection", || checks(&machine, INJECTION, None));
            summary.stage("boot, swap storm", || checks(&machine, STORM, None));
            let counting = Machine { icount: true, ..machine };
            summary.stage("boot, instruction counts", || checks(&counting, "measure", None));
        }
        Err(error) => summary.stage("kernel image for tests", || failed(error.to_string())),
    }
}

/// Faults of the kernel itself: what to ask for, and what the report must say. Each ends the run with a status, not with a reset.
#[rustfmt::skip] // a table
const FAULTS: [(&str, &[&str]); 12] = [
    ("double", &["FATAL: double fault (vector 8", "in task `faulty`", "nano_core::fault::double"]),
    ("nmi", &["FATAL: non-maskable interrupt (vector 2", "in task `faulty`"]),
    ("gp", &["FATAL: general protection (vector 13", "in task `faulty`", "nano_core::fault::general_protection"]),
    ("pf", &["FATAL: page fault (vector 14", "read of unmapped 0x10", "in task `faulty`"]),
    ("ud", &["FATAL: invalid opcode (vector 6", "code at rip: 0f 0b"]),
    ("stack", &["FATAL: page fault (vector 14", "it has overflowed", "nano_core::fault::descend"]),
    ("handler", &["FATAL: invalid opcode (vector 6", "while another one was being handled"]),
    ("panic", &["asked for on the command line", "FATAL: a panic where unwinding is not allowed"]),
    ("breakpoint", &["FATAL: breakpoint (vector 3", "nano_core::fault::breakpoint"]),
    ("x87", &["FATAL: x87 floating-point error (vector 16", "nano_core::fault::x87_error"]),
    ("machine", &["FATAL: machine check (vector 18", "nano_core::fault::machine_check"]),
    ("vector", &["FATAL: general protection (vector 13", "nano_core::fault::unknown_vector"]),
];

/// Makes the kernel fault in every way it can be asked to.
fn faults(machine: &Machine) -> Outcome {
    let mut outcome = Outcome::default();
    let archive = archive::Builder::new().symbols(&machine.image).finish();
    for (kind, reports) in FAULTS {
        let mut console = String::new();
        let ending = machine.run(&format!("fault={kind}"), Some(&archive), |line| {
            console.push_str(line);
            console.push('\n');
        });
        let said = reports.iter().all(|r| console.contains(r));
        outcome.count(said && matches!(ending, Ok(Ending::Fatal)), || {
            format!("fault={kind}: {ending:?} instead of a fatal end and {reports:?}\n{console}")
        });
    }
    outcome.close()
}

/// Most bytes of an image without symbols.
const IMAGE: u64 = 6_000_000;

/// What of the image is loaded, which is all there is of it without symbols.
fn size(machine: &Machine) -> Outcome {
    let mut outcome = Outcome::default();
    let loaded = std::fs::read(&machine.image).ok().and_then(|image| symbols::loaded_bytes(&image));
    outcome.count(loaded.is_some_and(|bytes| bytes <= IMAGE), || {
        format!("the image has {loaded:?} bytes, more than {IMAGE}")
    });
    outcome.close()
}

/// Names of C that compiled code takes from the image.
const C_NAMES: [&str; 12] = [
    "memcpy",
    "memmove",
    "memset",
    "memcmp",
    "bcmp",
    "strlen",
    "_Unwind_Resume",
    "rust_eh_personality",
    "__udivti3",
    "__muloti4",
    "__truncdfhf2",
    "fmod",
];

/// Every function of `core` and `alloc` that is not generic can be linked to, and what C code needs.
fn linkable(machine: &Machine) -> Outcome {
    let mut outcome = Outcome::default();
    let image = std::fs::read(&machine.image).ok().and_then(|image| symbols::table(&image)).unwrap_or_default();
    let linkable: HashSet<&str> = symbols::linkable(&image).collect();
    let mut wanted: Vec<String> = C_NAMES.map(String::from).to_vec();
    match library::names() {
        Ok(names) => wanted.extend(names),
        Err(error) => outcome.count(false, || error.to_string()),
    }
    for name in wanted {
        outcome.count(linkable.contains(&*name), || format!("native cells cannot link to `{name}`"));
    }
    outcome.close()
}

/// What is typed at the kernel's shell, and what must then be on its console, in this order.
#[rustfmt::skip] // a table
const DIALOGUE: [(&str, &[&str]); 30] = [
    // The parts of the kernel are cells like others: one that hangs is replaced by the native default at the next key.
    ("not this\u{17}\u{17}ls", &["event_filter", "file_system", "line_discipline", "scheduling"]),
    ("components", &["scheduling        Serving", "line_discipline   Serving"]),
    ("swap line_discipline hangs.wasm", &["line_discipline"]),
    ("components", &["line_discipline", "by the native default; last:"]),
    ("unload line_discipline", &["unloaded line_discipline"]),
    ("swap scheduling fair.wasm", &["scheduling"]),
    ("unload event_filter --force", &[]),
    ("components", &["event_filter      no cell"]),
    ("files", &["factorial.wasm"]),
    ("remove factorial.wasm", &[]),
    ("load factorial.wasm", &["factorial.wasm: no such file"]),
    ("receive", &["received factorial.wasm: ", "received ../\\u{1b}[2J: 0 bytes", "received empty: 0 bytes"]),
    ("files", &["0  ../\\u{1b}[2J", "0  empty", "factorial.wasm"]),
    ("load factorial.wasm", &["loaded factorial"]),
    ("call factorial::factorial 20", &["2432902008176640000"]),
    ("call factorial::stop", &["unreachable", "factorial!stop"]),
    ("call factoriaX\u{8}l::factorial 5", &["120"]),
    ("not this\u{15}call factorial::factorial 6", &["720"]),
    ("call factorial::endless", &["7777", "kill"]),
    ("ls", &["factorial"]),
    ("ls --faults", &["unreachable"]),
    ("load missing.wasm", &["missing.wasm", "no such file"]),
    ("load native/ring_a.o", &["loaded ring_a"]),
    ("call ring_a::even 10", &["1"]),
    ("ls", &["ring_b"]),
    ("unload factorial", &[]),
    ("call factorial::factorial 7", &["factorial"]),
    ("tasks", &["boot", "Running"]),
    ("memory", &["MiB in all"]),
    ("exit", &[]),
];

/// A line discipline that never answers, and a scheduling policy that changes nothing.
const HANGS: &str = r#"(module (func (export "key") (param i32 i32) (result i32) (loop (br 0)) unreachable))"#;
const FAIR: &str = r#"(module (func (export "advise") (param i32 i32 i32 i32) (result i32) (i32.or (local.get 0) (i32.const 0x100))))"#;

/// Types at the shell on the serial console, and sends files to it.
fn shell(machine: &Machine) -> Outcome {
    let modules = [FACTORIAL, HANGS, FAIR].map(wat::parse_str);
    let [Ok(module), Ok(hangs), Ok(fair)] = &modules else { return failed(format!("{modules:?}")) };
    let archive = archive::Builder::new().file("factorial.wasm", module);
    let archive = archive.file("hangs.wasm", hangs).file("fair.wasm", fair).symbols(&machine.image).native_cells();
    let archive = match archive {
        Ok(archive) => archive.finish(),
        Err(error) => return failed(error.to_string()),
    };
    let lines = |part: &[(&str, &[&str])]| part.iter().map(|(typed, _)| format!("{typed}\n")).collect::<String>();
    let behind = |what: &str| DIALOGUE.iter().position(|(typed, _)| typed.ends_with(what)).map_or(0, |at| at + 1);
    let (receive, endless) = (behind("receive"), behind("endless"));
    // The kernel says that it receives, the transfer's end that more can be typed, the endless function that it has begun; Control-C ends it.
    let (first, second) = (lines(&DIALOGUE[..receive]), lines(&DIALOGUE[receive..endless]));
    let third = format!("\u{3}{}", lines(&DIALOGUE[endless..]));
    let files = [("factorial.wasm", &module[..]), ("../\u{1b}[2J", &[]), ("empty", &[])];
    let script = [
        (SHELL_GREETING, Input::Keys(&first)),
        ("Start the sender", Input::Files(&files)),
        ("received empty", Input::Keys(&second)),
        ("7777", Input::Keys(&third)),
    ];
    let mut console = String::new();
    let (start, mut ready) = (Instant::now(), None);
    let ending = machine.play("shell", Some(&archive), &script, |line| {
        if line.contains(SHELL_GREETING) {
            ready.get_or_insert(start.elapsed());
        }
        console.push_str(line);
        console.push('\n');
    });
    let mut outcome = Outcome::default();
    let mut rest = &console[..];
    for (typed, answers) in DIALOGUE {
        for answer in answers {
            let found = rest.find(answer);
            outcome.count(found.is_some(), || format!("no `{answer}` after `{typed}` on the console:\n{console}"));
            rest = &rest[found.map_or(0, |at| at + answer.len())..];
        }
    }
    outcome.count(matches!(ending, Ok(Ending::Success)), || format!("{ending:?} instead of success\n{console}"));
    // Said, not judged: the host may be busy.
    outcome.closing.extend(ready.map(|after| format!("the shell was there after {:.2} s", after.as_secs_f64())));
    outcome.close()
}

fn failed(output: String) -> Outcome {
    Outcome { output, ..Outcome::default() }
}

/// Compiles and runs modules of other people in the kernel. Without a package registry it says so and passes, unless `CI` is
/// set: as the tests do.
fn third_party(machine: &Machine) -> Outcome {
    let target = machine.image.ancestors().nth(2).unwrap_or(&machine.image);
    match third_party::archive(&third_party::folder(target)) {
        Ok(archive) => checks(machine, "third-party", Some(&archive)),
        Err(error) if packages::are_required() => failed(format!("needed here, as CI is set: {error}")),
        Err(error) => Outcome { success: true, closing: vec![format!("SKIPPED: {error}")], ..Outcome::default() },
    }
}

/// Runs the WebAssembly testsuite in a process and in the kernel: `planks wast` compares every count.
fn scripts(machine: &Machine) -> Outcome {
    let planks = match kernel::build_planks() {
        Ok(planks) => planks,
        Err(error) => return failed(error.to_string()),
    };
    let mut wast = Command::new(planks);
    wast.args(["wast", "--suite", "--boot", "--kernel"]).arg(&machine.image);
    let mut outcome = stage::command(wast);
    if let Some(line) = outcome.output.lines().find(|l| l.starts_with("in the kernel ")) {
        let number = |word: &str| line.split(word).nth(1)?.split_whitespace().next()?.parse().ok();
        outcome.counts = (number(" passed ").unwrap_or(0), number(" failed ").unwrap_or(0));
        outcome.closing.push(line.to_owned());
    }
    outcome.success &= outcome.counts.0 > 0;
    outcome
}

/// Runs all checks that an image has, with the objects that those of native cells load.
fn all_checks(machine: &Machine) -> Outcome {
    match archive::Builder::new().symbols(&machine.image).native_cells() {
        Ok(archive) => checks(machine, "test", Some(&archive.finish())),
        Err(error) => failed(error.to_string()),
    }
}

/// Runs the kernel's own checks.
fn checks(machine: &Machine, line: &str, archive: Option<&[u8]>) -> Outcome {
    let mut outcome = Outcome::default();
    let ending = machine.run(line, archive, |line| {
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
        let right = matches!(ending, Ok(ending) if ending == run.ending) && console.contains(run.says);
        outcome.count(right, || {
            format!("{}: {ending:?} instead of {:?} and `{}`\n{console}", run.name, run.ending, run.says)
        });
    }
    outcome.close()
}
