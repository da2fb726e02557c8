(module (memory 4)
  ;; Ends at a constant: the next value is compared, and the constants are in the accesses.
  (func (export "fill") (local $i i32)
    (loop $again
      (i32.store (i32.add (local.get $i) (i32.const 0x1000)) (i32.const 7))
      (i32.store (i32.add (local.get $i) (i32.const 0x1004)) (local.get $i))
      (br_if $again (i32.ne (local.tee $i (i32.add (local.get $i) (i32.const 8))) (i32.const 0x800)))))
  ;; Counts up to zero: becomes an index.
  (func (export "count_to_zero") (result i32) (local $i i32) (local $sum i32)
    (local.set $i (i32.const -0x400))
    (loop $again
      (local.set $sum (i32.add (local.get $sum) (i32.load (i32.add (local.get $i) (i32.const 0x800)))))
      (local.set $sum (i32.xor (local.get $sum) (i32.load (i32.add (local.get $i) (i32.const 0x804)))))
      (br_if $again (local.tee $i (i32.add (local.get $i) (i32.const 8)))))
    (local.get $sum))
  ;; The limit is not known, so a sum could wrap around: the constant stays where it is.
  (func (export "unknown_limit") (param $n i32) (local $i i32)
    (loop $again
      (i32.store8 (i32.add (local.get $i) (i32.const 0x400)) (i32.const 1))
      (br_if $again (i32.ne (local.tee $i (i32.add (local.get $i) (i32.const 1))) (local.get $n)))))
  ;; A masked index: scaled, with the constant in the access.
  (func (export "look_up") (param i32) (result i32)
    (i32.load (i32.add (i32.shl (i32.and (local.get 0) (i32.const 255)) (i32.const 2)) (i32.const 0x400))))
  ;; An index that was compared, with something added: scaled, with the constants in the access.
  (func (export "guarded") (param $i i32)
    (if (i32.lt_u (local.get $i) (i32.const 1000))
      (then (i32.store (i32.add (i32.shl (i32.add (local.get $i) (i32.const 1)) (i32.const 3)) (i32.const 0x400)) (i32.const 7)))))
  ;; A list: no instruction between one load and the next.
  (func (export "length_of_list") (param $at i32) (result i32) (local $n i32)
    (block $end (loop $again
      (br_if $end (i32.eqz (local.get $at)))
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (local.set $at (i32.load offset=4 (local.get $at)))
      (br $again)))
    (local.get $n))
  ;; More vectors than registers would do for, known to be in bounds: each load stands at its use.
  (func (export "sum_vectors") (result v128) (local $i i32) (local $a v128) (local $x0 v128) (local $x1 v128) (local $x2 v128) (local $x3 v128) (local $x4 v128) (local $x5 v128) (local $x6 v128) (local $x7 v128) (local $x8 v128)
    (loop $again
      (local.set $x0 (v128.load offset=0 (local.get $i)))
      (local.set $x1 (v128.load offset=16 (local.get $i)))
      (local.set $x2 (v128.load offset=32 (local.get $i)))
      (local.set $x3 (v128.load offset=48 (local.get $i)))
      (local.set $x4 (v128.load offset=64 (local.get $i)))
      (local.set $x5 (v128.load offset=80 (local.get $i)))
      (local.set $x6 (v128.load offset=96 (local.get $i)))
      (local.set $x7 (v128.load offset=112 (local.get $i)))
      (local.set $x8 (v128.load offset=128 (local.get $i)))
      (local.set $a (i32x4.sub (local.get $x0) (local.get $a)))
      (local.set $a (i32x4.sub (local.get $x1) (local.get $a)))
      (local.set $a (i32x4.sub (local.get $x2) (local.get $a)))
      (local.set $a (i32x4.sub (local.get $x3) (local.get $a)))
      (local.set $a (i32x4.sub (local.get $x4) (local.get $a)))
      (local.set $a (i32x4.sub (local.get $x5) (local.get $a)))
      (local.set $a (i32x4.sub (local.get $x6) (local.get $a)))
      (local.set $a (i32x4.sub (local.get $x7) (local.get $a)))
      (local.set $a (i32x4.sub (local.get $x8) (local.get $a)))
      (br_if $again (i32.ne (local.tee $i (i32.add (local.get $i) (i32.const 144))) (i32.const 0x9000))))
    (local.get $a))
  (func (export "times_five") (param i64) (result i64) (i64.mul (local.get 0) (i64.const 5)))

  ;; What is done after the last round, which leaves from the middle, stands behind the loop.
  (func (export "left_from_the_middle") (param $at i32) (result i32) (local $n i32)
    (block $end (loop $again
      (local.set $n (i32.add (local.get $n) (i32.load (local.get $at))))
      (block $stay
        (br_if $stay (i32.ne (i32.load offset=4 (local.get $at)) (local.get $n)))
        (i32.store offset=8 (local.get $at) (local.get $n))
        (br $end))
      (local.set $at (i32.add (local.get $at) (i32.const 16)))
      (br $again)))
    (local.get $n)))
