//! Tasks and their stacks.

use crate::memory::PAGE_SIZE;

/// Bytes of stack kept inaccessible below the wasm limit of a task (the "yellow zone"). A fault in it raised by
/// wasm code is the stack-overflow trap.
pub const YELLOW_ZONE: usize = 16 * PAGE_SIZE;

/// Bytes of stack that stay below the yellow zone for the handler's own use, never given to guests.
pub const RED_RESERVE: usize = 16 * PAGE_SIZE;

/// The lowest part of that: inaccessible until native code has used up all the rest, then there for unwinding from it (bare metal), in
/// bytes.
pub const OVERFLOW_RESERVE: usize = RED_RESERVE / 2;

/// Default stack of a task that runs cells, in bytes.
pub const DEFAULT_STACK: usize = 2 << 20;

/// Stack for exception handling of one task (`sigaltstack` hosted, IST bare metal), in bytes.
pub const ALTERNATE_STACK: usize = 64 << 10;
