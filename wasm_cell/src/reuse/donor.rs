//! The old version as a source of machine code.

use super::{OldVersion, ReuseTable};
use crate::elf::frames;
use crate::function::FunctionCode;
use crate::metadata::{AddressMapping, Metadata};
use crate::trap::TrapSite;
use alloc::vec::Vec;
use core::ops::Range;
use hashbrown::HashMap;

/// Bytes of an FDE between its `pc_begin` field and its instructions: the field, the range, no augmentation data.
const FDE_HEAD: usize = 4 + 4 + 1;

/// An old version that was looked at: where the rows of each function are, and which function has a key.
pub(crate) struct Donor<'a> {
    old: OldVersion<'a>,
    /// Per function, its unwind rows in `old.eh_frame`.
    rows: Vec<Range<usize>>,
    by_key: Option<HashMap<[u8; 32], u32>>,
    /// How far the last function found lies from its place in the new version.
    distance: isize,
}

impl<'a> Donor<'a> {
    /// `None` if the parts of `old` do not fit each other: then there is nothing to take over.
    pub fn new(old: OldVersion<'a>) -> Option<Donor<'a>> {
        let funcs = &old.metadata.funcs;
        if old.reuse.len() != funcs.len() {
            return None;
        }
        let fdes = frames::fdes(old.eh_frame).ok()?;
        let mut rows = Vec::with_capacity(funcs.len());
        for (func, fde) in funcs.iter().zip(&fdes) {
            let field = fde.pc_begin_field as usize;
            let length = old.eh_frame.get(field.checked_sub(8)?..field - 4)?;
            let length = u32::from_le_bytes(length.try_into().ok()?) as usize;
            let range = field + FDE_HEAD..field.checked_sub(4)?.checked_add(length)?;
            if fde.pc_range != func.size || old.eh_frame.get(range.clone()).is_none() {
                return None;
            }
            rows.push(range);
        }
        (rows.len() == funcs.len()).then_some(Donor { old, rows, by_key: None, distance: 0 })
    }

    /// The old function with this key, by position among the defined ones. `near`: position of the new one.
    pub fn find(&mut self, key: &[u8; 32], near: usize) -> Option<usize> {
        let table = self.old.reuse;
        // Most functions keep their neighbours.
        let expected = near.checked_add_signed(self.distance);
        if let Some(i) = expected.filter(|i| table.key(*i).as_ref() == Some(key)) {
            return Some(i);
        }
        let by_key = self.by_key.get_or_insert_with(|| index(table));
        let i = *by_key.get(key)? as usize;
        self.distance = i as isize - near as isize;
        Some(i)
    }

    /// Takes over the code of an old function for `function` of the new version `new`, which names `callees`. `None` if the old version is not
    /// sound there.
    pub fn copy(&self, i: usize, callees: &[u32], new: &Metadata, function: u32, out: &mut FunctionCode) -> Option<()> {
        let meta = self.old.metadata;
        let func = meta.funcs.get(i)?;
        let body = |m: &Metadata, index: u32| {
            Some(m.funcs.get((index as usize).checked_sub(m.imported_funcs.len())?)?.wasm_offset)
        };
        let wasm_offset = body(new, function)?;
        out.clear();
        out.placement = self.old.reuse.placement(i)?;
        let end = func.offset.checked_add(func.size)?;
        out.code.extend_from_slice(self.old.text.get(func.offset as usize..end as usize)?);
        self.old.reuse.references(i, callees, &mut out.references)?;
        if out.references.iter().any(|r| u64::from(r.offset) + 4 > func.size.into()) {
            return None;
        }
        // A row without a place in the module has offset 0, which lies before every body.
        let moved = |offset: u32| match offset.checked_sub(func.wasm_offset) {
            Some(inside) => wasm_offset.wrapping_add(inside),
            None => offset,
        };
        let rows = addresses(&meta.inlined, func.offset, end);
        let old_callees = if rows.is_empty() { Vec::new() } else { self.old.reuse.callees(i)? };
        // What stands in place of a call moves with the body that it comes from.
        let own = (i + meta.imported_funcs.len()) as u32;
        let place = |offset: u32| -> Option<u32> {
            let Some(of) = meta.func_of(offset).filter(|of| *of != own && !rows.is_empty()) else {
                return Some(moved(offset));
            };
            let ordinal = old_callees.iter().position(|f| *f == of)?;
            Some(body(new, *callees.get(ordinal)?)?.wrapping_add(offset - body(meta, of)?))
        };
        for t in traps(meta, func.offset, end) {
            let wasm_offset = place(t.wasm_offset)?;
            out.traps.push(TrapSite { code_offset: t.code_offset - func.offset, wasm_offset, code: t.code });
        }
        for a in addresses(&meta.addresses, func.offset, end) {
            let wasm_offset = place(a.wasm_offset)?;
            out.addresses.push(AddressMapping { code_offset: a.code_offset - func.offset, wasm_offset });
        }
        out.inlined.extend(rows.iter().map(|row| AddressMapping {
            code_offset: row.code_offset - func.offset,
            wasm_offset: moved(row.wasm_offset),
        }));
        out.rows.extend_from_slice(self.old.eh_frame.get(self.rows.get(i)?.clone())?);
        Some(())
    }
}

/// Where each key is. Of functions with equal keys any will do.
fn index(table: &ReuseTable) -> HashMap<[u8; 32], u32> {
    (0..table.len()).filter_map(|i| Some((table.key(i)?, i as u32))).collect()
}

/// Rows of the trap table for `start..=end`: a return address may lie right behind the last instruction, and the next
/// function's type id lies between that and its code.
fn traps(meta: &Metadata, start: u32, end: u32) -> &[TrapSite] {
    let sites = &meta.traps.sites;
    let from = sites.partition_point(|t| t.code_offset < start);
    let to = sites.partition_point(|t| t.code_offset <= end);
    sites.get(from..to).unwrap_or_default()
}

/// The same of a table of addresses.
fn addresses(rows: &[AddressMapping], start: u32, end: u32) -> &[AddressMapping] {
    let from = rows.partition_point(|a| a.code_offset < start);
    let to = rows.partition_point(|a| a.code_offset <= end);
    rows.get(from..to).unwrap_or_default()
}
