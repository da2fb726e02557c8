//! Theseus's `clear_unloaded_crate_cache` lets go of the previous versions in all namespaces, so it is tested in a process of its own.

use namespace_bridge::swap::{SwapError, SwapRequest, theseus};
use namespace_bridge::{CrateNamespace, LoadOptions};

#[test]
fn the_caches_of_all_namespaces_are_emptied() {
    let wasm =
        |n: i32| wat::parse_str(format!(r#"(module (func (export "f") (result i32) (i32.const {n})))"#)).unwrap();
    let namespaces = ["one", "two"].map(|name| CrateNamespace::new(name, None));
    for ns in &namespaces {
        ns.load_wasm("a", &wasm(1), LoadOptions::default()).unwrap();
        ns.swap(SwapRequest::new("a").with_wasm(&wasm(2))).unwrap();
        assert_eq!(ns.old_versions().len(), 1);
    }
    theseus::clear_unloaded_crate_cache();
    for ns in &namespaces {
        assert!(matches!(ns.rollback("a").unwrap_err(), SwapError::NoPrevious { .. }));
    }
}
