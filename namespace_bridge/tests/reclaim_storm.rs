//! Versions come and go by the ten thousand while tasks call them, and leave nothing behind. A process of its own: it counts.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::types_registry::registered_types;
use namespace_bridge::{AddPolicy, CellModule, CrateNamespace, LoadOptions, reclaim, retired, text_index::TEXT};
use runtime_port::{platform, unwind::registrations};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// What is there, however the heap and the kernel arrange it.
#[derive(Debug, PartialEq, Eq)]
struct Existing {
    texts: usize,
    registrations: usize,
    types: usize,
}

fn existing() -> Existing {
    Existing { texts: TEXT.len(), registrations: registrations(), types: registered_types() }
}

/// Bytes of address space and of shared frames that somebody owns.
fn owned_bytes() -> usize {
    let memory = platform().memory().statistics();
    memory.reserved_bytes + memory.shared_bytes
}

/// Bytes that are allocated, in all arenas.
fn heap_bytes() -> usize {
    // SAFETY: no arguments.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// Mappings of this process, but for what the port keeps to hand out again: up to three each.
fn mappings() -> usize {
    let all = fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    all.saturating_sub(3 * platform().memory().statistics().pooled_reservations)
}

fn module(ns: &CrateNamespace, i: usize) -> Arc<CellModule> {
    let text = format!(
        r#"(module (import "env" "add" (func $add (param i32 i32) (result i32))) (memory 1)
        (func (export "run") (param i32) (result i32)
            (i32.store (i32.const 8) (local.get 0)) (call $add (i32.load (i32.const 8)) (i32.const {i}))))"#
    );
    let cell = ns.load_wasm(&format!("kept {i}"), &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap();
    cell.module().unwrap().clone()
}

#[test]
fn ten_thousand_versions_under_two_callers_leave_memory_mappings_and_registrations_flat() {
    let ns = CrateNamespace::new("test", None);
    ns.define("env", "add", |a: i32, b: i32| a + b).unwrap();
    let modules: Vec<_> = (0..4).map(|i| module(&ns, i)).collect();
    let replace = |i: usize| {
        let options = LoadOptions::default().policy(AddPolicy::Replace);
        ns.load_module("cell", &modules[i % modules.len()], options).unwrap();
    };
    replace(0);
    let (stop, calls, most) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let (pause, pausing) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
                    if pause.load(Ordering::SeqCst) {
                        pausing.fetch_add(1, Ordering::SeqCst);
                        while pause.load(Ordering::SeqCst) {
                            thread::yield_now();
                        }
                        pausing.fetch_sub(1, Ordering::SeqCst);
                    }
                    let cell = ns.get_crate("cell").unwrap();
                    // It may be gone by now, or go while it is called.
                    if let Ok(run) = cell.typed_func::<(i32,), i32>("run")
                        && let Ok(result) = run.call((n,))
                    {
                        assert!((n..n + 4).contains(&result));
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                    n = (n + 1) % 1000;
                }
            });
        }
        let measure = || {
            // Everything goes while they call...
            while reclaim() > 0 {
                thread::yield_now();
            }
            // ... and is counted while they hold no cell.
            pause.store(true, Ordering::SeqCst);
            while pausing.load(Ordering::SeqCst) < 2 {
                thread::yield_now();
            }
            assert_eq!(reclaim(), 0);
            let counted = (existing(), heap_bytes(), mappings(), owned_bytes());
            pause.store(false, Ordering::SeqCst);
            while pausing.load(Ordering::SeqCst) > 0 {
                thread::yield_now();
            }
            counted
        };
        let round = |range: std::ops::Range<usize>| {
            for i in range {
                replace(i);
                most.fetch_max(retired().len(), Ordering::Relaxed);
            }
        };
        round(1..1000);
        let before = measure();
        round(1000..10_000);
        let after = measure();
        stop.store(true, Ordering::SeqCst);
        println!("{before:?} {after:?}, {} calls, at most {} retired at once", calls.load(Ordering::Relaxed), {
            most.load(Ordering::Relaxed)
        });
        assert_eq!(after.0, before.0);
        // Lists keep the room that they needed when most was retired at once, and the heap keeps some for each thread: far less than the nine
        // thousand versions would take.
        assert!(after.1 <= before.1 + (2 << 20), "bytes of the heap: {before:?} {after:?}");
        assert!(after.2 <= before.2 + 64, "mappings: {before:?} {after:?}");
        // An index that was being read when a version left it lets go of that version's pages when it changes next.
        assert!(after.3 <= before.3 + (64 << 10), "bytes of memory: {before:?} {after:?}");
    });
    assert!(calls.load(Ordering::Relaxed) > 1000);
}
