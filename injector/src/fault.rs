//! The faults a guest can cause, in the order of the table `$faults` of every workload.

use TrapCode::*;
use wasm_cell::trap::TrapCode;

/// What the caller must get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// A trap of this code.
    Trap(TrapCode),
    /// The host function's panic.
    Panic,
    /// The trap of the fault whose number is in the argument's low four bits.
    Inner,
}

/// A fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GuestFault {
    /// Its name.
    pub name: &'static str,
    /// What the caller must get.
    pub expected: Expected,
}

const fn trap(name: &'static str, code: TrapCode) -> GuestFault {
    GuestFault { name, expected: Expected::Trap(code) }
}

/// Every fault. A workload's `kind` is an index here.
pub const GUEST_FAULTS: [GuestFault; 45] = [
    trap("unreachable", Unreachable),
    trap("load 8", MemoryOutOfBounds),
    trap("load 32", MemoryOutOfBounds),
    trap("load 64", MemoryOutOfBounds),
    trap("load, far offset", MemoryOutOfBounds),
    trap("load v128", MemoryOutOfBounds),
    trap("load lane", MemoryOutOfBounds),
    trap("store 8", MemoryOutOfBounds),
    trap("store 64", MemoryOutOfBounds),
    trap("store v128", MemoryOutOfBounds),
    trap("load, 64-bit memory", MemoryOutOfBounds),
    trap("store, 64-bit memory", MemoryOutOfBounds),
    trap("div 32 by zero", IntegerDivisionByZero),
    trap("rem 32 by zero", IntegerDivisionByZero),
    trap("div 32 overflow", IntegerOverflow),
    trap("div 64 overflow", IntegerOverflow),
    trap("rem 64 by zero", IntegerDivisionByZero),
    trap("trunc 32 of NaN", BadConversionToInteger),
    trap("trunc overflow", IntegerOverflow),
    trap("trunc 64 of NaN", BadConversionToInteger),
    trap("call_indirect null", IndirectCallToNull),
    trap("call_indirect mismatch", BadSignature),
    trap("call_indirect outside", TableOutOfBounds),
    trap("table.get", TableOutOfBounds),
    trap("table.set", TableOutOfBounds),
    trap("memory.fill", MemoryOutOfBounds),
    trap("memory.copy", MemoryOutOfBounds),
    trap("memory.init", MemoryOutOfBounds),
    trap("table.copy", TableOutOfBounds),
    trap("table.init", TableOutOfBounds),
    trap("table.fill", TableOutOfBounds),
    trap("stack, small frames", StackOverflow),
    trap("stack, 5 KB frames", StackOverflow),
    trap("stack, 100 KB frames", StackOverflow),
    trap("stack, host at the end", StackOverflow),
    trap("atomic misaligned", MisalignedAtomic),
    trap("atomic outside", MemoryOutOfBounds),
    trap("atomic wait unshared", ExpectedSharedMemory),
    trap("call_ref null", NullReference),
    trap("ref.as_non_null", NullReference),
    trap("host error", HostError),
    GuestFault { name: "host panic", expected: Expected::Panic },
    GuestFault { name: "trap under the host", expected: Expected::Inner },
    GuestFault { name: "trap under a raw call", expected: Expected::Inner },
    GuestFault { name: "trap in a destructor", expected: Expected::Panic },
];

impl GuestFault {
    /// What the caller must get when the fault has this argument: a trap's code, or `None` for a panic.
    pub fn trap_code(&self, argument: i64) -> Option<TrapCode> {
        match self.expected {
            Expected::Trap(code) => Some(code),
            Expected::Panic => None,
            Expected::Inner => GUEST_FAULTS[argument as usize & 15].trap_code(0),
        }
    }
}
