;; A cell whose start function traps when it has written to memory, a table and a global.
(module
  (memory 1)
  (table (export "table") 4 funcref)
  (global $g (mut i32) (i32.const 0))
  (elem (i32.const 0) func $start)
  (func $start
    (i32.store (i32.const 0) (i32.const 1))
    (table.set (i32.const 1) (ref.func $start))
    (global.set $g (i32.const 1))
    unreachable)
  (start $start))
