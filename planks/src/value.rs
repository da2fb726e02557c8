//! Values as text: arguments that people type, results that they read, both as JSON too.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use namespace_bridge::val::{ExternRef, Val};
use serde_json::{Value, json};
use wasm_cell::types::{FuncType, HeapType, ValType};

/// Reads arguments as the parameters of a function. Errors say which argument and what is accepted.
pub fn parse_arguments(ty: &FuncType, words: &[String]) -> Result<Vec<Val>, String> {
    if words.len() != ty.params.len() {
        let n = ty.params.len();
        let s = if n == 1 { "" } else { "s" };
        return Err(format!("the function is {ty}: it takes {n} argument{s}, {} given", words.len()));
    }
    let parse = |(i, (word, ty)): (usize, (&String, &ValType))| {
        parse(word, ty).map_err(|e| format!("argument {}: `{word}` is no {ty}: {e}", i + 1))
    };
    words.iter().zip(&ty.params).enumerate().map(parse).collect()
}

/// Reads one value of a type.
pub fn parse(word: &str, ty: &ValType) -> Result<Val, String> {
    match ty {
        ValType::I32 => integer(word, 32).map(|v| Val::I32(v as i32)),
        ValType::I64 => integer(word, 64).map(|v| Val::I64(v as i64)),
        ValType::F32 => float(word, |w| w.parse().ok().map(f32::to_bits), 0x7f80_0000, 23).map(Val::F32),
        ValType::F64 => float(word, |w| w.parse().ok().map(f64::to_bits), 0x7ff0_0000_0000_0000, 52).map(Val::F64),
        ValType::V128 => vector(word).map(Val::V128),
        ValType::Ref(r) => match (word, r.heap) {
            ("null", HeapType::Extern | HeapType::NoExtern) if r.nullable => Ok(Val::ExternRef(None)),
            ("null", _) if r.nullable => Ok(Val::FuncRef(None)),
            ("null", _) => Err("null is not allowed here".to_string()),
            (_, HeapType::Extern) => {
                let bits = integer(word, 64)? as u64;
                ExternRef::new(bits).map(|r| Val::ExternRef(Some(r))).ok_or_else(|| "write null for 0".to_string())
            }
            _ => Err("only `null` can be written for a function reference".to_string()),
        },
    }
}

/// An integer of a width, signed or unsigned, decimal or `0x…`, with `_` between digits.
fn integer(word: &str, bits: u32) -> Result<i128, String> {
    let (negative, digits) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word.strip_prefix('+').unwrap_or(word)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => (16, hex),
        None => (10, digits),
    };
    let form = || "write it in decimal (-7) or hexadecimal (0x1f)".to_string();
    if digits.starts_with(['+', '-', '_']) {
        return Err(form());
    }
    let clean: String = digits.chars().filter(|c| *c != '_').collect();
    let magnitude = i128::from_str_radix(&clean, radix).map_err(|_| form())?;
    let value = if negative { -magnitude } else { magnitude };
    let (low, high) = (-(1i128 << (bits - 1)), (1i128 << bits) - 1);
    if value < low || value > high {
        return Err(format!("it lies between {low} and {high}"));
    }
    Ok(value)
}

/// A float: decimal, `inf`, `nan`, or a NaN with its payload as in wasm text, `nan:0x…`.
fn float<B>(word: &str, decimal: impl Fn(&str) -> Option<B>, infinity: B, payload_bits: u32) -> Result<B, String>
where
    B: TryFrom<u64> + Into<u64> + Copy,
{
    let (sign, rest) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    if let Some(hex) = rest.strip_prefix("nan:0x") {
        let payload = u64::from_str_radix(hex, 16).ok().filter(|p| *p > 0 && p >> payload_bits == 0);
        let payload = payload.ok_or_else(|| format!("a NaN payload is 1 to {:#x}", (1u64 << payload_bits) - 1))?;
        let top = if sign {
            (infinity.into() >> payload_bits << payload_bits) + (1u64 << sign_bit(payload_bits))
        } else {
            infinity.into()
        };
        return B::try_from(top | payload).map_err(|_| "out of range".to_string());
    }
    decimal(word).ok_or_else(|| "write it in decimal (-1.5, 2e10), or as inf, nan, nan:0x…".to_string())
}

/// Position of the sign bit of the format with this many payload bits.
fn sign_bit(payload_bits: u32) -> u32 {
    if payload_bits == 23 { 31 } else { 63 }
}

/// A vector: 32 hexadecimal digits after `0x`, or lanes as `i32x4:1,2,3,4`.
fn vector(word: &str) -> Result<u128, String> {
    if let Some(hex) = word.strip_prefix("0x") {
        let clean: String = hex.chars().filter(|c| *c != '_').collect();
        return u128::from_str_radix(&clean, 16).map_err(|_| "at most 32 hexadecimal digits after 0x".to_string());
    }
    let (shape, lanes) = word.split_once(':').ok_or_else(|| "write it as 0x… or i32x4:1,2,3,4".to_string())?;
    let (ty, count, bits) = match shape {
        "i8x16" => (None, 16, 8),
        "i16x8" => (None, 8, 16),
        "i32x4" => (None, 4, 32),
        "i64x2" => (None, 2, 64),
        "f32x4" => (Some(ValType::F32), 4, 32),
        "f64x2" => (Some(ValType::F64), 2, 64),
        _ => return Err("shapes are i8x16, i16x8, i32x4, i64x2, f32x4, f64x2".to_string()),
    };
    let lanes: Vec<&str> = lanes.split(',').collect();
    if lanes.len() != count {
        return Err(format!("{shape} has {count} lanes, {} given", lanes.len()));
    }
    let mut vector = 0u128;
    for (i, lane) in lanes.iter().enumerate() {
        let raw = match &ty {
            Some(ty) => parse(lane, ty)?.to_raw(),
            None => integer(lane, bits)? as u128 & (u128::MAX >> (128 - bits)),
        };
        vector |= raw << (i as u32 * bits);
    }
    Ok(vector)
}

/// A result with its type: `42: i32`.
pub fn show(v: &Val) -> String {
    format!("{}: {}", text(v), type_name(v))
}

/// Results, one a line.
pub fn show_all(values: &[Val]) -> String {
    values.iter().map(|v| show(v) + "\n").collect()
}

fn text(v: &Val) -> String {
    match v {
        Val::F32(bits) if f32::from_bits(*bits).is_nan() => nan(*bits >> 31 != 0, u64::from(bits & 0x7f_ffff)),
        Val::F64(bits) if f64::from_bits(*bits).is_nan() => nan(bits >> 63 != 0, bits & 0xf_ffff_ffff_ffff),
        other => other.to_string(),
    }
}

fn nan(negative: bool, payload: u64) -> String {
    format!("{}nan:{payload:#x}", if negative { "-" } else { "" })
}

fn type_name(v: &Val) -> &'static str {
    match v {
        Val::I32(_) => "i32",
        Val::I64(_) => "i64",
        Val::F32(_) => "f32",
        Val::F64(_) => "f64",
        Val::V128(_) => "v128",
        Val::FuncRef(_) => "funcref",
        Val::ExternRef(_) => "externref",
    }
}

/// A result as JSON: `{"type": …, "value": …}`. What JSON's numbers cannot hold is a string.
pub fn to_json(v: &Val) -> Value {
    let value = match v {
        Val::I32(x) => json!(x),
        Val::I64(x) => json!(x),
        Val::F32(b) if f32::from_bits(*b).is_finite() => json!(f32::from_bits(*b)),
        Val::F64(b) if f64::from_bits(*b).is_finite() => json!(f64::from_bits(*b)),
        Val::FuncRef(None) | Val::ExternRef(None) => Value::Null,
        _ => json!(text(v)),
    };
    json!({ "type": type_name(v), "value": value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_signed_or_unsigned_decimal_or_hexadecimal() {
        for (word, value) in [("-1", -1), ("4294967295", -1), ("0xffff_ffff", -1), ("+7", 7), ("-0x80000000", i32::MIN)]
        {
            assert_eq!(parse(word, &ValType::I32), Ok(Val::I32(value)), "{word}");
        }
        for word in ["", "x", "4294967296", "-2147483649", "0x", "--1", "-+1", "1.5", "0x_1", "é"] {
            assert!(parse(word, &ValType::I32).is_err(), "{word}");
        }
        assert_eq!(parse("18446744073709551615", &ValType::I64), Ok(Val::I64(-1)));
    }

    #[test]
    fn floats_keep_nan_payloads() {
        assert_eq!(parse("1.5", &ValType::F32), Ok(Val::F32(1.5f32.to_bits())));
        assert_eq!(parse("-inf", &ValType::F64), Ok(Val::F64(f64::NEG_INFINITY.to_bits())));
        assert_eq!(parse("nan:0x200001", &ValType::F32), Ok(Val::F32(0x7fa0_0001)));
        assert_eq!(parse("-nan:0x1", &ValType::F64), Ok(Val::F64(0xfff0_0000_0000_0001)));
        assert!(parse("nan:0x800000", &ValType::F32).is_err());
        assert_eq!(show(&Val::F32(0x7fa0_0001)), "nan:0x200001: f32");
        assert_eq!(show(&Val::F64(0xfff0_0000_0000_0001)), "-nan:0x1: f64");
    }

    #[test]
    fn vectors_are_hexadecimal_or_lanes() {
        let v = Val::V128(0x00000004_00000003_00000002_00000001);
        assert_eq!(parse("i32x4:1,2,3,4", &ValType::V128), Ok(v));
        assert_eq!(parse("0x00000004000000030000000200000001", &ValType::V128), Ok(v));
        assert_eq!(parse("i8x16:-1,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0", &ValType::V128), Ok(Val::V128(0xff)));
        assert!(parse("i32x4:1,2,3", &ValType::V128).is_err());
        assert!(parse("0x1_0000_0000_0000_0000_0000_0000_0000_0000", &ValType::V128).is_err());
    }

    #[test]
    fn numbers_that_json_lacks_are_strings() {
        assert_eq!(to_json(&Val::F64(f64::INFINITY.to_bits()))["value"], "inf");
        assert_eq!(to_json(&Val::I64(i64::MIN))["value"], i64::MIN);
        assert!(to_json(&Val::ExternRef(None))["value"].is_null());
    }
}
