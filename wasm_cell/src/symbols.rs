//! Symbols of the text section: one per function and trap stub, with a name that is unique in the object.

use crate::metadata::{ExportItem, Metadata};
use crate::object::Symbol;
use crate::trap::TrapCode;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use hashbrown::{HashMap, HashSet};

/// Names every defined function: from the name section, else its first export, else `wasm[N]`. The trap stubs, which
/// lie behind the functions, follow as `trap.` and the code: `stubs` gives code, offset and size, by offset.
pub(crate) fn symbols(meta: &Metadata, stubs: impl Iterator<Item = (TrapCode, u32, u32)>) -> Vec<Symbol> {
    let mut exported: HashMap<u32, &str> = HashMap::new();
    for export in &meta.exports {
        if let ExportItem::Func(index) = export.item {
            exported.entry(index).or_insert(&export.name);
        }
    }
    let imported = meta.imported_funcs.len() as u32;
    let mut taken: HashSet<String> = HashSet::with_capacity(meta.funcs.len());
    let mut symbols = Vec::with_capacity(meta.funcs.len());
    let mut names = meta.func_names.iter().peekable();
    for (i, func) in meta.funcs.iter().enumerate() {
        let index = imported + i as u32;
        while names.next_if(|(n, _)| *n < index).is_some() {}
        let own = names.next_if(|(n, _)| *n == index).map(|(_, name)| name);
        let export = exported.get(&index).copied();
        let mut name = match own.or(export) {
            // A symbol table cannot hold an empty name or a NUL.
            Some(name) if !name.is_empty() && !name.contains('\0') => name.to_string(),
            _ => format!("wasm[{index}]"),
        };
        while taken.contains(&name) {
            name = format!("{name}[{index}]");
        }
        taken.insert(name.clone());
        symbols.push(Symbol { name, offset: func.offset, size: func.size, global: export.is_some() });
    }
    for (code, offset, size) in stubs {
        let mut name = format!("trap.{code:?}");
        while taken.contains(&name) {
            name.push('\'');
        }
        symbols.push(Symbol { name, offset, size, global: false });
    }
    symbols
}
