;; Calls the host at every step.
(func $work (param $n i32) (result i64) (local $x i64)
    (loop $next
        (call $step)
        (local.set $x (call $add (i64.mul (local.get $x) (i64.const 3)) (i64.extend_i32_u (local.get $n))))
        (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x))
