//! Randomness.

use crate::platform::platform;

/// No random bytes can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the platform has no source of random bytes at the moment")]
pub struct RandomError;

/// What a port has to offer.
pub trait RandomPort: Sync {
    /// Fills `bytes` with random ones, from the best source there is.
    fn fill_bytes(&self, bytes: &mut [u8]) -> Result<(), RandomError>;

    /// Whether the bytes are unpredictable, so that they are fit for keys.
    fn is_secure(&self) -> bool;
}

/// Fills `bytes` with random ones.
pub fn fill_bytes(bytes: &mut [u8]) -> Result<(), RandomError> {
    platform().random().fill_bytes(bytes)
}

/// A random number.
pub fn next_u64() -> Result<u64, RandomError> {
    let mut bytes = [0; 8];
    fill_bytes(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}
