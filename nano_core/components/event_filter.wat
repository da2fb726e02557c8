;; A filter for the bytes of the serial port: what the port says is damaged does not pass, nor do zeroes, which a break leaves on the line.
(module
  (global $dropped (export "dropped") (mut i64) (i64.const 0))
  ;; byte; errors: bits 1 to 4 of the line status (overrun, parity, framing, break); time in nanoseconds.
  ;; Result: the byte that passes, or -1.
  (func (export "filter") (param $byte i32) (param $errors i32) (param $time i64) (result i32)
    ;; An overrun lost earlier bytes, this one is good.
    (if (i32.or (i32.and (local.get $errors) (i32.const 0x1c)) (i32.eqz (local.get $byte)))
      (then
        (global.set $dropped (i64.add (global.get $dropped) (i64.const 1)))
        (return (i32.const -1))))
    (local.get $byte)))
