//! Which function of one version is which of the other, and whether it is the same.

use super::{Change, FunctionDiff, Item};
use crate::code::CellModule;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use hashbrown::HashMap;
use wasm_cell::metadata::{ExportItem, Metadata};
use wasm_cell::types::ExternType;

/// Corresponding functions, by function index.
pub(super) struct Pairs {
    new_of_old: Vec<Option<u32>>,
    old_of_new: Vec<Option<u32>>,
}

impl Pairs {
    pub fn of(old: &CellModule, new: &CellModule) -> Pairs {
        let (old_meta, new_meta) = (old.metadata(), new.metadata());
        let mut pairs =
            Pairs { new_of_old: vec![None; old_meta.func_count()], old_of_new: vec![None; new_meta.func_count()] };
        pairs.imports(old_meta, new_meta);
        pairs.by_name(&export_names(old_meta), &export_names(new_meta));
        pairs.by_name(&section_names(old_meta), &section_names(new_meta));
        pairs.by_content(old, new);
        pairs
    }

    /// The function of the new version that corresponds to one of the old.
    pub fn new_of(&self, old: u32) -> Option<u32> {
        self.new_of_old.get(old as usize).copied().flatten()
    }

    fn old_of(&self, new: u32) -> Option<u32> {
        self.old_of_new.get(new as usize).copied().flatten()
    }

    fn add(&mut self, old: u32, new: u32) {
        let free = self.new_of(old).is_none() && self.old_of(new).is_none();
        if let (true, Some(n), Some(o)) =
            (free, self.new_of_old.get_mut(old as usize), self.old_of_new.get_mut(new as usize))
        {
            (*n, *o) = (Some(new), Some(old));
        }
    }

    fn imports(&mut self, old: &Metadata, new: &Metadata) {
        let list = |m: &Metadata| -> Vec<(String, String)> {
            let funcs = m.imports.iter().filter(|i| matches!(i.ty, ExternType::Func(_)));
            funcs.map(|i| (i.module.clone(), i.name.clone())).collect()
        };
        let mut known: HashMap<(String, String), Vec<u32>> = HashMap::new();
        for (i, name) in list(old).into_iter().enumerate().rev() {
            known.entry(name).or_default().push(i as u32);
        }
        for (i, name) in list(new).into_iter().enumerate() {
            if let Some(old) = known.get_mut(&name).and_then(Vec::pop) {
                self.add(old, i as u32);
            }
        }
    }

    /// Pairs defined functions whose names are unique on each side.
    fn by_name(&mut self, old: &[(String, u32)], new: &[(String, u32)]) {
        let unique = |list: &[(String, u32)]| {
            let mut names: HashMap<String, Option<u32>> = HashMap::new();
            for (name, index) in list {
                names.entry(name.clone()).and_modify(|i| *i = i.filter(|i| i == index)).or_insert(Some(*index));
            }
            names
        };
        let known = unique(old);
        for (name, index) in unique(new) {
            if let (Some(Some(old)), Some(new)) = (known.get(&name), index) {
                self.add(*old, new);
            }
        }
    }

    /// Pairs what is left, in order: first equal bodies, then, between two pairs, those of equal type.
    fn by_content(&mut self, old: &CellModule, new: &CellModule) {
        let (old_meta, new_meta) = (old.metadata(), new.metadata());
        let first = |m: &Metadata| m.imported_funcs.len() as u32;
        // What has another name on the other side is another function.
        let nameless = |m: &Metadata, i: u32| label_name(m, i).is_none();
        let left = |paired: &[Option<u32>], m: &Metadata| -> Vec<u32> {
            (first(m)..m.func_count() as u32)
                .filter(|i| paired.get(*i as usize) == Some(&None) && nameless(m, *i))
                .collect()
        };
        let shape = |m: &CellModule, i: u32| m.reuse_table().shape((i - first(m.metadata())) as usize);
        let mut known: HashMap<[u8; 16], Vec<u32>> = HashMap::new();
        for i in left(&self.new_of_old, old_meta).into_iter().rev() {
            if let Some(shape) = shape(old, i) {
                known.entry(shape).or_default().push(i);
            }
        }
        for i in left(&self.old_of_new, new_meta) {
            let equal = shape(new, i).and_then(|s| known.get_mut(&s)).and_then(Vec::pop);
            if let Some(old) = equal {
                self.add(old, i);
            }
        }
        let old_left = left(&self.new_of_old, old_meta);
        let new_left = left(&self.old_of_new, new_meta);
        // The pair before each function tells between which two it lies.
        let mut before: HashMap<Option<u32>, Vec<u32>> = HashMap::new();
        let mut pair = None;
        let mut rest = old_left.iter().peekable();
        for i in first(old_meta)..old_meta.func_count() as u32 {
            match self.new_of(i) {
                Some(new) => pair = Some(new),
                None if rest.next_if_eq(&&i).is_some() => before.entry(pair).or_default().push(i),
                None => {}
            }
        }
        let (mut pair, mut rest) = (None, new_left.iter().peekable());
        for i in first(new_meta)..new_meta.func_count() as u32 {
            if self.old_of(i).is_some() {
                pair = Some(i);
            } else if rest.next_if_eq(&&i).is_some()
                && let Some(candidates) = before.get_mut(&pair)
                && let Some(at) = candidates.iter().position(|o| old_meta.func_type(*o) == new_meta.func_type(i))
            {
                let old = candidates.remove(at);
                self.add(old, i);
            }
        }
    }
}

/// Exported names of defined functions, in the order of the exports.
fn export_names(m: &Metadata) -> Vec<(String, u32)> {
    let imported = m.imported_funcs.len() as u32;
    let func = |item: &ExportItem| match item {
        ExportItem::Func(i) if *i >= imported => Some(*i),
        _ => None,
    };
    m.exports.iter().filter_map(|e| Some((e.name.clone(), func(&e.item)?))).collect()
}

/// Names of defined functions in the name section.
fn section_names(m: &Metadata) -> Vec<(String, u32)> {
    let imported = m.imported_funcs.len() as u32;
    let named = m.func_names.iter().filter(|(i, _)| *i >= imported);
    named.map(|(i, name)| (name.to_string(), i)).collect()
}

fn label_name(m: &Metadata, index: u32) -> Option<&str> {
    let exported = || m.exports.iter().find(|e| e.item == ExportItem::Func(index)).map(|e| &*e.name);
    // Names first: looking through exports takes long for modules with many.
    m.func_name(index).or_else(exported)
}

/// What people call a function: export name, else name section, else its number.
pub(super) fn label(m: &Metadata, index: u32) -> String {
    let exported = m.exports.iter().find(|e| e.item == ExportItem::Func(index)).map(|e| &*e.name);
    match exported.or_else(|| m.func_name(index)) {
        Some(name) => name.to_string(),
        None => format!("function {index}"),
    }
}

fn type_text(m: &Metadata, index: u32) -> String {
    m.func_type(index).map(|t| format!("func {t}")).unwrap_or_default()
}

/// Whether corresponding functions do the same.
fn same_body(old: &CellModule, new: &CellModule, o: u32, n: u32, pairs: &Pairs) -> Option<bool> {
    let defined = |m: &CellModule, i: u32| (i as usize).checked_sub(m.metadata().imported_funcs.len());
    let (i, k) = (defined(old, o)?, defined(new, n)?);
    let (a, b) = (old.reuse_table(), new.reuse_table());
    if a.shape(i)? != b.shape(k)? {
        return Some(false);
    }
    let (from, to) = (a.named_functions(i), b.named_functions(k));
    Some(from.len() == to.len() && from.iter().zip(&to).all(|(f, t)| pairs.new_of(*f) == Some(*t)))
}

pub(super) fn compare(old: &CellModule, new: &CellModule, pairs: &Pairs) -> FunctionDiff {
    let (old_meta, new_meta) = (old.metadata(), new.metadata());
    let compared = |m: &CellModule| m.reuse_table().len() == m.metadata().funcs.len();
    let mut diff = FunctionDiff { bodies_compared: compared(old) && compared(new), ..FunctionDiff::default() };
    let item = |m: &Metadata, i: u32| Item { name: label(m, i), content: type_text(m, i) };
    let defined = |m: &Metadata| m.imported_funcs.len() as u32..m.func_count() as u32;
    for o in defined(old_meta) {
        if pairs.new_of(o).is_none_or(|n| (n as usize) < new_meta.imported_funcs.len()) {
            diff.removed.push(item(old_meta, o));
        }
    }
    for n in defined(new_meta) {
        let Some(o) = pairs.old_of(n).filter(|o| *o as usize >= old_meta.imported_funcs.len()) else {
            diff.added.push(item(new_meta, n));
            continue;
        };
        if old_meta.func_type(o) != new_meta.func_type(n) {
            let (from, to) = (type_text(old_meta, o), type_text(new_meta, n));
            diff.retyped.push(Change { name: label(new_meta, n), from, to });
        } else if same_body(old, new, o, n, pairs) == Some(false) {
            diff.changed.push(label(new_meta, n));
        } else {
            diff.unchanged += 1;
        }
    }
    diff
}
