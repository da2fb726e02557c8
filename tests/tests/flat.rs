//! Ten thousand cells come and go, in every way they can, and leave nothing behind. One test: it measures its process.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::text_index::TEXT;
use namespace_bridge::types_registry::registered_types;
use namespace_bridge::{CrateNamespace, LoadOptions, reclaim};
use std::sync::Arc;
use tests::process::{mappings, resident_bytes};
use wasm_cell::trap::TrapCode;

const EXPORTER: &str = r#"(module (memory (export "memory") 1 2) (global (export "count") (mut i32) (i32.const 0))
    (func (export "next") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1))))"#;

const IMPORTER: &str = r#"(module (import "exporter" "memory" (memory 1))
    (import "exporter" "count" (global $count (mut i32)))
    (import "exporter" "next" (func $next (param i32) (result i32)))
    (import "host" "log" (func $log (param i32)))
    (table 4 funcref) (elem (i32.const 1) $run)
    (func $run (export "run") (param i32) (result i32)
        (global.set $count (call $next (global.get $count)))
        (call $log (global.get $count))
        (i32.store (i32.const 8) (local.get 0))
        (drop (memory.grow (i32.const 1)))
        (call $next (i32.load (i32.const 8))))
    (func (export "fail") unreachable))"#;

/// Puts a function into another's table. Its entry stays with its name, as it may be held anywhere; the next cell of the
/// name takes it over.
const ESCAPING: &str = r#"(module (import "shared" "table" (table 4 funcref)) (elem (i32.const 1) $f)
    (func $f (export "f") (param i32) (result i32) (local.get 0)))"#;

const SHARED: &str = r#"(module (table (export "table") 4 funcref))"#;

/// An active segment outside of its memory: loading fails in the middle.
const FAILING: &str = r#"(module (memory 1) (func (export "f")) (data (i32.const 65536) "x"))"#;

/// What may grow with the number of cells, and must not.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    cells: usize,
    symbols: usize,
    texts: usize,
    types: usize,
    retired: usize,
}

fn counts(namespace: &CrateNamespace) -> Counts {
    // First, because it frees what the others count.
    let retired = settle();
    Counts {
        cells: namespace.crate_count(),
        symbols: namespace.symbol_count(),
        texts: TEXT.len(),
        types: registered_types(),
        retired,
    }
}

/// Frees what was unloaded, and returns to the system what the heap keeps; returns how much remains.
fn settle() -> usize {
    let left = (0..2000).map(|_| apart(reclaim)).find(|left| *left == 0).unwrap_or_else(|| apart(reclaim));
    // SAFETY: no argument can be wrong; it works on free memory only (malloc_trim(3)).
    unsafe { libc::malloc_trim(0) };
    left
}

/// In a task that has ended afterwards, so that none of its words stays on a stack. The test's own task never attaches.
fn apart<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|s| s.spawn(f).join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
}

/// Loads and unloads three to five cells, and fails to load two.
fn round(namespace: &CrateNamespace, modules: &[Vec<u8>; 5], i: usize, escapes: bool) {
    let load = |name: &str, wasm: &[u8]| namespace.load_wasm(name, wasm, LoadOptions::default());
    let exporter = load("exporter", &modules[0]).unwrap();
    // Two instances of one module, the second of compiled code.
    let first = load("importer", &modules[1]).unwrap();
    let second =
        namespace.load_module(&format!("importer {i}"), first.module().unwrap(), LoadOptions::default()).unwrap();
    for importer in [&first, &second] {
        let run = importer.typed_func::<(i32,), i32>("run").unwrap();
        assert_eq!(run.call((i as i32,)).unwrap(), i as i32 + 1);
        let fail = importer.typed_func::<(), ()>("fail").unwrap();
        assert_eq!(fail.call(()).unwrap_err().code(), TrapCode::Unreachable);
    }
    load("failing", &modules[2]).unwrap_err();
    if escapes {
        load("shared", &modules[4]).unwrap();
        load("escaping", &modules[3]).unwrap();
        namespace.unload("escaping").unwrap();
        namespace.unload("shared").unwrap();
    }
    load("broken", &modules[1][..modules[1].len() - 1]).unwrap_err();
    namespace.unload("exporter").unwrap_err();
    drop((exporter, first, second));
    namespace.unload(&format!("importer {i}")).unwrap();
    namespace.unload("importer").unwrap();
    namespace.unload("exporter").unwrap();
}

#[test]
fn ten_thousand_cells_leave_memory_mappings_symbols_and_registrations_as_they_were() {
    let namespace = CrateNamespace::new("flat", None);
    namespace.define("host", "log", |_: i32| {}).unwrap();
    let modules = [EXPORTER, IMPORTER, FAILING, ESCAPING, SHARED].map(|text| wat::parse_str(text).unwrap());
    let rounds = |namespace: &Arc<CrateNamespace>, range: std::ops::Range<usize>| {
        apart(|| range.for_each(|i| round(namespace, &modules, i, true)));
    };
    // The same from several tasks at once, each in a namespace of its own.
    let concurrently = |range: std::ops::Range<usize>| {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (modules, range) = (&modules, range.clone());
                scope.spawn(move || {
                    let namespace = CrateNamespace::new("task", None);
                    namespace.define("host", "log", |_: i32| {}).unwrap();
                    range.for_each(|i| round(&namespace, modules, i, false));
                });
            }
        });
    };
    // What is pooled for reuse is filled once.
    rounds(&namespace, 0..200);
    concurrently(0..200);
    let measure = || (counts(&namespace), resident_bytes(), mappings());
    let before = measure();
    rounds(&namespace, 200..2700);
    let between = measure();
    concurrently(200..500);
    let after = measure();
    println!("before {before:?}\nafter one task {between:?}\nafter four tasks {after:?}");
    // What four tasks leave in pools depends on how many cells they happen to have at once, at most twelve.
    for (now, bytes, maps) in [(between, 1 << 20, 8), (after, 2 << 20, 64)] {
        assert_eq!(now.0, before.0);
        assert!(now.1 <= before.1 + bytes, "resident: {} bytes before, {} after", before.1, now.1);
        assert!(now.2 <= before.2 + maps, "mappings: {} before, {} after", before.2, now.2);
    }
}
