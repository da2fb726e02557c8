//! Imports, exports, memories, tables, globals and segments of two versions.

use super::functions::{Pairs, label};
use super::{Change, Item, ItemDiff};
use crate::code::CellModule;
use crate::old_code::OldCode;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use hashbrown::HashMap;
use wasm_cell::metadata::{ConstExpr, ConstOp, ElementItems, ElementMode, Export, ExportItem, Metadata};
use wasm_cell::types::ExternType;

/// Compares items by name; of several with one name, in order. `same` says whether two with equal texts are.
fn by_name(old: Vec<Item>, new: Vec<Item>, same: impl Fn(usize, usize) -> bool) -> ItemDiff {
    let mut known: HashMap<&str, Vec<usize>> = HashMap::new();
    for (i, item) in old.iter().enumerate().rev() {
        known.entry(&item.name).or_default().push(i);
    }
    let mut diff = ItemDiff::default();
    let mut kept: Vec<usize> = Vec::new();
    for (k, item) in new.iter().enumerate() {
        let Some(i) = known.get_mut(&*item.name).and_then(Vec::pop) else {
            diff.added.push(item.clone());
            continue;
        };
        kept.push(i);
        if old[i].content == item.content && same(i, k) {
            diff.unchanged += 1;
        } else {
            let (from, to) = (old[i].content.clone(), item.content.clone());
            diff.changed.push(Change { name: item.name.clone(), from, to });
        }
    }
    kept.sort_unstable();
    let gone = |(i, item): (usize, &Item)| kept.binary_search(&i).is_err().then(|| item.clone());
    diff.removed = old.iter().enumerate().filter_map(gone).collect();
    diff
}

pub(super) fn imports(old: &Metadata, new: &Metadata) -> ItemDiff {
    let list = |m: &Metadata| -> Vec<Item> {
        let item = |i: &wasm_cell::metadata::Import| Item {
            name: format!("{}.{}", i.module, i.name),
            content: i.ty.to_string(),
        };
        m.imports.iter().map(item).collect()
    };
    by_name(list(old), list(new), |_, _| true)
}

fn item_type(m: &Metadata, item: ExportItem) -> Option<ExternType> {
    Some(match item {
        ExportItem::Func(i) => ExternType::Func(m.func_type(i)?.clone()),
        ExportItem::Table(i) => ExternType::Table(m.tables.get(i as usize)?.ty),
        ExportItem::Memory(i) => ExternType::Memory(m.memories.get(i as usize)?.ty),
        ExportItem::Global(i) => ExternType::Global(m.globals.get(i as usize)?.ty),
    })
}

pub(super) fn exports(old: &Metadata, new: &Metadata) -> ItemDiff {
    let list = |m: &Metadata| -> Vec<Item> {
        let text = |e: &Export| item_type(m, e.item).map(|t| t.to_string()).unwrap_or_default();
        m.exports.iter().map(|e| Item { name: e.name.clone(), content: text(e) }).collect()
    };
    by_name(list(old), list(new), |_, _| true)
}

/// Export name, else kind and index.
fn name_of(m: &Metadata, item: ExportItem, kind: &str, index: usize) -> String {
    let exported = m.exports.iter().find(|e| e.item == item);
    exported.map_or_else(|| format!("{kind} {index}"), |e| e.name.clone())
}

/// Defined items of a kind.
fn defined(m: &Metadata, kind: &str, range: core::ops::Range<usize>, item: fn(u32) -> ExportItem) -> Vec<Item> {
    let one = |i: usize| {
        let item = item(i as u32);
        let content = item_type(m, item).map(|t| t.to_string()).unwrap_or_default();
        Item { name: name_of(m, item, kind, i), content }
    };
    range.map(one).collect()
}

pub(super) fn memories(old: &Metadata, new: &Metadata) -> ItemDiff {
    let list = |m: &Metadata| defined(m, "memory", m.imported_memories as usize..m.memories.len(), ExportItem::Memory);
    by_name(list(old), list(new), |_, _| true)
}

pub(super) fn tables(old: &Metadata, new: &Metadata) -> ItemDiff {
    let list = |m: &Metadata| defined(m, "table", m.imported_tables as usize..m.tables.len(), ExportItem::Table);
    by_name(list(old), list(new), |_, _| true)
}

pub(super) fn globals(old: &Metadata, new: &Metadata, pairs: &Pairs) -> ItemDiff {
    let list = |m: &Metadata| -> Vec<Item> {
        let first = m.imported_globals as usize;
        let mut items = defined(m, "global", first..m.globals.len(), ExportItem::Global);
        for (item, global) in items.iter_mut().zip(m.globals.iter().skip(first)) {
            if let Some(init) = &global.init {
                item.content = format!("{} = {}", item.content, expression(m, init));
            }
        }
        items
    };
    let init = |m: &Metadata, i: usize| m.globals.get(m.imported_globals as usize + i).and_then(|g| g.init.clone());
    by_name(list(old), list(new), |i, k| match (init(old, i), init(new, k)) {
        (Some(a), Some(b)) => same_expression(&a, &b, pairs),
        (a, b) => a.is_none() && b.is_none(),
    })
}

/// Whether two expressions have the same value, as far as that is known: function indices correspond.
fn same_expression(old: &ConstExpr, new: &ConstExpr, pairs: &Pairs) -> bool {
    old.0.len() == new.0.len()
        && old.0.iter().zip(&new.0).all(|(a, b)| match (a, b) {
            (ConstOp::RefFunc(f), ConstOp::RefFunc(g)) => pairs.new_of(*f) == Some(*g),
            (a, b) => a == b,
        })
}

/// An expression as people write it.
fn expression(m: &Metadata, expr: &ConstExpr) -> String {
    let op = |op: &ConstOp| match op {
        ConstOp::I32Const(n) => n.to_string(),
        ConstOp::I64Const(n) => n.to_string(),
        ConstOp::F32Const(bits) => f32::from_bits(*bits).to_string(),
        ConstOp::F64Const(bits) => f64::from_bits(*bits).to_string(),
        ConstOp::V128Const(bytes) => format!("{:#034x}", u128::from_le_bytes(*bytes)),
        ConstOp::GlobalGet(i) => format!("global {i}"),
        ConstOp::RefNull => "null".to_string(),
        ConstOp::RefFunc(f) => label(m, *f),
        ConstOp::I32Add | ConstOp::I64Add => "+".to_string(),
        ConstOp::I32Sub | ConstOp::I64Sub => "-".to_string(),
        ConstOp::I32Mul | ConstOp::I64Mul => "*".to_string(),
    };
    let words: Vec<String> = expr.0.iter().map(op).collect();
    words.join(" ")
}

pub(super) fn data(old: &Arc<CellModule>, new: &Arc<CellModule>) -> ItemDiff {
    let list = |m: &Metadata| -> Vec<Item> {
        let segments = m.data.iter().enumerate();
        let text = |segment: &wasm_cell::metadata::DataSegment| match &segment.active {
            Some((memory, offset)) => {
                format!("{} bytes at {} of memory {memory}", segment.size, expression(m, offset))
            }
            None => format!("{} bytes, passive", segment.size),
        };
        segments.map(|(i, s)| Item { name: format!("data {i}"), content: text(s) }).collect()
    };
    // Without the contents, what looks the same counts as different.
    let contents = OldCode::map(old).ok().zip(OldCode::map(new).ok());
    let same = |i: usize, k: usize| {
        contents.as_ref().is_some_and(|(a, b)| a.segment(i).is_some_and(|bytes| b.segment(k) == Some(bytes)))
    };
    let mut diff = by_name(list(old.metadata()), list(new.metadata()), same);
    // Equal texts on both sides say nothing.
    for change in diff.changed.iter_mut().filter(|c| c.from == c.to) {
        change.to = "other contents".to_string();
    }
    diff
}

pub(super) fn elements(old: &Metadata, new: &Metadata, pairs: &Pairs) -> ItemDiff {
    let count = |items: &ElementItems| match items {
        ElementItems::Funcs(f) => f.len(),
        ElementItems::Exprs(e) => e.len(),
    };
    let list = |m: &Metadata| -> Vec<Item> {
        let text = |segment: &wasm_cell::metadata::ElementSegment| {
            let n = count(&segment.items);
            match &segment.mode {
                ElementMode::Active(table, offset) => {
                    format!("{n} elements at {} of table {table}", expression(m, offset))
                }
                ElementMode::Passive => format!("{n} elements, passive"),
                ElementMode::Declared => format!("{n} elements, declared"),
            }
        };
        m.elements.iter().enumerate().map(|(i, s)| Item { name: format!("elements {i}"), content: text(s) }).collect()
    };
    let same = |i: usize, k: usize| {
        let (Some(a), Some(b)) = (old.elements.get(i), new.elements.get(k)) else { return false };
        a.ty == b.ty
            && match (&a.items, &b.items) {
                (ElementItems::Funcs(a), ElementItems::Funcs(b)) => {
                    a.len() == b.len() && a.iter().zip(b).all(|(f, g)| pairs.new_of(*f) == Some(*g))
                }
                (ElementItems::Exprs(a), ElementItems::Exprs(b)) => {
                    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_expression(a, b, pairs))
                }
                _ => false,
            }
    };
    let mut diff = by_name(list(old), list(new), same);
    for change in diff.changed.iter_mut().filter(|c| c.from == c.to) {
        change.to = "other functions".to_string();
    }
    diff
}

pub(super) fn start(old: &Metadata, new: &Metadata, pairs: &Pairs) -> ItemDiff {
    let list = |m: &Metadata| -> Vec<Item> {
        let item = |f: u32| Item { name: "start".to_string(), content: label(m, f) };
        m.start.map(item).into_iter().collect()
    };
    by_name(list(old), list(new), |_, _| old.start.and_then(|f| pairs.new_of(f)) == new.start)
}
