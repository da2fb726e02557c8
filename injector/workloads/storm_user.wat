;; Calls the others by its slots and by references in its table.
(module
  (type $f (func (param i64) (result i64)))
  (import "plain" "f" (func $plain (type $f)))
  (import "counter" "f" (func $counter (type $f)))
  (table 2 funcref)
  (elem (i32.const 0) $plain $counter)
  (func (export "plain_by_slot") (type $f) (call $plain (local.get 0)))
  (func (export "counter_by_slot") (type $f) (call $counter (local.get 0)))
  (func (export "plain_by_reference") (type $f) (call_indirect (type $f) (local.get 0) (i32.const 0)))
  (func (export "counter_by_reference") (type $f) (call_indirect (type $f) (local.get 0) (i32.const 1))))
