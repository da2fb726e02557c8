//! `swap` and `rollback`: another version of a cell, while others call it.

use super::{Reply, Shell, misused, size, take_flag};
use crate::failure::{Failure, Kind};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Write;
use core::time::Duration;
use namespace_bridge::module_diff::{FunctionDiff, Item, ItemDiff, ModuleDiff};
use namespace_bridge::native::is_wasm_cell_object;
use namespace_bridge::swap::{CellReport, Fate, Phases, StatePlan, SwapReport, SwapRequest};
use namespace_bridge::{CellModule, LoadOptions};
use runtime_port::time::Instant;
use serde_json::{Value, json};
use wasm_cell::reuse::ReuseReport;

/// What a swap is to do with state, from `--state PLAN`; the words without it.
pub(super) fn take_plan<'w>(words: &[&'w str], command: &str) -> Result<(Vec<&'w str>, StatePlan), Failure> {
    let Some(at) = words.iter().position(|w| *w == "--state") else { return Ok((words.to_vec(), StatePlan::Fresh)) };
    let plan = match words.get(at + 1).copied() {
        Some("fresh") => StatePlan::Fresh,
        Some("adopt") => StatePlan::Adopt,
        Some("export") => StatePlan::Export,
        Some(other) => return Err(Failure::usage(format!("--state {other}: adopt, fresh or export"))),
        None => return Err(misused(command)),
    };
    let rest = words.iter().enumerate().filter(|(i, _)| *i != at && *i != at + 1).map(|(_, w)| *w);
    Ok((rest.collect(), plan))
}

pub(super) fn swap(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let (words, dry_run) = take_flag(words, "--dry-run");
    let force = words.contains(&"--force");
    let words: Vec<&str> = words.into_iter().filter(|w| *w != "--force").collect();
    let (words, plan) = take_plan(&words, "swap")?;
    let [name, path] = words[..] else { return Err(misused("swap")) };
    let bytes = shell.host.read(path)?;
    let swap = Swap { name, path, plan, force, dry_run, keep_exports: false };
    swap.run(shell, bytes)
}

/// A swap that somebody asks for.
pub(super) struct Swap<'a> {
    pub name: &'a str,
    pub path: &'a str,
    pub plan: StatePlan,
    pub force: bool,
    pub dry_run: bool,
    /// Refuse a version without an export that the old one has, whether anybody is known to use it or not.
    pub keep_exports: bool,
}

/// How the new version was made.
struct Made {
    /// What was compiled; `None` for a module from the cache, and one that follows no module.
    reuse: Option<ReuseReport>,
    /// Whether it follows a module.
    is_next: bool,
    time: Duration,
}

impl Swap<'_> {
    /// Makes the new version from `bytes` and swaps, or says what would happen.
    pub fn run(&self, shell: &mut Shell<'_>, bytes: Vec<u8>) -> Result<Reply, Failure> {
        let old = super::info::find(shell, self.name)?;
        let request = SwapRequest::new(self.name).state(self.plan.clone()).force(self.force).explain(true);
        let (request, made) = if bytes.starts_with(b"\x7fELF") {
            match is_wasm_cell_object(&bytes) {
                true => {
                    shell.host.check_object(self.path, &bytes)?;
                    (request.with_object(&bytes), None)
                }
                // Nobody but the person who swaps it in vouches for its code.
                false => (request.with_native(&bytes), None),
            }
        } else {
            let wasm = super::load::wasm(shell, self.path, bytes)?;
            let (module, made) = self.make(shell, &wasm, old.module())?;
            (request.with_module(&module), Some(made))
        };
        drop(old);
        if self.keep_exports {
            self.check_exports(&shell.namespace.swap_dry_run(request.clone())?)?;
        }
        let report = match self.dry_run {
            true => shell.namespace.swap_dry_run(request)?,
            false => shell.namespace.swap(request)?,
        };
        Ok(reply(&report, made.as_ref(), self.dry_run))
    }

    fn check_exports(&self, report: &SwapReport) -> Result<(), Failure> {
        let lists = report.cells.iter().flat_map(|c| [("lacks", &c.removed), ("has another type of", &c.retyped)]);
        let lost: Vec<String> = lists
            .filter(|(_, names)| !names.is_empty())
            .map(|(what, names)| format!("{what} {}", names.join(", ")))
            .collect();
        if lost.is_empty() {
            return Ok(());
        }
        let (path, lost) = (self.path, lost.join(" and "));
        Err(Failure::new(
            Kind::Link,
            format!("{path} {lost}, which the version in service has; --force takes it nevertheless"),
        ))
    }

    /// The new version, from the host's cache if it has one; else what did not change is taken over from the old version.
    fn make(
        &self,
        shell: &mut Shell<'_>,
        wasm: &[u8],
        old: Option<&Arc<CellModule>>,
    ) -> Result<(Arc<CellModule>, Made), Failure> {
        let (start, options) = (Instant::now(), LoadOptions::default());
        let (module, reuse) = match old {
            Some(old) => shell.host.next_version(self.name, wasm, &options, old)?,
            None => (shell.host.module(self.name, wasm, &options)?, None),
        };
        Ok((module, Made { reuse, is_next: old.is_some(), time: start.elapsed() }))
    }
}

pub(super) fn rollback(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let [name] = words else { return Err(misused("rollback")) };
    let report = shell.namespace.rollback(name)?;
    Ok(reply(&report, None, false))
}

/// The report of a swap for people and scripts.
fn reply(report: &SwapReport, made: Option<&Made>, dry_run: bool) -> Reply {
    let mut text = String::new();
    for cell in &report.cells {
        describe(&mut text, cell, dry_run);
    }
    match made {
        Some(Made { reuse: Some(reuse), .. }) => {
            let _ = writeln!(
                text,
                "  code      {} functions compiled, {} taken over ({}){}",
                reuse.compiled,
                reuse.reused,
                size(reuse.reused_bytes),
                if reuse.layout.packed { "; the data block was packed anew, so all offsets moved" } else { "" },
            );
        }
        Some(Made { is_next: true, .. }) => text += "  code      from the cache, nothing compiled\n",
        _ => {}
    }
    for diff in report.cells.iter().filter_map(|cell| cell.diff.as_ref()) {
        text += &indented(diff);
    }
    times(&mut text, made, &report.phases);
    if report.deferred.is_some() {
        text += "  it happens when this task leaves the cell\n";
    }
    Reply::new(text, to_json(report, made, dry_run))
}

fn describe(text: &mut String, cell: &CellReport, dry_run: bool) {
    let version = |v: Option<u32>| v.map_or_else(|| "none".to_string(), |v| v.to_string());
    let verb = if dry_run { "would go" } else { "went" };
    let (old, new) = (version(cell.old_version), version(cell.new_version));
    let _ = writeln!(text, "{} {verb} from version {old} to {new}, state: {}", cell.cell, cell.plan);
    if let Some(before) = &cell.renamed_from {
        let _ = writeln!(text, "  name      was {before}");
    }
    for (what, names) in [("added", &cell.added), ("removed", &cell.removed), ("retyped", &cell.retyped)] {
        if !names.is_empty() {
            let _ = writeln!(text, "  exports   {what}: {}", names.join(", "));
        }
    }
    let dependents: Vec<&str> = cell.dependents.iter().map(|d| &**d).collect();
    let users = if dependents.is_empty() { "none".to_string() } else { dependents.join(", ") };
    let _ = writeln!(text, "  used by   {users}");
    if !dry_run {
        let (adopted, copied) = (size(cell.bytes_adopted), size(cell.bytes_copied));
        let _ = writeln!(text, "  state     {adopted} taken over in place, {copied} copied");
    }
    let _ = writeln!(text, "  before    {}", fate(cell.fate));
}

/// What becomes of the old version, for people.
fn fate(fate: Fate) -> &'static str {
    match fate {
        Fate::None => "there was no version",
        Fate::Cached => "the old version waits for a rollback",
        Fate::Retired => "the old version goes as soon as no task can be inside",
        _ => "see the documentation of this version",
    }
}

fn fate_name(fate: Fate) -> &'static str {
    match fate {
        Fate::None => "none",
        Fate::Cached => "cached",
        Fate::Retired => "retired",
        _ => "other",
    }
}

fn phases(phases: &Phases) -> [(&'static str, Duration); 7] {
    [
        ("compile", phases.compile),
        ("prepare", phases.prepare),
        ("validate", phases.validate),
        ("quiesce", phases.quiesce),
        ("transfer", phases.transfer),
        ("commit", phases.commit),
        ("retire", phases.retire),
    ]
}

fn times(text: &mut String, made: Option<&Made>, all: &Phases) {
    let all = Phases { compile: all.compile + made.map_or(Duration::ZERO, |m| m.time), ..*all };
    let shown = phases(&all).into_iter().filter(|(_, time)| !time.is_zero());
    let words: Vec<String> = shown.map(|(name, time)| format!("{name} {}", duration(time))).collect();
    let _ = writeln!(text, "  time      {}", words.join(", "));
}

/// A time span that people read.
fn duration(time: Duration) -> String {
    match time.as_nanos() as u64 {
        ns @ 0..1_000 => format!("{ns} ns"),
        ns @ 1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        ns @ 1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        ns => format!("{:.2} s", ns as f64 / 1e9),
    }
}

fn indented(diff: &ModuleDiff) -> String {
    let text = diff.to_string();
    text.lines().map(|l| format!("  {l}\n")).collect()
}

fn to_json(report: &SwapReport, made: Option<&Made>, dry_run: bool) -> Value {
    let cell = |c: &CellReport| {
        json!({
            "cell": &*c.cell, "renamed_from": c.renamed_from.as_deref(), "old_version": c.old_version,
            "new_version": c.new_version, "state": c.plan, "exports_added": c.added, "exports_removed": c.removed,
            "exports_retyped": c.retyped, "dependents": c.dependents.iter().map(|d| &**d).collect::<Vec<_>>(),
            "bytes_adopted": c.bytes_adopted, "bytes_copied": c.bytes_copied, "old": fate_name(c.fate),
        })
    };
    let nanos = |time: Duration| time.as_nanos() as u64;
    let phase_times: serde_json::Map<String, Value> =
        phases(&Phases { compile: report.phases.compile + made.map_or(Duration::ZERO, |m| m.time), ..report.phases })
            .into_iter()
            .map(|(name, time)| (name.to_string(), nanos(time).into()))
            .collect();
    let mut value = json!({
        "dry_run": dry_run, "cells": report.cells.iter().map(cell).collect::<Vec<_>>(), "stores": report.stores,
        "deferred": report.deferred.is_some(),
    });
    if let Some(made) = made {
        let reuse = made.reuse.as_ref();
        value["from_cache"] = (made.is_next && reuse.is_none()).into();
        value["functions_compiled"] = reuse.map(|r| r.compiled).into();
        value["functions_reused"] = reuse.map(|r| r.reused).into();
        value["layout_packed"] = reuse.map(|r| r.layout.packed).into();
    }
    if let Some(diff) = report.cells.iter().find_map(|cell| cell.diff.as_ref()) {
        value["diff"] = diff_to_json(diff);
    }
    value["phases_ns"] = Value::Object(phase_times);
    value
}

fn diff_to_json(diff: &ModuleDiff) -> Value {
    let items = |items: &[Item]| -> Vec<Value> {
        items.iter().map(|i| json!({ "name": i.name, "content": i.content })).collect()
    };
    let changes = |changes: &[namespace_bridge::module_diff::Change]| -> Vec<Value> {
        changes.iter().map(|c| json!({ "name": c.name, "from": c.from, "to": c.to })).collect()
    };
    let FunctionDiff { added, removed, changed, retyped, unchanged, bodies_compared, .. } = &diff.functions;
    let kind = |d: &ItemDiff| {
        json!({
            "added": items(&d.added), "removed": items(&d.removed), "changed": changes(&d.changed),
            "unchanged": d.unchanged,
        })
    };
    let mut value = json!({ "functions": {
        "added": items(added), "removed": items(removed), "changed": changed, "retyped": changes(retyped),
        "unchanged": unchanged, "bodies_compared": bodies_compared,
    } });
    for (name, d) in diff.kinds() {
        value[name.replace(' ', "_")] = kind(d);
    }
    value
}
