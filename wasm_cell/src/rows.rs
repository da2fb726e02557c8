//! Long tables: rows of fixed width, which are read many times as fast as numbers of variable length.
//!
//! In an object a table is the number of its rows and then the rows, one behind the other, little endian.

use alloc::vec::Vec;
use bincode::de::{Decoder, read::Reader};
use bincode::enc::{Encoder, write::Writer};
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use core::ops::{Deref, DerefMut};

/// What a table can consist of.
pub(crate) trait Row: Copy {
    /// Bytes of a row.
    const BYTES: usize;

    /// Appends the row's bytes.
    fn write(&self, out: &mut Vec<u8>);

    /// The row of these bytes, [`Row::BYTES`] of them. If there is no such row, it is another one, and `sound` becomes false: the loop over
    /// the rows of a table is several times as fast without a way out of it.
    fn read(bytes: &[u8], sound: &mut bool) -> Self;
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rows<T>(Vec<T>);

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Rows(Vec::new())
    }
}

impl<T> Deref for Rows<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> DerefMut for Rows<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T> From<Vec<T>> for Rows<T> {
    fn from(rows: Vec<T>) -> Self {
        Rows(rows)
    }
}

impl<T> FromIterator<T> for Rows<T> {
    fn from_iter<I: IntoIterator<Item = T>>(rows: I) -> Self {
        Rows(rows.into_iter().collect())
    }
}

impl<'a, T> IntoIterator for &'a Rows<T> {
    type Item = &'a T;
    type IntoIter = core::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Row> Encode for Rows<T> {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        (self.0.len() as u64).encode(encoder)?;
        let mut bytes = Vec::with_capacity(self.0.len() * T::BYTES);
        self.0.iter().for_each(|row| row.write(&mut bytes));
        encoder.writer().write(&bytes)
    }
}

impl<Context, T: Row> Decode<Context> for Rows<T> {
    fn decode<D: Decoder<Context = Context>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let count = u64::decode(decoder)?;
        let count = usize::try_from(count).map_err(|_| DecodeError::OutsideUsizeRange(count))?;
        decoder.claim_container_read::<T>(count)?;
        let size = count.checked_mul(T::BYTES).ok_or(DecodeError::LimitExceeded)?;
        let bytes = decoder.reader().peek_read(size).ok_or(DecodeError::UnexpectedEnd { additional: size })?;
        let mut sound = true;
        let rows = bytes.chunks_exact(T::BYTES).map(|row| T::read(row, &mut sound)).collect();
        decoder.reader().consume(size);
        if sound { Ok(Rows(rows)) } else { Err(DecodeError::Other("a row of a table has an impossible value")) }
    }
}

impl<'de, Context, T: Row> bincode::BorrowDecode<'de, Context> for Rows<T> {
    fn borrow_decode<D: bincode::de::BorrowDecoder<'de, Context = Context>>(
        decoder: &mut D,
    ) -> Result<Self, DecodeError> {
        Rows::decode(decoder)
    }
}

/// The number at a place of a row.
#[inline]
pub(crate) fn number_at(row: &[u8], at: usize) -> u32 {
    bytes_at(row, at).map_or(0, u32::from_le_bytes)
}

/// The bytes at a place of a row.
#[inline]
pub(crate) fn bytes_at<const N: usize>(row: &[u8], at: usize) -> Option<[u8; N]> {
    row.get(at..at + N)?.try_into().ok()
}

impl Row for u32 {
    const BYTES: usize = 4;

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.to_le_bytes());
    }

    #[inline]
    fn read(bytes: &[u8], _sound: &mut bool) -> Self {
        number_at(bytes, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::metadata::{AddressMapping, DefinedFunc};
    use crate::trap::{TrapCode, TrapSite};
    use core::fmt::Debug;

    fn comes_back<T: Row + PartialEq + Debug>(row: impl Fn(u32) -> T) {
        for count in [0, 1, 700] {
            let rows: Rows<T> = (0..count).map(&row).collect();
            let bytes = codec::encode(&rows).unwrap();
            let (read, used) = codec::decode::<Rows<T>>(&bytes).unwrap();
            assert_eq!((&*read, used), (&*rows, bytes.len()));
            for end in 0..bytes.len().min(40) {
                assert!(codec::decode::<Rows<T>>(&bytes[..end]).is_err());
            }
        }
    }

    #[test]
    fn tables_come_back() {
        let n = |i: u32| i.wrapping_mul(0x9e37_79b9);
        comes_back(n);
        comes_back(|i| DefinedFunc { ty: i, offset: n(i), size: !i, wasm_offset: n(n(i)) });
        comes_back(|i| AddressMapping { code_offset: n(i), wasm_offset: i });
        let code = |i: u32| TrapCode::ALL[i as usize % TrapCode::ALL.len()];
        comes_back(|i| TrapSite { code_offset: n(i), wasm_offset: i, code: code(i) });
    }

    #[test]
    fn a_forged_number_of_rows_costs_no_memory() {
        let mut bytes = Vec::from([253u8]);
        bytes.extend(u64::MAX.to_le_bytes());
        assert!(codec::decode::<Rows<u32>>(&bytes).is_err());
        bytes.splice(1.., (1u64 << 40).to_le_bytes());
        assert!(codec::decode::<Rows<u32>>(&bytes).is_err());
    }

    #[test]
    fn a_row_with_an_impossible_value_is_refused() {
        let site = TrapSite { code_offset: 1, wasm_offset: 2, code: TrapCode::Unreachable };
        let mut bytes = codec::encode(&Rows::from(Vec::from([site]))).unwrap();
        *bytes.last_mut().unwrap() = 0xff;
        assert!(codec::decode::<Rows<TrapSite>>(&bytes).is_err());
    }
}
