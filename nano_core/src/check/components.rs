//! The kernel's components as cells: asked, swapped, failing.

use super::{
    Check, Outcome,
    cells::text,
    expect, expect_eq,
    tasks::{join, start},
};
use crate::components::{
    self, Component, NONSENSE,
    event_filter::{self, EventFilter},
    file_system,
    line_discipline::{self, Edit, LineDiscipline},
    scheduling::{self, Behaviour, History, SchedulingPolicy},
};
use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use namespace_bridge::{CrateNamespace, LoadOptions, RecoveryState, swap::SwapRequest};
use nano_core::{archive::header, disks::DiskError};
use runtime_port::{
    bare_metal::{console::Received, task},
    time::sleep,
};

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("a_scheduling_policy_is_swapped_and_may_fail", a_scheduling_policy_is_swapped_and_may_fail),
    ("an_event_filter_is_swapped_and_may_fail", an_event_filter_is_swapped_and_may_fail),
    ("a_line_discipline_is_swapped_and_may_fail", a_line_discipline_is_swapped_and_may_fail),
    ("a_file_system_is_swapped_and_may_fail", a_file_system_is_swapped_and_may_fail),
    ("a_file_system_that_fails_loses_no_file", a_file_system_that_fails_loses_no_file),
    ("the_file_system_in_wasm_answers_as_the_native_one", the_file_system_in_wasm_answers_as_the_native_one),
    ("control_c_gets_by_any_discipline_and_filter", control_c_gets_by_any_discipline_and_filter),
    ("only_the_file_system_has_the_disks", only_the_file_system_has_the_disks),
    ("a_component_that_fails_again_and_again_is_quarantined", a_component_that_fails_again_and_again_is_quarantined),
    ("tasks_run_as_the_policy_says", tasks_run_as_the_policy_says),
    ("tasks_go_on_while_a_policy_hangs", tasks_go_on_while_a_policy_hangs),
];

/// The versions of a component that are swapped in.
struct Versions {
    shipped: &'static [u8],
    other: &'static [u8],
    /// What is wrong, and the version.
    broken: [(&'static str, &'static [u8]); 3],
}

macro_rules! module {
    ($name:literal) => {
        include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm"))
    };
}

macro_rules! versions {
    ($shipped:literal, $other:literal, $traps:literal, $hangs:literal, $lies:literal) => {
        Versions {
            shipped: module!($shipped),
            other: module!($other),
            broken: [("unreachable", module!($traps)), ("stopped after", module!($hangs)), ("", module!($lies))],
        }
    };
}

const SCHEDULING: Versions =
    versions!("scheduling", "scheduling_other", "scheduling_traps", "scheduling_hangs", "scheduling_lies");
const EVENT_FILTER: Versions =
    versions!("event_filter", "event_filter_other", "event_filter_traps", "event_filter_hangs", "event_filter_lies");
const LINE_DISCIPLINE: Versions = versions!(
    "line_discipline",
    "line_discipline_other",
    "line_discipline_traps",
    "line_discipline_hangs",
    "line_discipline_lies"
);
const FILE_SYSTEM: Versions =
    versions!("file_system", "file_system_other", "file_system_traps", "file_system_hangs", "file_system_lies");

/// Has components served by the native defaults again when a check ends.
struct Served(Arc<CrateNamespace>);

impl Served {
    /// A namespace from which components are served, with what they import.
    fn new() -> Result<Self, String> {
        let namespace = CrateNamespace::new("components", None);
        file_system::define_disks(&namespace).map_err(text)?;
        components::serve_from(Some(&namespace));
        Ok(Self(namespace))
    }

    fn load(&self, name: &str, module: &[u8]) -> Outcome {
        self.0.load_wasm(name, module, LoadOptions::default()).map(drop).map_err(text)
    }

    fn swap(&self, name: &str, module: &[u8]) -> Outcome {
        self.0.swap(SwapRequest::new(name).with_wasm(module)).map(drop).map_err(text)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        components::serve_from(None);
        file_system::init(&[]);
    }
}

/// Leads a component through its life: nobody, the shipped cell, another version, each broken one, nobody. `ask` gives the answer to one question, which
/// the native default, the shipped cell and the other version answer as `[native, shipped, other]`.
fn life<H>(component: &Component<H>, versions: &Versions, ask: &dyn Fn() -> String, answers: [&str; 3]) -> Outcome {
    let served = Served::new()?;
    let name = component.name;
    // An answer, who gave it, and whether that is as it should be.
    let answered = |when: &str, by_cell: bool, wanted: &str| -> Outcome {
        let before = component.report();
        expect_eq(&format!("{name}, {when}"), &ask()[..], wanted)?;
        let after = component.report();
        let counts = (after.by_cell - before.by_cell, after.by_default - before.by_default);
        expect_eq(&format!("{name}, {when}: answers of cell and default"), counts, (by_cell.into(), (!by_cell).into()))
    };
    let [native, shipped, other] = answers;
    answered("without a cell", false, native)?;
    served.load(name, versions.shipped)?;
    answered("with its cell", true, shipped)?;
    served.swap(name, versions.other)?;
    answered("behind a swap", true, other)?;
    served.0.rollback(name).map_err(text)?;
    answered("behind a rollback", true, shipped)?;
    for (why, broken) in versions.broken {
        served.swap(name, broken)?;
        for _ in 0..=NONSENSE {
            answered("with a broken version", false, native)?;
        }
        let last = component.report().last.unwrap_or_default();
        // The last question may have met a closed entry.
        let closed = ["poisoned", "quarantined"].iter().any(|word| last.contains(word));
        expect(&format!("{name}: `{last}` does not say `{why}`"), last.contains(why) || closed)?;
        served.swap(name, versions.shipped)?;
        answered("behind the swap that mends it", true, shipped)?;
    }
    served.0.unload(name).map_err(text)?;
    answered("behind its unloading", false, native)?;
    served.load(name, versions.shipped)?;
    answered("loaded again", true, shipped)
}

fn a_scheduling_policy_is_swapped_and_may_fail() -> Outcome {
    let ask = || {
        let advice = scheduling::ByCell.advise(&Behaviour { base: 16, priority: 16, ran: 20, period: 20 });
        format!("{} for {}", advice.priority.number(), advice.slice)
    };
    life(&scheduling::COMPONENT, &SCHEDULING, &ask, ["16 for 1", "15 for 2", "5 for 3"])
}

fn an_event_filter_is_swapped_and_may_fail() -> Outcome {
    // A framing error.
    let ask = || format!("{:?}", event_filter::ByCell.filter(Received { byte: b'a', errors: 8 }, 0));
    life(&event_filter::COMPONENT, &EVENT_FILTER, &ask, ["Some(97)", "None", "Some(120)"])
}

fn a_line_discipline_is_swapped_and_may_fail() -> Outcome {
    // Control-W
    let ask = || format!("{:?}", line_discipline::ByCell.key(0x17, 3));
    life(&line_discipline::COMPONENT, &LINE_DISCIPLINE, &ask, ["Ignore", "EraseWord", "Insert(121)"])
}

/// A boot archive with these files, for good.
fn archive(files: &[(&str, &[u8])]) -> Result<&'static [u8], String> {
    let mut bytes = Vec::new();
    for (name, content) in files {
        bytes.extend(header(name, Some(content.len())).ok_or("a name is none")?);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    // The trailer is an entry whose name no file may have.
    let mut trailer = header("TRAILER!!?", Some(0)).ok_or("the trailer has no name")?;
    let mark = trailer.iter().position(|b| *b == b'?').ok_or("the trailer has no name")?;
    trailer[mark] = b'!';
    bytes.extend(trailer);
    Ok(Box::leak(bytes.into_boxed_slice()))
}

fn a_file_system_is_swapped_and_may_fail() -> Outcome {
    let archive = archive(&[("a", b"content")])?;
    let ask = || {
        file_system::init(archive);
        file_system::read("./a").map_or_else(text, |bytes| String::from_utf8_lossy(&bytes).into_owned())
    };
    // The other version finds everything at the start of the archive, which is its magic number.
    life(&file_system::COMPONENT, &FILE_SYSTEM, &ask, ["content", "content", "0707"])
}

fn a_file_system_that_fails_loses_no_file() -> Outcome {
    let served = Served::new()?;
    file_system::init(archive(&[("a", b"of the archive")])?);
    served.load("file_system", FILE_SYSTEM.shipped)?;
    let mut files: Vec<(String, Vec<u8>)> = Vec::from([("a".into(), b"of the archive".to_vec())]);
    let versions = FILE_SYSTEM.broken.into_iter().map(|(_, version)| version);
    for (i, version) in versions.flat_map(|broken| [FILE_SYSTEM.shipped, broken]).enumerate() {
        served.swap("file_system", version)?;
        let (name, content) = (format!("file {i}"), Vec::from([i as u8; 5000]));
        file_system::write(&name, content.clone()).map_err(text)?;
        files.push((name, content));
        file_system::write("a", Vec::from([i as u8; 3])).map_err(text)?;
        files[0].1 = Vec::from([i as u8; 3]);
        if i == 3 {
            file_system::remove("file 1").map_err(text)?;
            files.retain(|(name, _)| name != "file 1");
            expect_eq("removed again", file_system::remove("file 1"), Err(DiskError::NotFound))?;
        }
        let mut listed = file_system::list();
        listed.sort();
        let mut wanted: Vec<_> = files.iter().map(|(name, content)| (name.clone(), content.len())).collect();
        wanted.sort();
        expect_eq("files", listed, wanted)?;
        for (name, content) in &files {
            expect(&format!("`{name}` has changed"), file_system::read(name).as_ref() == Ok(content))?;
        }
    }
    let report = file_system::COMPONENT.report();
    expect("the cell or the default had nothing to do", report.by_cell > 10 && report.by_default > 10)
}

fn the_file_system_in_wasm_answers_as_the_native_one() -> Outcome {
    let served = Served::new()?;
    let names = ["a", "./a", "/b/c", "././/d", "long/".repeat(500).leak(), "TRAILER!!", "e"];
    file_system::init(archive(&[("./a", b"1"), ("b/c", b"22"), ("a", b"333"), (names[4], b"4"), ("./d", b"")])?);
    let mut seed = 7u32;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
        (seed >> 16) as usize % below
    };
    served.load("file_system", FILE_SYSTEM.shipped)?;
    for step in 0..60 {
        let name = names[random(names.len())];
        match random(4) {
            0 => file_system::write(name, Vec::from([step as u8; 9])[..random(9)].to_vec()).map_err(text)?,
            1 => {
                if let Err(error) = file_system::remove(name) {
                    expect_eq("removing", error, DiskError::NotFound)?;
                }
            }
            _ => {}
        }
        let read_all = || names.map(file_system::read);
        let by_cell = (read_all(), file_system::list());
        expect(
            "a file could not be found by its name in the list",
            by_cell.1.iter().all(|(name, size)| file_system::read(name).is_ok_and(|bytes| bytes.len() == *size)),
        )?;
        let before = file_system::COMPONENT.report();
        file_system::COMPONENT.serve_from(None);
        let native = (read_all(), file_system::list());
        file_system::COMPONENT.serve_from(Some(served.0.clone()));
        expect_eq("answers of the default instead of the cell", (before.by_default, before.last), (0, None))?;
        expect_eq(&format!("step {step}"), by_cell, native)?;
    }
    Ok(())
}

fn control_c_gets_by_any_discipline_and_filter() -> Outcome {
    let served = Served::new()?;
    for name in ["line_discipline", "event_filter"] {
        served.load(name, module!("mute"))?;
    }
    let typed = |byte| {
        let passed = event_filter::ByCell.filter(Received { byte, errors: 0 }, 0);
        (passed, line_discipline::ByCell.key(byte, 0))
    };
    expect_eq("a letter", typed(b'a'), (None, Edit::Ignore))?;
    for _ in 0..NONSENSE {
        expect_eq("a letter before that", typed(b'a'), (None, Edit::Ignore))?;
        expect_eq("Control-C", typed(3), (Some(3), Edit::Abandon))?;
    }
    expect_eq("a letter behind Control-C", typed(b'a'), (Some(b'a'), Edit::Insert(b'a')))?;
    expect_eq("a damaged Control-C", event_filter::ByCell.filter(Received { byte: 3, errors: 8 }, 0), Some(3))?;
    let last = line_discipline::COMPONENT.report().last.unwrap_or_default();
    expect(&format!("`{last}` does not name the reason"), last.contains("Control-C"))
}

fn only_the_file_system_has_the_disks() -> Outcome {
    let served = Served::new()?;
    file_system::init(archive(&[("a", b"of the archive")])?);
    let thief = served.0.load_wasm("thief", module!("thief"), LoadOptions::default()).map_err(text)?;
    for theft in ["size", "read", "append", "append_content", "commit", "name", "content_size"] {
        let trap = thief.typed_func::<(), i32>(theft).map_err(text)?.call(()).err().map(text).unwrap_or_default();
        expect(&format!("{theft}: `{trap}`"), trap.contains("only the cell `file_system`"))?;
    }
    expect_eq("the file", file_system::read("a"), Ok(b"of the archive".to_vec()))?;
    expect_eq("files", file_system::list().len(), 1)
}

fn a_component_that_fails_again_and_again_is_quarantined() -> Outcome {
    let served = Served::new()?;
    let ask =
        || scheduling::ByCell.advise(&Behaviour { base: 16, priority: 16, ran: 20, period: 20 }).priority.number();
    // Loaded anew it is under the policy again.
    for time in 1..=2 {
        served.load("scheduling", SCHEDULING.broken[0].1)?;
        let mut rounds = 0;
        while served.0.recovery_state("scheduling") != RecoveryState::Quarantined {
            expect_eq("the default's answer", ask(), 16)?;
            sleep(Duration::from_millis(5));
            rounds += 1;
            expect(&format!("time {time}: it is never quarantined"), rounds < 10_000)?;
        }
        expect_eq("the default's answer", ask(), 16)?;
        if time == 1 {
            served.0.unload("scheduling").map_err(text)?;
        }
    }
    served.swap("scheduling", SCHEDULING.shipped)?;
    expect_eq("the answer of the version that works", ask(), 15)
}

/// What `inspect` says of a task: priority now, ticks of a turn.
fn schedule_of(id: u64) -> Option<(u8, u8)> {
    let mut found = None;
    task::inspect(&mut |t| {
        if t.id == id {
            found = Some((t.priority.number(), t.slice));
        }
    });
    found
}

fn tasks_run_as_the_policy_says() -> Outcome {
    let served = Served::new()?;
    served.load("scheduling", SCHEDULING.shipped)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stops = stop.clone();
    let busy = start("busy", move || while !stops.load(Ordering::Relaxed) {})?;
    let waits = stop.clone();
    let waiting = start("waiting", move || {
        while !waits.load(Ordering::Relaxed) {
            sleep(Duration::from_millis(1));
        }
    })?;
    let mut history = History::default();
    let mut lowest = u8::MAX;
    for _ in 0..2000 {
        sleep(scheduling::PERIOD);
        scheduling::look(&scheduling::ByCell, &mut history);
        lowest = schedule_of(busy).map_or(lowest, |(priority, _)| lowest.min(priority));
        if lowest == 12 {
            break;
        }
    }
    let of_waiting = schedule_of(waiting);
    // The native default takes everything back.
    scheduling::COMPONENT.serve_from(None);
    sleep(scheduling::PERIOD);
    scheduling::look(&scheduling::ByCell, &mut history);
    let restored = (schedule_of(busy), schedule_of(waiting));
    stop.store(true, Ordering::Relaxed);
    join([busy, waiting])?;
    expect_eq("lowest priority of a task that computes", lowest, 12)?;
    expect_eq("a task that waits", of_waiting, Some((16, 1)))?;
    expect_eq("behind the policy's end", restored, (Some((16, 1)), Some((16, 1))))
}

fn tasks_go_on_while_a_policy_hangs() -> Outcome {
    let served = Served::new()?;
    served.load("scheduling", SCHEDULING.broken[1].1)?;
    let stop = Arc::new(AtomicBool::new(false));
    let stops = stop.clone();
    let asking = start("asks", move || {
        while !stops.load(Ordering::Relaxed) {
            scheduling::look(&scheduling::ByCell, &mut History::default());
        }
    })?;
    let mut slept = 0;
    while scheduling::COMPONENT.report().last.is_none() || slept < 50 {
        sleep(Duration::from_millis(1));
        slept += 1;
    }
    stop.store(true, Ordering::Relaxed);
    join([asking])?;
    let last = scheduling::COMPONENT.report().last.unwrap_or_default();
    expect(&format!("`{last}` does not say that it hung"), last.contains("stopped after") || last.contains("killed"))
}
