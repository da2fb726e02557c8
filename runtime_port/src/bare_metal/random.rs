//! Random bytes.
//!
//! From the processor's generator (RDRAND, SDM vol. 1, 7.3.17) where it has one. Otherwise a generator seeded from the
//! time stamp counter: fit for spreading hash tables, *not* for keys. [`RandomPort::is_secure`] tells which it is.

use super::{cpu, time};
use crate::random::{RandomError, RandomPort};
use core::{
    arch::x86_64::_rdrand64_step,
    sync::atomic::{AtomicU64, Ordering},
};

static STATE: AtomicU64 = AtomicU64::new(0);

/// The port's randomness.
#[derive(Debug)]
pub struct BareRandom;

impl RandomPort for BareRandom {
    fn fill_bytes(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        let hardware = cpu::has_rdrand();
        for chunk in bytes.chunks_mut(8) {
            let word = match hardware {
                // SAFETY: the processor has the instruction.
                true => unsafe { hardware_word() }.ok_or(RandomError)?,
                false => software_word(),
            };
            chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }

    fn is_secure(&self) -> bool {
        cpu::has_rdrand()
    }
}

/// # Safety
/// The processor has RDRAND.
#[target_feature(enable = "rdrand")]
unsafe fn hardware_word() -> Option<u64> {
    let mut word = 0;
    // Ten tries, as Intel's implementation guide recommends: a failure means that the generator is busy.
    (0..10).any(|_| _rdrand64_step(&mut word) == 1).then_some(word)
}

/// SplitMix64 over a counter, stirred with the time stamp counter.
fn software_word() -> u64 {
    let step = STATE.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
    let mut z = step ^ time::counter().rotate_left(32);
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
