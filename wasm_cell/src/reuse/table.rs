//! What a compiled module keeps of its functions so that a later version can take their code over.
//!
//! Machine code, trap sites, address map and unwind rows are in the module anyway. What is missing there is kept here:
//! each function's hashes, and where its code refers to what. Per function that is 56 bytes, 1 or 2 for each function it
//! names, and about 4 for each reference.

use super::fingerprint::Fingerprint;
use crate::function::{FunctionCode, Reference, Target};
use crate::placement::Placement;
use crate::rows::{Row, Rows, bytes_at, number_at};
use crate::trap::TrapCode;
use alloc::vec::Vec;
use bincode::{Decode, Encode};

/// What is kept of all functions of a module, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ReuseTable {
    functions: Rows<Record>,
    /// Per function, from `Record::references` on, as variable-length integers: number of functions its body names, their indices; the same of
    /// those that only bodies name that stand in it in place of calls; then each reference: distance of its offset from the one before,
    /// target, addend.
    references: Vec<u8>,
}

/// One function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    key: [u8; 32],
    shape: [u8; 16],
    references: u32,
    /// [`Placement::to_byte`].
    placement: u8,
}

impl Row for Record {
    const BYTES: usize = 32 + 16 + 4 + 1;

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.key);
        out.extend(self.shape);
        out.extend(self.references.to_le_bytes());
        out.push(self.placement);
    }

    #[inline]
    fn read(bytes: &[u8], _sound: &mut bool) -> Self {
        Record {
            key: bytes_at(bytes, 0).unwrap_or_default(),
            shape: bytes_at(bytes, 32).unwrap_or_default(),
            references: number_at(bytes, 48),
            placement: bytes.get(52).copied().unwrap_or_default(),
        }
    }
}

/// Numbers of targets: 0 is the data block, then come trap stubs by code, then functions by ordinal.
const DATA: u32 = 0;
const FIRST_FUNCTION: u32 = 32;
const _: () = assert!(TrapCode::ALL.len() < FIRST_FUNCTION as usize);

impl ReuseTable {
    /// Number of functions.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        self.functions.capacity() * size_of::<Record>() + self.references.capacity()
    }

    /// Hash of everything that the machine code of a defined function depends on, by position among the defined ones.
    pub fn key(&self, defined: usize) -> Option<[u8; 32]> {
        Some(self.functions.get(defined)?.key)
    }

    /// Hash of a function's body without which functions it names and where things lie in the data block.
    pub fn shape(&self, defined: usize) -> Option<[u8; 16]> {
        Some(self.functions.get(defined)?.shape)
    }

    /// Indices of the functions that a defined function names, in order of first occurrence.
    pub fn named_functions(&self, defined: usize) -> Vec<u32> {
        self.reader(defined).and_then(|mut r| r.callees()).unwrap_or_default()
    }

    /// Indices of all functions that the code of a defined function may refer to: those come first that its own body names.
    pub(super) fn callees(&self, defined: usize) -> Option<Vec<u32>> {
        let mut reader = self.reader(defined)?;
        let mut callees = reader.callees()?;
        callees.extend(reader.callees()?);
        Some(callees)
    }

    /// Where the code of a function may lie.
    pub(super) fn placement(&self, defined: usize) -> Option<Placement> {
        Placement::from_byte(self.functions.get(defined)?.placement)
    }

    /// Adds the next function. `callees`: the functions its body names, and those that other bodies in it name; `ordinal`: the position of one of them
    /// there.
    pub(crate) fn push(
        &mut self,
        fingerprint: &Fingerprint,
        (own, others): (&[u32], &[u32]),
        ordinal: impl Fn(u32) -> Option<u32>,
        code: &FunctionCode,
    ) {
        let start = self.references.len() as u32;
        self.functions.push(Record {
            key: fingerprint.key,
            shape: fingerprint.shape,
            references: start,
            placement: code.placement.to_byte(),
        });
        for callees in [own, others] {
            self.write(callees.len() as u32);
            callees.iter().for_each(|c| self.write(*c));
        }
        let mut last = 0;
        for r in &code.references {
            let target = match r.target {
                Target::Data => DATA,
                Target::TrapStub(code) => code as u32,
                // Code refers only to functions that the body names.
                Target::Func(f) => FIRST_FUNCTION + ordinal(f).unwrap_or((own.len() + others.len()) as u32),
            };
            self.write(zigzag(r.offset.wrapping_sub(last) as i32));
            self.write(target);
            self.write(zigzag(r.addend));
            last = r.offset;
        }
    }

    /// Adds all functions of another table.
    pub(crate) fn append(&mut self, other: &ReuseTable) {
        let start = self.references.len() as u32;
        self.functions.extend(other.functions.iter().map(|r| Record { references: start + r.references, ..*r }));
        self.references.extend_from_slice(&other.references);
    }

    /// Makes room for so many functions more.
    pub(crate) fn reserve(&mut self, functions: usize) {
        self.functions.reserve_exact(functions);
    }

    /// Gives back what growing left over.
    pub(crate) fn shrink(&mut self) {
        self.functions.shrink_to_fit();
        self.references.shrink_to_fit();
    }

    /// The references of a function, whose ordinals now stand for `callees`; appended to `out`. `None` if the table is
    /// not sound.
    pub(super) fn references(&self, defined: usize, callees: &[u32], out: &mut Vec<Reference>) -> Option<()> {
        let mut reader = self.reader(defined)?;
        reader.callees()?;
        reader.callees()?;
        let mut offset = 0u32;
        while !reader.bytes.is_empty() {
            offset = offset.wrapping_add(unzigzag(reader.read()?) as u32);
            let target = match reader.read()? {
                DATA => Target::Data,
                code @ 1..FIRST_FUNCTION => Target::TrapStub(TrapCode::from_u8(code as u8)?),
                n => Target::Func(*callees.get((n - FIRST_FUNCTION) as usize)?),
            };
            out.push(Reference { offset, addend: unzigzag(reader.read()?), target });
        }
        Some(())
    }

    fn reader(&self, defined: usize) -> Option<Reader<'_>> {
        let start = self.functions.get(defined)?.references as usize;
        let end = self.functions.get(defined + 1).map_or(self.references.len(), |next| next.references as usize);
        Some(Reader { bytes: self.references.get(start..end)? })
    }

    fn write(&mut self, mut n: u32) {
        while n >= 0x80 {
            self.references.push(n as u8 | 0x80);
            n >>= 7;
        }
        self.references.push(n as u8);
    }
}

/// Reads what [`ReuseTable::write`] wrote.
struct Reader<'a> {
    bytes: &'a [u8],
}

impl Reader<'_> {
    fn read(&mut self) -> Option<u32> {
        let mut n = 0;
        for shift in (0..32).step_by(7) {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            n |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(n);
            }
        }
        None
    }

    fn callees(&mut self) -> Option<Vec<u32>> {
        let count = self.read()? as usize;
        // Each takes a byte at least.
        if count > self.bytes.len() {
            return None;
        }
        (0..count).map(|_| self.read()).collect()
    }
}

/// Small numbers of either sign as small unsigned ones.
fn zigzag(n: i32) -> u32 {
    (n << 1 ^ n >> 31) as u32
}

fn unzigzag(n: u32) -> i32 {
    (n >> 1) as i32 ^ -((n & 1) as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn code(references: Vec<Reference>) -> FunctionCode {
        FunctionCode { placement: Placement::aligned(32), references, ..FunctionCode::default() }
    }

    fn fingerprint(n: u8) -> Fingerprint {
        Fingerprint { key: [n; 32], shape: [n; 16] }
    }

    #[test]
    fn references_come_back_with_the_new_functions_in_place_of_the_old() {
        let mut table = ReuseTable::default();
        let references = |f: u32, g: u32| {
            vec![
                Reference { offset: 9, addend: 60, target: Target::Data },
                Reference { offset: 300, addend: -4, target: Target::Func(f) },
                Reference { offset: 20, addend: i32::MIN, target: Target::TrapStub(TrapCode::Quarantined) },
                Reference { offset: u32::MAX, addend: i32::MAX, target: Target::Func(g) },
            ]
        };
        table.push(&fingerprint(1), (&[], &[]), |_| None, &code(vec![]));
        table.push(&fingerprint(2), (&[7], &[70_000]), |f| Some(u32::from(f != 7)), &code(references(70_000, 7)));
        table.push(&fingerprint(3), (&[1], &[]), |_| None, &code(vec![]));
        let mut out = Vec::new();
        table.references(1, &[5, 6], &mut out).unwrap();
        assert_eq!(out, references(6, 5));
        assert_eq!(table.named_functions(1), [7]);
        assert_eq!(table.callees(1).unwrap(), [7, 70_000]);
        assert_eq!(table.named_functions(2), [1]);
        assert_eq!(table.placement(1), Some(Placement::aligned(32)));
        assert_eq!(table.key(1), Some([2; 32]));
        assert_eq!((table.key(3), table.named_functions(9)), (None, vec![]));
        // Fewer functions than the code names: refused, not taken over.
        assert_eq!(table.references(1, &[5], &mut Vec::new()), None);
    }

    #[test]
    fn a_damaged_table_gives_nothing() {
        let mut table = ReuseTable::default();
        table.push(
            &fingerprint(1),
            (&[3], &[]),
            |_| None,
            &code(vec![Reference { offset: 9, addend: 60, target: Target::Data }]),
        );
        for end in 0..table.references.len() {
            let damaged = ReuseTable { references: table.references[..end].to_vec(), ..table.clone() };
            let cut_between_references = end == 3;
            assert_eq!(damaged.references(0, &[3], &mut Vec::new()).is_some(), cut_between_references, "{end}");
        }
        let forged = ReuseTable { references: vec![0xff, 0xff, 0xff, 0xff, 0x0f, 1], ..table.clone() };
        assert_eq!(forged.named_functions(0), []);
        let beyond = ReuseTable { functions: vec![Record { references: 99, ..table.functions[0] }].into(), ..table };
        assert_eq!(beyond.references(0, &[3], &mut Vec::new()), None);
    }
}
