//! Types that mapped bytes may be borrowed as.

/// Plain old data: every bit pattern is a value, and every byte of a value is initialised.
///
/// # Safety
/// The type must have no padding, no niche, no pointer that Rust may follow, no destructor, and nothing that can change
/// behind a shared reference (so no atomics: a store through one would fault in read-only pages, and the same bytes may
/// be borrowed as integers).
pub unsafe trait FromBytes: Sized {}

macro_rules! plain {
    ($($t:ty),* $(,)?) => { $(
        // SAFETY: integers and floats have neither padding nor niches.
        unsafe impl FromBytes for $t {}
    )* };
}

plain!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64);

// SAFETY: an array of plain elements has no bytes but theirs.
unsafe impl<T: FromBytes, const N: usize> FromBytes for [T; N] {}
