//! The one place that knows how structures become bytes.
//!
//! Structures are serialised with `bincode` (little endian, variable-length integers). Decoding is bounded: what it may
//! allocate is a fixed multiple of the bytes it is given, so a forged length costs an error and no memory.

use alloc::{format, vec::Vec};
use bincode::{Decode, Encode, config};

use crate::CompileError;

/// The serialised form of `value`.
pub fn encode<T: Encode>(value: &T) -> Result<Vec<u8>, CompileError> {
    bincode::encode_to_vec(value, config::standard())
        .map_err(|e| CompileError::Object(format!("metadata cannot be serialised: {e}")))
}

/// The value that `bytes` hold, and how many of them it took.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<(T, usize), CompileError> {
    // In memory a value takes at most about 24 times its encoded size (an import: 120 bytes from 8), so 32 admits
    // everything `encode` writes. The limit is a compile-time constant in bincode: the next larger of a few is used.
    let config = config::standard();
    let result = match bytes.len().saturating_mul(32) {
        n if n <= 0x1_0000 => bincode::decode_from_slice(bytes, config.with_limit::<0x1_0000>()),
        n if n <= 0x10_0000 => bincode::decode_from_slice(bytes, config.with_limit::<0x10_0000>()),
        n if n <= 0x80_0000 => bincode::decode_from_slice(bytes, config.with_limit::<0x80_0000>()),
        n if n <= 0x400_0000 => bincode::decode_from_slice(bytes, config.with_limit::<0x400_0000>()),
        n if n <= 0x2000_0000 => bincode::decode_from_slice(bytes, config.with_limit::<0x2000_0000>()),
        _ => bincode::decode_from_slice(bytes, config.with_limit::<0x1_0000_0000>()),
    };
    result.map_err(|e| CompileError::Object(format!("metadata cannot be read: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::String;

    #[test]
    fn decoding_returns_what_was_encoded() {
        let value: Vec<(u32, String)> = (0..1000).map(|i| (i, format!("f{i}"))).collect();
        let bytes = encode(&value).unwrap();
        assert_eq!(decode::<Vec<(u32, String)>>(&bytes).unwrap(), (value, bytes.len()));
    }

    #[test]
    fn smallest_encodings_fit_the_budget() {
        let value: Vec<(u32, String)> = (0..100_000).map(|_| (0, String::new())).collect();
        let bytes = encode(&value).unwrap();
        assert!(decode::<Vec<(u32, String)>>(&bytes).is_ok());
    }

    #[test]
    fn forged_length_is_refused() {
        let mut bytes = Vec::from([253u8]);
        bytes.extend(u64::MAX.to_le_bytes());
        assert!(decode::<Vec<u64>>(&bytes).is_err());
        bytes.splice(1.., (1u64 << 40).to_le_bytes());
        assert!(decode::<Vec<u64>>(&bytes).is_err());
    }
}
