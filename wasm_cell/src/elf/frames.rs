//! The records of an `.eh_frame` section (LSB 10.6.1): enough to relocate them and to know that they are sound.
//!
//! Only the form that cells use is accepted: 32-bit lengths, and `pc_begin` and the range as PC-relative 4-byte
//! values (`DW_EH_PE_pcrel | DW_EH_PE_sdata4`).

use alloc::{format, string::String, vec::Vec};

/// A frame description entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fde {
    /// Offset of its `pc_begin` field in the section; the length of the code follows in the next 4 bytes.
    pub pc_begin_field: u32,
    /// Value of that field: distance from the field to the code.
    pub pc_begin: i32,
    /// Bytes of code that it describes.
    pub pc_range: u32,
}

/// Bytes of a record of these fields with its length word, CIE and augmentation.
const SMALLEST_RECORD: usize = 20;

/// All FDEs of `section`, which may end with a terminator. The error says what is wrong at which offset.
pub fn fdes(section: &[u8]) -> Result<Vec<Fde>, String> {
    let mut fdes = Vec::with_capacity(section.len() / SMALLEST_RECORD);
    each_fde(section, |fde| {
        fdes.push(fde);
        Ok(())
    })?;
    Ok(fdes)
}

/// Shows the FDEs of `section` to `see`, one after the other. The error says what is wrong at which offset, or is that of `see`.
pub fn each_fde(section: &[u8], mut see: impl FnMut(Fde) -> Result<(), String>) -> Result<(), String> {
    let mut cies = Vec::new();
    let mut offset = 0;
    while offset < section.len() {
        let bad = |what: &str| format!("{what} in .eh_frame at {offset:#x}");
        let length = word(section, offset).ok_or_else(|| bad("truncated length"))? as usize;
        if length == 0 {
            break;
        }
        let start = offset + 4;
        let end = start.checked_add(length).filter(|end| *end <= section.len()).ok_or_else(|| bad("bad length"))?;
        let id = section.get(..end).and_then(|s| word(s, start)).ok_or_else(|| bad("truncated record"))?;
        if id == 0 {
            cies.push(offset);
        } else {
            start
                .checked_sub(id as usize)
                .filter(|cie| cies.binary_search(cie).is_ok())
                .ok_or_else(|| bad("reference to no CIE"))?;
            let field = start + 4;
            let at = |i| section.get(..end).and_then(|s| word(s, i)).ok_or_else(|| bad("truncated FDE"));
            see(Fde { pc_begin_field: field as u32, pc_begin: at(field)? as i32, pc_range: at(field + 4)? })?;
        }
        offset = end;
    }
    match section.get(offset..) {
        Some([] | [0, 0, 0, 0]) => Ok(()),
        _ => Err(format!("records after the terminator of .eh_frame at {offset:#x}")),
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}
