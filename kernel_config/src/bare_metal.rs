//! Address-space layout of the bare-metal port.
//!
//! The lower canonical half only. Base image and cells have its first 2 GiB, so that each of them can reach every other with 32 bits.
//! Physical memory (writable and never executable, but for frames that show text or constants elsewhere: those are read-only), heap and
//! reservations have windows above. The upper half stays empty, and with it the last page of the address space, on which null function
//! references rely.

use core::ops::Range;

/// Window of cells: text, rodata, data and entries. The base image, at the address where it is loaded, ends below (`kernel.ld`
/// asserts that). A signed field of 32 bits reaches from any byte of either to any other, and holds any of their addresses.
pub const CELLS: Range<usize> = 0x0400_0000..0x8000_0000;

/// Window in which physical memory and registers of devices are mapped, in the order of their addresses. It begins at a multiple of
/// 512 GiB, so that the boot code maps the first 4 GiB here with one more entry.
pub const PHYSICAL: Range<usize> = 0x0000_0400_0000_0000..0x0000_0500_0000_0000;

/// Window of the kernel heap. It grows by committing pages at its end, so its size here costs nothing.
pub const HEAP: Range<usize> = 0x0000_0800_0000_0000..0x0000_0900_0000_0000;

/// Window from which other reservations are taken: linear memories, tables, stacks.
pub const RESERVATIONS: Range<usize> = 0x0000_1000_0000_0000..0x0000_7000_0000_0000;

/// Step by which the heap grows, in bytes.
pub const HEAP_STEP: usize = 1 << 20;

/// Stack of the boot task, in bytes: the compiler runs on it.
pub const BOOT_TASK_STACK: usize = 8 << 20;

/// Vector by which a task is interrupted; the first behind the processor's own exceptions.
pub const INTERRUPT_VECTOR: u8 = 32;

/// Vector of the local interrupt controller's timer.
pub const TIMER_VECTOR: u8 = 33;

/// Vector by which a task gives the processor up.
pub const RESCHEDULE_VECTOR: u8 = 34;

/// Vector of the first of the eight lines of the (first) interrupt controller 8259; a multiple of 8.
pub const PIC_VECTOR: u8 = 40;

/// Line of the interval timer at that controller.
pub const INTERVAL_TIMER_LINE: u8 = 0;

/// Line of the first serial port at that controller.
pub const SERIAL_LINE: u8 = 4;

/// Vector that the local interrupt controller uses for interrupts that went away; the low four bits must be set (SDM vol. 3, 10.9).
pub const SPURIOUS_VECTOR: u8 = 63;

/// Timer interrupts in a second. Also how long a task runs before the next of its priority: one tick.
pub const TICKS_PER_SECOND: u64 = 1000;

/// Number of task priorities; a higher number is more urgent.
pub const PRIORITIES: usize = 32;

/// After so many nanoseconds without the processor a ready task runs for one tick, whatever its priority.
pub const STARVATION_NS: u64 = 100_000_000;
