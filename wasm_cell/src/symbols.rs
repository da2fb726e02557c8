//! Symbols of the text section: one per function and trap stub, with a name that is unique in the object.

use crate::metadata::{ExportItem, Metadata};
use crate::object::Symbol;
use crate::trap::TrapCode;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use core::hash::BuildHasher;
use hashbrown::{DefaultHashBuilder, HashTable};

/// Names every defined function: from the name section, else its first export, else `wasm[N]`. The trap stubs, which
/// lie behind the functions, follow as `trap.` and the code: `stubs` gives code, offset and size, by offset.
pub(crate) fn symbols(meta: &Metadata, stubs: impl Iterator<Item = (TrapCode, u32, u32)>) -> Vec<Symbol> {
    let imported = meta.imported_funcs.len() as u32;
    let mut exported: Vec<Option<&str>> = vec![None; meta.funcs.len()];
    for export in &meta.exports {
        if let ExportItem::Func(index) = export.item
            && let Some(first) = index.checked_sub(imported).and_then(|i| exported.get_mut(i as usize))
        {
            first.get_or_insert(&export.name);
        }
    }
    let hasher = DefaultHashBuilder::default();
    let hash = |name: &str| hasher.hash_one(name);
    // Positions in `symbols`, by name.
    let mut taken: HashTable<u32> = HashTable::with_capacity(meta.funcs.len());
    let mut symbols: Vec<Symbol> = Vec::with_capacity(meta.funcs.len());
    let is_taken = |taken: &HashTable<u32>, symbols: &[Symbol], name: &str| {
        taken.find(hash(name), |i| symbols.get(*i as usize).is_some_and(|s| s.name == name)).is_some()
    };
    let mut names = meta.func_names.iter().peekable();
    for (i, func) in meta.funcs.iter().enumerate() {
        let index = imported + i as u32;
        while names.next_if(|(n, _)| *n < index).is_some() {}
        let own = names.next_if(|(n, _)| *n == index).map(|(_, name)| name);
        let export = exported.get(i).copied().flatten();
        let mut name = match own.or(export) {
            // A symbol table cannot hold an empty name or a NUL.
            Some(name) if !name.is_empty() && !name.contains('\0') => name.to_string(),
            _ => format!("wasm[{index}]"),
        };
        while is_taken(&taken, &symbols, &name) {
            name = format!("{name}[{index}]");
        }
        taken.insert_unique(hash(&name), i as u32, |i| symbols.get(*i as usize).map_or(0, |s| hash(&s.name)));
        symbols.push(Symbol { name, offset: func.offset, size: func.size, global: export.is_some() });
    }
    for (code, offset, size) in stubs {
        let mut name = format!("trap.{code:?}");
        while is_taken(&taken, &symbols, &name) {
            name.push('\'');
        }
        symbols.push(Symbol { name, offset, size, global: false });
    }
    symbols
}
