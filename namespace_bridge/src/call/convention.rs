//! Where the wasm convention puts arguments and results (docs/CELL_ABI.md, "Functions").
//!
//! [`Cursor`] walks a signature and names each value's place; [`Registers`] is the memory image of the registers, the same
//! for calls into wasm and for calls from wasm to host functions.
use core::mem::MaybeUninit;
use wasm_cell::types::{FLOAT_ARGS, FLOAT_RESULTS, FuncType, INT_ARGS, INT_RESULTS, ValType};

/// Memory image of argument or result registers. Arguments: `ints` are `rdi rsi rdx rcx r8 r9`; results: `rax rcx rdx
/// rsi rdi r8 r9 r10`. `floats` are `xmm0`–`xmm7` in both. What a signature does not use stays uninitialised.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(16))]
pub struct Registers {
    /// Integer registers.
    pub ints: [MaybeUninit<u64>; INT_RESULTS],
    /// Vector registers.
    pub floats: [MaybeUninit<u128>; FLOAT_RESULTS],
}

/// Where one value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `Registers::ints[i]`
    Int(usize),
    /// `Registers::floats[i]`
    Float(usize),
    /// In the stack arguments or the return area, at this byte offset.
    Memory(usize),
}

/// Walks over arguments or results in order.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    ints: usize,
    floats: usize,
    bytes: usize,
    int_limit: usize,
    float_limit: usize,
}

impl Cursor {
    /// For the arguments of a function; `area` says that the address of a return area goes before them.
    #[inline(always)]
    pub const fn args(area: bool) -> Cursor {
        Cursor { ints: area as usize, floats: 0, bytes: 0, int_limit: INT_ARGS, float_limit: FLOAT_ARGS }
    }

    /// For the results of a function.
    #[inline(always)]
    pub const fn results() -> Cursor {
        Cursor { ints: 0, floats: 0, bytes: 0, int_limit: INT_RESULTS, float_limit: FLOAT_RESULTS }
    }

    /// Place of the next value.
    #[inline(always)]
    pub const fn next(&mut self, ty: &ValType) -> Place {
        match ty {
            ValType::I32 | ValType::I64 | ValType::Ref(_) => {
                if self.ints < self.int_limit {
                    self.ints += 1;
                    return Place::Int(self.ints - 1);
                }
            }
            ValType::F32 | ValType::F64 | ValType::V128 => {
                if self.floats < self.float_limit {
                    self.floats += 1;
                    return Place::Float(self.floats - 1);
                }
            }
        }
        let size = if matches!(ty, ValType::V128) { 16 } else { 8 };
        let at = self.bytes.next_multiple_of(size);
        self.bytes = at + size;
        Place::Memory(at)
    }

    /// Bytes of memory taken so far, rounded up to 16: what the callee pops, or the size of the return area.
    #[inline(always)]
    pub const fn memory(&self) -> usize {
        self.bytes.next_multiple_of(16)
    }

    /// Whether any value so far is in a vector register.
    #[inline(always)]
    pub const fn uses_floats(&self) -> bool {
        self.floats > 0
    }
}

/// Bytes of the return area that results of these types need; 0 when all find registers.
pub fn return_area(results: &[ValType]) -> usize {
    let mut cursor = Cursor::results();
    for r in results {
        cursor.next(r);
    }
    cursor.memory()
}

/// Bytes of stack arguments of a function of this type, which it pops.
pub fn stack_arguments(ty: &FuncType) -> usize {
    let mut cursor = Cursor::args(return_area(&ty.results) > 0);
    for p in &ty.params {
        cursor.next(p);
    }
    cursor.memory()
}

/// Reads the value at a place. `memory` is where `Place::Memory(0)` is. Only the type's own bits of the result mean something.
///
/// # Safety
/// The place must hold a value of type `ty`: written by [`write()`], by the callee or by the caller.
#[inline(always)]
pub unsafe fn read(place: Place, ty: &ValType, registers: &Registers, memory: *const u64) -> u128 {
    // SAFETY: the caller's promise; a cursor never gives a register number out of range.
    unsafe {
        match place {
            Place::Int(i) => u128::from(registers.ints.get_unchecked(i).assume_init()),
            Place::Float(i) => registers.floats.get_unchecked(i).assume_init(),
            Place::Memory(at) if matches!(ty, ValType::V128) => memory.byte_add(at).cast::<u128>().read_unaligned(),
            Place::Memory(at) => u128::from(memory.byte_add(at).read()),
        }
    }
}

/// Writes the value at a place. `memory` is where `Place::Memory(0)` is.
///
/// # Safety
/// A `Place::Memory` must lie within the memory.
#[inline(always)]
pub unsafe fn write(place: Place, ty: &ValType, registers: &mut Registers, memory: *mut u64, raw: u128) {
    // SAFETY: the caller's promise; a cursor never gives a register number out of range.
    unsafe {
        match place {
            Place::Int(i) => *registers.ints.get_unchecked_mut(i) = MaybeUninit::new(raw as u64),
            Place::Float(i) => *registers.floats.get_unchecked_mut(i) = MaybeUninit::new(raw),
            Place::Memory(at) if matches!(ty, ValType::V128) => memory.byte_add(at).cast::<u128>().write_unaligned(raw),
            Place::Memory(at) => memory.byte_add(at).write(raw as u64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_counted_on_their_own_and_the_rest_goes_to_the_stack() {
        let mut c = Cursor::args(true);
        for i in 1..6 {
            assert_eq!(c.next(&ValType::I32), Place::Int(i));
        }
        assert_eq!(c.next(&ValType::F64), Place::Float(0));
        assert_eq!(c.next(&ValType::I64), Place::Memory(0));
        for i in 1..8 {
            assert_eq!(c.next(&ValType::V128), Place::Float(i));
        }
        assert_eq!(c.next(&ValType::V128), Place::Memory(16));
        assert_eq!(c.next(&ValType::I32), Place::Memory(32));
        assert_eq!(c.memory(), 48);
    }

    #[test]
    fn results_have_eight_registers_of_each_class() {
        assert_eq!(return_area(&[ValType::I32; 8]), 0);
        assert_eq!(return_area(&[ValType::I32; 9]), 16);
        assert_eq!(return_area(&[ValType::V128; 10]), 32);
    }
}
