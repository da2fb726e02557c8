//! How many bytes of heap are in use, as the C library's allocator counts them.
#![allow(unsafe_code)]

/// Bytes in use, with what the allocator adds to each; `None` where it does not count.
#[cfg(target_env = "gnu")]
pub fn in_use() -> Option<u64> {
    // SAFETY: takes nothing and returns plain data.
    let counts = unsafe { libc::mallinfo2() };
    Some(counts.uordblks as u64 + counts.hblkhd as u64)
}

/// Bytes in use, with what the allocator adds to each; `None` where it does not count.
#[cfg(not(target_env = "gnu"))]
pub fn in_use() -> Option<u64> {
    None
}

/// Bytes of heap that `make`'s value holds.
pub fn held<T, E>(make: impl FnOnce() -> Result<T, E>) -> Result<Option<f64>, E> {
    let before = in_use();
    let value = make()?;
    let after = in_use();
    drop(value);
    Ok(after.zip(before).map(|(after, before)| after as f64 - before as f64))
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use super::*;

    #[test]
    fn a_large_value_is_counted() {
        // Other tests allocate meanwhile, but not this much.
        let bytes = held(|| Ok::<_, ()>(std::hint::black_box(Vec::<u8>::with_capacity(1 << 30)))).unwrap().unwrap();
        assert!(bytes > 0.5 * f64::from(1 << 30), "{bytes}");
    }
}
