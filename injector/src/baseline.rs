//! What must be as it was when a cell is gone.

use alloc::{format, string::String};
use namespace_bridge::{CrateNamespace, text_index::TEXT, types_registry::registered_types};
use runtime_port::memory::committed_bytes;
use runtime_port::platform;

/// Everything that a fault could leave behind, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Baseline {
    /// Cells of the namespace.
    pub cells: usize,
    /// Symbols of the namespace.
    pub symbols: usize,
    /// Ranges in the text index.
    pub texts: usize,
    /// Function types in use.
    pub types: usize,
    /// Unwind registrations.
    pub unwind: usize,
    /// Address space in use, in bytes.
    pub reserved: usize,
    /// Frames of code, in bytes.
    pub shared: usize,
    /// Private frames, in bytes.
    pub committed: usize,
}

impl Baseline {
    /// The numbers now.
    pub fn take(namespace: &CrateNamespace) -> Baseline {
        let memory = platform().memory().statistics();
        Baseline {
            cells: namespace.crate_count(),
            symbols: namespace.symbol_count(),
            texts: TEXT.len(),
            types: registered_types(),
            unwind: runtime_port::unwind::registrations(),
            reserved: memory.reserved_bytes,
            shared: memory.shared_bytes,
            committed: committed_bytes(),
        }
    }

    /// An error in words unless all is as it was.
    pub fn compare(&self, now: &Baseline) -> Result<(), String> {
        if self == now { Ok(()) } else { Err(format!("left behind: {now:?} instead of {self:?}")) }
    }
}
