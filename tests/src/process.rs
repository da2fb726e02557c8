//! What this process occupies, as the kernel tells it (proc(5)).

use std::fs;

/// Most bytes that were ever resident, since the start or the last [`reset_peak`].
///
/// # Panics
/// `/proc` is not mounted.
pub fn peak_bytes() -> u64 {
    status("VmHWM:")
}

/// Bytes resident now.
///
/// # Panics
/// `/proc` is not mounted.
pub fn resident_bytes() -> u64 {
    status("VmRSS:")
}

/// Gives free heap memory back and makes [`peak_bytes`] begin again from what is resident then.
///
/// # Panics
/// `/proc` is not mounted.
pub fn reset_peak() {
    // SAFETY: no argument can be wrong; it works on free memory only (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
    fs::write("/proc/self/clear_refs", "5").expect("own process");
}

/// Number of mappings.
///
/// # Panics
/// `/proc` is not mounted.
pub fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").expect("own process").lines().count()
}

fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("own process");
    let line = status.lines().find_map(|l| l.strip_prefix(field)).expect("the kernel reports it");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    kib << 10
}
