//! What swaps leave: nothing. One test in a process of its own, because it counts.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::swap::{StatePlan, SwapRequest, SwapStep};
use namespace_bridge::{CrateNamespace, LoadOptions, compile_module, reclaim, text_index::TEXT};
use namespace_bridge::{retired, types_registry::registered_types};
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

/// In a task that has ended afterwards, so that none of its words stays on a stack. The test's own task never attaches.
fn apart<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|s| s.spawn(f).join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
}

#[test]
fn ten_thousand_swaps_leave_memory_mappings_registrations_and_symbols_flat() {
    let ns = CrateNamespace::new("test", None);
    let wasm = |text: String| wat::parse_str(text).unwrap();
    let load = |name: &str, text: String| {
        apart(|| drop(ns.load_wasm(name, &wasm(text), LoadOptions::default()).unwrap()));
    };
    let plain = |k: i32| format!(r#"(module (func (export "f") (result i32) (i32.const {k})))"#);
    let more = |k: i32| format!(r#"(module (func (export "f") (result i32) (i32.const {k})) (func (export "g")))"#);
    let state = |k: i32| {
        format!(
            r#"(module (memory 1) (table (export "t") 2 funcref) (elem (i32.const 0) $f) (global $n (mut i32) (i32.const 0))
            (func $f (export "f") (result i32) (global.set $n (i32.add (global.get $n) (i32.const {k}))) (global.get $n))
            (func (export "plank_save") (result i64) (i64.const 0))
            (func (export "plank_restore") (param i32 i32) (result i32) (i32.const 0)))"#
        )
    };
    let user = r#"(module (import "plain" "f" (func $f (result i32))) (import "state" "f" (func $g (result i32)))
        (func (export "h") (result i32) (i32.add (call $f) (call $g))))"#;
    load("plain", plain(0));
    load("state", state(0));
    load("user", user.into());
    let partner = |other: &str, k: i32| {
        wasm(format!(
            r#"(module (import "{other}" "f" (func $f)) (import "{other}" "t" (table 1 funcref)) (table (export "t") 1 funcref)
            (elem (table 0) (i32.const 0) func $g) (global (mut i32) (i32.const {k})) (func $g (export "f")))"#
        ))
    };
    apart(|| {
        let x = SwapRequest::add("x").with_wasm(&partner("y", 0));
        drop(ns.swap(x.and(SwapRequest::add("y").with_wasm(&partner("x", 0)))).unwrap());
    });
    let h = apart(|| ns.get_crate("user").unwrap().typed_func::<(), i32>("h").unwrap());
    // Some new versions were seen before, others never.
    let known: Vec<_> =
        (0..4).map(|k| compile_module("plain", &wasm(plain(k)), &LoadOptions::default()).unwrap()).collect();
    let swap = |i: usize| {
        let request = match i % 6 {
            0 => SwapRequest::new("plain").with_module(&known[i / 5 % 4]),
            1 => SwapRequest::new("plain").with_wasm(&wasm(more(i as i32))),
            2 => SwapRequest::new("state").with_wasm(&wasm(state(i as i32))).state(StatePlan::Adopt),
            3 => SwapRequest::new("state").with_wasm(&wasm(state(i as i32))).state(StatePlan::Export),
            4 => SwapRequest::new("x")
                .with_wasm(&partner("y", i as i32 % 50))
                .and(SwapRequest::new("y").with_wasm(&partner("x", i as i32 % 50))),
            _ => SwapRequest::new("plain")
                .with_wasm(&wasm(plain(i as i32)))
                .and(SwapRequest::new("state").with_wasm(&wasm(state(i as i32)))),
        };
        let request = request.keep_old(!i.is_multiple_of(3));
        if i % 7 == 3 {
            ns.swap(request.fail_at(SwapStep::ALL[i / 7 % SwapStep::ALL.len()])).unwrap_err();
        } else {
            ns.swap(request).unwrap();
        }
        if i % 11 == 5 && !ns.old_versions().is_empty() {
            let _ = ns.rollback("plain");
        }
        if i % 17 == 9 {
            // Taken away although it is in use, and there again.
            let keep = i.is_multiple_of(2);
            ns.swap(SwapRequest::remove("plain").force(true).keep_old(keep)).unwrap();
            assert!(h.call(()).is_err());
            ns.swap(SwapRequest::add("plain").with_module(&known[i % 4]).keep_old(keep)).unwrap();
            ns.swap(SwapRequest::remove("x").and(SwapRequest::remove("y")).keep_old(keep)).unwrap();
            let x = SwapRequest::add("x").with_wasm(&partner("y", 0));
            ns.swap(x.and(SwapRequest::add("y").with_wasm(&partner("x", 0)))).unwrap();
        }
        h.call(()).unwrap();
    };
    let swaps = |range: std::ops::Range<usize>| {
        apart(|| {
            range.for_each(swap);
            ns.swap(SwapRequest::new("plain").with_module(&known[1]).keep_old(false)).unwrap();
        });
    };
    let settle = || {
        ns.clear_unloaded_crate_cache();
        (0..1000).take_while(|_| apart(reclaim) > 0).count();
        assert!(retired().is_empty(), "{:?}", retired());
    };
    let counts = || (ns.crate_count(), ns.symbol_count(), TEXT.len(), registered_types());
    swaps(0..1000);
    settle();
    let (before, counts_before) = (bytes_and_mappings(), counts());
    swaps(1000..10_000);
    settle();
    let after = bytes_and_mappings();
    assert_eq!(counts(), counts_before);
    assert!(after.0 <= before.0 + 64 * 4096, "bytes: {} before, {} after", before.0, after.0);
    assert!(after.1 <= before.1 + 32, "mappings: {} before, {} after", before.1, after.1);
    assert!(apart(|| h.call(()).unwrap()) > 0);
}
