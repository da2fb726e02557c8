//! The rows of the metadata's long tables: how they are written, and their hashes, in one step each.

use super::{AddressMapping, DefinedFunc};
use crate::rows::{Row, number_at};
use crate::trap::{TrapCode, TrapSite};
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

/// Numbers side by side, the first one lowest.
fn packed<const N: usize>(numbers: [u32; N]) -> u128 {
    const { assert!(N <= 4) };
    numbers.into_iter().rev().fold(0, |all, number| all << 32 | u128::from(number))
}

impl Row for DefinedFunc {
    const BYTES: usize = 16;

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(packed([self.ty, self.offset, self.size, self.wasm_offset]).to_le_bytes());
    }

    #[inline]
    fn read(bytes: &[u8], _sound: &mut bool) -> Self {
        let n = |at| number_at(bytes, at);
        DefinedFunc { ty: n(0), offset: n(4), size: n(8), wasm_offset: n(12) }
    }
}

impl Hash for DefinedFunc {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(packed([self.ty, self.offset, self.size, self.wasm_offset]));
    }
}

impl Row for AddressMapping {
    const BYTES: usize = 8;

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.code_offset.to_le_bytes());
        out.extend(self.wasm_offset.to_le_bytes());
    }

    #[inline]
    fn read(bytes: &[u8], _sound: &mut bool) -> Self {
        AddressMapping { code_offset: number_at(bytes, 0), wasm_offset: number_at(bytes, 4) }
    }
}

impl Hash for AddressMapping {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.wasm_offset) << 32 | u64::from(self.code_offset));
    }
}

impl Row for TrapSite {
    /// Two numbers and the code's byte.
    const BYTES: usize = 9;

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.code_offset.to_le_bytes());
        out.extend(self.wasm_offset.to_le_bytes());
        out.push(self.code as u8);
    }

    #[inline]
    fn read(bytes: &[u8], sound: &mut bool) -> Self {
        let code = bytes.get(8).and_then(|code| TrapCode::from_u8(*code));
        *sound &= code.is_some();
        let code = code.unwrap_or(TrapCode::Unreachable);
        TrapSite { code_offset: number_at(bytes, 0), wasm_offset: number_at(bytes, 4), code }
    }
}

impl Hash for TrapSite {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(packed([self.code_offset, self.wasm_offset, self.code as u32]));
    }
}
