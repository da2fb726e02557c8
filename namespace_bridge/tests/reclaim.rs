//! What goes comes back: memory, mappings, symbols, registrations. One test in a process of its own, because it counts.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{CrateNamespace, LoadOptions, reclaim, text_index::TEXT, types_registry::registered_types};
use runtime_port::platform;
use std::fs;

/// Bytes that somebody owns, of the heap and of mapped memory, and number of mappings of this process. What is resident besides is how the heap's
/// arenas were cut up, which depends on when threads got the processor.
fn bytes_and_mappings() -> (usize, usize) {
    // SAFETY: no arguments.
    let heap = unsafe { libc::mallinfo2() };
    let memory = platform().memory().statistics();
    let bytes = heap.uordblks + heap.hblkhd + memory.reserved_bytes + memory.shared_bytes;
    (bytes, fs::read_to_string("/proc/self/maps").unwrap().lines().count())
}

#[test]
fn ten_thousand_cells_loaded_and_unloaded_leave_nothing_behind() {
    let ns = CrateNamespace::new("test", None);
    ns.define("env", "log", |x: i32| x + 1).unwrap();
    let bytes = |i: usize| {
        wat::parse_str(format!(
            r#"(module (import "env" "log" (func $log (param i32) (result i32))) (memory 1) (table 4 funcref)
                (elem (i32.const 0) $f) (func $f (export "f") (param i32) (result i32)
                    (i32.store (i32.const 0) (i32.const {i})) (call $log (local.get 0))))"#
        ))
        .unwrap()
    };
    let round = |from: usize, to: usize| {
        for i in from..to {
            // Every module is another one, so nothing is found in the cache; names vary too.
            let name = format!("cell{i}");
            let cell = ns.load_wasm(&name, &bytes(i), LoadOptions::default()).unwrap();
            let f = cell.typed_func::<(i32,), i32>("f").unwrap();
            assert_eq!(f.call((i as i32,)).unwrap(), i as i32 + 1);
            drop((cell, f));
            ns.unload(&name).unwrap();
        }
    };
    round(0, 1000);
    let counts = || (reclaim(), ns.crate_count(), ns.symbol_count(), TEXT.len(), registered_types());
    let (counts_before, before) = (counts(), bytes_and_mappings());
    round(1000, 10_000);
    let (counts_after, after) = (counts(), bytes_and_mappings());
    println!("{before:?} {after:?}");
    assert_eq!(counts_after, counts_before);
    assert!(after.0 <= before.0 + 64 * 4096, "bytes: {} before, {} after", before.0, after.0);
    // A pooled memory and table have four mappings; how many are pooled depends on how many cells waited at once.
    assert!(after.1 <= before.1 + 32, "mappings: {} before, {} after", before.1, after.1);
}
