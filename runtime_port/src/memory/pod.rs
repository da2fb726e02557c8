//! Types that mapped bytes may be borrowed as.

use core::sync::atomic::{AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize};

/// Plain old data: every bit pattern is a value, and every byte of a value is initialised.
///
/// # Safety
/// The type must have no padding, no niche, no pointer that Rust may follow and no destructor.
pub unsafe trait FromBytes: Sized {}

macro_rules! plain {
    ($($t:ty),* $(,)?) => { $(
        // SAFETY: integers, floats and their atomic counterparts have neither padding nor niches.
        unsafe impl FromBytes for $t {}
    )* };
}

plain!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);
plain!(AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, AtomicI32, AtomicI64);

// SAFETY: an array of plain elements has no bytes but theirs.
unsafe impl<T: FromBytes, const N: usize> FromBytes for [T; N] {}
