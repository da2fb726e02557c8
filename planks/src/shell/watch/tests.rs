//! A disk that does at each look what a test says.

use super::super::{Host, Reply, Shell};
use crate::failure::{Failure, Kind};
use namespace_bridge::CrateNamespace;
use std::collections::VecDeque;

/// What happens to the file between two looks.
enum Event {
    /// Nothing.
    Nothing,
    /// It has these contents, by whatever way: another file under the name, or written in place.
    Is(&'static str),
    /// The same, within one tick of the clock of the last change.
    IsWithinTick(&'static str),
    /// It is not there.
    Gone,
    /// Somebody opens or closes it for writing.
    Writer(bool),
    /// It cannot be read, or can again.
    Unreadable(bool),
    /// The name stands for something else as soon as it is read, and then for what it was again.
    FlipsWhileRead(&'static str),
}

use Event::*;

struct Disk {
    file: Option<&'static str>,
    stamp: u64,
    written: bool,
    unreadable: bool,
    flips: Option<&'static str>,
    events: VecDeque<Event>,
    said: Vec<String>,
}

impl Host for Disk {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        match self.file {
            Some(_) if self.unreadable => Err(Failure::file(path, "permission denied")),
            Some(text) => Ok(text.as_bytes().to_vec()),
            None => Err(Failure::file(path, "not found")),
        }
    }

    fn read_stamped(&mut self, path: &str) -> Result<(Vec<u8>, Option<u64>), Failure> {
        match self.flips.take() {
            Some(other) => Ok((other.as_bytes().to_vec(), Some(1000 + self.stamp))),
            None => Ok((self.read(path)?, self.stamp(path))),
        }
    }

    fn assemble(&mut self, path: &str, text: &[u8]) -> Result<Vec<u8>, Failure> {
        wat::parse_bytes(text).map(|b| b.into_owned()).map_err(|e| Failure::new(Kind::Invalid, format!("{path}: {e}")))
    }

    fn stamp(&mut self, _: &str) -> Option<u64> {
        self.file.map(|_| self.stamp)
    }

    fn writer(&mut self, _: &str) -> Option<String> {
        self.written.then(|| "cc (7)".into())
    }

    fn pause(&mut self) -> bool {
        let Some(event) = self.events.pop_front() else { return false };
        match event {
            Nothing => {}
            Is(text) => (self.file, self.stamp) = (Some(text), self.stamp + 1),
            IsWithinTick(text) => self.file = Some(text),
            Gone => self.file = None,
            Writer(is) => self.written = is,
            Unreadable(is) => self.unreadable = is,
            FlipsWhileRead(text) => (self.flips, self.stamp) = (Some(text), self.stamp + 1),
        }
        true
    }

    fn show(&mut self, reply: &Reply) {
        self.said.push(reply.to_string().lines().next().unwrap_or_default().into());
    }
}

/// Counts up by 1, or by 10 or 100, in a global that versions take over.
const ONE: &str = r#"(module (global $n (mut i32) (i32.const 0)) (func (export "next") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))"#;
const TEN: &str = r#"(module (global $n (mut i32) (i32.const 0)) (func (export "next") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 10))) (global.get $n)))"#;
const HUNDRED: &str = r#"(module (global $n (mut i32) (i32.const 0)) (func (export "next") (result i32) (global.set $n (i32.add (global.get $n) (i32.const 100))) (global.get $n)))"#;
/// Another kind of state.
const WIDE: &str = r#"(module (global $n (mut i64) (i64.const 0)) (func (export "next") (result i32) (i32.const 9)))"#;
const BROKEN: &str = r#"(module (func (export "next") (result i32) (i64.const 1)))"#;
/// Whole modules that half a file may be.
const PREFIXES: [&str; 2] = ["(module)", "(module (memory 1))"];

/// Watches while this happens, then calls the function once. What was said, what it gave, and the last line.
fn watch(options: &str, events: impl IntoIterator<Item = Event>) -> (Vec<String>, String, String) {
    // Quiet looks at the end, so that everything settles.
    let events = events.into_iter().chain((0..40).map(|_| Nothing)).collect();
    let mut disk =
        Disk { file: Some(ONE), stamp: 1, written: false, unreadable: false, flips: None, events, said: Vec::new() };
    let mut shell = Shell::new(CrateNamespace::new("watch", None), &mut disk);
    let mut run = |line: &str| shell.run_line(line).unwrap().unwrap().to_string();
    run("load cell.wat");
    assert_eq!(run("call cell::next"), "1: i32\n");
    let state = if options.contains("--state") { "" } else { "--state adopt" };
    let end = run(&format!("watch cell cell.wat {state} {options}"));
    let result = run("call cell::next");
    (disk.said, result, end)
}

#[test]
fn a_version_is_taken_once_it_has_settled() {
    let (said, result, _) = watch("", [Nothing, Is(TEN), Is(&HUNDRED[..40]), Is(HUNDRED), Is(TEN), Is(HUNDRED)]);
    assert_eq!(said, ["cell went from version 1 to 2, state: adopt"], "only the last of rapid changes");
    assert_eq!(result, "101: i32\n");
}

#[test]
fn a_file_is_not_taken_while_somebody_writes_it() {
    let mut events = vec![Writer(true), Is(PREFIXES[0])];
    events.extend((0..30).map(|_| Nothing));
    events.extend([Is(TEN), Writer(false)]);
    let (said, result, _) = watch("--force", events);
    assert_eq!(
        said,
        [
            "cell stays as it is for now: cell.wat is being written by cc (7)",
            "cell went from version 1 to 2, state: adopt"
        ]
    );
    assert_eq!(result, "11: i32\n");
}

#[test]
fn half_a_file_that_is_a_whole_module_is_refused_and_the_rest_is_taken() {
    for prefix in PREFIXES {
        let quiet = || [Nothing, Nothing, Nothing];
        let events = [Is(prefix)].into_iter().chain(quiet()).chain([Is(TEN)]);
        let (said, result, end) = watch("--state fresh", events);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains("lacks next") && said[0].contains("--force"), "{said:?}");
        assert_eq!(result, "10: i32\n");
        assert_eq!(end, "cell.wat was watched: 1 new versions, 1 refused\n");
    }
}

#[test]
fn a_file_that_goes_away_for_long_is_missed_once_and_taken_when_it_is_back() {
    let away = |looks: usize| [Gone].into_iter().chain((0..looks).map(|_| Nothing));
    let (said, result, _) = watch("", away(3).chain([Is(TEN)]));
    assert_eq!(said, ["cell went from version 1 to 2, state: adopt"], "an editor replaces it");
    assert_eq!(result, "11: i32\n");
    let (said, result, _) = watch("", away(60).chain([Is(TEN)]));
    assert_eq!(
        said,
        ["cell stays as it is for now: cell.wat is gone, or is no file", "cell went from version 1 to 2, state: adopt"]
    );
    assert_eq!(result, "11: i32\n");
    let (said, result, _) = watch("", away(60).chain([Is(ONE)]));
    assert_eq!(said.len(), 1, "back with the same contents: {said:?}");
    assert_eq!(result, "2: i32\n");
}

#[test]
fn refused_versions_say_why_once_and_going_back_keeps_state() {
    let quiet = || (0..4).map(|_| Nothing);
    let events = [Is(BROKEN)]
        .into_iter()
        .chain(quiet())
        .chain([Is(WIDE)])
        .chain(quiet())
        .chain([Is(ONE)])
        .chain(quiet())
        .chain([Is(TEN)]);
    let (said, result, end) = watch("", events);
    assert_eq!(said.len(), 4, "{said:?}");
    assert!(said[0].starts_with("cell stays as it is: ") && said[0].contains("type mismatch"), "{said:?}");
    assert!(said[1].contains("the swap is refused"), "{said:?}");
    assert_eq!(said[2], "cell stays as it is: cell.wat is what it was made of again");
    assert_eq!(said[3], "cell went from version 1 to 2, state: adopt");
    assert_eq!(result, "11: i32\n");
    assert_eq!(end, "cell.wat was watched: 1 new versions, 2 refused\n");
}

#[test]
fn a_file_that_cannot_be_read_is_missed_once_and_taken_when_it_can_be() {
    let quiet = || (0..30).map(|_| Nothing);
    let (said, result, _) =
        watch("", [Unreadable(true), Is(TEN)].into_iter().chain(quiet()).chain([Unreadable(false)]));
    assert_eq!(
        said,
        ["cell stays as it is for now: cell.wat: permission denied", "cell went from version 1 to 2, state: adopt"]
    );
    assert_eq!(result, "11: i32\n");
}

#[test]
fn what_is_read_is_what_the_name_stands_for() {
    // A link that leads elsewhere for the moment in which it is read.
    let (said, result, _) = watch("", [FlipsWhileRead(HUNDRED), Nothing, Nothing, Nothing, Is(TEN)]);
    assert_eq!(said, ["cell went from version 1 to 2, state: adopt"]);
    assert_eq!(result, "11: i32\n");
}

#[test]
fn a_change_within_a_tick_of_the_clock_is_found() {
    let (said, result, _) = watch("", [Is(TEN), Nothing, Nothing, Nothing, IsWithinTick(HUNDRED)]);
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(result, "101: i32\n");
}
