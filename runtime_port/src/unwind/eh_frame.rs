//! Records of an `.eh_frame` section.
//!
//! [`Record`] parses the FDE at an offset together with its CIE. [`index`] walks a section before anybody trusts it: it shows
//! that the records tile the section and that every FDE belongs to a CIE before it and describes code of the registered
//! text; its product, which [`UnwindTable`](super::UnwindTable) keeps, is sorted by address and has a sum of each record, so that
//! what is damaged later is noticed when it is used. (Format: LSB 5.0 Core, 10.6; DWARF 5, 6.4.)

use super::UnwindError;
use super::reader::{Reader, encoding};
use alloc::vec::Vec;
use core::ops::Range;

/// Common information: what the FDEs of a compilation unit share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cie<'a> {
    pub code_align: u64,
    pub data_align: i64,
    pub(super) initial: Reader<'a>,
    /// Address of the personality routine or, if `personality_is_indirect`, of the pointer to it; 0 without.
    pub personality: usize,
    pub personality_is_indirect: bool,
    pub lsda_encoding: u8,
    pub fde_encoding: u8,
    pub is_signal_frame: bool,
    has_augmentation: bool,
}

/// Return address column of x86-64 (System V psABI, figure 3.36).
pub(super) const RETURN_ADDRESS: u64 = 16;

/// One function's unwind info.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record<'a> {
    pub(super) cie: Cie<'a>,
    /// First address of the function.
    pub start: usize,
    /// Bytes of code.
    pub length: usize,
    /// Address of the language-specific data; 0 without.
    pub lsda: usize,
    pub(super) program: Reader<'a>,
    /// Offsets of both records, without their length words.
    cie_bytes: (usize, usize),
    fde_bytes: (usize, usize),
}

/// A record's place and what follows its length word: offset behind the id, id, end.
fn frame<'a>(section: Reader<'a>, offset: usize) -> Option<(Reader<'a>, usize, u32, usize)> {
    let mut r = Reader::at_offset(section, offset);
    let length = r.u32()? as usize;
    let start = r.at();
    let end = start.checked_add(length)?;
    let mut r = r.until(end)?;
    let id = r.u32()?;
    Some((r, start, id, end))
}

impl<'a> Cie<'a> {
    /// Parses the CIE at this offset.
    fn parse(section: Reader<'a>, offset: usize, bases: usize) -> Option<(Cie<'a>, (usize, usize))> {
        let (mut r, start, id, end) = frame(section, offset)?;
        if id != 0 {
            return None;
        }
        let version = r.u8()?;
        let augmentation = r.string()?;
        let code_align = r.uleb()?;
        let data_align = r.sleb()?;
        let return_address = match version {
            1 => u64::from(r.u8()?),
            3 => r.uleb()?,
            _ => return None,
        };
        if return_address != RETURN_ADDRESS {
            return None;
        }
        let mut cie = Cie {
            code_align,
            data_align,
            initial: r,
            personality: 0,
            personality_is_indirect: false,
            lsda_encoding: encoding::OMIT,
            fde_encoding: encoding::ABSOLUTE,
            is_signal_frame: false,
            has_augmentation: false,
        };
        let Some((b'z', letters)) = augmentation.split_first() else {
            return augmentation.is_empty().then_some((cie, (start, end)));
        };
        cie.has_augmentation = true;
        let length = usize::try_from(r.uleb()?).ok()?;
        let behind = r.at().checked_add(length)?;
        let mut data = r.until(behind)?;
        for letter in letters {
            match letter {
                b'R' => cie.fde_encoding = data.u8()?,
                b'L' => cie.lsda_encoding = data.u8()?,
                b'P' => {
                    let encoding = data.u8()?;
                    cie.personality = data.pointer(encoding, bases)?;
                    cie.personality_is_indirect = encoding & encoding::INDIRECT != 0;
                }
                b'S' => cie.is_signal_frame = true,
                b'B' => {}
                _ => return None,
            }
        }
        cie.initial = Reader::at_offset(r, behind);
        Some((cie, (start, end)))
    }

    /// Reads the fields of an FDE of this CIE, up to its instructions: first address, bytes of code, address of the language-specific data.
    fn fields(&self, r: &mut Reader<'_>, data_base: usize) -> Option<[usize; 3]> {
        let start = match self.fde_encoding & encoding::INDIRECT {
            0 => r.pointer(self.fde_encoding, data_base)?,
            _ => return None,
        };
        let length = r.number(self.fde_encoding & 0x0f)?;
        start.checked_add(length)?;
        let mut lsda = 0;
        if self.has_augmentation {
            let bytes = usize::try_from(r.uleb()?).ok()?;
            let behind = r.at().checked_add(bytes)?;
            let mut data = r.until(behind)?;
            if self.lsda_encoding != encoding::OMIT {
                if self.lsda_encoding & encoding::INDIRECT != 0 {
                    return None;
                }
                lsda = data.pointer(self.lsda_encoding, data_base)?;
            }
            *r = Reader::at_offset(*r, behind);
        }
        Some([start, length, lsda])
    }
}

impl<'a> Record<'a> {
    /// Parses the FDE at this offset of a section, and its CIE. `data_base` is what data-relative pointers count from.
    pub(super) fn parse(section: Reader<'a>, offset: usize, data_base: usize) -> Option<Record<'a>> {
        let (r, start, id, end) = frame(section, offset)?;
        let cie = start.checked_sub(id as usize).filter(|_| id != 0)?;
        let (cie, cie_bytes) = Cie::parse(section, cie, data_base)?;
        Self::parse_rest(r, (start, end), cie, cie_bytes, data_base)
    }

    /// Parses the FDE at an offset of bytes that are mapped at `address`.
    #[cfg(feature = "hosted")]
    pub fn at(bytes: &'a [u8], address: usize, offset: usize) -> Option<Record<'a>> {
        Record::parse(Reader::new(bytes, address, 0), offset, 0)
    }

    fn parse_rest(
        mut r: Reader<'a>,
        fde_bytes: (usize, usize),
        cie: Cie<'a>,
        cie_bytes: (usize, usize),
        data_base: usize,
    ) -> Option<Record<'a>> {
        let [start, length, lsda] = cie.fields(&mut r, data_base)?;
        Some(Record { cie, start, length, lsda, program: r, cie_bytes, fde_bytes })
    }

    /// Whether it describes this address.
    pub fn covers(&self, pc: usize) -> bool {
        pc.wrapping_sub(self.start) < self.length
    }

    /// A sum over the bytes of both records.
    pub(super) fn sum(&self, section: Reader<'_>) -> u32 {
        sum_of(section, self.cie_bytes).rotate_left(16) ^ sum_of(section, self.fde_bytes)
    }
}

fn sum_of(section: Reader<'_>, (start, end): (usize, usize)) -> u32 {
    sum(Reader::at_offset(section, start).slice(end - start).unwrap_or_default())
}

/// A sum that any single flipped bit changes.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    let mut hash = 0xcbf2_9ce4_8422_2325u64 ^ bytes.len() as u64;
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        hash = stir(hash, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        hash = stir(hash, rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }
    hash as u32
}

/// The same for many bytes: four sums beside one another, which the processor does at once.
pub(super) fn sum_of_many(bytes: &[u8]) -> u32 {
    let mut lanes = [1, 2, 3, bytes.len() as u64];
    let (blocks, rest) = bytes.as_chunks::<32>();
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane = stir(*lane, u64::from_le_bytes(*word));
        }
    }
    lanes.into_iter().fold(u64::from(sum(rest)), stir) as u32
}

fn stir(hash: u64, word: u64) -> u64 {
    let hash = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash ^ hash >> 32
}

/// Where the FDE of a function is. Offsets are from the start of the text and of the section.
#[derive(Debug, Clone, Copy)]
pub(super) struct TableEntry {
    pub function: u32,
    pub fde: u32,
    pub sum: u32,
}

/// Bytes of a short FDE: with code pointers of 4 bytes, and few instructions.
const SMALLEST_FDE: usize = 32;

/// Walks the whole section, mapped at `address`, and returns the FDEs sorted by address. `Malformed` names the offset of the
/// offending record.
pub(super) fn index(section: &[u8], address: usize, text: &Range<usize>) -> Result<Vec<TableEntry>, UnwindError> {
    let all = Reader::new(section, address, 0);
    let mut table: Vec<TableEntry> = Vec::new();
    table.try_reserve(section.len() / SMALLEST_FDE).map_err(|_| UnwindError::OutOfMemory)?;
    let (mut offset, mut sorted) = (0, true);
    // FDEs follow their CIE as a rule: it is parsed once.
    let mut cie: Option<(usize, Cie<'_>, (usize, usize), u32)> = None;
    loop {
        let malformed = UnwindError::Malformed(offset);
        // Only the last four bytes may be the end: a length word of 0 before that would cut records off.
        let mut r = Reader::new(section, address, offset);
        if r.u32().ok_or(malformed)? == 0 {
            break;
        }
        let (mut r, start, id, end) = frame(all, offset).ok_or(malformed)?;
        if id == 0 {
            let (parsed, bytes) = Cie::parse(all, offset, 0).ok_or(malformed)?;
            cie = Some((offset, parsed, bytes, sum_of(all, bytes)));
        } else {
            let at = start.checked_sub(id as usize).filter(|at| *at < offset).ok_or(malformed)?;
            if cie.as_ref().is_none_or(|c| c.0 != at) {
                let (parsed, bytes) = Cie::parse(all, at, 0).ok_or(malformed)?;
                cie = Some((at, parsed, bytes, sum_of(all, bytes)));
            }
            let (_, cie, _, cie_sum) = cie.as_ref().ok_or(malformed)?;
            let [first, length, _] = cie.fields(&mut r, 0).ok_or(malformed)?;
            if first < text.start || first + length > text.end {
                return Err(malformed);
            }
            let offsets = u32::try_from(first - text.start).ok().zip(u32::try_from(offset).ok());
            let (function, fde) = offsets.ok_or(malformed)?;
            sorted &= table.last().is_none_or(|l| l.function <= function);
            table.try_reserve(1).map_err(|_| UnwindError::OutOfMemory)?;
            table.push(TableEntry { function, fde, sum: cie_sum.rotate_left(16) ^ sum_of(all, (start, end)) });
        }
        offset = end;
    }
    if !sorted {
        table.sort_unstable_by_key(|e| e.function);
    }
    Ok(table)
}
