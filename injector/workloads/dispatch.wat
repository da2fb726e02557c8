;; Calls through a table, as an interpreter does.
(table $ops funcref (elem $inc $double $square $mix))
(func $inc (type $unary) (call $step) (i64.add (local.get 0) (i64.const 1)))
(func $double (type $unary) (call $step) (i64.shl (local.get 0) (i64.const 1)))
(func $square (type $unary) (call $step) (i64.mul (local.get 0) (local.get 0)))
(func $mix (type $unary) (call $step) (i64.xor (local.get 0) (i64.shr_u (local.get 0) (i64.const 7))))
(func $work (param $n i32) (result i64) (local $x i64)
    (local.set $x (i64.const 12345))
    (loop $next
        (local.set $x (call_indirect $ops (type $unary) (local.get $x)
            (i32.and (i32.add (local.get $n) (i32.wrap_i64 (local.get $x))) (i32.const 3))))
        (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x))
