(module
  (import "m" "callee" (func $callee))
  (memory 1)
  (global $g (mut i32) (i32.const 0))

  ;; The second sum and the second load are the first ones.
  (func (export "twice") (param i32 i32) (result i32)
    (i32.mul
      (i32.load offset=8 (i32.add (local.get 0) (local.get 1)))
      (i32.load offset=8 (i32.add (local.get 0) (local.get 1)))))

  ;; What was stored is not loaded; a global is no part of the memory.
  (func (export "stored") (param i32 i32) (result i32)
    (i32.store offset=4 (local.get 0) (local.get 1))
    (global.set $g (i32.const 1))
    (i32.load offset=4 (local.get 0)))

  ;; What lies elsewhere may have been stored to, and what a call does is not known.
  (func (export "clobbered") (param i32 i32) (result i32)
    (i32.store offset=4 (local.get 0) (i32.const 1))
    (i32.store8 offset=4 (local.get 1) (i32.const 2))
    (i32.load offset=4 (local.get 0))
    (call $callee)
    (i32.load offset=4 (local.get 0))
    i32.add)

  ;; The product does not change in the loop.
  (func (export "invariant") (param i32 i32) (result i32) (local i32)
    (loop $l
      (local.set 2 (i32.add (local.get 2) (i32.mul (local.get 0) (local.get 0))))
      (br_if $l (local.tee 1 (i32.sub (local.get 1) (i32.const 1)))))
    (local.get 2))

  ;; It stays in a loop that calls: it would be kept on the stack.
  (func (export "invariant_across_calls") (param i32 i32) (result i32) (local i32)
    (loop $l
      (call $callee)
      (local.set 2 (i32.add (local.get 2) (i32.mul (local.get 0) (local.get 0))))
      (br_if $l (local.tee 1 (i32.sub (local.get 1) (i32.const 1)))))
    (local.get 2))

  (func (export "divide_by_10") (param i32) (result i32) (i32.div_u (local.get 0) (i32.const 10)))
  (func (export "divide_by_7") (param i32) (result i32) (i32.div_u (local.get 0) (i32.const 7)))
  (func (export "divide_by_minus_24") (param i64) (result i64) (i64.div_s (local.get 0) (i64.const -24)))
  (func (export "remainder_by_16") (param i32) (result i32) (i32.rem_s (local.get 0) (i32.const 16)))
  ;; Wasm has no negation of bits.
  (func (export "and_not") (param i32 i32) (result i32)
    (i32.and (local.get 0) (i32.xor (local.get 1) (i32.const -1)))))
