//! Modules of real toolchains, loaded as cells, give the answers they give elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use conformance::third_party::{Guest, SUBJECTS};
use namespace_bridge::{CrateNamespace, LoadOptions, SectionItem, StrongCrateRef};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tests::packages::{fetch, skip};
use xtask::third_party::MODULES;

fn package(spec: &str) -> Option<PathBuf> {
    fetch(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm"), spec).map_err(skip).ok()
}

fn load(namespace: &CrateNamespace, name: &str, wasm: &[u8]) -> StrongCrateRef {
    namespace.load_wasm(name, wasm, LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn namespace() -> Arc<CrateNamespace> {
    CrateNamespace::new("real", None)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_base64(text: &str) -> Vec<u8> {
    let (mut bits, mut have, mut out) = (0u32, 0, Vec::new());
    for c in text.bytes() {
        let digit = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => break,
        };
        bits = bits << 6 | u32::from(digit);
        have += 6;
        if have >= 8 {
            have -= 8;
            out.push((bits >> have) as u8);
        }
    }
    out
}

/// C, clang: modules that import nothing, embedded in JavaScript as base64.
#[test]
fn hash_functions_in_c_give_known_digests() {
    let Some(package) = package("hash-wasm@4.13.0") else { return };
    let script = std::fs::read_to_string(package.join("dist/index.umd.js")).unwrap();
    let module = |name: &str| {
        let at = script.find(&format!(" = \"{name}\";\n")).unwrap_or_else(|| panic!("no module {name}"));
        let data = &script[at..][script[at..].find("\"AGFzb").unwrap() + 1..];
        from_base64(data)
    };
    let namespace = namespace();
    // Name, argument of the initialisation, padding, bytes of the digest, digest of "abc".
    let known: [(&str, i32, i32, usize, &str); 7] = [
        ("md5", 0, 0, 16, "900150983cd24fb0d6963f7d28e17f72"),
        ("sha1", 0, 0, 20, "a9993e364706816aba3e25717850c26c9cd0d89d"),
        ("sha256", 256, 0, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "sha512",
            512,
            0,
            64,
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        ),
        ("sha3", 256, 6, 32, "3a985da74fe225b2045c172d6bd390bd855f086e3e9d525b46bfe24511431532"),
        ("ripemd160", 0, 0, 20, "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc"),
        ("sm3", 0, 0, 32, "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"),
    ];
    for (name, init, padding, len, digest) in known {
        let guest = Guest::new(load(&namespace, name, &module(name)), "memory").unwrap();
        let call = |name: &str, arg: i32| {
            // Some of these functions take no argument.
            let takes = guest.cell.func(name).unwrap().ty().params.len();
            guest.call(name, &[arg][..takes]).unwrap()
        };
        let buffer = guest.call("Hash_GetBuffer", &[]).unwrap();
        call("Hash_Init", init);
        guest.write(buffer, b"abc").unwrap();
        call("Hash_Update", 3);
        call("Hash_Final", padding);
        assert_eq!(hex(&guest.read(buffer, len).unwrap()), digest, "{name}");
    }
    // Every other module of the package loads too.
    for at in script.match_indices("\"AGFzb").map(|(at, _)| at) {
        load(&namespace, &format!("module at {at}"), &from_base64(&script[at + 1..]));
    }
}

/// What the kernel runs too (`cargo xtask test`, stage "boot, third-party modules").
fn check(name: &str) {
    let module = MODULES.iter().find(|m| m.name == name).unwrap();
    let Some(package) = package(module.package) else { return };
    let subject = SUBJECTS.iter().find(|s| s.name == name).unwrap();
    (subject.check)(&std::fs::read(package.join(module.path)).unwrap()).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn argon2_derives_the_known_key() {
    check("argon2");
    check("argon2-simd");
}

#[test]
fn source_map_decodes_mappings() {
    check("source-map");
}

#[test]
fn brotli_decompresses_what_others_compressed_and_what_it_compressed() {
    check("brotli");
}

#[test]
fn an_sql_engine_answers_queries() {
    check("sql");
}

#[test]
fn every_module_for_the_kernel_has_its_questions() {
    let names = |n: &mut dyn Iterator<Item = &'static str>| n.collect::<std::collections::BTreeSet<_>>();
    let (modules, subjects) = (names(&mut MODULES.iter().map(|m| m.name)), names(&mut SUBJECTS.iter().map(|s| s.name)));
    assert_eq!((modules.len(), &modules), (MODULES.len(), &subjects));
}

/// TinyGo: a garbage collector, goroutines by asyncify, no imports.
#[test]
fn gofmt_formats() {
    let Some(package) = package("@wasm-fmt/gofmt@0.7.3") else { return };
    let wasm = std::fs::read(package.join("gofmt.wasm")).unwrap();
    let guest = Guest::new(load(&namespace(), "gofmt", &wasm), "memory").unwrap();
    guest.call("_initialize", &[]).unwrap();
    let source = b"package main\nfunc  main( ) {x:=1\nif x==1 {println( \"ship\" )}}\n";
    let at = guest.call("alloc", &[source.len() as i32]).unwrap();
    guest.write(at, source).unwrap();
    assert_eq!(guest.call("format", &[]).unwrap(), 1);
    let output = guest.read(guest.call("output_ptr", &[]).unwrap(), guest.call("output_len", &[]).unwrap() as usize);
    let output = output.unwrap();
    let expected = "package main\n\nfunc main() {\n\tx := 1\n\tif x == 1 {\n\t\tprintln(\"ship\")\n\t}\n}\n";
    assert_eq!(String::from_utf8(output).unwrap(), expected);
    guest.call("dispose", &[]).unwrap();
}

/// AssemblyScript.
#[test]
fn sha256_in_assemblyscript_gives_the_known_digest() {
    let Some(package) = package("@chainsafe/as-sha256@0.4.1") else { return };
    for file in ["optimized.wasm", "untouched.wasm"] {
        let namespace = namespace();
        let abort = |_message: i32, _file: i32, _line: i32, _column: i32| -> Result<(), String> { Err("abort".into()) };
        namespace.define("env", "abort", abort).unwrap();
        let wasm = std::fs::read(package.join("build").join(file)).unwrap();
        let guest = Guest::new(load(&namespace, "sha256", &wasm), "memory").unwrap();
        let global = |name: &str| match &guest.cell.export(name).unwrap().item {
            SectionItem::Global(g) => g.bits() as i32,
            _ => panic!("{name} is no global"),
        };
        let (input, output) = (global("input"), global("output"));
        guest.write(input, b"abc").unwrap();
        guest.call("init", &[]).unwrap();
        guest.call("update", &[input, 3]).unwrap();
        guest.call("final", &[output]).unwrap();
        assert_eq!(
            hex(&guest.read(output, 32).unwrap()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "{file}"
        );
    }
}
