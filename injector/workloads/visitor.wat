;; Calls another cell at every step.
(func $work (param $n i32) (result i64) (local $x i64)
    (loop $next
        (call $step)
        (local.set $x (call $mix_elsewhere (local.get $x) (i64.extend_i32_u (local.get $n))))
        (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x))
