//! The suites of crate `conformance` in ring 0: spec scripts and third-party modules, from the boot archive.
//!
//! In an image of its own (feature `conformance`), so that no other kernel carries them. Each module is compiled here.

use crate::exit::Status;
use alloc::{format, string::String, sync::Arc};
use conformance::{
    script::{FileReport, Outcome, encoding, run_script},
    third_party::SUBJECTS,
};
use core::fmt::Write;
use kernel_config::memory::PAGE_SIZE;
use nano_core::{
    archive::{Archive, Entry},
    suites_line::SuitesLine,
};
use runtime_port::{
    bare_metal::{console::Console, memory::frame_use},
    heap, time,
    unwind::catch_unwind_with_arg,
};

/// How the names of scripts end in the boot archive.
const SCRIPT: &str = ".script";

/// Runs the suite that the command line asks for. `None`: it asks for something else.
pub fn asked(line: &str, archive: Option<&[u8]>) -> Option<Status> {
    let line = SuitesLine::parse(line)?;
    let archive = match archive.map(Archive::new) {
        Some(Ok(archive)) => archive,
        Some(Err(error)) => return Some(failure(format_args!("boot archive: {error}"))),
        None => return Some(failure(format_args!("no boot archive: give one with `-initrd` (cpio, `newc` format)"))),
    };
    let (passed, failed) = match line {
        SuitesLine::Scripts(part) => scripts(&archive, part),
        SuitesLine::ThirdParty(part) => third_party(&archive, part),
    };
    // Output that fails is dropped: the status counts.
    let _ = writeln!(Console, "{passed} passed, {failed} failed");
    Some(if failed == 0 && passed > 0 { Status::Success } else { Status::Failure })
}

/// Runs the scripts of the archive. A line for each, and one for each of its failures before.
fn scripts(archive: &Archive<'_>, part: &str) -> (usize, usize) {
    let (mut passed, mut failed) = (0, 0);
    let before = Memory::now();
    for entry in archive.entries().filter(|e| e.is_file() && e.name.ends_with(SCRIPT) && e.name.contains(part)) {
        let report = catch_unwind_with_arg(script, &entry).unwrap_or_else(|reason| {
            let message = reason.message().unwrap_or("(no message)");
            unreadable(entry.name, format!("panicked: {message}"))
        });
        for f in &report.failures {
            let _ = writeln!(Console, "script failure: {}: {}", f.line, f.reason.replace('\n', " "));
        }
        let _ = writeln!(Console, "{}", report.to_line());
        passed += report.totals.passed;
        failed += report.totals.failed;
    }
    let _ = writeln!(Console, "memory: {}", Memory::now().since(&before));
    (passed, failed)
}

fn script(entry: &Entry<'_>) -> FileReport {
    match encoding::decode(entry.content) {
        Ok(script) => run_script(&Arc::new(script)),
        Err(error) => unreadable(entry.name, format!("{error}")),
    }
}

fn unreadable(name: &str, reason: String) -> FileReport {
    let mut report = FileReport::new(name);
    report.record(1, Outcome::Failed(reason), false);
    report
}

/// Puts the third-party modules to their questions.
fn third_party(archive: &Archive<'_>, part: &str) -> (usize, usize) {
    let (mut passed, mut failed) = (0, 0);
    for subject in SUBJECTS.iter().filter(|s| s.name.contains(part)) {
        let (before, start) = (Memory::now(), time::Instant::now());
        let file = format!("{}.wasm", subject.name);
        let wasm = archive.file(&file);
        let check = |wasm: Option<&[u8]>| match wasm {
            Some(wasm) => (subject.check)(wasm),
            None => Err(format!("`{file}` is not in the boot archive")),
        };
        let outcome = catch_unwind_with_arg(check, wasm)
            .unwrap_or_else(|reason| Err(format!("panicked: {}", reason.message().unwrap_or("(no message)"))));
        let (name, bytes, seconds) = (subject.name, wasm.map_or(0, <[u8]>::len), start.elapsed().as_secs_f64());
        let memory = Memory::now().since(&before);
        let _ = match outcome {
            Ok(()) => writeln!(Console, "test {name} ({bytes} bytes, {seconds:.1} s, {memory}) ... ok"),
            Err(ref why) => writeln!(Console, "test {name} ({bytes} bytes) ... FAILED: {why}"),
        };
        passed += usize::from(outcome.is_ok());
        failed += usize::from(outcome.is_err());
    }
    (passed, failed)
}

/// Memory in use, in bytes.
struct Memory {
    /// Of the heap, by its users.
    heap: usize,
    /// Of the heap, mapped: it never shrinks, so this is the most that it ever needed.
    peak: usize,
    /// Frames outside of the heap: cells, linear memories, tables, stacks.
    other: usize,
}

impl Memory {
    fn now() -> Memory {
        let frames = frame_use();
        let (heap, peak) = heap::statistics().map_or((0, 0), |h| (h.used, h.size));
        Memory { heap, peak, other: ((frames.total - frames.free) * PAGE_SIZE).saturating_sub(peak) }
    }

    /// What came to be used since `before`.
    fn since(&self, before: &Memory) -> impl core::fmt::Display + use<> {
        let mib = |now: usize, before: usize| (now as f64 - before as f64) / f64::from(1 << 20);
        let (heap, peak) = (mib(self.heap, before.heap), mib(self.peak, before.peak));
        let other = mib(self.other, before.other);
        core::fmt::from_fn(move |f| {
            write!(f, "heap grew by {peak:.1} MiB, {heap:.1} MiB of them are in use; {other:.1} MiB in cells")
        })
    }
}

fn failure(message: core::fmt::Arguments<'_>) -> Status {
    // The status tells it too.
    let _ = writeln!(Console, "error: {message}");
    Status::Failure
}
