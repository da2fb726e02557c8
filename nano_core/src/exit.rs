//! Ending the machine.

use core::fmt::Write;
use runtime_port::bare_metal::console::{self, Console};
use x86_64::instructions::{hlt, interrupts, port::Port};

/// How the run ended. QEMU's `isa-debug-exit` device makes its process exit with `2 * value + 1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    /// Everything asked for was done (process status 33).
    Success = 0x10,
    /// A test failed, a call trapped, a file is missing: said on the console (process status 35).
    Failure = 0x11,
    /// The kernel itself could not go on (process status 37).
    Fatal = 0x12,
}

/// I/O port of `-device isa-debug-exit,iobase=0xf4,iosize=4`.
pub const DEBUG_EXIT: u16 = 0xf4;

/// Ends the machine. Without an exit device it stops.
pub fn exit(status: Status) -> ! {
    // SAFETY: the port of QEMU's exit device; where there is none the write goes nowhere.
    unsafe { Port::<u32>::new(DEBUG_EXIT).write(status as u32) };
    // Writing to the console is all that can be done here.
    let _ = writeln!(Console, "the system has ended ({status:?}) and this machine has no exit device: stopped");
    loop {
        interrupts::disable();
        hlt();
    }
}

/// Reports why the kernel cannot go on, and ends.
pub fn fatal(report: core::fmt::Arguments<'_>) -> ! {
    interrupts::disable();
    // SAFETY: nobody else runs any more.
    unsafe { console::seize() };
    let _ = writeln!(Console, "\nFATAL: {report}");
    exit(Status::Fatal)
}
