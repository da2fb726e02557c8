;; What several tasks do at once. No state but the shared memory, so that any number of tasks can be inside.
(module
  (import "host" "work" (func $work))
  (import "host" "block" (func $block))
  (memory 1 1 shared)

  (func (export "floats") (param $x f64) (param $n i32) (result f64)
    (loop $again
      (local.set $x (f64.sqrt (f64.add (f64.mul (local.get $x) (local.get $x)) (f64.const 1.25))))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x))

  (func (export "vectors") (param $v v128) (param $n i32) (result v128)
    (local $sum v128)
    (loop $again
      (local.set $sum (i32x4.add (local.get $sum) (local.get $v)))
      (local.set $v (v128.xor (i32x4.mul (local.get $v) (i32x4.splat (i32.const 0x343fd))) (local.get $sum)))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $v))

  (func (export "spin") (loop (br 0)))
  (func (export "work") (loop (call $work) (br 0)))
  (func (export "block") (loop (call $block) (br 0)))
  (func (export "wait") (drop (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const -1))))
  (func $recurse (export "recurse") (param i64) (result i64)
    (i64.add (call $recurse (i64.add (local.get 0) (i64.const 1))) (i64.const 1)))
  (func (export "fine") (result i32) (i32.const 42)))
