//! Processes that the hosted port's users start.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Makes the process one that may end badly, and does so the same way every time: it leaves no core dump, and runs without
/// randomisation of its addresses, where the kernel permits that (`personality(2)`).
pub fn make_expendable(command: &mut Command) {
    let prepare = || {
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: system calls that change nothing but limits and flags of the new process. A refusal is no failure of
        // the command.
        unsafe {
            libc::setrlimit(libc::RLIMIT_CORE, &raw const none);
            libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
        }
        Ok(())
    };
    // SAFETY: between `fork` and `exec` the closure makes two system calls: it neither allocates nor locks.
    unsafe { command.pre_exec(prepare) };
}
