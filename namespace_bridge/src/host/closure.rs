//! Rust closures as host functions: the wasm type comes from the Rust signature.

use super::{HostBody, HostFunc};
use crate::call::{Cursor, Place, Registers, read, write};
use crate::caller::Caller;
use crate::trap::HostError;
use crate::typed::{WasmResults, for_each_arity};
use crate::val::WasmTy;
use alloc::sync::Arc;
use core::marker::PhantomData;
use wasm_cell::types::{FuncType, ValType};

/// Closures that can be imported: `Fn(args…) -> R` and `Fn(&Caller, args…) -> R` with up to 16 arguments.
///
/// Arguments are [`WasmTy`]; `R` is [`HostResults`]. `P` and `R` only tell the implementations apart and are inferred.
pub trait IntoHostFunc<P, R> {
    /// The host function.
    fn into_host_func(self) -> HostFunc;
}

/// Marks closures that want to know their caller.
#[derive(Debug)]
pub struct WithCaller<P>(PhantomData<P>);

/// What a host closure may return: `()`, one [`WasmTy`], a tuple of up to 16, or a `Result` of one of these with an error
/// that converts to a boxed error.
pub trait HostResults {
    /// Their wasm types.
    const TYPES: &'static [ValType];
    /// Writes the results where the convention wants them.
    ///
    /// # Safety
    /// `area` must have room for the results that find no register.
    unsafe fn store(self, registers: &mut Registers, area: *mut u64) -> Result<(), HostError>;
}

impl<T: WasmTy> HostResults for T {
    const TYPES: &'static [ValType] = &[T::TYPE];
    #[inline(always)]
    unsafe fn store(self, registers: &mut Registers, area: *mut u64) -> Result<(), HostError> {
        // SAFETY: one result is always in a register.
        unsafe { write(Cursor::results().next(&T::TYPE), &T::TYPE, registers, area, self.to_raw()) };
        Ok(())
    }
}

impl<T: HostResults, E: Into<HostError>> HostResults for Result<T, E> {
    const TYPES: &'static [ValType] = T::TYPES;
    #[inline(always)]
    unsafe fn store(self, registers: &mut Registers, area: *mut u64) -> Result<(), HostError> {
        match self {
            // SAFETY: the caller's promise.
            Ok(value) => unsafe { value.store(registers, area) },
            Err(e) => Err(e.into()),
        }
    }
}

struct Closure<F, P, R> {
    f: F,
    signature: PhantomData<fn(P) -> R>,
}

/// Whether results of these types need a return area.
const fn needs_area(types: &[ValType]) -> bool {
    let mut cursor = Cursor::results();
    let mut i = 0;
    while i < types.len() {
        cursor.next(&types[i]);
        i += 1;
    }
    cursor.memory() > 0
}

/// # Safety
/// `registers` hold the arguments of a function with results `R`.
#[inline(always)]
unsafe fn area_of<R: HostResults>(registers: &Registers) -> *mut u64 {
    if !const { needs_area(R::TYPES) } {
        return core::ptr::null_mut();
    }
    // SAFETY: with a return area its address is the first integer argument.
    unsafe { read(Place::Int(0), &ValType::I64, registers, core::ptr::null()) as usize as *mut u64 }
}

macro_rules! closures {
    ($($t:ident)*) => {
        closures!(@ [] [caller] ($($t,)*), $($t)*);
        closures!(@ [&Caller,] [] WithCaller<($($t,)*)>, $($t)*);

        impl<$($t: WasmTy),*> HostResults for ($($t,)*) {
            const TYPES: &'static [ValType] = <Self as WasmResults>::TYPES;
            #[inline(always)]
            #[allow(non_snake_case, unused_mut, unused_variables, reason = "the same code for every arity, 0 included")]
            unsafe fn store(self, registers: &mut Registers, area: *mut u64) -> Result<(), HostError> {
                let ($($t,)*) = self;
                let mut cursor = Cursor::results();
                // SAFETY: the caller's promise.
                $( unsafe { write(cursor.next(&$t::TYPE), &$t::TYPE, registers, area, $t.to_raw()) }; )*
                Ok(())
            }
        }
    };
    (@ [$($caller:tt)*] [$($unused:ident)?] $marker:ty, $($t:ident)*) => {
        impl<Func, $($t: WasmTy,)* Res> IntoHostFunc<$marker, Res> for Func
        where
            Func: Fn($($caller)* $($t),*) -> Res + Send + Sync + 'static,
            Res: HostResults + 'static,
        {
            fn into_host_func(self) -> HostFunc {
                let ty = FuncType::new([$($t::TYPE),*], Res::TYPES);
                let body: Closure<Func, $marker, Res> = Closure { f: self, signature: PhantomData };
                HostFunc::from_body(ty, Arc::new(body))
            }
        }

        impl<Func, $($t: WasmTy,)* Res> HostBody for Closure<Func, $marker, Res>
        where
            Func: Fn($($caller)* $($t),*) -> Res + Send + Sync,
            Res: HostResults,
        {
            #[inline]
            #[allow(non_snake_case, unused_mut, unused_variables, reason = "the same code for every arity, 0 included")]
            unsafe fn call(&self, caller: &Caller, registers: &mut Registers, stack: *mut u64) -> Result<(), HostError> {
                let mut cursor = Cursor::args(const { needs_area(Res::TYPES) });
                // SAFETY: the caller's promise: arguments and return area are those of this signature.
                unsafe {
                    $( let $t = $t::from_raw(read(cursor.next(&$t::TYPE), &$t::TYPE, registers, stack)); )*
                    let area = area_of::<Res>(registers);
                    closures!(@call self caller [$($caller)*] $($t)*).store(registers, area)
                }
            }
        }
    };
    (@call $self:ident $c:ident [] $($t:ident)*) => { ($self.f)($($t),*) };
    (@call $self:ident $c:ident [&Caller,] $($t:ident)*) => { ($self.f)($c, $($t),*) };
}

for_each_arity!(closures);
