//! A keyed MAC over a whole cell object: how a cache tells its own objects from forged or damaged ones (D13).
//!
//! An object file is trusted code, so its authenticity is settled before anything in it is parsed. The last
//! [`TRAILER_BYTES`] of every object are a magic number and a keyed BLAKE3 hash of all bytes before the hash. They
//! are an ordinary ELF section (`.planks.seal`), so tools see a well-formed file, but [`verify`] needs no ELF reader: it
//! looks at the end of the file only.
//!
//! ```text
//! to_elf ──► seal(&mut elf, key) ──► disk ──► verify(&elf, key)? ──► from_elf
//! ```

use crate::CompileError;
use alloc::string::ToString;

/// First bytes of the trailer.
const MAGIC: [u8; 8] = *b"PLNKSEAL";
/// Bytes of the hash.
const HASH_BYTES: usize = 32;
/// Bytes of the trailer that `to_elf` leaves at the end of an object.
pub const TRAILER_BYTES: usize = MAGIC.len() + HASH_BYTES;

/// The trailer of an object nobody has sealed yet.
pub(crate) const UNSEALED: [u8; TRAILER_BYTES] = {
    let mut trailer = [0; TRAILER_BYTES];
    let mut i = 0;
    while i < MAGIC.len() {
        trailer[i] = MAGIC[i];
        i += 1;
    }
    trailer
};

/// Writes the MAC of `elf` under `key` into its trailer.
///
/// # Errors
/// `elf` does not end with the trailer that `to_elf` writes.
pub fn seal(elf: &mut [u8], key: &[u8; 32]) -> Result<(), CompileError> {
    let hash = mac(content(elf)?, key);
    let start = elf.len() - HASH_BYTES;
    elf[start..].copy_from_slice(hash.as_bytes());
    Ok(())
}

/// Checks that `elf` was sealed with `key` and not changed since. Takes the same time wherever they differ.
///
/// # Errors
/// No trailer, or another MAC: the object is damaged, forged or from another cache. Recompile the module.
pub fn verify(elf: &[u8], key: &[u8; 32]) -> Result<(), CompileError> {
    let content = content(elf)?;
    let stored = elf[content.len()..].try_into().map(blake3::Hash::from_bytes);
    // `Hash` compares in constant time.
    match stored {
        Ok(stored) if stored == mac(content, key) => Ok(()),
        _ => Err(CompileError::Object("its seal does not match its content under this key; recompile".to_string())),
    }
}

fn mac(content: &[u8], key: &[u8; 32]) -> blake3::Hash {
    blake3::keyed_hash(key, content)
}

/// Everything the MAC covers: all bytes but the hash, the magic number included.
fn content(elf: &[u8]) -> Result<&[u8], CompileError> {
    elf.len()
        .checked_sub(HASH_BYTES)
        .map(|end| &elf[..end])
        .filter(|content| content.ends_with(&MAGIC))
        .ok_or_else(|| CompileError::Object("it has no seal (no `.planks.seal` section at its end)".to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    const KEY: [u8; 32] = [7; 32];

    fn sealed() -> Vec<u8> {
        let mut file: Vec<u8> = (0..=255).collect();
        file.extend(UNSEALED);
        seal(&mut file, &KEY).unwrap();
        file
    }

    #[test]
    fn sealed_object_verifies_only_under_its_key() {
        let file = sealed();
        assert_eq!(verify(&file, &KEY), Ok(()));
        assert!(verify(&file, &[8; 32]).is_err());
    }

    #[test]
    fn any_changed_bit_is_refused() {
        let file = sealed();
        for i in 0..file.len() {
            for bit in 0..8 {
                let mut changed = file.clone();
                changed[i] ^= 1 << bit;
                assert!(verify(&changed, &KEY).is_err(), "byte {i} bit {bit}");
            }
        }
    }

    #[test]
    fn truncated_extended_and_unsealed_objects_are_refused() {
        let file = sealed();
        for end in 0..file.len() {
            assert!(verify(&file[..end], &KEY).is_err(), "{end} bytes");
        }
        let mut longer = file.clone();
        longer.push(0);
        assert!(verify(&longer, &KEY).is_err());
        assert!(verify(&UNSEALED, &KEY).is_err());
        assert!(seal(&mut [0; 100], &KEY).is_err());
    }

    #[test]
    fn sealing_again_changes_nothing() {
        let mut file = sealed();
        let before = file.clone();
        seal(&mut file, &KEY).unwrap();
        assert_eq!(file, before);
    }
}
