//! Address-space layout of the bare-metal port.
//!
//! The lower canonical half only: physical memory is mapped at its own address (writable and never executable, but for
//! the base image and for frames that show text or constants elsewhere: those are read-only), heap and reservations
//! have windows of their own above any physical memory. The upper
//! half stays empty, and with it the last page of the address space, on which null function references rely.

use core::ops::Range;

/// Window of the kernel heap. It grows by committing pages at its end, so its size here costs nothing.
pub const HEAP: Range<usize> = 0x0000_0800_0000_0000..0x0000_0900_0000_0000;

/// Window from which reservations are taken: cells, linear memories, tables, stacks.
pub const RESERVATIONS: Range<usize> = 0x0000_1000_0000_0000..0x0000_7000_0000_0000;

/// Physical memory above this address is not used, in bytes: its identity mapping must end below [`HEAP`].
pub const PHYSICAL_LIMIT: usize = 1 << 40;

/// Step by which the heap grows, in bytes.
pub const HEAP_STEP: usize = 1 << 20;

/// Stack of the boot task, in bytes: the compiler runs on it.
pub const BOOT_TASK_STACK: usize = 8 << 20;

/// Vector by which a task is interrupted; the first behind the processor's own exceptions.
pub const INTERRUPT_VECTOR: u8 = 32;
