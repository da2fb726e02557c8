//! What differs between two versions of a module: for a person who is about to swap them.
//!
//! Functions correspond by export name, else by their name in the name section; those without a name by what they do, in
//! order. Two functions are the same when their bodies are, up to the numbers of functions and types, and name
//! corresponding functions. Everything else corresponds by name or by index.
//!
//! ```text
//! functions: 1 added, 1 changed, 212 unchanged
//!   + resize  (func (i32) -> (i32))
//!   ~ parse
//! ```
#![deny(unsafe_code)]

mod functions;
mod items;

use crate::code::CellModule;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

/// Differences of one kind of item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ItemDiff {
    /// What only the new version has, with its type or value.
    pub added: Vec<Item>,
    /// What only the old version has, with its type or value.
    pub removed: Vec<Item>,
    /// What both have, and not the same.
    pub changed: Vec<Change>,
    /// Number of those that are the same.
    pub unchanged: usize,
}

/// An item of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its name, or kind and index.
    pub name: String,
    /// Type or value.
    pub content: String,
}

/// An item that both versions have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name, or kind and index.
    pub name: String,
    /// What the old version has.
    pub from: String,
    /// What the new version has.
    pub to: String,
}

/// Differences of the functions that two versions define.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionDiff {
    /// Labels and types of those that only the new version has.
    pub added: Vec<Item>,
    /// Labels and types of those that only the old version has.
    pub removed: Vec<Item>,
    /// Labels of those of the same type whose bodies differ, or which call others than before.
    pub changed: Vec<String>,
    /// Those of another type.
    pub retyped: Vec<Change>,
    /// Number of those that are the same.
    pub unchanged: usize,
    /// Whether bodies could be compared. Object files of other systems say nothing about them; `changed` is empty then.
    pub bodies_compared: bool,
}

/// Differences between two versions of a module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModuleDiff {
    /// Functions that the versions define.
    pub functions: FunctionDiff,
    /// Imports, as `module.name`.
    pub imports: ItemDiff,
    /// Exports.
    pub exports: ItemDiff,
    /// Memories that the versions define.
    pub memories: ItemDiff,
    /// Tables that the versions define.
    pub tables: ItemDiff,
    /// Globals that the versions define, with their initial values.
    pub globals: ItemDiff,
    /// Data segments.
    pub data: ItemDiff,
    /// Element segments.
    pub elements: ItemDiff,
    /// The start function.
    pub start: ItemDiff,
}

impl ModuleDiff {
    /// Compares two versions.
    pub fn between(old: &Arc<CellModule>, new: &Arc<CellModule>) -> ModuleDiff {
        let pairs = functions::Pairs::of(old, new);
        ModuleDiff {
            functions: functions::compare(old, new, &pairs),
            imports: items::imports(old.metadata(), new.metadata()),
            exports: items::exports(old.metadata(), new.metadata()),
            memories: items::memories(old.metadata(), new.metadata()),
            tables: items::tables(old.metadata(), new.metadata()),
            globals: items::globals(old.metadata(), new.metadata(), &pairs),
            data: items::data(old, new),
            elements: items::elements(old.metadata(), new.metadata(), &pairs),
            start: items::start(old.metadata(), new.metadata(), &pairs),
        }
    }

    /// Whether the versions are the same, but for names and custom sections.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.kinds().all(|(_, diff)| diff.is_empty())
    }

    /// The differences but for those of functions, with the name of each kind.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, &ItemDiff)> {
        [
            ("imports", &self.imports),
            ("exports", &self.exports),
            ("memories", &self.memories),
            ("tables", &self.tables),
            ("globals", &self.globals),
            ("data segments", &self.data),
            ("element segments", &self.elements),
            ("start function", &self.start),
        ]
        .into_iter()
    }
}

impl ItemDiff {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl FunctionDiff {
    /// Whether nothing is known to differ.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.retyped.is_empty()
    }
}

/// `2 added, 1 changed, 7 unchanged`
fn counts(f: &mut fmt::Formatter<'_>, counts: &[(usize, &str)]) -> fmt::Result {
    let mut shown = counts.iter().filter(|(n, what)| *n > 0 || *what == "unchanged");
    if let Some((n, what)) = shown.next() {
        write!(f, "{n} {what}")?;
    }
    shown.try_for_each(|(n, what)| write!(f, ", {n} {what}"))?;
    writeln!(f)
}

impl fmt::Display for FunctionDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("functions: ")?;
        let numbers = [
            (self.added.len(), "added"),
            (self.removed.len(), "removed"),
            (self.changed.len(), "changed"),
            (self.retyped.len(), "retyped"),
            (self.unchanged, "unchanged"),
        ];
        counts(f, &numbers)?;
        if !self.bodies_compared {
            writeln!(f, "  (the bodies could not be compared)")?;
        }
        self.added.iter().try_for_each(|i| writeln!(f, "  + {}  {}", i.name, i.content))?;
        self.removed.iter().try_for_each(|i| writeln!(f, "  - {}  {}", i.name, i.content))?;
        self.changed.iter().try_for_each(|name| writeln!(f, "  ~ {name}"))?;
        self.retyped.iter().try_for_each(|c| writeln!(f, "  ! {}  {} → {}", c.name, c.from, c.to))
    }
}

impl fmt::Display for ItemDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [
            (self.added.len(), "added"),
            (self.removed.len(), "removed"),
            (self.changed.len(), "changed"),
            (self.unchanged, "unchanged"),
        ];
        counts(f, &numbers)?;
        self.added.iter().try_for_each(|i| writeln!(f, "  + {}  {}", i.name, i.content))?;
        self.removed.iter().try_for_each(|i| writeln!(f, "  - {}  {}", i.name, i.content))?;
        self.changed.iter().try_for_each(|c| writeln!(f, "  ~ {}  {} → {}", c.name, c.from, c.to))
    }
}

/// Only what differs; the functions always.
impl fmt::Display for ModuleDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.functions.fmt(f)?;
        for (kind, diff) in self.kinds().filter(|(_, diff)| !diff.is_empty()) {
            write!(f, "{kind}: {diff}")?;
        }
        Ok(())
    }
}
