//! What is left behind, counted in a process of its own, in which one test runs at a time.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{CrateNamespace, LoadError, LoadOptions, StrongCrateRef, reclaim};
use std::sync::{Arc, Mutex, MutexGuard};

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

fn namespace() -> Arc<CrateNamespace> {
    CrateNamespace::new("test", None)
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    ns.load_wasm(name, &wat(text), LoadOptions::default()).unwrap()
}

/// Number of things that still wait after everybody has had time to say what they hold: a task that does not get the processor says nothing.
fn settled() -> usize {
    (0..5000).map(|_| (std::thread::yield_now(), reclaim()).1).find(|waiting| *waiting == 0).unwrap_or_else(reclaim)
}

#[test]
fn a_name_whose_references_escape_does_not_grow_with_every_load() {
    let _alone = alone();
    let ns = namespace();
    let text = r#"(module (table (export "t") 3 funcref) (elem (i32.const 0) $f $g $f)
        (func $f (export "f") (result i32) i32.const 1) (func $g (result i32) i32.const 2))"#;
    let reserved = || runtime_port::platform().memory().statistics().reserved_bytes;
    let mut entry = None;
    let mut after_first = 0;
    for i in 0..50 {
        let cell = load(&ns, "a", text);
        assert_eq!(cell.version(), i + 1);
        let reference = cell.func("f").unwrap().reference();
        assert_eq!(*entry.get_or_insert(reference), reference);
        drop(cell);
        ns.unload("a").unwrap();
        if i == 0 {
            assert_eq!(settled(), 0);
            after_first = reserved();
        }
    }
    assert_eq!(settled(), 0);
    assert!(reserved() <= after_first, "{} bytes reserved, {after_first} after the first load", reserved());
}

#[test]
fn an_orphan_goes_with_the_table_that_holds_its_functions() {
    use wasm_cell::types::{RefType, TableType};
    let _alone = alone();
    let ns = namespace();
    let ty = TableType { element: RefType::FUNCREF, is64: false, min: 2, max: None };
    let table = ns.define_table("env", "t", ty, &LoadOptions::default()).unwrap();
    let bytes = wat(
        r#"(module (table (import "env" "t") 1 funcref) (elem (i32.const 0) func $f) (func $f unreachable) (start $f))"#,
    );
    assert!(matches!(ns.load_wasm("bad", &bytes, LoadOptions::default()), Err(LoadError::Trap { .. })));
    assert_ne!(table.get(0), Some(0));
    let alive = Arc::strong_count(&table);
    assert!(ns.undefine("env", "t"));
    assert!(!ns.undefine("env", "t"));
    assert_eq!(settled(), 0);
    assert!(Arc::strong_count(&table) < alive - 1, "the orphan and the definition let go of the table");
    assert_eq!(ns.crate_count(), 0);
}
