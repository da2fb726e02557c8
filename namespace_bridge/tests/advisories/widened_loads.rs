//! Loads merged into instructions that read more than the load did.

use super::{call, namespace};
use namespace_bridge::{AddPolicy, LoadOptions, Val};
use wasm_cell::trap::TrapCode;

#[test]
fn loads_of_the_last_bytes_are_not_widened() {
    let ns = namespace();
    let mut text = String::from("(module (memory 1)");
    let ops = [
        ("f64.copysign (f64.const 1) (f64.load (local.get 0))", 8, "f64"),
        ("f32.copysign (f32.const 1) (f32.load (local.get 0))", 4, "f32"),
        ("f64.abs (f64.load (local.get 0))", 8, "f64"),
        ("f64.neg (f64.load (local.get 0))", 8, "f64"),
        ("f32.abs (f32.load (local.get 0))", 4, "f32"),
        ("f32.sqrt (f32.load (local.get 0))", 4, "f32"),
        ("f64.nearest (f64.load (local.get 0))", 8, "f64"),
        ("f64.promote_f32 (f32.load (local.get 0))", 4, "f64"),
        ("f64.min (f64.const 1) (f64.load (local.get 0))", 8, "f64"),
        ("i32.popcnt (i32.load8_u (local.get 0))", 1, "i32"),
        ("i32.add (i32.const 1) (i32.load8_u (local.get 0))", 1, "i32"),
        ("i32.eq (i32.const 1) (i32.load16_u (local.get 0))", 2, "i32"),
        ("i64.and (i64.const 1) (i64.load32_u (local.get 0))", 4, "i64"),
        ("i32.wrap_i64 (i64.load (local.get 0))", 8, "i32"),
        ("i64.extend8_s (i64.load8_u (local.get 0))", 1, "i64"),
        ("i32.reinterpret_f32 (f32.load (local.get 0))", 4, "i32"),
        ("f64x2.extract_lane 0 (v128.load64_zero (local.get 0))", 8, "f64"),
        ("f64x2.extract_lane 0 (f64x2.promote_low_f32x4 (v128.load64_zero (local.get 0)))", 8, "f64"),
        ("f64x2.extract_lane 0 (f64x2.splat (f64.load (local.get 0)))", 8, "f64"),
        ("i32x4.extract_lane 0 (i32x4.extend_low_i16x8_s (v128.load64_zero (local.get 0)))", 8, "i32"),
        ("i32x4.extract_lane 0 (i32x4.splat (i32.load (local.get 0)))", 4, "i32"),
        ("i8x16.extract_lane_s 0 (i8x16.replace_lane 0 (v128.const i64x2 0 0) (i32.load8_u (local.get 0)))", 1, "i32"),
        ("f64.convert_i32_s (i32.load (local.get 0))", 4, "f64"),
        ("f32.convert_i64_u (i64.load (local.get 0))", 8, "f32"),
        ("select (f64.load (local.get 0)) (f64.const 1) (i32.const 1)", 8, "f64"),
        ("i32.shl (i32.load8_u (local.get 0)) (i32.load8_u (local.get 0))", 1, "i32"),
        ("i32.rotl (i32.const 1) (i32.load8_u (local.get 0))", 1, "i32"),
    ];
    for (i, (op, _, ty)) in ops.iter().enumerate() {
        text += &format!(r#"(func (export "f{i}") (param i32) (result {ty}) ({op}))"#);
    }
    text.push(')');
    for guarded in [true, false] {
        let options = LoadOptions::default().policy(AddPolicy::Replace).guarded_memories(guarded);
        let cell = ns.load_wasm("ends", &wat::parse_str(&text).unwrap(), options).unwrap();
        for (i, (op, size, _)) in ops.iter().enumerate() {
            let last = 65536 - size;
            assert!(call(&cell, &format!("f{i}"), &[Val::I32(last)]).is_ok(), "{op}");
            assert_eq!(call(&cell, &format!("f{i}"), &[Val::I32(last + 1)]), Err(TrapCode::MemoryOutOfBounds), "{op}");
        }
    }
}
