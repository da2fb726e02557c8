//! Data-block offsets that a new version of a module inherits from the old one.
//!
//! Code addresses globals, records and slots by their offset in the data block, so an item that moves changes every
//! function that uses it. What corresponds to an item of the old version therefore keeps that item's offset; what is new
//! gets a gap or a place at the end. Imports correspond by name and type, memories and tables by index, globals by type
//! and initial value around what was inserted or taken out, escaped functions by name. A block that becomes much larger
//! than it needs to be is packed anew, once, and all offsets move.

use crate::abi;
use crate::error::CompileError;
use crate::layout;
use crate::metadata::{DataLayout, ExportItem, Import, Metadata};
use crate::types::ExternType;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;
use hashbrown::HashMap;

/// What became of the offsets of the old version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayoutChange {
    /// Items that have the offset that their counterpart has in the old version.
    pub inherited: u32,
    /// Items that have none there.
    pub added: u32,
    /// The block was packed anew: items have other offsets than before.
    pub packed: bool,
}

/// A block is packed anew when it is longer than twice what it needs and this many bytes.
const SLACK: u32 = 4096;

const SLOT: u32 = 8;

/// Lays out the data block of `meta` after that of `old`.
pub(crate) fn data_layout(meta: &Metadata, old: &Metadata) -> Result<(DataLayout, LayoutChange), CompileError> {
    let packed = layout::data_layout(meta)?;
    match Inherited::new(meta, old).place() {
        Some((layout, change)) if layout.size <= packed.size.saturating_mul(2).saturating_add(SLACK) => {
            Ok((layout, change))
        }
        _ => {
            let items = meta.memories.len() + meta.tables.len() + meta.globals.len();
            let slots = meta.imported_funcs.len() + meta.escaped_funcs.len() + meta.builtins.len();
            Ok((packed, LayoutChange { inherited: 0, added: (items + slots) as u32, packed: true }))
        }
    }
}

/// Offsets by item; `None` for those that have no counterpart.
struct Inherited {
    memories: Vec<Option<u32>>,
    tables: Vec<Option<u32>>,
    globals: Vec<Option<u32>>,
    imports: Vec<Option<u32>>,
    escaped: Vec<Option<u32>>,
    builtins: Option<u32>,
    builtin_count: u32,
}

impl Inherited {
    fn new(meta: &Metadata, old: &Metadata) -> Inherited {
        let by_index = |count: usize, offsets: &[u32]| (0..count).map(|i| offsets.get(i).copied()).collect();
        Inherited {
            memories: by_index(meta.memories.len(), &old.layout.memories),
            tables: by_index(meta.tables.len(), &old.layout.tables),
            globals: globals(meta, old),
            imports: imports(meta, old),
            escaped: escaped(meta, old),
            builtins: (meta.builtins == old.builtins).then_some(old.layout.builtin_slots),
            builtin_count: meta.builtins.len() as u32,
        }
    }

    /// Keeps what is inherited and places the rest. `None` if the old offsets overlap.
    fn place(self) -> Option<(DataLayout, LayoutChange)> {
        let mut taken: Vec<Range<u32>> = Vec::new();
        let mut take = |offsets: &[Option<u32>], size: u32| {
            taken.extend(offsets.iter().flatten().map(|o| *o..o.saturating_add(size)));
        };
        take(&self.memories, abi::RECORD_SIZE);
        take(&self.tables, abi::RECORD_SIZE);
        take(&self.globals, abi::GLOBAL_SIZE);
        take(&self.imports, SLOT);
        take(&self.escaped, SLOT);
        if self.builtin_count > 0 {
            take(&[self.builtins], SLOT * self.builtin_count);
        }
        taken.sort_unstable_by_key(|r| r.start);
        let sound = taken.windows(2).all(|w| w[0].end <= w[1].start)
            && taken.iter().all(|r| r.start >= abi::HEADER_SIZE && r.start.is_multiple_of(SLOT))
            && self.globals.iter().flatten().all(|o| o.is_multiple_of(abi::GLOBAL_SIZE));
        if !sound {
            return None;
        }
        let mut change = LayoutChange::default();
        let mut gaps = Gaps::new(&taken);
        let mut fill = |offsets: &[Option<u32>], size: u32| -> Box<[u32]> {
            let mut one = |offset: &Option<u32>| match offset {
                Some(offset) => {
                    change.inherited += 1;
                    *offset
                }
                None => {
                    change.added += 1;
                    gaps.place(size)
                }
            };
            offsets.iter().map(&mut one).collect()
        };
        let memories = fill(&self.memories, abi::RECORD_SIZE);
        let globals = fill(&self.globals, abi::GLOBAL_SIZE);
        let tables = fill(&self.tables, abi::RECORD_SIZE);
        let func_import_slots = fill(&self.imports, SLOT);
        let escaped_slots = fill(&self.escaped, SLOT);
        let builtin_slots = match (self.builtins, self.builtin_count) {
            // Without builtins the old place means nothing, and may lie behind the end.
            (_, 0) => abi::HEADER_SIZE,
            (Some(offset), _) => offset,
            (None, count) => fill(&[None], SLOT * count).first().copied()?,
        };
        let size = gaps.end;
        Some((DataLayout { size, func_import_slots, escaped_slots, builtin_slots, memories, tables, globals }, change))
    }
}

/// Free room in a block.
struct Gaps {
    /// Gaps, first one last, so that they are taken from the end.
    free: Vec<Range<u32>>,
    /// End of the block.
    end: u32,
}

impl Gaps {
    /// Between the ranges `taken`, which are sorted.
    fn new(taken: &[Range<u32>]) -> Gaps {
        let mut free = Vec::new();
        let mut end = abi::HEADER_SIZE;
        for range in taken {
            if range.start > end {
                free.push(end..range.start);
            }
            end = range.end;
        }
        free.reverse();
        Gaps { free, end }
    }

    /// Room for an item of `size` bytes, which is its alignment as well up to that of globals.
    fn place(&mut self, size: u32) -> u32 {
        let align = size.min(abi::GLOBAL_SIZE);
        // Small items first fill small gaps; those in front of a fitting gap stay for others.
        let fits = |g: &Range<u32>| g.start.next_multiple_of(align).saturating_add(size) <= g.end;
        // A few of the first gaps: what does not fit there goes to the end.
        let candidates = self.free.len().saturating_sub(CANDIDATES)..self.free.len();
        let found = candidates.rev().find(|i| self.free.get(*i).is_some_and(fits));
        let Some(i) = found else {
            let start = self.end.next_multiple_of(align);
            self.end = start.saturating_add(size);
            return start;
        };
        let gap = self.free[i].clone();
        let start = gap.start.next_multiple_of(align);
        let (before, behind) = (gap.start..start, start + size..gap.end);
        let rest = [behind, before].into_iter().filter(|r| !r.is_empty());
        self.free.splice(i..=i, rest);
        start
    }
}

/// Gaps that are looked at for an item.
const CANDIDATES: usize = 8;

/// Imported functions by both names and type; of several alike, in order.
fn imports(meta: &Metadata, old: &Metadata) -> Vec<Option<u32>> {
    let functions = |m: &'_ Metadata| -> Vec<usize> {
        let is_func = |(i, import): (usize, &Import)| matches!(import.ty, ExternType::Func(_)).then_some(i);
        m.imports.iter().enumerate().filter_map(is_func).collect()
    };
    let mut known: HashMap<(&str, &str), Vec<usize>> = HashMap::new();
    let old_functions = functions(old);
    for (k, i) in old_functions.iter().enumerate().rev() {
        known.entry((&old.imports[*i].module, &old.imports[*i].name)).or_default().push(k);
    }
    let counterpart = |i: &usize| {
        let import = &meta.imports[*i];
        let same_name = known.get_mut(&(&*import.module, &*import.name))?;
        let at = same_name.iter().rposition(|k| old.imports[old_functions[*k]].ty == import.ty)?;
        old.layout.func_import_slots.get(same_name.remove(at)).copied()
    };
    functions(meta).iter().map(counterpart).collect()
}

/// Imported globals by both names and type; defined ones by type and initial value from the front and from the back, those
/// in between by position.
fn globals(meta: &Metadata, old: &Metadata) -> Vec<Option<u32>> {
    let (imported, old_imported) = (meta.imported_globals as usize, old.imported_globals as usize);
    let mut offsets = vec_of_none(meta.globals.len());
    let imports = |m: &'_ Metadata| -> Vec<usize> {
        let is_global = |(i, import): (usize, &Import)| matches!(import.ty, ExternType::Global(_)).then_some(i);
        m.imports.iter().enumerate().filter_map(is_global).collect()
    };
    let mut free: Vec<Option<usize>> = imports(old).into_iter().map(Some).collect();
    for (offset, i) in offsets.iter_mut().zip(imports(meta)) {
        let same = |o: &Option<usize>| o.is_some_and(|o| old.imports[o] == meta.imports[i]);
        if let Some(k) = free.iter().position(same) {
            free[k] = None;
            *offset = old.layout.globals.get(k).copied();
        }
    }
    let new_defined = meta.globals.get(imported..).unwrap_or_default();
    let old_defined = old.globals.get(old_imported..).unwrap_or_default();
    let front = new_defined.iter().zip(old_defined).take_while(|(a, b)| a == b).count();
    let rest = new_defined.len().min(old_defined.len()) - front;
    let back = new_defined.iter().rev().zip(old_defined.iter().rev()).take(rest).take_while(|(a, b)| a == b).count();
    let (new_middle, old_middle) = (new_defined.len() - back, old_defined.len() - back);
    for i in 0..new_defined.len() {
        let counterpart = match i {
            i if i < front => Some(i),
            i if i >= new_middle => Some(i - new_middle + old_middle),
            i => Some(i).filter(|i| *i < old_middle),
        };
        offsets[imported + i] = counterpart.and_then(|k| old.layout.globals.get(old_imported + k).copied());
    }
    offsets
}

fn vec_of_none(len: usize) -> Vec<Option<u32>> {
    core::iter::repeat_n(None, len).collect()
}

/// Escaped functions by name (name section, else first export); those without by position among their like.
fn escaped(meta: &Metadata, old: &Metadata) -> Vec<Option<u32>> {
    let (names, old_names) = (names(meta), names(old));
    let mut named: HashMap<&str, u32> = HashMap::new();
    let mut nameless: Vec<u32> = Vec::new();
    for (name, slot) in old_names.into_iter().zip(&old.layout.escaped_slots) {
        match name {
            // Of two with one name, the first.
            Some(name) => _ = named.entry(name).or_insert(*slot),
            None => nameless.push(*slot),
        }
    }
    let mut nameless = nameless.into_iter();
    let counterpart = |name: Option<&str>| match name {
        Some(name) => named.remove(name),
        None => nameless.next(),
    };
    names.into_iter().map(counterpart).collect()
}

fn names(meta: &Metadata) -> Vec<Option<&str>> {
    let mut exported: HashMap<u32, &str> = HashMap::new();
    for export in &meta.exports {
        if let ExportItem::Func(index) = export.item {
            exported.entry(index).or_insert(&export.name);
        }
    }
    meta.escaped_funcs.iter().map(|f| meta.func_name(*f).or_else(|| exported.get(f).copied())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CompileOptions, Compiler, CompilerSettings};

    fn meta(wat: &str) -> Metadata {
        let compiler = Compiler::new(CompilerSettings::default()).unwrap();
        compiler.compile(&wat::parse_str(wat).unwrap(), &CompileOptions::default()).unwrap().metadata
    }

    #[test]
    fn equal_versions_have_equal_layouts() {
        let m = meta(
            r#"(module (import "a" "f" (func)) (import "a" "g" (global i32)) (memory 1) (table 3 funcref)
            (global (mut i32) (i32.const 1)) (global (mut i64) (i64.const 1)) (elem (i32.const 0) func 0 1) (func $x))"#,
        );
        let (layout, change) = data_layout(&m, &m).unwrap();
        assert_eq!(layout, m.layout);
        assert_eq!((change.added, change.packed), (0, false));
    }

    #[test]
    fn what_corresponds_keeps_its_offset_wherever_something_is_inserted() {
        let old = meta(
            r#"(module (import "a" "f" (func)) (import "a" "g" (func)) (memory 1) (table 3 funcref)
            (global (mut i32) (i32.const 1)) (global (mut i64) (i64.const 2))
            (elem (i32.const 0) func $x $y) (func $x) (func $y))"#,
        );
        let new = meta(
            r#"(module (import "a" "new" (func)) (import "a" "g" (func)) (import "a" "f" (func)) (memory 1)
            (table 3 funcref) (global (mut i32) (i32.const 1)) (global (mut f32) (f32.const 7))
            (global (mut i64) (i64.const 2)) (elem (i32.const 0) func $n $x $y) (func $n) (func $y) (func $x))"#,
        );
        let (layout, change) = data_layout(&new, &old).unwrap();
        let o = &old.layout;
        assert_eq!(layout.func_import_slots[1..], [o.func_import_slots[1], o.func_import_slots[0]]);
        assert_eq!([layout.globals[0], layout.globals[2]], *o.globals);
        assert_eq!((&layout.memories, &layout.tables), (&o.memories, &o.tables));
        assert_eq!(layout.escaped_slots[1..], [o.escaped_slots[1], o.escaped_slots[0]]);
        assert_eq!(layout.builtin_slots, o.builtin_slots);
        assert_eq!((change.added, change.packed), (3, false));
    }

    #[test]
    fn gaps_are_filled_and_nothing_overlaps() {
        let with = |globals: usize| {
            let globals = "(global (mut i32) (i32.const 1))".repeat(globals);
            meta(&std::format!("(module (memory 1) {globals} (table 1 funcref))"))
        };
        let mut old = with(9);
        for count in [2, 1, 5, 12, 3, 30, 30, 2, 9] {
            let mut new = with(count);
            let (layout, _) = data_layout(&new, &old).unwrap();
            let mut ranges: Vec<Range<u32>> = layout.globals.iter().map(|o| *o..o + 16).collect();
            ranges.extend(layout.memories.iter().chain(&layout.tables).map(|o| *o..o + 16));
            ranges.push(layout.builtin_slots..layout.builtin_slots + 8 * new.builtins.len() as u32);
            ranges.sort_unstable_by_key(|r| r.start);
            assert!(ranges.windows(2).all(|w| w[0].end <= w[1].start), "{ranges:?}");
            assert!(ranges.last().unwrap().end <= layout.size);
            new.layout = layout;
            old = new;
        }
    }

    #[test]
    fn a_block_of_little_but_gaps_is_packed() {
        let globals = "(global (mut i32) (i32.const 1))".repeat(2000);
        let old = meta(&std::format!("(module {globals} (table 1 funcref))"));
        let new = meta("(module (table 1 funcref))");
        let (layout, change) = data_layout(&new, &old).unwrap();
        assert!(change.packed);
        assert_eq!(layout, new.layout);
    }
}
