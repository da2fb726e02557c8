;; A scheduling policy: multi-level feedback. A task that used nearly all of the last period is less urgent in the next, by one level a period and
;; four at most, but gets longer turns; one that used less than half of it comes back level by level. So tasks that mostly wait
;; run at once, and those that compute change rarely. No state: the kernel says what was.
(module
  ;; base, priority: as the owner wants it, as it is; ran, period: ticks that the task had, ticks in all.
  ;; Result: priority | ticks of a turn << 8.
  (func (export "advise") (param $base i32) (param $priority i32) (param $ran i32) (param $period i32) (result i32)
    (local $down i32) ;; levels below the base
    (local.set $down (i32.sub (local.get $base) (local.get $priority)))
    (if (i32.lt_s (local.get $down) (i32.const 0)) (then (local.set $down (i32.const 0))))
    (if (i32.ge_u (i32.mul (local.get $ran) (i32.const 8)) (i32.mul (local.get $period) (i32.const 7)))
      (then (local.set $down (i32.add (local.get $down) (i32.const 1))))
      (else
        (if (i32.and (i32.lt_u (i32.shl (local.get $ran) (i32.const 1)) (local.get $period)) (i32.gt_s (local.get $down) (i32.const 0)))
          (then (local.set $down (i32.sub (local.get $down) (i32.const 1)))))))
    (if (i32.gt_s (local.get $down) (i32.const 4)) (then (local.set $down (i32.const 4))))
    (if (i32.gt_s (local.get $down) (local.get $base)) (then (local.set $down (local.get $base))))
    (i32.or
      (i32.sub (local.get $base) (local.get $down))
      (i32.shl (i32.add (local.get $down) (i32.const 1)) (i32.const 8)))))
