//! Keeps this process to as many processors as the goals speak of, so that everybody's pool of threads has that size.
#![allow(unsafe_code)]

use std::mem;
use std::thread::available_parallelism;

/// Keeps this process, from this thread on, to the first `most` of the processors that it may use. Returns how many it may use then.
pub fn limit_to(most: usize) -> usize {
    // SAFETY: a set of processors is plain data; each call gets one of its size.
    unsafe {
        let mut allowed: libc::cpu_set_t = mem::zeroed();
        if libc::sched_getaffinity(0, mem::size_of_val(&allowed), &mut allowed) == 0 {
            let mut few: libc::cpu_set_t = mem::zeroed();
            let all = 0..libc::CPU_SETSIZE as usize;
            all.filter(|cpu| libc::CPU_ISSET(*cpu, &allowed)).take(most).for_each(|cpu| libc::CPU_SET(cpu, &mut few));
            // Where that is not permitted, the number that is returned says so.
            libc::sched_setaffinity(0, mem::size_of_val(&few), &few);
        }
    }
    available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_processors_than_asked_for_are_used() {
        std::thread::spawn(|| assert_eq!(limit_to(1), 1)).join().unwrap();
    }
}
