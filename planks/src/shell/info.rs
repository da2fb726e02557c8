//! `ls` and `info`.

use super::{Reply, Shell, misused, take_flag};
use crate::failure::{Failure, Kind};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use namespace_bridge::domain::Inside;
use namespace_bridge::swap::OldVersion;
use namespace_bridge::{CellInfo, StrongCrateRef, retired};
use serde_json::{Value, json};

/// The cell of this name; an error names those that exist.
pub(super) fn find(shell: &Shell<'_>, name: &str) -> Result<StrongCrateRef, Failure> {
    shell.namespace.get_crate(name).ok_or_else(|| {
        let names = shell.namespace.crate_names(false);
        let known = match names.len() {
            0 => "no cell is loaded".to_string(),
            1..=8 => format!("loaded: {}", names.join(", ")),
            n => format!("{n} cells are loaded, see `ls`"),
        };
        Failure::new(Kind::Link, format!("no cell `{name}`; {known}"))
    })
}

/// Every cell of the namespace and of those above it, by name.
pub(super) fn all(shell: &Shell<'_>) -> Vec<CellInfo> {
    let mut cells = Vec::new();
    shell.namespace.for_each_crate(true, |_, cell| {
        cells.push(CellInfo::of(cell));
        true
    });
    cells
}

/// Bytes in a unit that people read.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
        _ => format!("{:.1} GiB", bytes as f64 / 1_073_741_824.0),
    }
}

fn kind(c: &CellInfo) -> &'static str {
    if c.is_wasm { "wasm" } else { "native" }
}

pub(super) fn list(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    if words == ["--faults"] {
        return Ok(super::faults::list());
    }
    let (rest, everywhere) = take_flag(words, "--all");
    if !rest.is_empty() {
        return Err(misused("ls"));
    }
    let cells = if everywhere { all(shell) } else { shell.namespace.cells() };
    let width = cells.iter().map(|c| c.name.chars().count()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}  kind    version  functions  exports  code       memory     used by\n", "cell");
    for c in &cells {
        let mut users: Vec<&str> = c.dependents.iter().map(|(cell, _)| &**cell).collect();
        users.dedup();
        let (code, memory) = (size(c.text.len() as u64), size(c.memories.iter().sum()));
        let line = format!(
            "{:width$}  {:6}  {:>7}  {:>9}  {:>7}  {code:>9}  {memory:>9}  {}",
            c.name,
            kind(c),
            c.version,
            c.functions,
            c.exports.len(),
            users.join(", "),
        );
        text += line.trim_end();
        text.push('\n');
    }
    if cells.is_empty() {
        text = "no cell is loaded\n".to_string();
    }
    let versions = Versions::of(shell);
    text += &versions.text();
    // Versions that are gone, but for the tasks that are still in them.
    let retired: Vec<_> = retired().into_iter().filter(|r| r.version != 0).collect();
    for r in &retired {
        let tasks: Vec<String> = r.held_by.iter().map(|id| format!("task {id}")).collect();
        text += &format!("{}@{} (retired, {}, {})\n", r.name, r.version, size(r.bytes as u64), tasks.join(", "));
    }
    let waiting = retired.iter().map(|r| {
        json!({ "cell": &*r.name, "kind": "retired", "version": r.version, "bytes": r.bytes, "held_by": r.held_by })
    });
    let json = cells.iter().map(|c| versions.add_to(brief(c), &c.name)).chain(waiting).collect();
    Ok(Reply::new(text, json))
}

/// Versions that wait for a rollback, and who is inside of cells with state.
struct Versions {
    previous: Vec<OldVersion>,
    /// Cells whose domain a task is in, by name.
    inside: Vec<(String, Inside)>,
}

impl Versions {
    fn of(shell: &Shell<'_>) -> Versions {
        let mut inside = Vec::new();
        shell.namespace.for_each_crate(false, |name, cell| {
            let owner = cell.instance().and_then(|i| i.domain()).and_then(|d| d.owner());
            if let Some(owner) = owner {
                inside.push((name.to_string(), owner));
            }
            true
        });
        Versions { previous: shell.namespace.old_versions(), inside }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (cell, inside) in &self.inside {
            let task = inside.task.map_or_else(|| "a task".to_string(), |t| format!("task {t}"));
            let by = inside.cell.as_ref().map_or_else(String::new, |by| format!(", by {by}"));
            let waiting = match inside.waiting {
                0 => String::new(),
                1 => "; 1 task waits".to_string(),
                n => format!("; {n} tasks wait"),
            };
            text += &format!("inside of {cell}: {task}{by}{waiting}\n");
        }
        for old in &self.previous {
            text += &format!("waits for a rollback: {} ({} of memory)\n", old.name, size(old.memory_bytes));
        }
        text
    }

    /// The same about one cell, for scripts.
    fn add_to(&self, mut cell: Value, name: &str) -> Value {
        let is_of = |old: &&OldVersion| old.name.rsplit_once('@').is_some_and(|(n, _)| n == name);
        let previous: Vec<&str> = self.previous.iter().filter(is_of).map(|old| &*old.name).collect();
        let inside = self.inside.iter().find(|(cell, _)| cell == name);
        cell["previous"] = json!(previous);
        cell["inside"] = inside.map_or(
            Value::Null,
            |(_, inside)| json!({ "task": inside.task, "by": inside.cell.as_deref(), "waiting": inside.waiting }),
        );
        cell
    }
}

fn brief(c: &CellInfo) -> Value {
    json!({
        "cell": &*c.name, "kind": kind(c), "version": c.version, "functions": c.functions,
        "exports": c.exports.len(), "code_bytes": c.text.len(), "memory_bytes": c.memories.iter().sum::<u64>(),
    })
}

pub(super) fn info(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let [name] = words else { return Err(misused("info")) };
    let c = CellInfo::of(&*find(shell, name)?);
    let mut text = format!("cell {} ({}, version {})\n", c.name, kind(&c), c.version);
    if c.is_wasm || c.is_object {
        let (start, end) = (c.text.start, c.text.end);
        text +=
            &format!("  text     {start:#x}..{end:#x} ({}, {} functions)\n", size(c.text.len() as u64), c.functions);
        text += &format!("  image    {:#x}..{:#x}\n", c.image.start, c.image.end);
        text += &format!("  data     {}\n", size(c.data_bytes as u64));
    }
    if c.is_object {
        text += &format!("  symbols  {} (see `sym`)\n", c.symbols);
    }
    for (i, bytes) in c.memories.iter().enumerate() {
        text += &format!("  memory {i} {}\n", size(*bytes));
    }
    for (i, len) in c.tables.iter().enumerate() {
        text += &format!("  table {i}  {len} elements\n");
    }
    let mut section = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            text += &format!("  {title}\n");
            lines.iter().for_each(|l| text += &format!("    {l}\n"));
        }
    };
    section("exports", c.exports.iter().map(|(name, ty)| format!("{name}: {ty}")).collect());
    section("depends on", c.dependencies.iter().map(|d| d.symbol.to_string()).collect());
    section("used by", c.dependents.iter().map(|(cell, symbol)| format!("{cell} (through {symbol})")).collect());

    let exports: Vec<Value> =
        c.exports.iter().map(|(name, ty)| json!({ "name": name, "type": ty.to_string() })).collect();
    let dependencies: Vec<Value> = c
        .dependencies
        .iter()
        .map(|d| json!({ "cell": &*d.cell, "symbol": &*d.symbol, "offset": d.relocation.offset }))
        .collect();
    let dependents: Vec<Value> =
        c.dependents.iter().map(|(cell, symbol)| json!({ "cell": &**cell, "symbol": &**symbol })).collect();
    let json = json!({
        "cell": &*c.name, "kind": kind(&c), "version": c.version, "functions": c.functions,
        "text": { "start": c.text.start, "end": c.text.end }, "image": { "start": c.image.start, "end": c.image.end },
        "data_bytes": c.data_bytes, "symbols": c.symbols, "memories": c.memories, "tables": c.tables, "exports": exports,
        "dependencies": dependencies, "dependents": dependents,
    });
    Ok(Reply::new(text, json))
}
