;; Wasm calls the host, which calls wasm, which calls the host: a fault is below native frames.

(func (export "nested_work") (param $n i32) (param $x i64) (result i64)
    (call $step)
    (if (i32.eqz (local.get $n)) (then (return (local.get $x))))
    (i64.add (local.get $x) (call $again (i32.sub (local.get $n) (i32.const 1)) (i64.mul (local.get $x) (i64.const 5)))))
(func $work (param $n i32) (result i64)
    (call $step)
    (call $again (i32.and (local.get $n) (i32.const 7)) (i64.extend_i32_u (local.get $n))))
