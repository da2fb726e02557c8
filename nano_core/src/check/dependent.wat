;; Imports a function of another cell.
(module $dependent
  (import "arithmetic" "fib" (func $fib (param i32) (result i32)))
  (func (export "sum_of_fib") (param $n i32) (result i32)
    (local $sum i32)
    (loop $next
      (local.set $n (i32.sub (local.get $n) (i32.const 1)))
      (local.set $sum (i32.add (local.get $sum) (call $fib (local.get $n))))
      (br_if $next (local.get $n)))
    (local.get $sum)))
