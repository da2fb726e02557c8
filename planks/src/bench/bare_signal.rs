//! The least that a fault caught by a signal can cost on this system: the fault, a handler that does nothing but step over the
//! instruction, and the return.
#![allow(unsafe_code)]

use std::arch::asm;
use std::io;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Where to go on after the load that faults.
static BEHIND: AtomicUsize = AtomicUsize::new(0);

/// A page that nobody may read.
pub struct Page(*mut libc::c_void);

const BYTES: usize = 4096;

impl Page {
    /// Maps it.
    pub fn new() -> io::Result<Page> {
        // SAFETY: a fresh anonymous mapping.
        let page =
            unsafe { libc::mmap(null_mut(), BYTES, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0) };
        if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Page(page)) }
    }

    /// Reads from it `n` times, with a handler of its own for the signal meanwhile.
    pub fn round_trips(&self, n: u64) -> io::Result<()> {
        let mut action: libc::sigaction;
        let mut previous: libc::sigaction;
        // SAFETY: plain data; the handler has the signature that `SA_SIGINFO` asks for and is async-signal-safe.
        unsafe {
            action = std::mem::zeroed();
            previous = std::mem::zeroed();
            action.sa_sigaction = step_over as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigemptyset(&mut action.sa_mask);
            if libc::sigaction(libc::SIGSEGV, &action, &mut previous) != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        for _ in 0..n {
            // SAFETY: the load faults, and the handler resumes behind it.
            unsafe {
                asm!(
                    "lea {scratch}, [rip + 2f]",
                    "mov [{behind}], {scratch}",
                    "mov {scratch}, [{page}]",
                    "2:",
                    scratch = out(reg) _,
                    behind = in(reg) BEHIND.as_ptr(),
                    page = in(reg) self.0,
                );
            }
        }
        // SAFETY: puts back what was installed.
        match unsafe { libc::sigaction(libc::SIGSEGV, &previous, null_mut()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nobody has its address.
        unsafe { libc::munmap(self.0, BYTES) };
    }
}

/// Continues behind the load.
extern "C" fn step_over(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes the interrupted context, which is the handler's until it returns.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        registers[libc::REG_RIP as usize] = BEHIND.load(Ordering::Relaxed) as i64;
    }
}
