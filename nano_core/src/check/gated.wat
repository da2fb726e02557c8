;; A cell with state of its own, so that one task at a time is inside.
(module
  (import "host" "work" (func $work))
  (import "host" "block" (func $block))
  (memory 1)
  (func (export "spin") (i32.store (i32.const 8) (i32.const 1)) (loop (br 0)))
  (func (export "work") (i32.store (i32.const 8) (i32.const 1)) (loop (call $work) (br 0)))
  (func (export "block") (i32.store (i32.const 8) (i32.const 1)) (loop (call $block) (br 0)))
  (func (export "count") (result i32)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
    (i32.load (i32.const 0))))
