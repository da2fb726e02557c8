//! Link arguments of the kernel image (a static ELF at a fixed address, laid out by `kernel.ld`), and the modules that its
//! checks load.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    #[cfg(feature = "bare_metal")]
    kernel();
}

#[cfg(feature = "bare_metal")]
fn kernel() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it for build scripts");
    let script = format!("-Wl,-T,{folder}/kernel.ld");
    println!("cargo:rerun-if-changed=kernel.ld");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,--eh-frame-hdr",
        "-Wl,-z,max-page-size=0x1000",
        "-Wl,-z,norelro",
        "-Wl,--gc-sections",
        &script,
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    for module in ["arithmetic", "dependent", "tasks", "too_large", "traps"] {
        assemble(module);
    }
}

/// Turns `src/check/MODULE.wat` into `OUT_DIR/MODULE.wasm`.
#[cfg(feature = "bare_metal")]
fn assemble(module: &str) {
    let source = format!("src/check/{module}.wat");
    println!("cargo:rerun-if-changed={source}");
    let out = std::env::var("OUT_DIR").expect("cargo sets it for build scripts");
    let bytes = wat::parse_file(&source).unwrap_or_else(|e| panic!("{e}"));
    std::fs::write(format!("{out}/{module}.wasm"), bytes).expect("OUT_DIR can be written");
}
