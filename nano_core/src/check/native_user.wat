;; Calls what native cells export.
(module
  (import "swapped" "f" (func $f (param i32) (result i32)))
  (import "swapped" "many" (func $many (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64)))
  (import "math" "fail" (func $fail (param i32) (result i32)))
  (import "math" "divide" (func $divide (param i32 i32) (result i32 i32)))
  (func (export "f") (param i32) (result i32) (call $f (local.get 0)))
  (func (export "many") (result i64)
    (call $many (i64.const 1) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 2) (i64.const 7) (i64.const 7)))
  (func (export "fail") (param i32) (result i32) (i32.add (i32.const 1) (call $fail (local.get 0))))
  (func (export "divide") (param i32 i32) (result i32) (i32.add (call $divide (local.get 0) (local.get 1)))))
