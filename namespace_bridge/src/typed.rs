//! Handles of functions: checked once, then called at the cost of a call.
//!
//! A handle calls the function's *stable entry*, so it follows every later swap of the cell, and fails with
//! [`TrapCode::FunctionGone`](wasm_cell::trap::TrapCode::FunctionGone) once the cell is unloaded.

use crate::call::{Activation, CallError, Cursor, Place, Registers, Shape, call_values, read, write};
use crate::entries::EntryBlock;
use crate::func_ref::FuncRef;
use crate::host::Thunk;
use crate::native_entry::NativeFunction;
use crate::trap::Trap;
use crate::val::{Val, WasmTy};
use alloc::{boxed::Box, string::String, sync::Arc};
use core::any::Any;
use core::fmt;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use wasm_cell::types::{FuncType, ValType};

/// What keeps the pages of an entry mapped.
pub type EntryOwner = Arc<dyn Any + Send + Sync>;

/// A function of any type.
#[derive(Clone)]
pub struct Func {
    entry: usize,
    ty: Arc<FuncType>,
    owner: EntryOwner,
}

/// A function with parameters `P` and results `R`, both tuples ([`WasmParams`], [`WasmResults`]).
pub struct TypedFunc<P, R> {
    entry: usize,
    owner: EntryOwner,
    signature: PhantomData<fn(P) -> R>,
}

/// The Rust signature is not the function's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the function has type {actual}, not {wanted}")]
pub struct TypeMismatch {
    /// The function's type.
    pub actual: FuncType,
    /// What the Rust types stand for.
    pub wanted: String,
}

impl Func {
    /// A handle of the function at `entry`.
    ///
    /// # Safety
    /// `entry` must be code of a function of type `ty` with the wasm convention and its type id before it
    /// (docs/CELL_ABI.md), mapped as long as `owner` lives. (A native function has no type id; then `owner` is its
    /// [`NativeFunction`].)
    pub unsafe fn new(entry: usize, ty: Arc<FuncType>, owner: EntryOwner) -> Func {
        Func { entry, ty, owner }
    }

    /// Its type.
    pub fn ty(&self) -> &FuncType {
        &self.ty
    }

    /// A reference to it that wasm code understands: the same for every handle of the function. It may be kept
    /// anywhere; once the function is gone, its calls trap. `None` without memory for a stub.
    pub fn reference(&self) -> Option<FuncRef> {
        let address = escape(self.entry, &self.owner)?;
        // SAFETY: an address with a type id before it that, from now on, stays when its owner goes.
        unsafe { FuncRef::from_address(address) }
    }

    /// Calls it. `results` must have the length of its results.
    pub fn call(&self, args: &[Val], results: &mut [Val]) -> Result<(), CallError> {
        // SAFETY: the promise of `new`. That function references are what `ty` says is checked where they are made.
        unsafe { call_values(self.entry, &self.ty, args, results) }
    }

    /// The handle for a Rust signature, if it is the function's.
    pub fn typed<P: WasmParams, R: WasmResults>(&self) -> Result<TypedFunc<P, R>, TypeMismatch> {
        // What goes in must be what the function takes, what comes out what the Rust type can hold.
        let fit = |from: &[ValType], to: &[ValType]| {
            from.len() == to.len() && from.iter().zip(to).all(|(a, b)| a.is_subtype_of(b))
        };
        if !fit(P::TYPES, &self.ty.params) || !fit(&self.ty.results, R::TYPES) {
            let wanted = describe(P::TYPES, R::TYPES);
            return Err(TypeMismatch { actual: (*self.ty).clone(), wanted });
        }
        Ok(TypedFunc { entry: self.entry, owner: self.owner.clone(), signature: PhantomData })
    }

    /// The entry as a plain function pointer type `F`, for signatures whose arguments all travel in registers.
    ///
    /// Calls through it are outside of any catch unless the caller makes one: a trap then unwinds as a panic with a [`Trap`] as
    /// payload.
    ///
    /// # Safety
    /// `F` must be `extern "C-unwind" fn` with the function's signature, and must not be used after the owner of the
    /// entry is gone.
    pub unsafe fn entry<F: Copy>(&self) -> Result<F, TypeMismatch> {
        const { assert!(size_of::<F>() == size_of::<usize>(), "F must be a function pointer") };
        if !self.ty.is_register_only() {
            let wanted = String::from("a signature with all arguments in registers and at most one result");
            return Err(TypeMismatch { actual: (*self.ty).clone(), wanted });
        }
        // SAFETY: `F` is a function pointer of the function's signature, says the caller.
        Ok(unsafe { core::mem::transmute_copy(&self.entry) })
    }
}

/// Makes an entry one that may be held anywhere, and gives the address that stands for it in references.
fn escape(entry: usize, owner: &EntryOwner) -> Option<usize> {
    if let Some(native) = owner.downcast_ref::<NativeFunction>() {
        return native.reference().ok();
    }
    if let Ok(block) = owner.clone().downcast::<EntryBlock>() {
        block.mark_escaped();
    } else if let Some(thunk) = owner.downcast_ref::<Thunk>() {
        thunk.mark_escaped();
    } else {
        // An owner that the maker of the handle chose: it stays for ever.
        core::mem::forget(owner.clone());
    }
    Some(entry)
}

fn describe(params: &[ValType], results: &[ValType]) -> String {
    let ty =
        FuncType { params: Box::from(params), results: Box::from(results), hash: wasm_cell::types::TypeHash([0; 16]) };
    alloc::format!("{ty}")
}

impl fmt::Debug for Func {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Func({:#x}: {})", self.entry, self.ty)
    }
}

impl<P, R> fmt::Debug for TypedFunc<P, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypedFunc({:#x})", self.entry)
    }
}

impl<P, R> Clone for TypedFunc<P, R> {
    fn clone(&self) -> Self {
        TypedFunc { entry: self.entry, owner: self.owner.clone(), signature: PhantomData }
    }
}

/// Words of memory that 16 values can need.
const WORDS: usize = 32;

impl<P: WasmParams, R: WasmResults> TypedFunc<P, R> {
    const AREA: usize = memory_of(Cursor::results(), R::TYPES).memory();
    const ARGS: Cursor = memory_of(Cursor::args(Self::AREA > 0), P::TYPES);
    const SHAPE: Shape = if Self::ARGS.memory() > 0 || R::TYPES.len() > 1 {
        Shape::Full
    } else if Self::ARGS.uses_floats() {
        Shape::Registers
    } else if P::TYPES.len() > 2 {
        Shape::Integers
    } else {
        Shape::Pair
    };

    /// Calls the function.
    #[inline]
    pub fn call(&self, params: P) -> Result<R, Trap> {
        if matches!(Self::SHAPE, Shape::Full) {
            return self.call_with_memory(params);
        }
        let mut call = Activation::new();
        // SAFETY: all arguments and results are in registers; the type was checked when the handle was made, and the owner
        // keeps the entry mapped.
        unsafe {
            params.store(Cursor::args(false), call.registers(), core::ptr::null_mut());
            call.enter(Self::SHAPE, self.entry, core::ptr::null(), 0)?;
            Ok(R::load(call.registers(), core::ptr::null()))
        }
    }

    fn call_with_memory(&self, params: P) -> Result<R, Trap> {
        let mut call = Activation::new();
        let mut stack = [MaybeUninit::<u64>::uninit(); WORDS];
        let mut area = [MaybeUninit::<u64>::uninit(); WORDS];
        let (stack, area) = (stack.as_mut_ptr().cast::<u64>(), area.as_mut_ptr().cast::<u64>());
        const { assert!(Self::ARGS.memory() <= WORDS * 8 && Self::AREA <= WORDS * 8) };
        // SAFETY: both memories are large enough (asserted); the rest as in `call`.
        unsafe {
            if Self::AREA > 0 {
                write(Place::Int(0), &ValType::I64, call.registers(), stack, area as u128);
            }
            params.store(Cursor::args(Self::AREA > 0), call.registers(), stack);
            call.enter(Shape::Full, self.entry, stack, Self::ARGS.memory())?;
            Ok(R::load(call.registers(), area))
        }
    }
}

const fn memory_of(mut cursor: Cursor, types: &[ValType]) -> Cursor {
    let mut i = 0;
    while i < types.len() {
        cursor.next(&types[i]);
        i += 1;
    }
    cursor
}

/// Parameters of a typed function: a tuple of up to 16 [`WasmTy`].
pub trait WasmParams {
    /// Their wasm types.
    const TYPES: &'static [ValType];
    /// Writes the arguments where the convention wants them.
    ///
    /// # Safety
    /// `memory` must have room for the arguments that find no register.
    unsafe fn store(self, cursor: Cursor, registers: &mut Registers, memory: *mut u64);
}

/// Results of a typed function: `()`, one [`WasmTy`], or a tuple of up to 16.
pub trait WasmResults: Sized {
    /// Their wasm types.
    const TYPES: &'static [ValType];
    /// Reads the results.
    ///
    /// # Safety
    /// Registers and `memory` must hold results of these types.
    unsafe fn load(registers: &Registers, memory: *const u64) -> Self;
}

impl<T: WasmTy> WasmResults for T {
    const TYPES: &'static [ValType] = &[T::TYPE];
    #[inline(always)]
    unsafe fn load(registers: &Registers, memory: *const u64) -> Self {
        // SAFETY: the caller's promise.
        unsafe { T::from_raw(read(Cursor::results().next(&T::TYPE), &T::TYPE, registers, memory)) }
    }
}

macro_rules! tuples {
    ($($t:ident)*) => {
        impl<$($t: WasmTy),*> WasmParams for ($($t,)*) {
            const TYPES: &'static [ValType] = &[$($t::TYPE),*];
            #[inline(always)]
            #[allow(non_snake_case, unused_mut, unused_variables, reason = "the same code for every arity, 0 included")]
            unsafe fn store(self, mut cursor: Cursor, registers: &mut Registers, memory: *mut u64) {
                let ($($t,)*) = self;
                // SAFETY: the caller's promise.
                $( unsafe { write(cursor.next(&$t::TYPE), &$t::TYPE, registers, memory, $t.to_raw()) }; )*
            }
        }

        impl<$($t: WasmTy),*> WasmResults for ($($t,)*) {
            const TYPES: &'static [ValType] = &[$($t::TYPE),*];
            #[inline(always)]
            #[allow(clippy::unused_unit, unused_mut, unused_variables, reason = "the same code for every arity, 0 included")]
            unsafe fn load(registers: &Registers, memory: *const u64) -> Self {
                let mut cursor = Cursor::results();
                // SAFETY: the caller's promise.
                ($( unsafe { $t::from_raw(read(cursor.next(&$t::TYPE), &$t::TYPE, registers, memory)) }, )*)
            }
        }
    };
}

/// Calls a macro with every list of 0 to 16 type names.
macro_rules! for_each_arity {
    ($m:ident) => {
        $m!();
        $m!(A1);
        $m!(A1 A2);
        $m!(A1 A2 A3);
        $m!(A1 A2 A3 A4);
        $m!(A1 A2 A3 A4 A5);
        $m!(A1 A2 A3 A4 A5 A6);
        $m!(A1 A2 A3 A4 A5 A6 A7);
        $m!(A1 A2 A3 A4 A5 A6 A7 A8);
        $m!(A1 A2 A3 A4 A5 A6 A7 A8 A9);
        $m!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10);
        $m!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11);
        $m!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12);
        $m!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13);
        $m!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14);
        $m!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14 A15);
        $m!(A1 A2 A3 A4 A5 A6 A7 A8 A9 A10 A11 A12 A13 A14 A15 A16);
    };
}
pub(crate) use for_each_arity;

for_each_arity!(tuples);
