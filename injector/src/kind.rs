//! What is made to go wrong.

use core::fmt;
use core::str::FromStr;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The guest traps, fails or panics in the host, or overflows its stack, at a random step of its work.
    Guest,
    /// As `Guest`, at the k-th instruction of a workload.
    Instruction,
    /// As `Guest`, at the k-th call.
    Call,
    /// As `Guest`, at the k-th access of a memory, a table or a global.
    Access,
    /// Bits and words of linear memory change.
    Memory,
    /// Bits and words of mutable globals change.
    Global,
    /// Bits and words of tables change: function references become other addresses.
    Table,
    /// Bits and words of machine code change: text and stable entries.
    Text,
    /// Bits and words of the linker's part of the data block change: addresses of memories, tables, functions, builtins.
    Linkage,
    /// Bits and words of metadata change: trap table, address map, functions, layout.
    Metadata,
    /// Bits and words of unwind info change.
    Unwind,
    /// Tasks are told to stop, at random times, while others work beside them.
    Kill,
    /// A request to the platform is refused: memory, mappings, frames, unwind registrations.
    Refusal,
    /// An allocation on the heap fails.
    Heap,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 14] = [
        Kind::Guest,
        Kind::Instruction,
        Kind::Call,
        Kind::Access,
        Kind::Memory,
        Kind::Global,
        Kind::Table,
        Kind::Text,
        Kind::Linkage,
        Kind::Metadata,
        Kind::Unwind,
        Kind::Kill,
        Kind::Refusal,
        Kind::Heap,
    ];

    /// Whether it damages what the process itself relies on, so that it can end the process: such campaigns are
    /// run in processes of their own.
    pub fn may_end_process(self) -> bool {
        use Kind::{Access, Call, Guest, Heap, Instruction, Kill, Refusal};
        !matches!(self, Guest | Instruction | Call | Access | Kill | Refusal | Heap)
    }

    /// Its name, for reports and command lines.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Guest => "guest",
            Kind::Instruction => "instruction",
            Kind::Call => "call",
            Kind::Access => "access",
            Kind::Memory => "memory",
            Kind::Global => "global",
            Kind::Table => "table",
            Kind::Text => "text",
            Kind::Linkage => "linkage",
            Kind::Metadata => "metadata",
            Kind::Unwind => "unwind",
            Kind::Kill => "kill",
            Kind::Refusal => "refusal",
            Kind::Heap => "heap",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that no kind has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such kind of fault")]
pub struct UnknownKind;

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(name: &str) -> Result<Kind, UnknownKind> {
        Kind::ALL.into_iter().find(|k| k.name() == name).ok_or(UnknownKind)
    }
}
