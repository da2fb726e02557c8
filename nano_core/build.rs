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
        // Equal functions once. Rust gives no two functions different addresses for sure.
        "-Wl,--icf=all",
        &script,
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    for module in ["arithmetic", "dependent", "tasks", "too_large", "traps"] {
        assemble("src/check", module);
    }
    for (module, exports) in COMPONENTS {
        assemble("components", module);
        broken(module, exports);
    }
}

/// The components that are wasm cells, with the exports that the kernel asks: name and type, an answer of no sense, and one that is none of
/// the shipped cell.
#[cfg(feature = "bare_metal")]
#[rustfmt::skip] // a table
const COMPONENTS: [(&str, &[[&str; 4]]); 4] = [
    ("event_filter", &[["filter", "(param i32 i32 i64) (result i32)", "(i32.const 999)", "(i32.const 0x78)"]]),
    ("file_system", &[
        ["find", "(result i32 i32 i32)", "(i32.const 1) (i32.const 64) (i32.const 0x7fffffff)", "(i32.const 0) (i32.const 0) (i32.const 4)"],
        ["next", "(param i32 i32) (result i32 i32 i32)", "(i32.const 0) (i32.const 1) (i32.const 0)", "(i32.const -1) (i32.const 0) (i32.const 0)"],
        ["write", "(result i32)", "(i32.const 0)", "unreachable"],
        ["remove", "(result i32)", "(i32.const 7)", "unreachable"],
    ]),
    ("line_discipline", &[["key", "(param i32 i32) (result i32)", "(i32.const 0x12345)", "(i32.const 0x7901)"]]),
    ("scheduling", &[["advise", "(param i32 i32 i32 i32) (result i32)", "(i32.const 31)", "(i32.const 0x305)"]]),
];

/// Makes versions of a component that the checks swap in: one that traps, one that never returns, one that answers nonsense, one that
/// answers something else.
#[cfg(feature = "bare_metal")]
fn broken(module: &str, exports: &[[&str; 4]]) {
    for (kind, body) in [("traps", "unreachable"), ("hangs", "(loop (br 0)) unreachable"), ("lies", ""), ("other", "")]
    {
        let function = |[name, ty, nonsense, other]: &[&str; 4]| {
            let body = match kind {
                "lies" => nonsense,
                "other" => other,
                _ => body,
            };
            format!("(func (export \"{name}\") {ty} {body})")
        };
        let text: String = exports.iter().map(function).collect();
        write(
            &format!("{module}_{kind}"),
            &wat::parse_str(format!("(module {text})")).unwrap_or_else(|e| panic!("{e}")),
        );
    }
}

/// Turns `FOLDER/MODULE.wat` into `OUT_DIR/MODULE.wasm`.
#[cfg(feature = "bare_metal")]
fn assemble(folder: &str, module: &str) {
    let source = format!("{folder}/{module}.wat");
    println!("cargo:rerun-if-changed={source}");
    write(module, &wat::parse_file(&source).unwrap_or_else(|e| panic!("{e}")));
}

#[cfg(feature = "bare_metal")]
fn write(module: &str, bytes: &[u8]) {
    let out = std::env::var("OUT_DIR").expect("cargo sets it for build scripts");
    std::fs::write(format!("{out}/{module}.wasm"), bytes).expect("OUT_DIR can be written");
}
