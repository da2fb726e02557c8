//! Valid modules to damage: between them every section and most kinds of instruction.

/// Text of the sample modules.
const TEXTS: [&str; 7] = [
    // Numbers, control flow, multi-value, names.
    r#"(module $numbers
        (func $gcd (export "gcd") (param $a i64) (param $b i64) (result i64)
            (block $done (loop $again
                (br_if $done (i64.eqz (local.get $b)))
                (local.get $b) (i64.rem_u (local.get $a) (local.get $b)) (local.set $b) (local.set $a)
                (br $again)))
            (local.get $a))
        (func (export "divmod") (param i32 i32) (result i32 i32)
            (i32.div_s (local.get 0) (local.get 1)) (i32.rem_s (local.get 0) (local.get 1)))
        (func (export "pick") (param i32) (result f64)
            (block (block (block (br_table 0 1 2 (local.get 0))) (return (f64.const 1.5))) (return (f64.const nan)))
            (f64.sqrt (f64.convert_i32_u (local.get 0))))
        (func (export "clamp") (param f32) (result i32) (i32.trunc_sat_f32_u (f32.min (local.get 0) (f32.const 0x1p+20))))
    )"#,
    // Memory, data segments, bulk operations.
    r#"(module
        (memory (export "memory") 1 4)
        (data (i32.const 8) "plank")
        (data $passive "0123456789")
        (global $next (mut i32) (i32.const 1024))
        (func (export "take") (param i32) (result i32)
            (global.get $next) (global.set $next (i32.add (global.get $next) (local.get 0))))
        (func (export "copy") (param i32 i32 i32)
            (memory.init $passive (local.get 0) (i32.const 2) (i32.const 4))
            (memory.copy (local.get 0) (local.get 1) (local.get 2))
            (memory.fill (local.get 1) (i32.const 0xaa) (local.get 2))
            (data.drop $passive)
            (i64.store offset=16 align=1 (local.get 0) (i64.load32_s (local.get 1))))
        (func (export "grow") (result i32) (memory.grow (i32.const 1)) (drop) (memory.size))
    )"#,
    // Imports, tables, element segments, indirect and tail calls, start.
    r#"(module
        (import "env" "log" (func $log (param i32 f64)))
        (import "env" "table" (table $shared 2 funcref))
        (import "env" "base" (global $base i32))
        (type $binary (func (param i32 i32) (result i32)))
        (table $own 4 8 funcref)
        (elem (table $own) (i32.const 0) func $add $sub)
        (elem $late funcref (ref.func $add) (ref.null func))
        (elem declare func $sub)
        (func $add (type $binary) (i32.add (local.get 0) (local.get 1)))
        (func $sub (type $binary) (i32.sub (local.get 0) (local.get 1)))
        (func (export "apply") (param i32 i32 i32) (result i32)
            (return_call_indirect $own (type $binary) (local.get 1) (local.get 2) (local.get 0)))
        (func (export "tables") (param externref) (result externref)
            (table.init $own $late (i32.const 2) (i32.const 0) (i32.const 2))
            (table.set $shared (i32.const 0) (ref.func $sub))
            (table.copy $own $shared (i32.const 0) (i32.const 0) (i32.const 1))
            (drop (table.grow $own (ref.null func) (i32.const 1)))
            (elem.drop $late)
            (local.get 0))
        (func $main (call $log (global.get $base) (f64.const 0.5)))
        (start $main)
    )"#,
    // Vectors.
    r#"(module
        (memory 1)
        (func (export "dot") (param v128 v128) (result v128)
            (i32x4.dot_i16x8_s (local.get 0) (i8x16.swizzle (local.get 1) (v128.const i8x16 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15))))
        (func (export "lanes") (param i32) (result f32)
            (v128.store8_lane 3 (local.get 0) (v128.load16x4_u (local.get 0)))
            (f32x4.extract_lane 1 (f32x4.max (v128.load32_splat (local.get 0)) (f32x4.splat (f32.const 2)))))
        (func (export "relaxed") (param v128 v128 v128) (result v128)
            (f64x2.relaxed_madd (local.get 0) (local.get 1) (local.get 2)))
    )"#,
    // Several memories, 64-bit ones, small pages, atomics.
    r#"(module
        (memory $a 1 2 shared)
        (memory $b i64 1 3)
        (memory $c 100 200 (pagesize 1))
        (func (export "add") (param i32 i64) (result i64)
            (i64.store8 $b offset=4294967296 (local.get 1) (i64.const 1))
            (i64.store8 $c (local.get 0) (i64.const 1))
            (drop (memory.atomic.notify $a (local.get 0) (i32.const 1)))
            (i64.atomic.rmw.cmpxchg $a (local.get 0) (i64.const 1) (i64.load $b (local.get 1))))
        (func (export "wide") (param i64 i64 i64 i64) (result i64 i64)
            (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3))
            (i64.mul_wide_u))
    )"#,
    // Typed function references.
    r#"(module
        (type $g (func (param i32) (result i32)))
        (type $f (func (param (ref null $g) i32) (result i32)))
        (type $m (func (result (ref $f))))
        (table $t 2 (ref null $f))
        (elem declare func $one $two $make)
        (func $one (type $g) (i32.add (local.get 0) (i32.const 1)))
        (func $two (type $f) (block $null (return (call_ref $g (local.get 1) (br_on_null $null (local.get 0))))) (i32.const 2))
        (func $make (type $m) (ref.func $two))
        (func (export "run") (param i32) (result i32)
            (table.set $t (i32.const 0) (call $make))
            (return_call_ref $f (ref.func $one) (local.get 0) (ref.as_non_null (table.get $t (i32.const 0)))))
    )"#,
    // Extended constants, globals, custom sections.
    r#"(module
        (import "env" "base" (global $base i32))
        (global $g (export "g") i32 (i32.add (global.get $base) (i32.mul (i32.const 3) (i32.const 5))))
        (global (export "v") v128 (v128.const f64x2 1 2))
        (global (mut externref) (ref.null extern))
        (memory 1)
        (data (offset (i32.sub (i32.const 40) (i32.const 8))) "x")
        (@custom "note" (after data) "anything")
    )"#,
];

/// The sample modules, binary.
///
/// # Panics
/// One of the texts is no valid module.
pub fn samples() -> Vec<Vec<u8>> {
    TEXTS.iter().map(|text| wat::parse_str(text).unwrap_or_else(|e| panic!("{e}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_cell::features::FEATURES;

    #[test]
    fn samples_are_valid() {
        for (i, wasm) in samples().iter().enumerate() {
            if let Err(e) = wasmparser::Validator::new_with_features(FEATURES).validate_all(wasm) {
                panic!("sample {i}: {e}");
            }
        }
    }
}
