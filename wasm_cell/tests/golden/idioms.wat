;; What wasm says with several instructions.
(module
  (memory 1)

  ;; The second load is part of the addition.
  (func (export "lesser") (param i32 i32) (result i32) (local i32 i32)
    (select
      (local.tee 2 (i32.load (local.get 0)))
      (local.tee 3 (i32.add (local.get 1) (i32.load (local.get 1))))
      (i32.lt_s (local.get 2) (local.get 3))))

  (func (export "greater") (param i64 i64) (result i64) (local i64)
    (select
      (local.tee 2 (i64.add (local.get 0) (local.get 1)))
      (local.get 0)
      (i64.lt_u (local.get 0) (local.get 2))))

  ;; The load has extended the byte already.
  (func (export "masked_byte") (param i32) (result i32)
    (i32.and (i32.load8_u (local.get 0)) (i32.const 255)))

  ;; Not all that was loaded.
  (func (export "masked_half") (param i32) (result i32)
    (i32.and (i32.load16_u (local.get 0)) (i32.const 0xffe)))

  (func (export "extended_byte") (param i32) (result i32)
    (i32.shr_s (i32.shl (local.get 0) (i32.const 24)) (i32.const 24)))

  ;; The comparison does not wait for the sum.
  (func (export "wrapped_index") (param i32) (result i32)
    (select
      (i32.const 0)
      (local.tee 0 (i32.add (local.get 0) (i32.const 1)))
      (i32.eq (local.get 0) (i32.const 15)))))
