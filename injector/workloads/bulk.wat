;; Bulk operations on memory and tables.
(func $work (param $n i32) (result i64) (local $x i64)
    (memory.fill $m (i32.const 0x8000) (i32.const 0) (i32.const 0x1000))
    (loop $next
        (call $step)
        (memory.fill $m (i32.add (i32.const 0x8000) (local.get $n)) (local.get $n) (i32.const 64))
        (memory.copy $m $m (i32.const 0x9000) (i32.const 0x8000) (i32.const 0x200))
        (memory.init $m $bytes (i32.const 0x9010) (i32.const 3) (i32.const 12))
        (table.fill $t (i32.const 0) (ref.func $id) (i32.const 8))
        (table.fill $t (i32.const 0) (ref.null func) (i32.const 8))
        (local.set $x (i64.add (i64.rotl (local.get $x) (i64.const 9)) (i64.load offset=0x9008 (local.get $n))))
        (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x))
