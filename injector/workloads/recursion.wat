;; Direct recursion, a step in every frame on the way down and on the way up.
(func $go (param $n i32) (param $x i64) (result i64)
    (call $step)
    (if (i32.eqz (local.get $n)) (then (return (local.get $x))))
    (i64.add
        (call $go (i32.sub (local.get $n) (i32.const 1)) (i64.mul (local.get $x) (i64.const 31)))
        (i64.rotl (local.get $x) (i64.extend_i32_u (local.get $n)))))
(func $work (param $n i32) (result i64) (call $go (local.get $n) (i64.const 7)))
