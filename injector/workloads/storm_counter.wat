;; Counts its calls in three places, and traps when they differ: then a call was torn.
(module
  (memory 1 2)
  (global $n (mut i64) (i64.const 0))
  (func (export "f") (param $x i64) (result i64) (local $k i32)
    (if (i64.ne (i64.load (i32.const 0)) (i64.load (i32.const 8))) (then unreachable))
    (if (i64.ne (i64.load (i32.const 0)) (global.get $n)) (then unreachable))
    (i64.store (i32.const 0) (i64.add (i64.load (i32.const 0)) (i64.const 1)))
    ;; Time in which the state is not whole.
    (local.set $k (i32.const 64))
    (loop $wait
      (local.set $k (i32.sub (local.get $k) (i32.const 1)))
      (i32.store (i32.const 32) (local.get $k))
      (br_if $wait (local.get $k)))
    (global.set $n (i64.add (global.get $n) (i64.const 1)))
    (i64.store (i32.const 8) (i64.add (i64.load (i32.const 8)) (i64.const 1)))
    (i64.or (i64.shl (local.get $x) (i64.const 8)) (i64.const VERSION)))
  (func (export "count") (result i64) (i64.load (i32.const 0)))
  ;; 8 bytes at 64.
  (func (export "plank_save") (result i64)
    (i64.store (i32.const 64) (i64.load (i32.const 0)))
    (i64.const 0x800000040))
  (func (export "plank_alloc") (param i32) (result i32) (i32.const 128))
  (func (export "plank_restore") (param $at i32) (param $len i32) (result i32)
    (if (i32.ne (local.get $len) (i32.const 8)) (then (return (i32.const 1))))
    (i64.store (i32.const 0) (i64.load (local.get $at)))
    (i64.store (i32.const 8) (i64.load (local.get $at)))
    (global.set $n (i64.load (local.get $at)))
    (i32.const 0)))
