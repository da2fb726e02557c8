;; Grows its memory and table: up to their maximum, and then in vain. The result depends neither on how large they are nor on
;; whether the system has memory left.
(func $work (param $n i32) (result i64) (local $x i64) (local $before i32) (local $answer i32)
    (loop $next
        (call $step)
        (local.set $before (memory.size $m))
        (local.set $x (i64.rotl (local.get $x) (i64.const 3)))
        ;; 1 when the answer is right: the size before, or -1.
        (local.set $answer (memory.grow $m (i32.const 1)))
        (local.set $x (i64.add (local.get $x) (i64.extend_i32_u (i32.or
            (i32.eq (local.get $answer) (local.get $before)) (i32.eq (local.get $answer) (i32.const -1))))))
        (local.set $x (i64.add (local.get $x) (i64.extend_i32_u (i32.eq (memory.grow $m (i32.const 0)) (memory.size $m)))))
        (local.set $before (table.size $t))
        (local.set $answer (table.grow $t (ref.null func) (i32.const 1)))
        (local.set $x (i64.add (local.get $x) (i64.extend_i32_u (i32.or
            (i32.eq (local.get $answer) (local.get $before)) (i32.eq (local.get $answer) (i32.const -1))))))
        ;; The last byte of the memory is there.
        (i32.store8 (i32.sub (i32.shl (memory.size $m) (i32.const 16)) (i32.const 1)) (local.get $n))
        (br_if $next (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x))
