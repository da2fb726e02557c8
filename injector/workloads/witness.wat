;; A cell that nothing is injected into: whatever happens to others, its count goes on and its memory stays.
(module $witness
    (memory 1)
    (data (i32.const 64) "the quick brown fox jumps over the lazy dog")
    (global $count (mut i32) (i32.const 0))
    (func (export "bump") (result i32)
        (global.set $count (i32.add (global.get $count) (i32.const 1)))
        (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1)))
        (if (i32.ne (i32.load (i32.const 0)) (global.get $count)) (then (return (i32.const -1))))
        (global.get $count))
    (func (export "sum") (result i64) (local $i i32) (local $x i64)
        (loop $next
            (local.set $x (i64.add (i64.mul (local.get $x) (i64.const 31)) (i64.load8_u offset=64 (local.get $i))))
            (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 64))))
        (local.get $x)))
