//! Calling any function with a slice of values: the signature is learnt at run time.

use super::{Activation, Cursor, Place, Shape, read, return_area, write};
use crate::trap::Trap;
use crate::val::Val;
use alloc::{string::String, vec::Vec};
use core::fmt::Write;
use core::mem::MaybeUninit;
use wasm_cell::trap::TrapCode;
use wasm_cell::types::{FuncType, ValType};

/// Words of stack arguments and return area that need no allocation.
const INLINE_WORDS: usize = 32;

/// Why a call by values failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The arguments are not what the function takes; nothing was called.
    #[error("the function takes {expected}, but was given ({given})")]
    Arguments {
        /// The function's type.
        expected: FuncType,
        /// Types of the values.
        given: String,
    },
    /// The place for the results has another length than the results.
    #[error("the function returns {expected} values, but there is room for {given}")]
    Results {
        /// Number of results of the function.
        expected: usize,
        /// Length of the slice.
        given: usize,
    },
    /// The call did not return.
    #[error(transparent)]
    Trap(#[from] Trap),
}

impl CallError {
    /// The trap, if that is what it is.
    pub fn into_trap(self) -> Result<Trap, CallError> {
        match self {
            CallError::Trap(t) => Ok(t),
            other => Err(other),
        }
    }
}

/// Memory of a few words, on the stack when that is enough.
struct Words {
    inline: [MaybeUninit<u64>; INLINE_WORDS],
    heap: Vec<u64>,
    len: usize,
}

impl Words {
    fn new(bytes: usize) -> Result<Words, Trap> {
        let len = bytes / 8;
        let mut heap = Vec::new();
        if len > INLINE_WORDS {
            heap.try_reserve_exact(len).map_err(|_| Trap::new(TrapCode::OutOfMemory))?;
            heap.resize(len, 0);
        }
        Ok(Words { inline: [MaybeUninit::uninit(); INLINE_WORDS], heap, len })
    }

    fn as_mut_ptr(&mut self) -> *mut u64 {
        if self.len > INLINE_WORDS { self.heap.as_mut_ptr() } else { self.inline.as_mut_ptr().cast() }
    }
}

/// Calls the function at `entry` (a stable entry, or any code with the wasm convention).
///
/// # Safety
/// `entry` must be code of a function of type `ty` and stay mapped during the call.
pub unsafe fn call_values(entry: usize, ty: &FuncType, args: &[Val], results: &mut [Val]) -> Result<(), CallError> {
    if args.len() != ty.params.len() || !args.iter().zip(&ty.params).all(|(a, p)| a.fits(p)) {
        return Err(CallError::Arguments { expected: ty.clone(), given: describe(args) });
    }
    if results.len() != ty.results.len() {
        return Err(CallError::Results { expected: ty.results.len(), given: results.len() });
    }
    let area_bytes = return_area(&ty.results);
    let mut cursor = Cursor::args(area_bytes > 0);
    let bytes = {
        let mut c = cursor;
        ty.params.iter().for_each(|p| {
            c.next(p);
        });
        c.memory()
    };
    let (mut stack, mut area) = (Words::new(bytes)?, Words::new(area_bytes)?);
    let mut call = Activation::new();
    if area_bytes > 0 {
        // SAFETY: a register.
        unsafe { write(Place::Int(0), &ValType::I64, call.registers(), stack.as_mut_ptr(), area.as_mut_ptr() as u128) };
    }
    for (arg, ty) in args.iter().zip(&ty.params) {
        // SAFETY: `stack` has the size that the same cursor gave.
        unsafe { write(cursor.next(ty), ty, call.registers(), stack.as_mut_ptr(), arg.to_raw()) };
    }
    let shape = match () {
        _ if bytes > 0 || ty.results.len() > 1 => Shape::Full,
        _ if cursor.uses_floats() => Shape::Registers,
        _ => Shape::Integers,
    };
    // SAFETY: laid out for the type of the function; `stack` holds `bytes` bytes, of which padding may be uninitialised and is
    // only copied.
    unsafe { call.enter(shape, entry, stack.as_mut_ptr(), bytes)? };
    let mut cursor = Cursor::results();
    for (result, ty) in results.iter_mut().zip(&ty.results) {
        // SAFETY: the callee has returned, so every result is in its place.
        // A function that is the result of an exported one has escaped.
        *result = unsafe { Val::from_raw(read(cursor.next(ty), ty, call.registers(), area.as_mut_ptr()), ty) };
    }
    Ok(())
}

fn describe(args: &[Val]) -> String {
    let mut s = String::new();
    for (i, a) in args.iter().enumerate() {
        let name = match a {
            Val::I32(_) => "i32",
            Val::I64(_) => "i64",
            Val::F32(_) => "f32",
            Val::F64(_) => "f64",
            Val::V128(_) => "v128",
            Val::FuncRef(Some(_)) => "funcref",
            Val::ExternRef(Some(_)) => "externref",
            Val::FuncRef(None) | Val::ExternRef(None) => "null",
        };
        let _ = write!(s, "{}{name}", if i > 0 { ", " } else { "" });
    }
    s
}
