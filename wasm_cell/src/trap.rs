//! Trap codes and the per-cell trap table.
//!
//! A trap code says why wasm code stopped. The table of a cell maps code offsets to `(code, wasm offset)`:
//! one row per instruction that may fault and one per call to a trap stub (keyed by its return address).

use crate::rows::Rows;
use bincode::{Decode, Encode};

/// Why a wasm function stopped (core spec, 4.6 "Execution", the `trap` cases; plus the causes of this system).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
#[repr(u8)]
pub enum TrapCode {
    /// `unreachable` was executed.
    Unreachable = 1,
    /// A load, store or bulk memory operation left its memory.
    MemoryOutOfBounds = 2,
    /// A table access or bulk table operation left its table.
    TableOutOfBounds = 3,
    /// `call_indirect` met a null element.
    IndirectCallToNull = 4,
    /// `call_indirect` met a function of another type.
    BadSignature = 5,
    /// Signed division overflowed, or a float did not fit its integer.
    IntegerOverflow = 6,
    /// Integer division or remainder by zero.
    IntegerDivisionByZero = 7,
    /// A NaN was converted to an integer.
    BadConversionToInteger = 8,
    /// The call stack is exhausted.
    StackOverflow = 9,
    /// An atomic access was not naturally aligned.
    MisalignedAtomic = 10,
    /// A null reference where one to something is required.
    NullReference = 11,
    /// `memory.atomic.wait` on a memory that is not shared.
    ExpectedSharedMemory = 12,
    /// A reference cast failed.
    CastFailure = 13,
    /// An array access left its array.
    ArrayOutOfBounds = 14,
    /// A wasm exception reached the host.
    UncaughtException = 15,
    /// The task was asked to stop.
    Killed = 16,
    /// A host function returned an error.
    HostError = 17,
    /// The function's cell has been unloaded, or its new version lacks the function.
    FunctionGone = 18,
    /// The runtime could not get the memory it needs to go on.
    OutOfMemory = 19,
    /// An indefinite wait while holding a gate, or one that would close a cycle of waits.
    Deadlock = 20,
    /// The function's cell failed and waits for its recovery.
    Poisoned = 21,
    /// The function's cell failed too often and is out of service.
    Quarantined = 22,
    /// A CPU exception in the cell's code, or in native code under a cell whose code has changed, that no trap site explains.
    Corrupted = 23,
}

impl TrapCode {
    /// Every code, in numeric order.
    pub const ALL: [TrapCode; 23] = [
        TrapCode::Unreachable,
        TrapCode::MemoryOutOfBounds,
        TrapCode::TableOutOfBounds,
        TrapCode::IndirectCallToNull,
        TrapCode::BadSignature,
        TrapCode::IntegerOverflow,
        TrapCode::IntegerDivisionByZero,
        TrapCode::BadConversionToInteger,
        TrapCode::StackOverflow,
        TrapCode::MisalignedAtomic,
        TrapCode::NullReference,
        TrapCode::ExpectedSharedMemory,
        TrapCode::CastFailure,
        TrapCode::ArrayOutOfBounds,
        TrapCode::UncaughtException,
        TrapCode::Killed,
        TrapCode::HostError,
        TrapCode::FunctionGone,
        TrapCode::OutOfMemory,
        TrapCode::Deadlock,
        TrapCode::Poisoned,
        TrapCode::Quarantined,
        TrapCode::Corrupted,
    ];

    /// The code with this number, if there is one.
    pub fn from_u8(n: u8) -> Option<TrapCode> {
        Self::ALL.get(usize::from(n).wrapping_sub(1)).copied()
    }

    /// The message, in the words of the WebAssembly testsuite where it has some.
    pub fn message(self) -> &'static str {
        match self {
            TrapCode::Unreachable => "unreachable",
            TrapCode::MemoryOutOfBounds => "out of bounds memory access",
            TrapCode::TableOutOfBounds => "out of bounds table access",
            TrapCode::IndirectCallToNull => "uninitialized element",
            TrapCode::BadSignature => "indirect call type mismatch",
            TrapCode::IntegerOverflow => "integer overflow",
            TrapCode::IntegerDivisionByZero => "integer divide by zero",
            TrapCode::BadConversionToInteger => "invalid conversion to integer",
            TrapCode::StackOverflow => "call stack exhausted",
            TrapCode::MisalignedAtomic => "unaligned atomic",
            TrapCode::NullReference => "null reference",
            TrapCode::ExpectedSharedMemory => "expected shared memory",
            TrapCode::CastFailure => "cast failure",
            TrapCode::ArrayOutOfBounds => "out of bounds array access",
            TrapCode::UncaughtException => "uncaught exception",
            TrapCode::Killed => "killed",
            TrapCode::HostError => "host function failed",
            TrapCode::FunctionGone => "function is gone",
            TrapCode::OutOfMemory => "out of memory",
            TrapCode::Deadlock => "wait would deadlock",
            TrapCode::Poisoned => "cell is poisoned",
            TrapCode::Quarantined => "cell is quarantined",
            TrapCode::Corrupted => "cell is damaged",
        }
    }
}

impl core::fmt::Display for TrapCode {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.message())
    }
}

/// One row of the trap table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrapSite {
    /// Offset in the text section: of the faulting instruction, or the return address of the call to the trap stub.
    pub code_offset: u32,
    /// Offset of the wasm instruction from the start of the module, in bytes.
    pub wasm_offset: u32,
    /// Why it traps.
    pub code: TrapCode,
}

/// The trap sites of a cell, sorted by code offset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct TrapTable {
    /// Sorted by `code_offset`, each offset at most once.
    pub sites: Rows<TrapSite>,
}

impl TrapTable {
    /// The site at exactly this code offset. No allocation, no lock: safe in exception context.
    pub fn lookup(&self, code_offset: u32) -> Option<&TrapSite> {
        let i = self.sites.binary_search_by_key(&code_offset, |s| s.code_offset).ok()?;
        self.sites.get(i)
    }
}
