;; Calls without end while instructions are counted: each function takes the number of its rounds.
(module
  (import "peer" "next" (func $cell (param i64) (result i64)))
  (import "host" "next" (func $host (param i64) (result i64)))
  (import "host" "direct" (func $native (param i64) (result i64)))
  (memory 1)
  (func (export "inline") (param $n i64) (result i64) (local $x i64)
    (loop $again
      (local.set $x (i64.add (local.get $x) (i64.const 1)))
      (br_if $again (i64.ne (i64.const 0) (local.tee $n (i64.sub (local.get $n) (i64.const 1))))))
    (local.get $x))
  (func (export "to_cell") (param $n i64) (result i64) (local $x i64)
    (loop $again
      (local.set $x (call $cell (local.get $x)))
      (br_if $again (i64.ne (i64.const 0) (local.tee $n (i64.sub (local.get $n) (i64.const 1))))))
    (local.get $x))
  (func (export "to_host") (param $n i64) (result i64) (local $x i64)
    (loop $again
      (local.set $x (call $host (local.get $x)))
      (br_if $again (i64.ne (i64.const 0) (local.tee $n (i64.sub (local.get $n) (i64.const 1))))))
    (local.get $x))
  (func (export "to_native") (param $n i64) (result i64) (local $x i64)
    (loop $again
      (local.set $x (call $native (local.get $x)))
      (br_if $again (i64.ne (i64.const 0) (local.tee $n (i64.sub (local.get $n) (i64.const 1))))))
    (local.get $x))
  (func (export "load") (param i64) (result i64) (i64.load (i32.wrap_i64 (local.get 0)))))
