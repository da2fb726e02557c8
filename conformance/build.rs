//! Assembles the module that spec scripts import.

use std::path::Path;

fn main() {
    let source = "src/script/spectest.wat";
    println!("cargo::rerun-if-changed={source}");
    let wasm = wat::parse_file(source).unwrap_or_else(|e| panic!("{e}"));
    let out = std::env::var("OUT_DIR").expect("cargo sets it");
    std::fs::write(Path::new(&out).join("spectest.wasm"), wasm).expect("OUT_DIR is writable");
}
