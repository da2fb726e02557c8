//! What stable entries stand for, so that another version of a name can be put behind them.
//!
//! A function is known by its label: its first export name, else its name in the name section, else its index; and its
//! type. A later version is found by any of its names, so an entry keeps its meaning when exports are merged.
#![deny(unsafe_code)]

use alloc::{boxed::Box, format, string::String, sync::Arc, vec, vec::Vec};
use core::fmt;
use hashbrown::HashMap;
use wasm_cell::metadata::{ExportItem, Metadata};
use wasm_cell::types::TypeHash;

/// A function's name across versions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntryName {
    /// The name it is exported by.
    Export(Arc<str>),
    /// Its name in the name section; it is not exported.
    Internal(Arc<str>),
    /// Its index; it has no name.
    Index(u32),
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EntryName::Export(name) => f.write_str(name),
            EntryName::Internal(name) => write!(f, "${name}"),
            EntryName::Index(index) => write!(f, "wasm[{index}]"),
        }
    }
}

/// What an entry stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EntryLabel {
    /// The function's name.
    pub name: EntryName,
    /// Its type.
    pub ty: TypeHash,
}

/// The labels of a block of entries, and where the functions of a cell are found by name.
#[derive(Debug, Default)]
pub struct EntryLabels {
    of: Box<[Option<EntryLabel>]>,
    /// Further names of functions.
    aliases: Vec<(EntryLabel, usize)>,
    /// Positions of all labels, the first of each; empty if there are few.
    positions: HashMap<EntryLabel, u32>,
}

/// So many labels are looked through.
const FEW: usize = 8;

impl EntryLabels {
    /// Labels for entries in order. `None`: the entry belongs to somebody else (an imported function). `aliases` are
    /// further names of functions, with their position.
    pub fn new(
        labels: impl IntoIterator<Item = Option<EntryLabel>>,
        aliases: impl IntoIterator<Item = (EntryLabel, usize)>,
    ) -> Arc<EntryLabels> {
        let mut labels = EntryLabels {
            of: labels.into_iter().collect(),
            aliases: aliases.into_iter().collect(),
            positions: HashMap::new(),
        };
        let count = labels.of.len() + labels.aliases.len();
        if count > FEW {
            let mut positions = HashMap::with_capacity(count);
            for (label, k) in labels.positions() {
                positions.entry(label.clone()).or_insert(k as u32);
            }
            labels.positions = positions;
        }
        Arc::new(labels)
    }

    /// Labels with their positions; of equal ones the first counts.
    fn positions(&self) -> impl Iterator<Item = (&EntryLabel, usize)> {
        let own = self.of.iter().enumerate().filter_map(|(k, label)| Some((label.as_ref()?, k)));
        own.chain(self.aliases.iter().map(|(label, k)| (label, *k)))
    }

    /// Those of a module's escaped functions, in their order.
    pub(crate) fn of_module(m: &Metadata) -> Arc<EntryLabels> {
        let imported = m.imported_funcs.len();
        let mut first_export: Vec<Option<Arc<str>>> = vec![None; m.escaped_funcs.len()];
        let mut aliases = Vec::new();
        for export in &m.exports {
            let ExportItem::Func(f) = export.item else { continue };
            let name: Arc<str> = export.name.as_str().into();
            let (Ok(k), Some(ty)) = (m.escaped_funcs.binary_search(&f), m.func_type(f)) else { continue };
            match first_export.get_mut(k) {
                Some(first @ None) if (f as usize) >= imported => *first = Some(name),
                _ => aliases.push((EntryLabel { name: EntryName::Export(name), ty: ty.hash }, k)),
            }
        }
        let label = |(func, first): (&u32, Option<Arc<str>>)| {
            if (*func as usize) < imported {
                return None;
            }
            let name = match (first, m.func_name(*func)) {
                (Some(export), _) => EntryName::Export(export),
                (None, Some(name)) => EntryName::Internal(name.into()),
                (None, None) => EntryName::Index(*func),
            };
            Some(EntryLabel { name, ty: m.func_type(*func)?.hash })
        };
        EntryLabels::new(m.escaped_funcs.iter().zip(first_export).map(label), aliases)
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }

    /// What entry `k` stands for; `None` when it belongs to somebody else.
    pub fn get(&self, k: usize) -> Option<&EntryLabel> {
        self.of.get(k)?.as_ref()
    }

    /// Every entry's label, in order.
    pub fn iter(&self) -> impl Iterator<Item = Option<&EntryLabel>> {
        self.of.iter().map(Option::as_ref)
    }

    /// Position of the function of this label.
    pub fn position(&self, label: &EntryLabel) -> Option<usize> {
        if self.of.len() + self.aliases.len() <= FEW {
            return self.positions().find_map(|(l, k)| (l == label).then_some(k));
        }
        self.positions.get(label).map(|k| *k as usize)
    }

    /// Name of entry `k`, for people.
    pub(crate) fn name_of(&self, k: usize) -> String {
        self.get(k).map_or_else(|| format!("entry {k}"), |label| format!("{}", label.name))
    }
}
