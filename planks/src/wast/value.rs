//! Values in scripts: arguments, and patterns that results must match.

use namespace_bridge::val::{ExternRef, Val};
use std::fmt::Display;
use wast::core::{AbstractHeapType, HeapType, NanPattern, V128Const, V128Pattern, WastArgCore, WastRetCore};
use wast::token::{F32, F64};
use wast::{WastArg, WastRet};

/// The name of the feature that a value of a script needs and the compiler refuses.
pub struct NeedsFeature(pub &'static str);

/// The host value that stands for `ref.extern N`: null is 0, so 0 itself must be something else.
fn host_value(n: u32) -> Val {
    Val::ExternRef(ExternRef::new(u64::from(n) + 1))
}

/// The value of an argument.
pub fn argument(arg: &WastArg<'_>) -> Result<Val, NeedsFeature> {
    let core = match arg {
        WastArg::Core(core) => core,
        _ => return Err(NeedsFeature("component-model")),
    };
    Ok(match core {
        WastArgCore::I32(v) => Val::I32(*v),
        WastArgCore::I64(v) => Val::I64(*v),
        WastArgCore::F32(v) => Val::F32(v.bits),
        WastArgCore::F64(v) => Val::F64(v.bits),
        WastArgCore::V128(v) => Val::V128(vector(v)),
        WastArgCore::RefNull(heap) => null(heap)?,
        WastArgCore::RefExtern(n) => host_value(*n),
        _ => return Err(NeedsFeature("gc")),
    })
}

fn vector(v: &V128Const) -> u128 {
    u128::from_le_bytes(v.to_le_bytes())
}

/// What kind of reference a heap type makes.
#[derive(PartialEq, Eq)]
enum Family {
    Func,
    Extern,
}

fn family(heap: &HeapType<'_>) -> Result<Family, NeedsFeature> {
    match heap {
        HeapType::Concrete(_) => Ok(Family::Func),
        HeapType::Abstract { ty, .. } => match ty {
            AbstractHeapType::Func | AbstractHeapType::NoFunc => Ok(Family::Func),
            AbstractHeapType::Extern | AbstractHeapType::NoExtern => Ok(Family::Extern),
            AbstractHeapType::Exn | AbstractHeapType::NoExn => Err(NeedsFeature("exceptions")),
            _ => Err(NeedsFeature("gc")),
        },
        _ => Err(NeedsFeature("gc")),
    }
}

fn null(heap: &HeapType<'_>) -> Result<Val, NeedsFeature> {
    Ok(match family(heap)? {
        Family::Func => Val::FuncRef(None),
        Family::Extern => Val::ExternRef(None),
    })
}

/// Whether results match patterns, in number and value; otherwise what does not.
pub fn match_results(results: &[Val], patterns: &[WastRet<'_>]) -> Result<Result<(), String>, NeedsFeature> {
    if results.len() != patterns.len() {
        return Ok(Err(format!("expected {} results, found {}", patterns.len(), results.len())));
    }
    for (i, (result, pattern)) in results.iter().zip(patterns).enumerate() {
        let core = match pattern {
            WastRet::Core(core) => core,
            _ => return Err(NeedsFeature("component-model")),
        };
        if !matches(result, core)? {
            let which = if results.len() > 1 { format!("result {i}: ") } else { String::new() };
            return Ok(Err(format!("{which}expected {}, found {}", expected(core), found(result))));
        }
    }
    Ok(Ok(()))
}

fn matches(result: &Val, pattern: &WastRetCore<'_>) -> Result<bool, NeedsFeature> {
    Ok(match (pattern, result) {
        (WastRetCore::I32(e), Val::I32(v)) => e == v,
        (WastRetCore::I64(e), Val::I64(v)) => e == v,
        (WastRetCore::F32(e), Val::F32(v)) => matches_f32(e, *v),
        (WastRetCore::F64(e), Val::F64(v)) => matches_f64(e, *v),
        (WastRetCore::V128(e), Val::V128(v)) => matches_vector(e, *v),
        (WastRetCore::RefNull(None), Val::FuncRef(None) | Val::ExternRef(None)) => true,
        (WastRetCore::RefNull(Some(heap)), Val::FuncRef(None)) => family(heap)? == Family::Func,
        (WastRetCore::RefNull(Some(heap)), Val::ExternRef(None)) => family(heap)? == Family::Extern,
        (WastRetCore::RefExtern(None), Val::ExternRef(r)) => r.is_some(),
        (WastRetCore::RefExtern(Some(n)), Val::ExternRef(_)) => *result == host_value(*n),
        (WastRetCore::RefFunc(_), Val::FuncRef(r)) => r.is_some(),
        (WastRetCore::Either(cases), _) => {
            for case in cases {
                if matches(result, case)? {
                    return Ok(true);
                }
            }
            false
        }
        (
            WastRetCore::RefHost(_)
            | WastRetCore::RefAny
            | WastRetCore::RefEq
            | WastRetCore::RefArray
            | WastRetCore::RefStruct
            | WastRetCore::RefI31
            | WastRetCore::RefI31Shared,
            _,
        ) => return Err(NeedsFeature("gc")),
        _ => false,
    })
}

/// Core spec, 2.2.3: a canonical NaN has only the quiet bit set in its payload; an arithmetic one has it set.
fn matches_f32(pattern: &NanPattern<F32>, bits: u32) -> bool {
    match pattern {
        NanPattern::CanonicalNan => bits & 0x7fff_ffff == 0x7fc0_0000,
        NanPattern::ArithmeticNan => bits & 0x7fc0_0000 == 0x7fc0_0000,
        NanPattern::Value(v) => bits == v.bits,
    }
}

fn matches_f64(pattern: &NanPattern<F64>, bits: u64) -> bool {
    match pattern {
        NanPattern::CanonicalNan => bits & 0x7fff_ffff_ffff_ffff == 0x7ff8_0000_0000_0000,
        NanPattern::ArithmeticNan => bits & 0x7ff8_0000_0000_0000 == 0x7ff8_0000_0000_0000,
        NanPattern::Value(v) => bits == v.bits,
    }
}

fn matches_vector(pattern: &V128Pattern, v: u128) -> bool {
    let lane = |bits: usize, i: usize| (v >> (bits * i)) as u64;
    match pattern {
        V128Pattern::I8x16(e) => (0..16).all(|i| lane(8, i) as i8 == e[i]),
        V128Pattern::I16x8(e) => (0..8).all(|i| lane(16, i) as i16 == e[i]),
        V128Pattern::I32x4(e) => (0..4).all(|i| lane(32, i) as i32 == e[i]),
        V128Pattern::I64x2(e) => (0..2).all(|i| lane(64, i) as i64 == e[i]),
        V128Pattern::F32x4(e) => (0..4).all(|i| matches_f32(&e[i], lane(32, i) as u32)),
        V128Pattern::F64x2(e) => (0..2).all(|i| matches_f64(&e[i], lane(64, i))),
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

fn expected(pattern: &WastRetCore<'_>) -> String {
    let lanes = |shape: &str, lanes: Vec<String>| format!("v128 {shape} {}", lanes.join(" "));
    let ints = |shape: &str, v: &[&dyn Display]| lanes(shape, v.iter().map(|x| x.to_string()).collect());
    fn dynamic<T: Display>(v: &[T]) -> Vec<&dyn Display> {
        v.iter().map(|x| x as &dyn Display).collect()
    }
    match pattern {
        WastRetCore::I32(x) => format!("i32 {x}"),
        WastRetCore::I64(x) => format!("i64 {x}"),
        WastRetCore::F32(x) => nan_text(x, |v| f32_text(v.bits)),
        WastRetCore::F64(x) => nan_text(x, |v| f64_text(v.bits)),
        WastRetCore::V128(v) => match v {
            V128Pattern::I8x16(v) => ints("i8x16", &dynamic(v)),
            V128Pattern::I16x8(v) => ints("i16x8", &dynamic(v)),
            V128Pattern::I32x4(v) => ints("i32x4", &dynamic(v)),
            V128Pattern::I64x2(v) => ints("i64x2", &dynamic(v)),
            V128Pattern::F32x4(v) => lanes("", v.iter().map(|x| nan_text(x, |v| f32_text(v.bits))).collect()),
            V128Pattern::F64x2(v) => lanes("", v.iter().map(|x| nan_text(x, |v| f64_text(v.bits))).collect()),
        },
        WastRetCore::RefNull(_) => "a null reference".into(),
        WastRetCore::RefExtern(Some(n)) => format!("externref {n}"),
        WastRetCore::RefExtern(None) => "an externref".into(),
        WastRetCore::RefFunc(_) => "a function reference".into(),
        WastRetCore::Either(cases) => cases.iter().map(expected).collect::<Vec<_>>().join(" or "),
        other => format!("{other:?}"),
    }
}

fn nan_text<T>(pattern: &NanPattern<T>, value: impl Fn(&T) -> String) -> String {
    match pattern {
        NanPattern::CanonicalNan => "nan:canonical".into(),
        NanPattern::ArithmeticNan => "nan:arithmetic".into(),
        NanPattern::Value(v) => value(v),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wast::parser::{ParseBuffer, parse};

    fn check(pattern: &str, value: Val) -> bool {
        let text = format!("(assert_return (invoke \"f\") {pattern})");
        let buffer = ParseBuffer::new(&text).unwrap();
        let script = parse::<wast::Wast<'_>>(&buffer).unwrap();
        let [wast::WastDirective::AssertReturn { results, .. }] = &script.directives[..] else { panic!() };
        let Ok(result) = match_results(&[value], results) else { panic!("refused") };
        result.is_ok()
    }

    #[test]
    fn nan_patterns_tell_canonical_from_arithmetic() {
        for sign in [0, 0x8000_0000] {
            assert!(check("(f32.const nan:canonical)", Val::F32(0x7fc0_0000 | sign)));
            assert!(!check("(f32.const nan:canonical)", Val::F32(0x7fc0_0001 | sign)));
            assert!(check("(f32.const nan:arithmetic)", Val::F32(0x7fc0_0001 | sign)));
            assert!(!check("(f32.const nan:arithmetic)", Val::F32(0x7f80_0001 | sign)));
        }
        assert!(!check("(f64.const nan:arithmetic)", Val::F64(0x7ff0_0000_0000_0001)));
    }

    #[test]
    fn zeros_differ_by_sign_and_types_by_kind() {
        assert!(!check("(f32.const 0)", Val::F32(0x8000_0000)));
        assert!(!check("(i32.const 0)", Val::I64(0)));
    }

    #[test]
    fn vectors_match_lane_by_lane() {
        let v = Val::V128(0x7fc00000_00000003_00000002_00000001);
        assert!(check("(v128.const i32x4 1 2 3 0x7fc00000)", v));
        assert!(check("(v128.const f32x4 0x1p-149 0x1p-148 0x3p-149 nan:canonical)", v));
        assert!(!check("(v128.const i64x2 1 2)", v));
    }

    #[test]
    fn one_of_several_results_suffices() {
        assert!(check("(either (i32.const 1) (i32.const 2))", Val::I32(2)));
        assert!(!check("(either (i32.const 1) (i32.const 2))", Val::I32(3)));
    }

    #[test]
    fn the_host_value_zero_is_not_null() {
        assert!(check("(ref.null extern)", Val::ExternRef(None)));
        assert!(!check("(ref.extern 0)", Val::ExternRef(None)));
        assert!(check("(ref.extern 0)", host_value(0)));
        assert!(!check("(ref.null func)", Val::ExternRef(None)));
    }
}
