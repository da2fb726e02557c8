//! State domains and gates: who shares one, who gets in, who waits, and how a gate is left.

#![expect(clippy::unwrap_used, reason = "tests")]

mod calls;
mod domain;

use namespace_bridge::{CrateNamespace, LoadOptions, StrongCrateRef};
use std::sync::Arc;

/// A namespace of its own.
fn namespace() -> Arc<CrateNamespace> {
    CrateNamespace::new("gates", None)
}

/// Loads a module.
fn load(ns: &CrateNamespace, name: &str, wat: &str) -> StrongCrateRef {
    let wasm = wat::parse_str(wat).unwrap();
    ns.load_wasm(name, &wasm, LoadOptions::default()).unwrap()
}
