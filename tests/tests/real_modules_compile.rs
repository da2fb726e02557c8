//! Modules of every common toolchain compile, in bounded memory. One test: it measures its process.

use std::path::Path;
use std::time::Instant;
use tests::packages::{fetch, skip};
use tests::process::{peak_bytes, reset_peak, resident_bytes};
use wasm_cell::{CompileOptions, Compiler, CompilerSettings, CpuFeatures};

/// Package, module in it, toolchain.
const MODULES: [(&str, &str, &str); 13] = [
    ("sql.js@1.16.0", "dist/sql-wasm.wasm", "emscripten"),
    ("@jitl/quickjs-wasmfile-release-sync@0.32.0", "dist/emscripten-module.wasm", "emscripten"),
    ("argon2-browser@1.18.0", "dist/argon2-simd.wasm", "emscripten, SIMD"),
    ("yoga-wasm-web@0.3.3", "dist/yoga.wasm", "emscripten, C++"),
    ("@resvg/resvg-wasm@2.6.2", "index_bg.wasm", "Rust"),
    ("brotli-wasm@3.0.1", "pkg.web/brotli_wasm_bg.wasm", "Rust"),
    ("lightningcss-wasm@1.33.0", "lightningcss_node.wasm", "Rust"),
    ("@swc/wasm-web@1.16.18", "wasm_bg.wasm", "Rust"),
    ("source-map@0.8.0", "lib/mappings.wasm", "Rust, early"),
    ("esbuild-wasm@0.28.2", "esbuild.wasm", "Go"),
    ("@wasm-fmt/gofmt@0.7.3", "gofmt.wasm", "TinyGo"),
    ("@chainsafe/as-sha256@0.4.1", "build/optimized.wasm", "AssemblyScript"),
    ("@chainsafe/as-sha256@0.4.1", "build/untouched.wasm", "AssemblyScript, not optimised"),
];

/// Bytes of memory that compiling may take at its peak, beside the module: a constant for the compiler itself and what
/// its largest function needs, and several times the object that it makes, which can be three times the module.
fn bound(module: usize) -> u64 {
    (96 << 20) + 16 * module as u64
}

#[test]
fn real_modules_compile_in_bounded_memory() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm");
    let settings = CompilerSettings { cpu: CpuFeatures::V3, ..CompilerSettings::default() };
    let compiler = Compiler::new(settings).unwrap();
    for (spec, path, toolchain) in MODULES {
        let package = match fetch(&dir, spec) {
            Ok(package) => package,
            Err(why) => {
                skip(why);
                continue;
            }
        };
        let wasm = std::fs::read(package.join(path)).unwrap();
        reset_peak();
        let (before, start) = (resident_bytes(), Instant::now());
        let object = compiler.compile(&wasm, &CompileOptions::default());
        let object = object.unwrap_or_else(|e| panic!("{spec}, {path} ({toolchain}): {e}"));
        let (elapsed, peak) = (start.elapsed(), peak_bytes() - before);
        println!(
            "{spec} {path} ({toolchain}): {} kB, {} functions, {} kB of code, {:.2} s, {} MB at the peak",
            wasm.len() / 1000,
            object.metadata.funcs.len(),
            object.text.len() / 1000,
            elapsed.as_secs_f64(),
            peak >> 20,
        );
        object.validate().unwrap_or_else(|e| panic!("{spec}, {path}: {e}"));
        assert!(peak <= bound(wasm.len()), "{spec}, {path}: {peak} bytes at the peak");
    }
}
