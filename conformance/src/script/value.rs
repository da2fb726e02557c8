//! Values in scripts: arguments, and patterns that results must match.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use bincode::{Decode, Encode};
use core::fmt::{Display, LowerHex};
use namespace_bridge::val::{ExternRef, Val};

/// The name of the feature that a value of a script needs and the compiler refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedsFeature(pub String);

/// An argument.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Argument {
    /// `i32`
    I32(i32),
    /// `i64`
    I64(i64),
    /// `f32`, as its bits
    F32(u32),
    /// `f64`, as its bits
    F64(u64),
    /// `v128`, lane 0 in the least significant bits
    V128(u128),
    /// A null reference to a function.
    NullFunc,
    /// A null reference to a host value.
    NullExtern,
    /// The host value of this number (`ref.extern N`).
    Host(u32),
    /// A value of a refused feature, by its name.
    Refused(String),
}

/// What a result may be.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Pattern {
    /// One thing.
    One(Single),
    /// Any of these.
    OneOf(Vec<Single>),
}

/// What a result may be, without alternatives.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Single {
    /// `i32`
    I32(i32),
    /// `i64`
    I64(i64),
    /// `f32`
    F32(FloatPattern<u32>),
    /// `f64`
    F64(FloatPattern<u64>),
    /// `v128` of 16 lanes
    I8x16([i8; 16]),
    /// `v128` of 8 lanes
    I16x8([i16; 8]),
    /// `v128` of 4 lanes
    I32x4([i32; 4]),
    /// `v128` of 2 lanes
    I64x2([i64; 2]),
    /// `v128` of 4 lanes
    F32x4([FloatPattern<u32>; 4]),
    /// `v128` of 2 lanes
    F64x2([FloatPattern<u64>; 2]),
    /// A null reference.
    Null(NullPattern),
    /// The host value of this number; any by default.
    Host(Option<u32>),
    /// A reference to a function that is not null.
    Func,
    /// A value of a refused feature, by its name.
    Refused(String),
}

/// A float that a result may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum FloatPattern<B> {
    /// A NaN with only the quiet bit in its payload (core spec, 2.2.3).
    Canonical,
    /// A NaN whose quiet bit is set.
    Arithmetic,
    /// These bits.
    Bits(B),
}

/// A null reference that a result may be.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum NullPattern {
    /// Of any type.
    Any,
    /// To a function.
    Func,
    /// To a host value.
    Extern,
    /// Of a type that belongs to a refused feature, by its name.
    Refused(String),
}

impl Argument {
    /// The value.
    pub fn value(&self) -> Result<Val, NeedsFeature> {
        Ok(match self {
            Argument::I32(v) => Val::I32(*v),
            Argument::I64(v) => Val::I64(*v),
            Argument::F32(bits) => Val::F32(*bits),
            Argument::F64(bits) => Val::F64(*bits),
            Argument::V128(v) => Val::V128(*v),
            Argument::NullFunc => Val::FuncRef(None),
            Argument::NullExtern => Val::ExternRef(None),
            Argument::Host(n) => host_value(*n),
            Argument::Refused(feature) => return Err(NeedsFeature(feature.clone())),
        })
    }
}

/// The host value that stands for `ref.extern N`: null is 0, so 0 itself must be something else.
fn host_value(n: u32) -> Val {
    Val::ExternRef(ExternRef::new(u64::from(n) + 1))
}

/// Whether results match patterns, in number and value; otherwise what does not.
pub fn match_results(results: &[Val], patterns: &[Pattern]) -> Result<Result<(), String>, NeedsFeature> {
    if results.len() != patterns.len() {
        return Ok(Err(format!("expected {} results, found {}", patterns.len(), results.len())));
    }
    for (i, (result, pattern)) in results.iter().zip(patterns).enumerate() {
        if !pattern.matches(result)? {
            let which = if results.len() > 1 { format!("result {i}: ") } else { String::new() };
            return Ok(Err(format!("{which}expected {}, found {}", pattern.text(), found(result))));
        }
    }
    Ok(Ok(()))
}

impl Pattern {
    fn matches(&self, result: &Val) -> Result<bool, NeedsFeature> {
        for single in self.singles() {
            if single.matches(result)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn singles(&self) -> &[Single] {
        match self {
            Pattern::One(single) => core::slice::from_ref(single),
            Pattern::OneOf(singles) => singles,
        }
    }

    fn text(&self) -> String {
        self.singles().iter().map(Single::text).collect::<Vec<_>>().join(" or ")
    }
}

impl Single {
    fn matches(&self, result: &Val) -> Result<bool, NeedsFeature> {
        Ok(match (self, result) {
            (Single::Refused(feature), _) => return Err(NeedsFeature(feature.clone())),
            (Single::Null(NullPattern::Refused(feature)), Val::FuncRef(None) | Val::ExternRef(None)) => {
                return Err(NeedsFeature(feature.clone()));
            }
            (Single::I32(e), Val::I32(v)) => e == v,
            (Single::I64(e), Val::I64(v)) => e == v,
            (Single::F32(e), Val::F32(v)) => e.matches(*v),
            (Single::F64(e), Val::F64(v)) => e.matches(*v),
            (Single::I8x16(e), Val::V128(v)) => (0..16).all(|i| lane(*v, 8, i) as i8 == e[i]),
            (Single::I16x8(e), Val::V128(v)) => (0..8).all(|i| lane(*v, 16, i) as i16 == e[i]),
            (Single::I32x4(e), Val::V128(v)) => (0..4).all(|i| lane(*v, 32, i) as i32 == e[i]),
            (Single::I64x2(e), Val::V128(v)) => (0..2).all(|i| lane(*v, 64, i) as i64 == e[i]),
            (Single::F32x4(e), Val::V128(v)) => (0..4).all(|i| e[i].matches(lane(*v, 32, i) as u32)),
            (Single::F64x2(e), Val::V128(v)) => (0..2).all(|i| e[i].matches(lane(*v, 64, i))),
            (Single::Null(NullPattern::Any | NullPattern::Func), Val::FuncRef(None)) => true,
            (Single::Null(NullPattern::Any | NullPattern::Extern), Val::ExternRef(None)) => true,
            (Single::Host(None), Val::ExternRef(r)) => r.is_some(),
            (Single::Host(Some(n)), Val::ExternRef(_)) => *result == host_value(*n),
            (Single::Func, Val::FuncRef(r)) => r.is_some(),
            _ => false,
        })
    }

    fn text(&self) -> String {
        match self {
            Single::I32(x) => format!("i32 {x}"),
            Single::I64(x) => format!("i64 {x}"),
            Single::F32(x) => x.text(f32_text),
            Single::F64(x) => x.text(f64_text),
            Single::I8x16(v) => lanes("i8x16", v),
            Single::I16x8(v) => lanes("i16x8", v),
            Single::I32x4(v) => lanes("i32x4", v),
            Single::I64x2(v) => lanes("i64x2", v),
            Single::F32x4(v) => lanes("", &v.map(|x| x.text(f32_text))),
            Single::F64x2(v) => lanes("", &v.map(|x| x.text(f64_text))),
            Single::Null(_) => "a null reference".into(),
            Single::Host(Some(n)) => format!("externref {n}"),
            Single::Host(None) => "an externref".into(),
            Single::Func => "a function reference".into(),
            Single::Refused(feature) => format!("a value of feature {feature}"),
        }
    }
}

fn lane(v: u128, bits: usize, i: usize) -> u64 {
    (v >> (bits * i)) as u64
}

fn lanes<T: Display>(shape: &str, lanes: &[T]) -> String {
    let lanes: Vec<String> = lanes.iter().map(T::to_string).collect();
    format!("v128 {shape} {}", lanes.join(" "))
}

impl FloatPattern<u32> {
    fn matches(self, bits: u32) -> bool {
        match self {
            FloatPattern::Canonical => bits & 0x7fff_ffff == 0x7fc0_0000,
            FloatPattern::Arithmetic => bits & 0x7fc0_0000 == 0x7fc0_0000,
            FloatPattern::Bits(expected) => bits == expected,
        }
    }
}

impl FloatPattern<u64> {
    fn matches(self, bits: u64) -> bool {
        match self {
            FloatPattern::Canonical => bits & 0x7fff_ffff_ffff_ffff == 0x7ff8_0000_0000_0000,
            FloatPattern::Arithmetic => bits & 0x7ff8_0000_0000_0000 == 0x7ff8_0000_0000_0000,
            FloatPattern::Bits(expected) => bits == expected,
        }
    }
}

impl<B: LowerHex> FloatPattern<B> {
    fn text(self, value: impl Fn(B) -> String) -> String {
        match self {
            FloatPattern::Canonical => "nan:canonical".into(),
            FloatPattern::Arithmetic => "nan:arithmetic".into(),
            FloatPattern::Bits(bits) => value(bits),
        }
    }
}

/// A value for a failure report: in decimal, floats with their bits.
fn found(v: &Val) -> String {
    match v {
        Val::I32(x) => format!("i32 {x}"),
        Val::I64(x) => format!("i64 {x}"),
        Val::F32(x) => f32_text(*x),
        Val::F64(x) => f64_text(*x),
        Val::V128(x) => format!("v128 {x:#034x}"),
        Val::FuncRef(_) | Val::ExternRef(_) => v.to_string(),
    }
}

fn f32_text(bits: u32) -> String {
    format!("f32 {} ({bits:#010x})", f32::from_bits(bits))
}

fn f64_text(bits: u64) -> String {
    format!("f64 {} ({bits:#018x})", f64::from_bits(bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: Single, value: Val) -> bool {
        match_results(&[value], &[Pattern::One(pattern)]).unwrap().is_ok()
    }

    #[test]
    fn nan_patterns_tell_canonical_from_arithmetic() {
        for sign in [0, 0x8000_0000] {
            assert!(check(Single::F32(FloatPattern::Canonical), Val::F32(0x7fc0_0000 | sign)));
            assert!(!check(Single::F32(FloatPattern::Canonical), Val::F32(0x7fc0_0001 | sign)));
            assert!(check(Single::F32(FloatPattern::Arithmetic), Val::F32(0x7fc0_0001 | sign)));
            assert!(!check(Single::F32(FloatPattern::Arithmetic), Val::F32(0x7f80_0001 | sign)));
        }
        assert!(!check(Single::F64(FloatPattern::Arithmetic), Val::F64(0x7ff0_0000_0000_0001)));
    }

    #[test]
    fn zeros_differ_by_sign_and_types_by_kind() {
        assert!(!check(Single::F32(FloatPattern::Bits(0)), Val::F32(0x8000_0000)));
        assert!(!check(Single::I32(0), Val::I64(0)));
    }

    #[test]
    fn vectors_match_lane_by_lane() {
        let v = Val::V128(0x7fc00000_00000003_00000002_00000001);
        assert!(check(Single::I32x4([1, 2, 3, 0x7fc0_0000]), v));
        let [a, b, c] = [1, 2, 3].map(FloatPattern::Bits);
        assert!(check(Single::F32x4([a, b, c, FloatPattern::Canonical]), v));
        assert!(!check(Single::I64x2([1, 2]), v));
    }

    #[test]
    fn one_of_several_results_suffices() {
        let either = [Pattern::OneOf([1, 2].map(Single::I32).into())];
        assert!(match_results(&[Val::I32(2)], &either).unwrap().is_ok());
        assert!(match_results(&[Val::I32(3)], &either).unwrap().is_err());
    }

    #[test]
    fn the_host_value_zero_is_not_null() {
        assert!(check(Single::Null(NullPattern::Extern), Val::ExternRef(None)));
        assert!(!check(Single::Host(Some(0)), Val::ExternRef(None)));
        assert!(check(Single::Host(Some(0)), host_value(0)));
        assert!(!check(Single::Null(NullPattern::Func), Val::ExternRef(None)));
    }

    #[test]
    fn a_refused_null_type_matters_only_for_a_null() {
        let gc = [Pattern::One(Single::Null(NullPattern::Refused("gc".into())))];
        assert_eq!(match_results(&[Val::FuncRef(None)], &gc), Err(NeedsFeature("gc".into())));
        assert!(match_results(&[Val::I32(0)], &gc).unwrap().is_err());
    }
}
