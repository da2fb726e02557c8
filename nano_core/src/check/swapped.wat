;; Version 3 of the cell that the native objects swapped_1.o and swapped_2.o are versions 1 and 2 of; and the counter that caller.o calls.
(module
  (global $total (mut i32) (i32.const 0))
  (func (export "f") (param i32) (result i32) (i32.add (i32.const 3000) (local.get 0)))
  (func (export "add") (param i32) (result i32)
    (global.set $total (i32.add (global.get $total) (local.get 0)))
    (global.get $total))
  (func (export "inc") (param i32) (result i32)
    (global.set $total (i32.add (global.get $total) (local.get 0)))
    (global.get $total))
  (func (export "many") (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64)
    (i64.add (i64.const 3) (i64.mul (i64.const 100) (i64.add (local.get 0) (local.get 5)))))
  (func (export "fail") unreachable))
