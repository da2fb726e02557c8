//! `cargo xtask`: the commands that are more than cargo.
#![deny(unsafe_code)]

mod boot;
mod kernels;
mod stage;
mod test;
mod test_machines;
mod test_planks;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask test
    Runs everything: formatting, clippy, documentation, all tests, the kernel and its tests in QEMU.
cargo xtask test boot
    Builds nano_core and runs only its tests in QEMU.
cargo xtask boot [OPTIONS] [--module FILE [--invoke FUNCTION [ARGS…]]]
    Builds nano_core and boots it in QEMU; runs a module (wasm or wat) in it.
      --test[=PART]    run the kernel's own checks (those whose name contains PART)
      --inject COUNT   inject COUNT faults of each kind; `\"COUNT seed=S kind=K first=N\"` says which
      --third-party[=PART]
                       fetch third-party modules from npm, compile and run them (those whose name contains PART)
      --storm SWAPS    swap SWAPS times under running callers; `\"SWAPS seed=S callers=N\"` says how
      --measure        count the instructions of calls, traps and swaps (implies --icount)
      --image FILE     boot this image instead of building one
      --machine BOARD  pc (default), q35
      --cpu MODEL      max (default), qemu64, …
      --memory MIB     256 by default
      --icount         count instructions: identical runs, several times slower
      --timeout SECONDS
cargo xtask kernels
    Compiles the benchmarks' kernels from C to wasm again; needs clang and lld.
Exit status: 0 success; 1 a test failed, a call trapped or a file is missing; 2 wrong usage;
3 the kernel could not go on or did not end.";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("test") if args.len() == 0 => test::run(),
        Some("test") if args.len() == 1 && args.next().as_deref() == Some("boot") => test::run_boots(),
        Some("boot") => boot::run(args),
        Some("kernels") if args.len() == 0 => kernels::run(),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
