//! Values that cross between native code and wasm.
//!
//! [`Val`] is the dynamic form, for callers that learn a signature at run time. [`WasmTy`] is the static one: the Rust
//! types that typed handles and host functions use, each with its wasm type and its register class.

use crate::func_ref::FuncRef;
use crate::types_registry::registered_id;
use core::fmt;
use core::num::NonZeroU64;
use wasm_cell::types::{HeapType, RefType, ValType};

/// A reference to a host value: 64 bits that only the host interprets. 0 is null and no `ExternRef`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExternRef(NonZeroU64);

impl ExternRef {
    /// The reference with these bits; `None` for 0, which is null.
    pub fn new(bits: u64) -> Option<ExternRef> {
        NonZeroU64::new(bits).map(ExternRef)
    }

    /// The bits.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

/// A 128-bit vector, lane 0 in the least significant bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct V128(pub u128);

/// A wasm value. Floats are kept as their bits, so that NaN payloads survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Val {
    /// `i32`
    I32(i32),
    /// `i64`
    I64(i64),
    /// `f32`, as its bits
    F32(u32),
    /// `f64`, as its bits
    F64(u64),
    /// `v128`
    V128(u128),
    /// a reference to a function
    FuncRef(Option<FuncRef>),
    /// a reference to a host value
    ExternRef(Option<ExternRef>),
}

impl Val {
    /// Whether the value may stand where `ty` is expected. Of a function reference, the function's own type decides.
    pub fn fits(&self, ty: &ValType) -> bool {
        match (self, ty) {
            (Val::I32(_), ValType::I32)
            | (Val::I64(_), ValType::I64)
            | (Val::F32(_), ValType::F32)
            | (Val::F64(_), ValType::F64)
            | (Val::V128(_), ValType::V128) => true,
            (Val::FuncRef(f), ValType::Ref(r)) => match r.heap {
                HeapType::Func => r.nullable || f.is_some(),
                HeapType::Concrete(ty) => f.map_or(r.nullable, |f| registered_id(ty) == Some(f.type_id())),
                HeapType::NoFunc => r.nullable && f.is_none(),
                _ => false,
            },
            (Val::ExternRef(e), ValType::Ref(r)) => match r.heap {
                HeapType::Extern => r.nullable || e.is_some(),
                HeapType::NoExtern => r.nullable && e.is_none(),
                _ => false,
            },
            _ => false,
        }
    }

    /// The zero or null of a type; what a result is before it is set.
    pub fn default_for(ty: &ValType) -> Val {
        // SAFETY: zero is a value of every number type, and null.
        unsafe { Val::from_raw(0, ty) }
    }

    /// The bits, zero-extended.
    pub fn to_raw(self) -> u128 {
        match self {
            Val::I32(v) => u128::from(v as u32),
            Val::I64(v) => u128::from(v as u64),
            Val::F32(v) => u128::from(v),
            Val::F64(v) => u128::from(v),
            Val::V128(v) => v,
            Val::FuncRef(f) => f.map_or(0, |f| f.address() as u128),
            Val::ExternRef(e) => e.map_or(0, |e| u128::from(e.get())),
        }
    }

    /// The value of type `ty` with these bits; bits beyond the type's width are ignored.
    ///
    /// # Safety
    /// For a reference to a function, the promise of [`FuncRef::from_address`].
    pub unsafe fn from_raw(raw: u128, ty: &ValType) -> Val {
        match ty {
            ValType::I32 => Val::I32(raw as i32),
            ValType::I64 => Val::I64(raw as i64),
            ValType::F32 => Val::F32(raw as u32),
            ValType::F64 => Val::F64(raw as u64),
            ValType::V128 => Val::V128(raw),
            ValType::Ref(r) => match r.heap {
                HeapType::Extern | HeapType::NoExtern => Val::ExternRef(ExternRef::new(raw as u64)),
                // SAFETY: the caller's promise.
                _ => Val::FuncRef(unsafe { FuncRef::from_address(raw as usize) }),
            },
        }
    }
}

impl fmt::Display for Val {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Val::I32(v) => write!(f, "{v}"),
            Val::I64(v) => write!(f, "{v}"),
            Val::F32(v) => write!(f, "{}", f32::from_bits(*v)),
            Val::F64(v) => write!(f, "{}", f64::from_bits(*v)),
            Val::V128(v) => write!(f, "{v:#034x}"),
            Val::FuncRef(None) | Val::ExternRef(None) => f.write_str("null"),
            Val::FuncRef(Some(r)) => write!(f, "func@{:#x}", r.address()),
            Val::ExternRef(Some(r)) => write!(f, "extern@{:#x}", r.get()),
        }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that stands for a wasm value type.
pub trait WasmTy: Copy + sealed::Sealed + 'static {
    /// The wasm type.
    const TYPE: ValType;
    /// The bits, zero-extended.
    fn to_raw(self) -> u128;
    /// The value with these bits; bits beyond the type's width are ignored.
    ///
    /// # Safety
    /// For a reference to a function, the promise of [`FuncRef::from_address`].
    unsafe fn from_raw(raw: u128) -> Self;
}

macro_rules! wasm_ty {
    ($($rust:ty => $ty:expr, |$v:ident| $to:expr, |$raw:ident| $from:expr;)*) => { $(
        impl sealed::Sealed for $rust {}
        impl WasmTy for $rust {
            const TYPE: ValType = $ty;
            #[inline(always)]
            fn to_raw(self) -> u128 {
                let $v = self;
                $to
            }
            #[inline(always)]
            unsafe fn from_raw($raw: u128) -> Self {
                $from
            }
        }
    )* };
}

wasm_ty! {
    i32 => ValType::I32, |v| u128::from(v as u32), |raw| raw as i32;
    u32 => ValType::I32, |v| u128::from(v), |raw| raw as u32;
    i64 => ValType::I64, |v| u128::from(v as u64), |raw| raw as i64;
    u64 => ValType::I64, |v| u128::from(v), |raw| raw as u64;
    f32 => ValType::F32, |v| u128::from(v.to_bits()), |raw| f32::from_bits(raw as u32);
    f64 => ValType::F64, |v| u128::from(v.to_bits()), |raw| f64::from_bits(raw as u64);
    u128 => ValType::V128, |v| v, |raw| raw;
    V128 => ValType::V128, |v| v.0, |raw| V128(raw);
    Option<FuncRef> => ValType::Ref(RefType::FUNCREF), |v| v.map_or(0, |f| f.address() as u128),
        // SAFETY: the caller's promise.
        |raw| unsafe { FuncRef::from_address(raw as usize) };
    Option<ExternRef> => ValType::Ref(RefType::EXTERNREF), |v| v.map_or(0, |e| u128::from(e.get())),
        |raw| ExternRef::new(raw as u64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_keep_their_bits() {
        // SAFETY: none is a reference.
        let from_raw = |raw, ty| unsafe { Val::from_raw(raw, &ty) };
        let nan = Val::F32(0x7fa0_0001);
        assert_eq!(from_raw(nan.to_raw(), ValType::F32), nan);
        assert_eq!(from_raw(Val::I32(-1).to_raw(), ValType::I32), Val::I32(-1));
        assert_eq!(from_raw(0xffff_ffff_0000_0005, ValType::I32), Val::I32(5));
    }

    #[test]
    fn null_does_not_fit_a_non_nullable_reference() {
        let non_null = ValType::Ref(RefType { nullable: false, heap: HeapType::Func });
        assert!(!Val::FuncRef(None).fits(&non_null));
        // SAFETY: never called, and its type is not asked for.
        assert!(Val::FuncRef(unsafe { FuncRef::from_address(16) }).fits(&non_null));
        assert!(!Val::ExternRef(None).fits(&ValType::Ref(RefType::FUNCREF)));
    }
}
