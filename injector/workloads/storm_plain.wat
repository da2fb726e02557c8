;; Stateless. The result says which version ran and echoes the argument.
(module
  (func (export "f") (param $x i64) (result i64)
    (i64.or (i64.shl (local.get $x) (i64.const 8)) (i64.const VERSION))))
