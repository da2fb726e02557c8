;; Vectors in registers and memory.
(func $work (param $n i32) (result i64) (local $v v128)
    (local.set $v (v128.const i64x2 0x0123456789abcdef 0xfedcba9876543210))
    (loop $next
        (call $step)
        (v128.store offset=0x4000 (i32.shl (i32.and (local.get $n) (i32.const 63)) (i32.const 4)) (local.get $v))
        (local.set $v (i32x4.add (i8x16.swizzle (local.get $v) (v128.const i8x16 3 1 4 1 5 9 2 6 5 3 5 8 9 7 9 3))
            (i32x4.mul (local.get $v) (i32x4.splat (local.get $n)))))
        (local.set $v (v128.xor (local.get $v)
            (v128.load offset=0x4000 (i32.shl (i32.and (local.get $n) (i32.const 63)) (i32.const 4)))))
        (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (i64.xor (i64x2.extract_lane 0 (local.get $v)) (i64x2.extract_lane 1 (local.get $v))))
