//! Fault injection in the kernel: the campaigns of crate `injector`, in ring 0 (docs/FAULT_INJECTION.md).
//!
//! In an image of its own (feature `inject`), because a port that refuses requests has to stand in front of the kernel's.

use crate::exit::Status;
use core::fmt::Write;
use injector::{Kind, Plan, Report, heap, refuse, run};
use nano_core::injection_line::InjectionLine;
use runtime_port::bare_metal::{BareMetal, console::Console};

/// Kinds that cannot take the kernel with them. One that can is run when it is asked for by name.
const KINDS: [Kind; 10] = [
    Kind::Guest,
    Kind::Instruction,
    Kind::Call,
    Kind::Access,
    Kind::Memory,
    Kind::Global,
    Kind::Metadata,
    Kind::Kill,
    Kind::Refusal,
    Kind::Heap,
];

/// Installs the port that can refuse requests. Before anybody asks for the platform.
pub fn prepare() {
    refuse::install(&BareMetal);
    heap::failures_unwind();
}

/// Runs the campaign that the command line asks for. `None`: it asks for something else.
pub fn asked(line: &str) -> Option<Status> {
    let line = match InjectionLine::parse(line)? {
        Ok(line) => line,
        Err(word) => return Some(failure(format_args!("`{word}` is no word of `inject=COUNT seed=S first=N kind=K`"))),
    };
    let kind = match line.kind.map(str::parse::<Kind>).transpose() {
        Ok(kind) => kind,
        Err(error) => return Some(failure(format_args!("{error}; kinds: {}", names()))),
    };
    Some(campaign(&line, kind))
}

fn names() -> impl core::fmt::Display {
    core::fmt::from_fn(|f| Kind::ALL.iter().try_for_each(|k| write!(f, "{k} ")))
}

fn campaign(line: &InjectionLine<'_>, only: Option<Kind>) -> Status {
    let mut report = Report::default();
    for kind in KINDS.into_iter().filter(|k| only.is_none_or(|o| o == *k)).chain(only.filter(|o| !KINDS.contains(o))) {
        let _ = writeln!(Console, "injecting {} faults of kind {kind}, seed {}", line.count, line.seed);
        let plan = Plan { first: line.first, ..Plan::new(kind, line.seed, line.count) };
        match run(&plan, |_, _| {}) {
            Ok(part) => report.merge(part),
            Err(error) => return failure(format_args!("{error}")),
        }
    }
    let total = report.total();
    // Output that fails is dropped: the status counts.
    let _ = write!(Console, "{report}");
    let _ = writeln!(Console, "{} passed, {} failed", total.injected - total.lost, total.lost);
    if total.lost == 0 && total.injected > 0 { Status::Success } else { Status::Failure }
}

fn failure(message: core::fmt::Arguments<'_>) -> Status {
    // The status tells it too.
    let _ = writeln!(Console, "error: {message}");
    Status::Failure
}
