//! Assembles the workloads: each is a body of its own around the same faults.

mod ticks;

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

const WORKLOADS: [&str; 10] =
    ["numeric", "walker", "dispatch", "recursion", "hosted", "bulk", "vector", "nested", "grow", "visitor"];

/// Versions of each cell of a storm.
const STORM_VERSIONS: usize = 8;

fn main() {
    let out = env::var("OUT_DIR").expect("cargo sets it");
    let read = |name: &str| {
        let path = format!("workloads/{name}.wat");
        println!("cargo::rerun-if-changed={path}");
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let assemble = |name: &str, text: &str| {
        let wasm = wat::parse_str(text).unwrap_or_else(|e| panic!("workload {name}: {e}"));
        fs::write(Path::new(&out).join(format!("{name}.wasm")), wasm).expect("OUT_DIR is writable");
    };
    let faults = read("faults");
    for name in WORKLOADS {
        let work = read(name);
        assemble(name, &format!("(module ${name}\n{faults}\n{work}\n)"));
        let text = format!("(module ${name}\n{faults}\n{}\n{work}\n)", ticks::TEXT);
        let wasm = wat::parse_str(text).unwrap_or_else(|e| panic!("counting workload {name}: {e}"));
        for (counted, what) in ticks::Counted::ALL {
            let path = Path::new(&out).join(format!("{name}_{what}.wasm"));
            fs::write(path, ticks::counting(&wasm, counted)).expect("OUT_DIR is writable");
        }
    }
    assemble("small", &read("small"));
    assemble("witness", &read("witness"));
    assemble("deep", &deep());
    let storm = ["storm_plain", "storm_counter", "storm_first", "storm_second"].map(|name| (name, read(name)));
    for version in 0..STORM_VERSIONS {
        for (name, text) in &storm {
            assemble(&format!("{name}_{version}"), &text.replace("VERSION", &version.to_string()));
        }
    }
    assemble("storm_user", &read("storm_user"));
    assemble("start", &read("start"));
    for version in 0..2 {
        native(Path::new(&out), version);
    }
}

/// Compiles a version of the native cell, with the compiler that compiles everything else.
fn native(out: &Path, version: usize) {
    let path = "workloads/native.rs";
    println!("cargo::rerun-if-changed={path}");
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let source = out.join(format!("native_{version}.rs"));
    fs::write(&source, text.replace("VERSION", &version.to_string())).expect("OUT_DIR is writable");
    let rustc = env::var_os("RUSTC").expect("cargo sets it");
    let mut rustc = Command::new(rustc);
    rustc.args(["--edition=2024", "--crate-type=lib", "--crate-name=native", "--emit=obj", "-Copt-level=2"]);
    rustc.args(["-Ccodegen-units=1", "-Cpanic=unwind", "-o"]).arg(out.join(format!("native_{version}.o"))).arg(&source);
    let status = rustc.status().unwrap_or_else(|e| panic!("{rustc:?}: {e}"));
    assert!(status.success(), "{rustc:?}: {status}");
}

/// A cell that others call: it overflows the stack, with frames of 48, about 5,000 and about 100,000 bytes, or computes something.
fn deep() -> String {
    let mut text = String::from("(module $deep (memory 1)\n");
    for (name, locals) in [("small", 2), ("large", 600), ("huge", 12_300)] {
        let _ = write!(text, "(func ${name} (export \"{name}\") (param $n i32) (result i64)");
        text.push_str(&" (local i64)".repeat(locals));
        // Every local is loaded before the call and needed after it, so all of them lie in the frame.
        for l in 1..=locals {
            let _ = write!(text, "(local.set {l} (i64.load offset={} (i32.const 0)))", 8 * (l % 8000));
        }
        let _ = write!(text, "(call ${name} (i32.add (local.get $n) (i32.const 1)))");
        for l in 1..=locals {
            let _ = write!(text, "(local.get {l}) (i64.xor)");
        }
        text.push_str(")\n");
    }
    // What other cells call on their way.
    text + "(func (export \"mix\") (param i64 i64) (result i64)
        (i64.add (i64.rotl (local.get 0) (i64.const 23)) (i64.mul (local.get 1) (i64.const 0x9e3779b97f4a7c15)))))"
}
