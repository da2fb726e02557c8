;; Integers and floats in a loop.
(func $work (param $n i32) (result i64) (local $x i64) (local $f f64)
    (local.set $x (i64.const 0x9e3779b97f4a7c15))
    (local.set $f (f64.const 1))
    (loop $next
        (call $step)
        (local.set $x (i64.mul (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 29))) (i64.const 0xbf58476d1ce4e5b9)))
        (local.set $x (i64.add (local.get $x) (i64.rem_u (local.get $x) (i64.extend_i32_u (local.get $n)))))
        (local.set $f (f64.sqrt (f64.add (f64.mul (local.get $f) (f64.const 1.5)) (f64.convert_i32_u (local.get $n)))))
        (local.set $x (i64.xor (local.get $x) (i64.reinterpret_f64 (local.get $f))))
        (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x))
