;; A line discipline: backspace, Control-U, Control-W (a word), Control-C, and the lines before by the arrow keys or Control-P and -N.
(module
  (global $after_return (mut i32) (i32.const 0))
  ;; Inside of an escape sequence: 1 behind ESC, 2 behind "ESC [" or "ESC O".
  (global $escape (mut i32) (i32.const 0))

  ;; A byte, on a line of so many bytes. Result: 0 nothing, 1 | byte << 8 insert, 2 erase, 3 erase word, 4 erase all, 5 end of line,
  ;; 6 give it up, 7 the line before, 8 the line behind.
  (func (export "key") (param $byte i32) (param $length i32) (result i32)
    (local $returned i32)
    (local.set $returned (global.get $after_return))
    (global.set $after_return (i32.eq (local.get $byte) (i32.const 13)))
    (if (global.get $escape) (then (return (call $in_sequence (local.get $byte)))))
    (if (i32.eq (local.get $byte) (i32.const 27)) (then (global.set $escape (i32.const 1)) (return (i32.const 0))))
    ;; A line feed behind a carriage return is the same end of line.
    (if (i32.eq (local.get $byte) (i32.const 10))
      (then (return (select (i32.const 0) (i32.const 5) (local.get $returned)))))
    (if (i32.eq (local.get $byte) (i32.const 13)) (then (return (i32.const 5))))
    (if (i32.or (i32.eq (local.get $byte) (i32.const 8)) (i32.eq (local.get $byte) (i32.const 127))) (then (return (i32.const 2))))
    (if (i32.eq (local.get $byte) (i32.const 23)) (then (return (i32.const 3))))
    (if (i32.eq (local.get $byte) (i32.const 21)) (then (return (i32.const 4))))
    (if (i32.eq (local.get $byte) (i32.const 3)) (then (return (i32.const 6))))
    (if (i32.eq (local.get $byte) (i32.const 16)) (then (return (i32.const 7))))
    (if (i32.eq (local.get $byte) (i32.const 14)) (then (return (i32.const 8))))
    (if (i32.lt_u (local.get $byte) (i32.const 32)) (then (return (i32.const 0))))
    (i32.or (i32.const 1) (i32.shl (local.get $byte) (i32.const 8))))

  (func $in_sequence (param $byte i32) (result i32)
    (if (i32.eq (global.get $escape) (i32.const 1))
      (then
        ;; "[" and "O" go on; anything else was the whole sequence.
        (global.set $escape
          (select (i32.const 2) (i32.const 0)
            (i32.or (i32.eq (local.get $byte) (i32.const 0x5b)) (i32.eq (local.get $byte) (i32.const 0x4f)))))
        (return (i32.const 0))))
    ;; Parameters are below "@"; the byte that ends the sequence says what it is.
    (if (i32.ge_u (local.get $byte) (i32.const 0x40)) (then (global.set $escape (i32.const 0))))
    (if (i32.eq (local.get $byte) (i32.const 0x41)) (then (return (i32.const 7))))
    (if (i32.eq (local.get $byte) (i32.const 0x42)) (then (return (i32.const 8))))
    (i32.const 0)))
