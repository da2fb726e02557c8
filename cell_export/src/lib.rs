//! Tells the loader of cells which functions of a native cell can be imported by wasm, and by which type.
//!
//! ```
//! cell_export::cell_export! {
//!     /// Adds two numbers.
//!     pub fn add(a: i32, b: i32) -> i32 {
//!         a.wrapping_add(b)
//!     }
//!
//!     /// Quotient and remainder; a wasm function with two results.
//!     pub fn divide(a: u32, b: u32) -> (u32, u32) {
//!         (a / b, a % b)
//!     }
//! }
//! ```
//!
//! In cell `math` these are the exports `math::add`, `(func (param i32 i32) (result i32))`, and `math::divide`. Each function gets a
//! record in the section `.planks.exports` (see `namespace_bridge`, `native/export.rs`, and `include/cell_export.h` for C); nothing of
//! it is loaded. A function with at most one result becomes `extern "C-unwind"`; one with several stays as it is, and the record
//! names a shim of C's convention.
#![no_std]

/// A wasm value type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Type {
    /// `i32`
    I32,
    /// `i64`
    I64,
    /// `f32`
    F32,
    /// `f64`
    F64,
}

impl Type {
    /// Its name in wasm's text format.
    pub const fn name(self) -> &'static str {
        match self {
            Type::I32 => "i32",
            Type::I64 => "i64",
            Type::F32 => "f32",
            Type::F64 => "f64",
        }
    }
}

/// A Rust type that C's convention passes as a wasm value.
///
/// # Safety
/// `TYPE` must be what the type is to C's convention.
pub unsafe trait Value: Copy {
    /// The wasm type.
    const TYPE: Type;
}

macro_rules! values {
    ($($rust:ty => $wasm:ident),* $(,)?) => { $(
        // SAFETY: numbers of this size and class.
        unsafe impl Value for $rust {
            const TYPE: Type = Type::$wasm;
        }
    )* };
}

values! { i32 => I32, u32 => I32, i64 => I64, u64 => I64, isize => I64, usize => I64, f32 => F32, f64 => F64 }

/// What a function with at most one result may return.
///
/// # Safety
/// As for [`Value`].
pub unsafe trait Returns {
    /// The wasm types.
    const TYPES: &'static [Type];
}

// SAFETY: nothing is returned.
unsafe impl Returns for () {
    const TYPES: &'static [Type] = &[];
}

// SAFETY: one value, of the type it says.
unsafe impl<V: Value> Returns for V {
    const TYPES: &'static [Type] = &[V::TYPE];
}

/// Two results, as C's convention has them in memory (`wasm_cell::adapter::results_layout`).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Two<A, B>(pub A, pub B);

/// Three results.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Three<A, B, C>(pub A, pub B, pub C);

/// Four results.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct Four<A, B, C, D>(pub A, pub B, pub C, pub D);

/// "PKX1"
const MAGIC: u32 = u32::from_le_bytes(*b"PKX1");

/// A record of the section `.planks.exports`.
#[derive(Debug)]
#[repr(C, align(8))]
pub struct Description<const NAME: usize, const SIGNATURE: usize> {
    magic: u32,
    bytes: u32,
    function: *const (),
    name: u16,
    signature: u16,
    name_text: [u8; NAME],
    signature_text: [u8; SIGNATURE],
}

// SAFETY: nobody writes it, and the pointer is a function's.
unsafe impl<const NAME: usize, const SIGNATURE: usize> Sync for Description<NAME, SIGNATURE> {}

impl<const NAME: usize, const SIGNATURE: usize> Description<NAME, SIGNATURE> {
    /// Describes a function.
    ///
    /// # Panics
    /// When a text does not have the length that the type says, or is too long: at compile time, used as intended.
    pub const fn new(function: *const (), name: &str, params: &[Type], results: &[Type]) -> Self {
        assert!(name.len() == NAME && NAME <= u16::MAX as usize && SIGNATURE <= u16::MAX as usize);
        let mut name_text = [0; NAME];
        let mut at = 0;
        while at < NAME {
            name_text[at] = name.as_bytes()[at];
            at += 1;
        }
        let mut signature_text = [0; SIGNATURE];
        let mut at = put_list(&mut signature_text, 0, results);
        at = put(&mut signature_text, at, "(");
        at = put_list(&mut signature_text, at, params);
        at = put(&mut signature_text, at, ")");
        assert!(at == SIGNATURE);
        Description {
            magic: MAGIC,
            bytes: size_of::<Self>() as u32,
            function,
            name: NAME as u16,
            signature: SIGNATURE as u16,
            name_text,
            signature_text,
        }
    }
}

/// Length of a signature's text.
pub const fn signature_len(params: &[Type], results: &[Type]) -> usize {
    list_len(params) + list_len(results) + 2
}

const fn list_len(types: &[Type]) -> usize {
    let (mut len, mut i) = (types.len().saturating_sub(1), 0);
    while i < types.len() {
        len += types[i].name().len();
        i += 1;
    }
    len
}

const fn put_list(text: &mut [u8], mut at: usize, types: &[Type]) -> usize {
    let mut i = 0;
    while i < types.len() {
        if i > 0 {
            at = put(text, at, ",");
        }
        at = put(text, at, types[i].name());
        i += 1;
    }
    at
}

const fn put(text: &mut [u8], at: usize, what: &str) -> usize {
    let mut i = 0;
    while i < what.len() {
        text[at + i] = what.as_bytes()[i];
        i += 1;
    }
    at + what.len()
}

/// Defines functions and describes them. See the crate's documentation.
#[macro_export]
macro_rules! cell_export {
    () => {};
    // Several results.
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> ($a:ty, $($more:ty),+ $(,)?) $body:block $($rest:tt)*) => {
        $(#[$meta])* $vis fn $name($($arg: $ty),*) -> ($a, $($more),+) $body
        const _: () = {
            type Results = $crate::results!($a, $($more),+);
            unsafe extern "C-unwind" fn shim(results: *mut Results, $($arg: $ty),*) -> *mut Results {
                // SAFETY: the caller provides room for the results.
                unsafe { results.write($crate::results!($name($($arg),*), $a, $($more),+)) };
                results
            }
            $crate::describe!(shim, $name, [$($ty),*], &[<$a as $crate::Value>::TYPE, $(<$more as $crate::Value>::TYPE),+]);
        };
        $crate::cell_export! { $($rest)* }
    };
    // One or none.
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $result:ty)? $body:block $($rest:tt)*) => {
        $(#[$meta])* $vis extern "C-unwind" fn $name($($arg: $ty),*) $(-> $result)? $body
        $crate::describe!($name, $name, [$($ty),*], <$crate::returned!($($result)?) as $crate::Returns>::TYPES);
        $crate::cell_export! { $($rest)* }
    };
}

/// The record of one function.
#[doc(hidden)]
#[macro_export]
macro_rules! describe {
    ($function:ident, $name:ident, [$($ty:ty),*], $results:expr) => {
        const _: () = {
            const NAME: &str = stringify!($name);
            const PARAMS: &[$crate::Type] = &[$(<$ty as $crate::Value>::TYPE),*];
            const RESULTS: &[$crate::Type] = $results;
            const LEN: usize = $crate::signature_len(PARAMS, RESULTS);
            #[used]
            #[unsafe(link_section = ".planks.exports")]
            static DESCRIPTION: $crate::Description<{ NAME.len() }, LEN> =
                $crate::Description::new($function as *const (), NAME, PARAMS, RESULTS);
        };
    };
}

/// The type of a function's result.
#[doc(hidden)]
#[macro_export]
macro_rules! returned {
    () => {
        ()
    };
    ($ty:ty) => {
        $ty
    };
}

/// The struct that several results are to C, and a call that makes it.
#[doc(hidden)]
#[macro_export]
macro_rules! results {
    ($f:ident($($arg:ident),*), $a:ty, $b:ty) => {{ let (a, b) = $f($($arg),*); $crate::Two(a, b) }};
    ($f:ident($($arg:ident),*), $a:ty, $b:ty, $c:ty) => {{ let (a, b, c) = $f($($arg),*); $crate::Three(a, b, c) }};
    ($f:ident($($arg:ident),*), $a:ty, $b:ty, $c:ty, $d:ty) => {{ let (a, b, c, d) = $f($($arg),*); $crate::Four(a, b, c, d) }};
    ($a:ty, $b:ty) => { $crate::Two<$a, $b> };
    ($a:ty, $b:ty, $c:ty) => { $crate::Three<$a, $b, $c> };
    ($a:ty, $b:ty, $c:ty, $d:ty) => { $crate::Four<$a, $b, $c, $d> };
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::cell_export! {
        fn add(a: i32, b: i64) -> i32 {
            a.wrapping_add(b as i32)
        }
        fn nothing() {}
        fn divide(a: u32, b: u32) -> (u32, f64) {
            (a / b, f64::from(a % b))
        }
    }

    #[test]
    fn functions_stay_what_they_are() {
        assert_eq!(add(1, 2), 3);
        nothing();
        assert_eq!(divide(7, 2), (3, 1.0));
    }

    #[test]
    fn a_record_has_name_and_signature_behind_its_head() {
        const PARAMS: &[Type] = &[Type::I32, Type::F64];
        const LEN: usize = signature_len(PARAMS, &[Type::I64]);
        let record: Description<3, LEN> = Description::new(core::ptr::null(), "abc", PARAMS, &[Type::I64]);
        assert_eq!(&record.name_text, b"abc");
        assert_eq!(&record.signature_text, b"i64(i32,f64)");
        assert_eq!(core::mem::offset_of!(Description<3, LEN>, name_text), 20);
        assert_eq!((record.bytes as usize) % 8, 0);
    }
}
