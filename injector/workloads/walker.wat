;; Builds a list in memory and walks it, a step at every access.
(func $work (param $n i32) (result i64) (local $i i32) (local $at i32) (local $x i64)
    (loop $build
        (call $step)
        (local.set $at (i32.and (i32.mul (local.get $i) (i32.const 7919)) (i32.const 0x1ff8)))
        (i64.store offset=1024 (local.get $at) (i64.mul (i64.extend_i32_u (local.get $i)) (i64.const 0x100000001b3)))
        (i32.store8 offset=16384 (local.get $i) (local.get $at))
        (br_if $build (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $n))))
    (loop $walk
        (call $step)
        (local.set $i (i32.sub (local.get $i) (i32.const 1)))
        (local.set $at (i32.and (i32.mul (local.get $i) (i32.const 7919)) (i32.const 0x1ff8)))
        (local.set $x (i64.add (i64.rotl (local.get $x) (i64.const 5)) (i64.load offset=1024 (local.get $at))))
        (local.set $x (i64.xor (local.get $x) (i64.load8_u offset=16384 (local.get $i))))
        (br_if $walk (local.get $i)))
    (local.get $x))
