;; A module with everything a cell is made of: memory, table, globals, segments, imports of functions.
(module $arithmetic
  (type $unary (func (param i32) (result i32)))
  (import "host" "add" (func $add (param i32 i32) (result i32)))
  (memory (export "memory") 1 3)
  (table 4 funcref)
  (global $calls (mut i32) (i32.const 0))
  (elem (i32.const 0) func $square $double)
  (data (i32.const 8) "planks")

  (func $square (type $unary) (i32.mul (local.get 0) (local.get 0)))
  (func $double (type $unary) (i32.shl (local.get 0) (i32.const 1)))

  (func $fib (export "fib") (param i32) (result i32)
    (if (result i32) (i32.lt_u (local.get 0) (i32.const 2))
      (then (local.get 0))
      (else (i32.add
        (call $fib (i32.sub (local.get 0) (i32.const 1)))
        (call $fib (i32.sub (local.get 0) (i32.const 2)))))))

  (func (export "apply") (param i32 i32) (result i32)
    (call_indirect (type $unary) (local.get 1) (local.get 0)))

  (func (export "add_in_host") (param i32 i32) (result i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (call $add (local.get 0) (local.get 1)))
  (func (export "calls") (result i32) (global.get $calls))

  (func (export "byte_at") (param i32) (result i32) (i32.load8_u (local.get 0)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "fill") (param i32 i32 i32) (memory.fill (local.get 0) (local.get 1) (local.get 2)))

  (func (export "swap") (param i64 f64) (result f64 i64) (local.get 1) (local.get 0))
  (func (export "dot") (param v128 v128) (result i32)
    (local v128)
    (local.set 2 (i32x4.mul (local.get 0) (local.get 1)))
    (i32.add
      (i32.add (i32x4.extract_lane 0 (local.get 2)) (i32x4.extract_lane 1 (local.get 2)))
      (i32.add (i32x4.extract_lane 2 (local.get 2)) (i32x4.extract_lane 3 (local.get 2))))))
