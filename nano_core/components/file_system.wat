;; A file system over two disks of cpio entries ("new ASCII"): 0, the boot archive, read-only; 1, a log in memory. The last entry of a name counts,
;; those of the log before those of the archive; a character device (a whiteout) says that there is no such file. The disks are all the
;; state there is.
(module
  (import "disk" "size" (func $size (param $disk i32) (result i32)))
  ;; 0, or -1 when the bytes are not on the disk.
  (import "disk" "read" (func $read (param $disk i32) (param $offset i32) (param $to i32) (param $len i32) (result i32)))
  ;; Appends to disk 1. 0, or -1 when the disk refuses; likewise the next two.
  (import "disk" "append" (func $append (param $from i32) (param $len i32) (result i32)))
  (import "disk" "append_content" (func $append_content (result i32)))
  (import "disk" "commit" (func $commit (result i32)))
  ;; Copies the name that the question is about, and gives its length.
  (import "request" "name" (func $request_name (param $to i32) (param $most i32) (result i32)))
  (import "request" "content_size" (func $content_size (result i32)))

  ;; 0: header of an entry (110 bytes); 0x1000: its name; 0x2000: the name looked for; 0x3000: an entry to write.
  (memory 1)
  (data $digits "0123456789abcdef")
  (data (i32.const 0x3000) "070701")

  ;; What $entry found.
  (global $kind (mut i32) (i32.const 0)) ;; 1 file, 2 whiteout, 0 something else
  (global $name (mut i32) (i32.const 0)) ;; address and length, without a leading ./ or /
  (global $name_len (mut i32) (i32.const 0))
  (global $content (mut i32) (i32.const 0)) ;; offset on the disk, and length
  (global $content_len (mut i32) (i32.const 0))
  (global $wanted_len (mut i32) (i32.const 0)) ;; length of the name looked for

  ;; The number of eight hexadecimal digits; what is no digit counts as some digit.
  (func $number (param $at i32) (result i32)
    (local $value i32) (local $end i32) (local $digit i32)
    (local.set $end (i32.add (local.get $at) (i32.const 8)))
    (loop $next
      (local.set $digit (i32.load8_u (local.get $at)))
      ;; "a" to "f" and "A" to "F" have bit 6, and 9 more than their low four bits.
      (local.set $digit
        (i32.add (i32.and (local.get $digit) (i32.const 15))
          (i32.mul (i32.const 9) (i32.and (i32.shr_u (local.get $digit) (i32.const 6)) (i32.const 1)))))
      (local.set $value (i32.or (i32.shl (local.get $value) (i32.const 4)) (i32.and (local.get $digit) (i32.const 15))))
      (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (local.get $end))))
    (local.get $value))

  (func $aligned (param $n i32) (result i32)
    (i32.and (i32.add (local.get $n) (i32.const 3)) (i32.const -4)))

  ;; Reads the entry at an offset. The offset of the next one, or 0 at the end of the disk.
  (func $entry (param $disk i32) (param $at i32) (result i32)
    (local $len i32) (local $mode i32) (local $next i32)
    (if (call $read (local.get $disk) (local.get $at) (i32.const 0) (i32.const 110)) (then (return (i32.const 0))))
    ;; "0707" "01"
    (if (i32.or (i32.ne (i32.load (i32.const 0)) (i32.const 0x37303730)) (i32.ne (i32.load16_u (i32.const 4)) (i32.const 0x3130)))
      (then (return (i32.const 0))))
    (local.set $len (call $number (i32.const 94)))
    (if (i32.gt_u (i32.sub (local.get $len) (i32.const 2)) (i32.const 4094)) (then (return (i32.const 0))))
    (if (call $read (local.get $disk) (i32.add (local.get $at) (i32.const 110)) (i32.const 0x1000) (local.get $len))
      (then (return (i32.const 0))))
    ;; "TRAILER!!!" with its zero
    (if (i32.eq (local.get $len) (i32.const 11))
      (then
        (if (i32.and
              (i64.eq (i64.load (i32.const 0x1000)) (i64.const 0x2152454c49415254))
              (i32.eq (i32.load16_u (i32.const 0x1008)) (i32.const 0x2121)))
          (then (return (i32.const 0))))))
    (global.set $name (i32.const 0x1000))
    (global.set $name_len (i32.sub (local.get $len) (i32.const 1)))
    (call $strip)
    (local.set $mode (i32.and (call $number (i32.const 14)) (i32.const 0xf000)))
    (global.set $kind
      (i32.or
        (i32.eq (local.get $mode) (i32.const 0x8000))
        (i32.shl (i32.eq (local.get $mode) (i32.const 0x2000)) (i32.const 1))))
    (global.set $content (call $aligned (i32.add (local.get $at) (i32.add (i32.const 110) (local.get $len)))))
    (global.set $content_len (call $number (i32.const 54)))
    (local.set $next (call $aligned (i32.add (global.get $content) (global.get $content_len))))
    ;; An entry ends on the disk, and behind where it began.
    (if (i32.or
          (i32.gt_u (i32.add (global.get $content) (global.get $content_len)) (call $size (local.get $disk)))
          (i32.le_u (local.get $next) (local.get $at)))
      (then (return (i32.const 0))))
    (local.get $next))

  ;; Takes "./" as often as it is there off the name, then "/".
  (func $strip
    (loop $dots
      (if (i32.and (i32.ge_u (global.get $name_len) (i32.const 2)) (i32.eq (i32.load16_u (global.get $name)) (i32.const 0x2f2e)))
        (then
          (global.set $name (i32.add (global.get $name) (i32.const 2)))
          (global.set $name_len (i32.sub (global.get $name_len) (i32.const 2)))
          (br $dots))))
    (loop $slashes
      (if (i32.and (i32.ge_u (global.get $name_len) (i32.const 1)) (i32.eq (i32.load8_u (global.get $name)) (i32.const 0x2f)))
        (then
          (global.set $name (i32.add (global.get $name) (i32.const 1)))
          (global.set $name_len (i32.sub (global.get $name_len) (i32.const 1)))
          (br $slashes)))))

  ;; Whether the entry's name is the one looked for.
  (func $is_wanted (result i32)
    (local $i i32)
    (if (i32.ne (global.get $name_len) (global.get $wanted_len)) (then (return (i32.const 0))))
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $i) (global.get $wanted_len)))
        (if (i32.ne
              (i32.load8_u (i32.add (global.get $name) (local.get $i)))
              (i32.load8_u (i32.add (i32.const 0x2000) (local.get $i))))
          (then (return (i32.const 0))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br $next)))
    (i32.const 1))

  ;; The last entry of the name looked for on one disk: kind (0: none), where it begins, where its content begins, length.
  (func $last (param $disk i32) (result i32 i32 i32 i32)
    (local $at i32) (local $next i32) (local $kind i32) (local $found i32) (local $content i32) (local $len i32)
    (block $end
      (loop $entries
        (br_if $end (i32.eqz (local.tee $next (call $entry (local.get $disk) (local.get $at)))))
        (if (i32.and (i32.ne (global.get $kind) (i32.const 0)) (call $is_wanted))
          (then
            (local.set $kind (global.get $kind))
            (local.set $found (local.get $at))
            (local.set $content (global.get $content))
            (local.set $len (global.get $content_len))))
        (local.set $at (local.get $next))
        (br $entries)))
    (local.get $kind) (local.get $found) (local.get $content) (local.get $len))

  ;; Looks for the name at 0x2000: disk (-1: none), where the entry begins, where its content begins, length.
  (func $look (result i32 i32 i32 i32)
    (local $disk i32) (local $kind i32) (local $found i32) (local $content i32) (local $len i32)
    (local.set $disk (i32.const 1))
    (loop $disks
      (call $last (local.get $disk))
      (local.set $len) (local.set $content) (local.set $found) (local.set $kind)
      (if (i32.and (i32.eqz (local.get $kind)) (local.get $disk)) (then (local.set $disk (i32.const 0)) (br $disks))))
    (if (i32.ne (local.get $kind) (i32.const 1)) (then (local.set $disk (i32.const -1))))
    (local.get $disk) (local.get $found) (local.get $content) (local.get $len))

  ;; Fetches the name that the question is about. 0 if it is too long to be one.
  (func $fetch_name (result i32)
    (global.set $wanted_len (call $request_name (i32.const 0x2000) (i32.const 4095)))
    (i32.le_u (global.get $wanted_len) (i32.const 4095)))

  ;; The file that the question is about: disk (-1: none), offset of the content, length.
  (func (export "find") (result i32 i32 i32)
    (local $disk i32) (local $content i32) (local $len i32)
    (if (i32.eqz (call $fetch_name)) (then (return (i32.const -1) (i32.const 0) (i32.const 0))))
    (call $look)
    (local.set $len) (local.set $content) drop (local.set $disk)
    (local.get $disk) (local.get $content) (local.get $len))

  ;; The first file at an offset or behind, the archive before the log: disk (-1: none), where its entry begins, where that ends. Only the entry
  ;; that counts for its name is a file.
  (func (export "next") (param $disk i32) (param $at i32) (result i32 i32 i32)
    (local $next i32) (local $found_disk i32) (local $found i32)
    (block $none
      (loop $entries
        (if (i32.eqz (local.tee $next (call $entry (local.get $disk) (local.get $at))))
          (then
            (br_if $none (i32.ne (local.get $disk) (i32.const 0)))
            (local.set $disk (i32.const 1))
            (local.set $at (i32.const 0))
            (br $entries)))
        (if (i32.eq (global.get $kind) (i32.const 1))
          (then
            (memory.copy (i32.const 0x2000) (global.get $name) (global.get $name_len))
            (global.set $wanted_len (global.get $name_len))
            (call $look)
            drop drop (local.set $found) (local.set $found_disk)
            (if (i32.and (i32.eq (local.get $found_disk) (local.get $disk)) (i32.eq (local.get $found) (local.get $at)))
              (then (return (local.get $disk) (local.get $at) (local.get $next))))))
        (local.set $at (local.get $next))
        (br $entries)))
    (i32.const -1) (i32.const 0) (i32.const 0))

  (func $put_number (param $field i32) (param $value i32)
    (local $at i32) (local $shift i32)
    (local.set $at (i32.add (i32.const 0x3006) (i32.shl (local.get $field) (i32.const 3))))
    (local.set $shift (i32.const 28))
    (loop $next
      (memory.init $digits (local.get $at) (i32.and (i32.shr_u (local.get $value) (local.get $shift)) (i32.const 15)) (i32.const 1))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.ge_s (local.tee $shift (i32.sub (local.get $shift) (i32.const 4))) (i32.const 0)))))

  ;; Appends header, name and padding of an entry: 0, or -1 when the disk refuses.
  (func $append_header (param $mode i32) (param $size i32) (result i32)
    (local $field i32) (local $end i32) (local $padded i32)
    (loop $fields
      (call $put_number (local.get $field) (i32.const 0))
      (br_if $fields (i32.lt_u (local.tee $field (i32.add (local.get $field) (i32.const 1))) (i32.const 13))))
    (call $put_number (i32.const 1) (local.get $mode))
    (call $put_number (i32.const 4) (i32.const 1)) ;; links
    (call $put_number (i32.const 6) (local.get $size))
    (call $put_number (i32.const 11) (i32.add (global.get $wanted_len) (i32.const 1)))
    (memory.copy (i32.const 0x306e) (i32.const 0x2000) (global.get $wanted_len))
    (local.set $end (i32.add (i32.const 110) (global.get $wanted_len)))
    (local.set $padded (call $aligned (i32.add (local.get $end) (i32.const 1))))
    (memory.fill (i32.add (i32.const 0x3000) (local.get $end)) (i32.const 0) (i32.sub (local.get $padded) (local.get $end)))
    (call $append (i32.const 0x3000) (local.get $padded)))

  ;; Writes the question's content under its name: 0, or 1 when the disk refuses.
  (func (export "write") (result i32)
    (if (i32.eqz (call $fetch_name)) (then (return (i32.const 1))))
    (if (call $append_header (i32.const 0x81a4) (call $content_size)) (then (return (i32.const 1))))
    (if (call $append_content) (then (return (i32.const 1))))
    (i32.ne (call $commit) (i32.const 0)))

  ;; Removes the file that the question is about: 0, 1 when the disk refuses, 2 when there is none.
  (func (export "remove") (result i32)
    (if (i32.eqz (call $fetch_name)) (then (return (i32.const 2))))
    (call $look)
    drop drop drop
    (if (i32.lt_s (i32.const 0)) (then (return (i32.const 2))))
    (if (call $append_header (i32.const 0x2000) (i32.const 0)) (then (return (i32.const 1))))
    (i32.ne (call $commit) (i32.const 0))))
