;; One of two cells that always change together, and call each other: its version in the lower 8 bits, the other's above.
(module
  (import "second" "version" (func $other (result i64)))
  (func (export "version") (result i64) (i64.const VERSION))
  (func (export "f") (param i64) (result i64)
    (i64.or (i64.const VERSION) (i64.shl (call $other) (i64.const 8)))))
