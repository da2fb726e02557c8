//! Checks an `.eh_frame` section before an unwinder trusts it.
//!
//! Unwinders walk a registered section without looking for its end other than the zero length word, and some abort or
//! read wild memory on a malformed one. This walk shows that the records tile the section, that every FDE belongs to a
//! CIE before it, and that it describes code of the registered text. (Format: LSB 5.0 Core, 10.6; DWARF 5, 6.4.)

use super::UnwindError;
use alloc::vec::Vec;
use core::ops::Range;

/// Pointer encodings (LSB 5.0 Core, 10.5): the format in the low half, the application in bits 4 to 6.
const DW_EH_PE_PCREL: u8 = 0x10;

/// Walks the whole section, mapped at `address`. `Malformed` names the offset of the offending record.
pub(super) fn check(section: &[u8], address: usize, text: &Range<usize>) -> Result<(), UnwindError> {
    let mut cies: Vec<(usize, u8)> = Vec::new();
    let mut offset = 0;
    loop {
        let malformed = UnwindError::Malformed(offset);
        let length = Reader { bytes: section, at: offset }.u32().ok_or(malformed)? as usize;
        if length == 0 {
            return Ok(());
        }
        let (start, end) = (offset + 4, offset.saturating_add(4).saturating_add(length));
        let bytes = section.get(..end).ok_or(malformed)?;
        let mut record = Reader { bytes, at: start };
        let id = record.u32().ok_or(malformed)? as usize;
        if id == 0 {
            let encoding = cie_pointer_encoding(&mut record).ok_or(malformed)?;
            cies.try_reserve(1).map_err(|_| UnwindError::OutOfMemory)?;
            cies.push((offset, encoding));
        } else {
            let cie = start.checked_sub(id).ok_or(malformed)?;
            let i = cies.binary_search_by_key(&cie, |c| c.0).map_err(|_| malformed)?;
            let code = fde_code(&mut record, cies[i].1, address).ok_or(malformed)?;
            if code.start < text.start || code.end > text.end {
                return Err(malformed);
            }
        }
        offset = end;
    }
}

/// Reads a CIE behind its id; returns how its FDEs encode code addresses.
fn cie_pointer_encoding(record: &mut Reader<'_>) -> Option<u8> {
    let version = record.u8()?;
    let augmentation = record.string()?;
    record.uleb()?; // code alignment
    record.uleb()?; // data alignment; signed, but of the same length
    match version {
        1 => u64::from(record.u8()?), // return address register
        3 => record.uleb()?,
        _ => return None,
    };
    let mut encoding = 0;
    let Some((b'z', rest)) = augmentation.split_first() else {
        return augmentation.is_empty().then_some(encoding);
    };
    let length = record.uleb()?;
    let end = record.at.checked_add(usize::try_from(length).ok()?).filter(|e| *e <= record.bytes.len())?;
    for letter in rest {
        match letter {
            b'R' => encoding = record.u8()?,
            b'L' => _ = record.u8()?,
            b'P' => {
                let personality = record.u8()?;
                record.pointer(personality)?;
            }
            b'S' | b'B' => {}
            _ => return None,
        }
    }
    (record.at <= end).then_some(encoding)
}

/// Reads the code range of an FDE behind its CIE pointer.
fn fde_code(record: &mut Reader<'_>, encoding: u8, address: usize) -> Option<Range<usize>> {
    let field = address.wrapping_add(record.at);
    let value = record.pointer(encoding)?;
    let start = match encoding & 0xf0 {
        0 => value,
        DW_EH_PE_PCREL => field.wrapping_add(value),
        _ => return None,
    };
    let length = record.pointer(encoding & 0x0f)?;
    Some(start..start.checked_add(length)?)
}

/// Reads bytes, never beyond the end.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let end = self.at.checked_add(N)?;
        let bytes = self.bytes.get(self.at..end)?.try_into().ok()?;
        self.at = end;
        Some(bytes)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(|b| b[0])
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn uleb(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// The bytes up to a zero, which is skipped.
    fn string(&mut self) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().position(|b| *b == 0)?;
        self.at += length + 1;
        Some(&rest[..length])
    }

    /// A number in the format of a pointer encoding; signed ones wrap.
    fn pointer(&mut self, encoding: u8) -> Option<usize> {
        Some(match encoding & 0x0f {
            0x00 | 0x04 | 0x0c => u64::from_le_bytes(self.take()?) as usize,
            0x02 => usize::from(u16::from_le_bytes(self.take()?)),
            0x03 => u32::from_le_bytes(self.take()?) as usize,
            0x0a => i16::from_le_bytes(self.take()?) as usize,
            0x0b => i32::from_le_bytes(self.take()?) as usize,
            _ => return None,
        })
    }
}
