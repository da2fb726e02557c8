//! The kernel's random bytes.

use super::memory::errno;
use crate::random::{RandomError, RandomPort};

/// The hosted random port.
#[derive(Debug)]
pub struct HostedRandom;

impl RandomPort for HostedRandom {
    fn fill_bytes(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        let mut rest = bytes;
        while !rest.is_empty() {
            // SAFETY: the slice is valid for writes of its length.
            let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
            match usize::try_from(n) {
                Ok(n) => rest = &mut rest[n..],
                Err(_) if errno() == libc::EINTR => {}
                Err(_) => return Err(RandomError),
            }
        }
        Ok(())
    }

    fn is_secure(&self) -> bool {
        true
    }
}
