//! `cargo xtask kernels`: the benchmarks' kernels from C to wasm. What it makes is kept in the tree, so that measuring needs no compiler
//! for wasm.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::{fs, io};

/// As freestanding code: no C library, 64 KiB of stack, nothing exported but the kernel and its memory.
const FLAGS: [&str; 14] = [
    "--target=wasm32",
    "-std=c11",
    "-O2",
    "-msimd128",
    "-mbulk-memory",
    "-ffreestanding",
    "-nostdlib",
    "-Wall",
    "-Wextra",
    "-Wl,--no-entry",
    "-Wl,--export=run",
    "-Wl,-z,stack-size=65536",
    "-Wl,--strip-all",
    "-o",
];

/// Compiles every source in `planks/kernels`.
pub fn run() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../planks/kernels");
    match compile(&folder) {
        Ok(count) => {
            println!("{count} kernels");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn compile(folder: &Path) -> io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(folder)? {
        let source = entry?.path();
        if source.extension().is_none_or(|e| e != "c") {
            continue;
        }
        let status = Command::new("clang").args(FLAGS).arg(source.with_extension("wasm")).arg(&source).status();
        let status = status.map_err(|e| io::Error::other(format!("clang: {e}; install clang and lld (wasm-ld)")))?;
        if !status.success() {
            return Err(io::Error::other(format!("clang refuses {}", source.display())));
        }
        count += 1;
    }
    Ok(count)
}
