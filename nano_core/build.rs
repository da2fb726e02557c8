//! Link arguments of the kernel image (a static ELF at a fixed address, laid out by `kernel.ld`), and the modules that its
//! checks and measurements load.

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
    linkable();
    for module in [
        "arithmetic",
        "dependent",
        "gated",
        "mute",
        "native_user",
        "parked",
        "ring_b",
        "swapped",
        "tasks",
        "thief",
        "too_large",
        "traps",
    ] {
        assemble("src/check", module);
    }
    for module in ["measured", "measured_too", "measuring"] {
        assemble("src/measure", module);
    }
    for (module, exports) in COMPONENTS {
        assemble("components", module);
        broken(module, exports);
    }
}

/// Writes the table of what native cells can link to (`src/linkable.rs`): all functions and data of `core` and `alloc` that compiled code
/// can refer to, what it calls of the program that it is in, and what compilers expect of any program.
#[cfg(feature = "bare_metal")]
fn linkable() {
    let (mut functions, mut data) = (Vec::new(), Vec::new());
    for library in ["libcore-", "liballoc-"] {
        exports(&library_path(library), &mut functions, &mut data);
    }
    let start = functions.iter().find_map(|name| name.find(RUNTIME_CRATE).map(|at| &name[..at + RUNTIME_CRATE.len()]));
    let start = start.expect("`core` panics").to_string();
    functions.retain(|name| !name.contains(RUNTIME_CRATE));
    functions.extend(RUNTIME.iter().map(|name| format!("{start}{name}")));
    functions.extend(C_NAMES.iter().map(ToString::to_string));
    let (mut declared, mut addresses, mut names) = (String::new(), String::new(), String::new());
    let all = functions.iter().map(|name| (name, true)).chain(data.iter().map(|name| (name, false)));
    for (i, (name, is_function)) in all.enumerate() {
        let (item, address) = match is_function {
            true => (format!("fn n{i}()"), format!("n{i} as *const u8")),
            false => (format!("static n{i}: u8"), format!("&raw const n{i}")),
        };
        declared += &format!("    #[link_name = \"{name}\"]\n    {item};\n");
        addresses += &format!("    Address({address}),\n");
        names += &format!("{name}\\0");
    }
    let count = functions.len() + data.len();
    let bytes = functions.iter().chain(&data).map(|name| name.len() + 1).sum::<usize>();
    let text = format!(
        "unsafe extern \"C-unwind\" {{\n{declared}}}\n\n\
         #[used]\n#[unsafe(link_section = \".native_cells\")]\nstatic ADDRESSES: [Address; {count}] = [\n{addresses}];\n\n\
         #[used]\n#[unsafe(link_section = \".native_cells.names\")]\nstatic NAMES: [u8; {bytes}] = *b\"{names}\";\n"
    );
    let out = std::env::var("OUT_DIR").expect("cargo sets it for build scripts");
    std::fs::write(format!("{out}/linkable.rs"), text).expect("OUT_DIR can be written");
}

/// Collects the names of functions and data that the objects of a library define for others, and of the functions of [`RUNTIME`] that they
/// call.
#[cfg(feature = "bare_metal")]
fn exports(library: &std::path::Path, functions: &mut Vec<String>, data: &mut Vec<String>) {
    use object::{Object, ObjectSymbol, SymbolKind, read::archive::ArchiveFile};
    let bytes = std::fs::read(library).expect("the toolchain's library can be read");
    let archive = ArchiveFile::parse(&*bytes).expect("it is an archive");
    for member in archive.members() {
        let member = member.and_then(|m| m.data(&*bytes)).expect("it is whole");
        let Ok(object) = object::File::parse(member) else { continue };
        for symbol in object.symbols().filter(|s| s.is_global() && !s.is_weak()) {
            let Ok(name) = symbol.name() else { continue };
            match symbol.kind() {
                SymbolKind::Text if symbol.is_definition() => functions.push(name.into()),
                SymbolKind::Data if symbol.is_definition() => data.push(name.into()),
                _ if symbol.is_undefined() && name.contains(RUNTIME_CRATE) => functions.push(name.into()),
                _ => {}
            }
        }
    }
}

/// The toolchain's library whose file's name begins so.
#[cfg(feature = "bare_metal")]
fn library_path(library: &str) -> std::path::PathBuf {
    let rustc = std::env::var_os("RUSTC").expect("cargo sets it for build scripts");
    let target = std::env::var("TARGET").expect("cargo sets it for build scripts");
    let output = std::process::Command::new(rustc).args(["--print", "target-libdir", "--target", &target]).output();
    let output = output.expect("the compiler that compiled this runs");
    let folder = std::path::PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    let files = std::fs::read_dir(&folder).expect("the toolchain has its libraries").flatten();
    let path = files.map(|file| file.path()).find(|path| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.starts_with(library) && name.ends_with(".rlib")
    });
    path.unwrap_or_else(|| panic!("no {library}*.rlib in {}", folder.display()))
}

/// The crate, as it is mangled, of whose functions compiled Rust code takes its allocator and what panics begin with. There is no such crate:
/// the compiler makes them in the program.
#[cfg(feature = "bare_metal")]
const RUNTIME_CRATE: &str = "_7___rustc";

/// These functions, as they are mangled.
#[cfg(feature = "bare_metal")]
const RUNTIME: [&str; 7] = [
    "12___rust_alloc",
    "19___rust_alloc_zeroed",
    "14___rust_dealloc",
    "14___rust_realloc",
    "26___rust_alloc_error_handler",
    "35___rust_no_alloc_shim_is_unstable_v2",
    "17rust_begin_unwind",
];

/// What rustc, gcc and clang expect of any program: memory functions, the unwinder, and functions of the compiler's support library (crate
/// `compiler_builtins`, the names of libgcc and the C library) for operations that the processor has no instruction for.
#[cfg(feature = "bare_metal")]
#[rustfmt::skip] // a table
const C_NAMES: &[&str] = &[
    "memcpy", "memmove", "memset", "memcmp", "bcmp", "strlen",
    "_Unwind_Resume", "rust_eh_personality",
    "__multi3", "__muloti4", "__udivti3", "__umodti3", "__udivmodti4", "__divti3", "__modti3", "__divmodti4", "__ashlti3", "__ashrti3", "__lshrti3",
    "__floattisf", "__floattidf", "__floatuntisf", "__floatuntidf", "__fixsfti", "__fixdfti", "__fixunssfti", "__fixunsdfti",
    "__rust_u128_mulo", "__rust_i128_mulo", "__extendhfsf2", "__truncsfhf2", "__truncdfhf2", "__popcountdi2", "__bswapdi2",
    "fmod", "fmodf", "floor", "floorf", "ceil", "ceilf", "trunc", "truncf", "rint", "rintf",
    "round", "roundf", "roundeven", "roundevenf", "sqrt", "sqrtf", "fma", "fmaf", "fmin", "fminf", "fmax", "fmaxf",
];

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
