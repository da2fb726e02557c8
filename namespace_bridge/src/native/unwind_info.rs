//! `.eh_frame` of a cell: the sections of the object put together, without the records of functions that are not loaded, and
//! terminated (LSB 5.0 Core, 10.6).
#![deny(unsafe_code)]

use super::error::NativeError;
use super::object::{Kind, NativeObject, Part, Relocation, SymbolPlace};
use alloc::{format, vec::Vec};
use hashbrown::HashMap;

/// The section before it is relocated.
#[derive(Debug, Default)]
pub(super) struct UnwindInfo {
    /// With terminator; empty when there is nothing to unwind.
    pub bytes: Vec<u8>,
    /// Offsets are those in `bytes`.
    pub relocations: Vec<Relocation>,
}

/// Alignment of the section: that of the pointers in it.
pub(super) const ALIGN: usize = 8;

/// Puts the object's sections together.
pub(super) fn rebuild(object: &NativeObject) -> Result<UnwindInfo, NativeError> {
    let mut info = UnwindInfo::default();
    for (index, _) in object.sections.iter().enumerate().filter(|(_, s)| s.kind == Kind::EhFrame) {
        append(object, index, &mut info)?;
    }
    if !info.bytes.is_empty() {
        info.bytes.extend([0; 4]);
    }
    Ok(info)
}

fn append(object: &NativeObject, index: usize, info: &mut UnwindInfo) -> Result<(), NativeError> {
    let bytes = object.section_bytes(index);
    let relocations = &object.sections[index].relocations;
    // Where the section's CIEs went.
    let mut cies: HashMap<usize, usize> = HashMap::new();
    let word = |at: usize| bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map(|b| u32::from_le_bytes(*b));
    let mut at = 0;
    while at < bytes.len() {
        let bad = |what: &str| NativeError::damaged(format!("unwind info at {at:#x}: {what}"));
        let length = word(at).ok_or_else(|| bad("a record leaves the section"))?;
        if length == 0 {
            at += 4;
            continue;
        }
        if length >= 0xffff_fff0 {
            return Err(bad("records of 64-bit length are not supported"));
        }
        let end = at + 4 + length as usize;
        let record = bytes.get(at..end).filter(|r| r.len() >= 8).ok_or_else(|| bad("a record leaves the section"))?;
        let id = word(at + 4).unwrap_or(0) as usize;
        let first = relocations.partition_point(|r| r.offset < at);
        let last = relocations.partition_point(|r| r.offset < end);
        let own = relocations.get(first..last).unwrap_or(&[]);
        let place = info.bytes.len();
        if id == 0 {
            cies.insert(at, place);
        } else {
            let cie = (at + 4).checked_sub(id).and_then(|cie| cies.get(&cie)).ok_or_else(|| bad("it has no CIE"))?;
            let begin = own.iter().find(|r| r.offset == at + 8).ok_or_else(|| bad("it describes no function"))?;
            if !describes_text(object, begin) {
                at = end;
                continue;
            }
            let distance = ((place + 4 - cie) as u32).to_le_bytes();
            info.bytes.extend_from_slice(&record[..4]);
            info.bytes.extend_from_slice(&distance);
            info.bytes.extend_from_slice(&record[8..]);
        }
        if id == 0 {
            info.bytes.extend_from_slice(record);
        }
        info.relocations.extend(own.iter().map(|r| Relocation { offset: r.offset - at + place, ..*r }));
        at = end;
    }
    Ok(())
}

/// Whether a relocation refers to code that is loaded.
fn describes_text(object: &NativeObject, relocation: &Relocation) -> bool {
    match object.symbols.get(relocation.symbol).map(|s| s.place) {
        Some(SymbolPlace::Section(section, _)) => {
            object.sections.get(section).is_some_and(|s| s.kind == Kind::Plain(Part::Text))
        }
        _ => false,
    }
}
