;; Asks for 4 GiB at once.
(module $too_large (memory 65536))
