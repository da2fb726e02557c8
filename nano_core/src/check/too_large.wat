;; Asks for 1 TiB at once.
(module $too_large (memory i64 0x1000000))
