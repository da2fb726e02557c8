//! Tells the program whether it may hook into failed allocations, which takes a feature gate of the compiler: it may in this source tree
//! (docs/ARCHITECTURE.md, "Toolchain"). Elsewhere Rust's default ends the program when memory is short.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RUSTC_BOOTSTRAP");
    println!("cargo::rustc-check-cfg=cfg(alloc_error_hook)");
    let crates = std::env::var("RUSTC_BOOTSTRAP").unwrap_or_default();
    if crates.split(',').any(|name| name == "planks" || name == "1") {
        println!("cargo::rustc-cfg=alloc_error_hook");
    }
}
