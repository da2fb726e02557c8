//! Functions of the embedder, imported by wasm.
//!
//! A [`HostFunc`] is a closure with a wasm type. A closure whose Rust signature says its wasm type is turned into one by
//! [`IntoHostFunc`]; one that learns its type at run time by [`HostFunc::dynamic`]. Each importing cell reaches it through a
//! [`Thunk`] of its own, which tells the closure who calls ([`Caller`]).
//!
//! A closure that returns `Err` traps its caller with `HostError`, after the closure and all its frames are gone. One that
//! panics unwinds through the wasm code that called it.

mod closure;
mod thunk;
mod trampoline;

pub use closure::{HostResults, IntoHostFunc, WithCaller};
pub use thunk::{Thunk, ThunkError};
pub(crate) use trampoline::is_host_trampoline;

use crate::call::{Cursor, Place, Registers, read, return_area, stack_arguments, write};
use crate::caller::Caller;
use crate::trap::HostError;
use crate::val::Val;
use alloc::{sync::Arc, vec::Vec};
use core::fmt;
use wasm_cell::types::{FuncType, ValType};

/// A function of the embedder.
#[derive(Clone)]
pub struct HostFunc {
    ty: FuncType,
    body: Arc<dyn HostBody>,
}

/// What stands behind a host function.
pub(crate) trait HostBody: Send + Sync {
    /// Reads the arguments, runs, and writes the results.
    ///
    /// # Safety
    /// `registers` and `stack` hold arguments of the function's type as the convention puts them.
    unsafe fn call(&self, caller: &Caller, registers: &mut Registers, stack: *mut u64) -> Result<(), HostError>;
}

impl HostFunc {
    /// A function that is told its arguments as values. The results are preset to zero and null.
    pub fn dynamic<F>(ty: FuncType, f: F) -> HostFunc
    where
        F: Fn(&Caller, &[Val], &mut [Val]) -> Result<(), HostError> + Send + Sync + 'static,
    {
        let area = return_area(&ty.results) > 0;
        HostFunc { body: Arc::new(Dynamic { ty: ty.clone(), area, f }), ty }
    }

    /// A function that is a Rust closure over wasm values.
    pub fn wrap<P, R>(f: impl IntoHostFunc<P, R>) -> HostFunc {
        f.into_host_func()
    }

    pub(crate) fn from_body(ty: FuncType, body: Arc<dyn HostBody>) -> HostFunc {
        HostFunc { ty, body }
    }

    /// Its type.
    pub fn ty(&self) -> &FuncType {
        &self.ty
    }

    pub(crate) fn body(&self) -> &Arc<dyn HostBody> {
        &self.body
    }

    /// Bytes of stack arguments, which it pops.
    pub(crate) fn stack_bytes(&self) -> usize {
        stack_arguments(&self.ty)
    }
}

impl fmt::Debug for HostFunc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostFunc({})", self.ty)
    }
}

/// A host function's result does not have the type it declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a host function of type {ty} returned {given} as result {index}")]
pub struct WrongResult {
    /// The function's type.
    pub ty: FuncType,
    /// Which result.
    pub index: usize,
    /// What it was set to.
    pub given: Val,
}

struct Dynamic<F> {
    ty: FuncType,
    area: bool,
    f: F,
}

impl<F> HostBody for Dynamic<F>
where
    F: Fn(&Caller, &[Val], &mut [Val]) -> Result<(), HostError> + Send + Sync,
{
    unsafe fn call(&self, caller: &Caller, registers: &mut Registers, stack: *mut u64) -> Result<(), HostError> {
        let (params, results) = (&self.ty.params, &self.ty.results);
        let mut values: Vec<Val> = Vec::new();
        values.try_reserve_exact(params.len() + results.len())?;
        let mut cursor = Cursor::args(self.area);
        for ty in params {
            // SAFETY: the caller's promise; a function that is an argument of an imported one has escaped.
            values.push(unsafe { Val::from_raw(read(cursor.next(ty), ty, registers, stack), ty) });
        }
        values.extend(results.iter().map(Val::default_for));
        let area = match self.area {
            // SAFETY: with a return area its address is the first integer argument.
            true => unsafe { read(Place::Int(0), &ValType::I64, registers, stack) as usize as *mut u64 },
            false => core::ptr::null_mut(),
        };
        let (args, out) = values.split_at_mut(params.len());
        (self.f)(caller, args, out)?;
        let mut cursor = Cursor::results();
        for (index, (value, ty)) in out.iter().zip(results).enumerate() {
            if !value.fits(ty) {
                return Err(WrongResult { ty: self.ty.clone(), index, given: *value }.into());
            }
            // SAFETY: the caller made the return area for results of this type.
            unsafe { write(cursor.next(ty), ty, registers, area, value.to_raw()) };
        }
        Ok(())
    }
}
