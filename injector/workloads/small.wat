;; A cell that is quickly compiled, with one of everything.
(module $small
    (import "injector" "add" (func $add (param i64 i64) (result i64)))
    (memory 1)
    (table 2 funcref)
    (global $g (mut i32) (i32.const 1))
    (data (i32.const 8) "small")
    (elem (i32.const 0) func $f $add)
    (func $f (export "f") (param i64) (result i64)
        (call $add (local.get 0) (i64.load (i32.const 8)))))
