//! Versions come and go by the ten thousand while tasks call them, and leave nothing behind. A process of its own: it counts.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{AddPolicy, CellModule, CrateNamespace, LoadOptions, reclaim, retired, text_index::TEXT};
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

/// Resident pages and number of mappings of this process.
fn resident_and_mappings() -> (usize, usize) {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let resident = statm.split(' ').nth(1).unwrap().parse().unwrap();
    (resident, fs::read_to_string("/proc/self/maps").unwrap().lines().count())
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
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut n = 0;
                while !stop.load(Ordering::SeqCst) {
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
            while reclaim() > 0 {
                thread::yield_now();
            }
            // SAFETY: no argument can be wrong; it works on free memory only (malloc_trim(3)).
            unsafe { libc::malloc_trim(0) };
            (TEXT.len(), resident_and_mappings())
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
        // How much comes together depends on how long a caller is off its processor, and so does what the heap keeps.
        assert!(after.1.0 <= before.1.0 + 512, "resident pages: {before:?} {after:?}");
        assert!(after.1.1 <= before.1.1 + 64, "mappings: {before:?} {after:?}");
    });
    assert!(calls.load(Ordering::Relaxed) > 1000);
}
