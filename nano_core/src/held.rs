//! What cells hold of the kernel, in numbers: for checks that nothing stays behind.

use namespace_bridge::{text_index::TEXT, types_registry::registered_types};
use runtime_port::{bare_metal::memory::frame_use, heap, platform, unwind::registrations};

/// What must not grow however often cells come, go and change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Ranges of code.
    pub texts: usize,
    /// Function types.
    pub types: usize,
    /// Registrations with the unwinder.
    pub registrations: usize,
    /// Frames of code, in bytes.
    pub shared: usize,
    /// Address space, in bytes.
    pub reserved: usize,
    /// Frames in use.
    pub frames: usize,
    /// Bytes in use on the heap.
    pub heap: usize,
}

impl Held {
    /// The numbers now.
    pub fn now() -> Held {
        let (memory, frames) = (platform().memory().statistics(), frame_use());
        Held {
            texts: TEXT.len(),
            types: registered_types(),
            registrations: registrations(),
            shared: memory.shared_bytes,
            reserved: memory.reserved_bytes,
            frames: frames.total - frames.free,
            heap: heap::statistics().map_or(0, |heap| heap.used),
        }
    }

    /// Whether more than pools and lists can explain was added meanwhile. Code and its registrations must be as many as before; of
    /// the rest may have come what some dozen swaps need at one time, and the entries of a few names, which stay. That is far less than
    /// what thousands of swaps would leave if each left anything.
    pub fn has_grown_to(&self, now: &Held) -> bool {
        let counted = |h: &Held| (h.texts, h.types, h.registrations);
        counted(self) != counted(now)
            || now.shared > self.shared + (64 << 10)
            || now.reserved > self.reserved + (1 << 20)
            || now.frames > self.frames + 256
            || now.heap > self.heap + (64 << 10)
    }
}
