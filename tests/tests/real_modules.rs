//! Modules of real toolchains, loaded as cells, give the answers they give elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use namespace_bridge::caller::GuestMemoryError;
use namespace_bridge::{Caller, CrateNamespace, LinearMemory, LoadOptions, SectionItem, StrongCrateRef, Val};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tests::packages::{fetch, skip};

fn package(spec: &str) -> Option<PathBuf> {
    fetch(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("npm"), spec).map_err(skip).ok()
}

fn load(namespace: &CrateNamespace, name: &str, wasm: &[u8]) -> StrongCrateRef {
    namespace.load_wasm(name, wasm, LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

fn namespace() -> Arc<CrateNamespace> {
    CrateNamespace::new("real", None)
}

/// A cell with the little that its callers here need.
struct Guest {
    cell: StrongCrateRef,
    memory: Arc<LinearMemory>,
}

impl Guest {
    fn new(cell: StrongCrateRef, memory: &str) -> Guest {
        let section = cell.export(memory).unwrap();
        let SectionItem::Memory(memory) = &section.item else { panic!("{memory} is no memory") };
        Guest { memory: memory.clone(), cell }
    }

    /// Calls a function of `i32`s with at most one result.
    fn call(&self, name: &str, args: &[i32]) -> i32 {
        let func = self.cell.func(name).unwrap_or_else(|e| panic!("{e}"));
        let args: Vec<Val> = args.iter().map(|a| Val::I32(*a)).collect();
        let mut results = vec![Val::I32(0); func.ty().results.len()];
        func.call(&args, &mut results).unwrap_or_else(|e| panic!("{name}: {e}"));
        match results[..] {
            [] => 0,
            [Val::I32(v)] => v,
            ref other => panic!("{name} returns {other:?}"),
        }
    }

    fn write(&self, at: i32, bytes: &[u8]) {
        self.memory.write(u64::from(at as u32), bytes).unwrap();
    }

    fn read(&self, at: i32, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read(u64::from(at as u32), &mut bytes).unwrap();
        bytes
    }

    fn read_word(&self, at: i32) -> i32 {
        i32::from_le_bytes(self.read(at, 4).try_into().unwrap())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
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
        let guest = Guest::new(load(&namespace, name, &module(name)), "memory");
        let call = |name: &str, arg: i32| {
            // Some of these functions take no argument.
            let takes = guest.cell.func(name).unwrap().ty().params.len();
            guest.call(name, &[arg][..takes])
        };
        let buffer = guest.call("Hash_GetBuffer", &[]);
        call("Hash_Init", init);
        guest.write(buffer, b"abc");
        call("Hash_Update", 3);
        call("Hash_Final", padding);
        assert_eq!(hex(&guest.read(buffer, len)), digest, "{name}");
    }
    // Every other module of the package loads too.
    for at in script.match_indices("\"AGFzb").map(|(at, _)| at) {
        load(&namespace, &format!("module at {at}"), &from_base64(&script[at + 1..]));
    }
}

/// C, emscripten: 17 arguments, memory grown by the host's leave.
#[test]
fn argon2_derives_the_known_key() {
    let Some(package) = package("argon2-browser@1.18.0") else { return };
    for file in ["argon2.wasm", "argon2-simd.wasm"] {
        let namespace = namespace();
        namespace
            .define("a", "a", |caller: &Caller, to: u32, from: u32, n: u32| -> Result<u32, GuestMemoryError> {
                caller.write(u64::from(to), &caller.read_vec(u64::from(from), u64::from(n))?)?;
                Ok(to)
            })
            .unwrap();
        namespace
            .define("a", "b", |caller: &Caller, size: u32| -> i32 {
                let memory = caller.memory(0).unwrap();
                let missing = u64::from(size).saturating_sub(memory.bytes());
                i32::from(memory.grow(missing.div_ceil(1 << 16)).is_some())
            })
            .unwrap();
        let wasm = std::fs::read(package.join("dist").join(file)).unwrap();
        let guest = Guest::new(load(&namespace, "argon2", &wasm), "c");
        guest.call("d", &[]);
        let put = |bytes: &[u8]| {
            let at = guest.call("f", &[bytes.len().max(1) as i32]);
            guest.write(at, bytes);
            at
        };
        let (password, salt, hash, encoded) = (put(b"password\0"), put(b"somesalt\0"), put(&[0; 32]), put(&[0; 512]));
        // Two passes over 64 MiB, Argon2id 1.3: test vector of the reference implementation (src/test.c).
        let args = [2, 65536, 1, password, 8, salt, 8, hash, 32, encoded, 512, 2, 0, 0, 0, 0, 0x13];
        assert_eq!(guest.call("l", &args), 0, "{file}");
        assert_eq!(
            hex(&guest.read(hash, 32)),
            "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7",
            "{file}"
        );
    }
}

/// Rust: a callback with ten arguments.
#[test]
fn source_map_decodes_mappings() {
    let Some(package) = package("source-map@0.8.0") else { return };
    let namespace = namespace();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let callback = move |line: i32,
                         column: i32,
                         _has_last: i32,
                         _last: i32,
                         has_original: i32,
                         source: i32,
                         original_line: i32,
                         original_column: i32,
                         has_name: i32,
                         name: i32| {
        let original = (has_original != 0).then_some((source, original_line, original_column));
        sink.lock().unwrap().push((line, column, original, (has_name != 0).then_some(name)));
    };
    namespace.define("env", "mapping_callback", callback).unwrap();
    let wasm = std::fs::read(package.join("lib/mappings.wasm")).unwrap();
    let guest = Guest::new(load(&namespace, "source-map", &wasm), "memory");
    let text = b"AAAAA,IAAM;EACJA";
    let at = guest.call("allocate_mappings", &[text.len() as i32]);
    guest.write(at, text);
    let mappings = guest.call("parse_mappings", &[at]);
    assert_ne!(mappings, 0);
    guest.call("by_generated_location", &[mappings]);
    let expected = [(0, 0, Some((0, 0, 0)), Some(0)), (0, 4, Some((0, 0, 6)), None), (1, 2, Some((0, 1, 2)), Some(0))];
    assert_eq!(*seen.lock().unwrap(), expected);
    guest.call("free_mappings", &[mappings]);
}

/// Rust, wasm-bindgen.
#[test]
fn brotli_decompresses_what_others_compressed_and_what_it_compressed() {
    let Some(package) = package("brotli-wasm@3.0.1") else { return };
    let namespace = namespace();
    let wasm = std::fs::read(package.join("pkg.web/brotli_wasm_bg.wasm")).unwrap();
    define_nothing(&namespace, &wasm);
    let guest = Guest::new(load(&namespace, "brotli", &wasm), "memory");
    let decompress = |compressed: &[u8]| {
        let input = guest.call("__wbindgen_malloc", &with_alignment(&guest, compressed.len()));
        guest.write(input, compressed);
        let area = guest.call("__wbindgen_add_to_stack_pointer", &[-16]);
        guest.call("decompress", &[area, input, compressed.len() as i32]);
        assert_eq!(guest.read_word(area + 12), 0, "it reports an error");
        let output = guest.read(guest.read_word(area), guest.read_word(area + 4) as usize);
        guest.call("__wbindgen_add_to_stack_pointer", &[16]);
        output
    };
    let text = "plank ".repeat(50) + "ship\n";
    // Made by the reference implementation.
    let compressed = from_hex("1b3001f88d54b5bf6473836b0590b035298822b3d501bc0cbc5a7a00");
    assert_eq!(String::from_utf8(decompress(&compressed)).unwrap(), text);
}

/// The arguments of an allocation function, some versions of which want an alignment.
fn with_alignment(guest: &Guest, size: usize) -> Vec<i32> {
    let takes = guest.cell.func("__wbindgen_malloc").unwrap().ty().params.len();
    [size as i32, 1][..takes].to_vec()
}

/// Satisfies every function import with one that returns zeros: for imports that serve failures only.
fn define_nothing(namespace: &CrateNamespace, wasm: &[u8]) {
    let object = namespace_bridge::compiler().unwrap().compile(wasm, &Default::default()).unwrap();
    for import in &object.metadata.imports {
        let wasm_cell::types::ExternType::Func(ty) = &import.ty else { panic!("{} is no function", import.name) };
        let func = namespace_bridge::HostFunc::dynamic(ty.clone(), |_, _, _| Ok(()));
        namespace.define_func(&import.module, &import.name, func).unwrap();
    }
}

/// TinyGo: a garbage collector, goroutines by asyncify, no imports.
#[test]
fn gofmt_formats() {
    let Some(package) = package("@wasm-fmt/gofmt@0.7.3") else { return };
    let wasm = std::fs::read(package.join("gofmt.wasm")).unwrap();
    let guest = Guest::new(load(&namespace(), "gofmt", &wasm), "memory");
    guest.call("_initialize", &[]);
    let source = b"package main\nfunc  main( ) {x:=1\nif x==1 {println( \"ship\" )}}\n";
    let at = guest.call("alloc", &[source.len() as i32]);
    guest.write(at, source);
    assert_eq!(guest.call("format", &[]), 1);
    let output = guest.read(guest.call("output_ptr", &[]), guest.call("output_len", &[]) as usize);
    let expected = "package main\n\nfunc main() {\n\tx := 1\n\tif x == 1 {\n\t\tprintln(\"ship\")\n\t}\n}\n";
    assert_eq!(String::from_utf8(output).unwrap(), expected);
    guest.call("dispose", &[]);
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
        let guest = Guest::new(load(&namespace, "sha256", &wasm), "memory");
        let global = |name: &str| match &guest.cell.export(name).unwrap().item {
            SectionItem::Global(g) => g.bits() as i32,
            _ => panic!("{name} is no global"),
        };
        let (input, output) = (global("input"), global("output"));
        guest.write(input, b"abc");
        guest.call("init", &[]);
        guest.call("update", &[input, 3]);
        guest.call("final", &[output]);
        assert_eq!(
            hex(&guest.read(output, 32)),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "{file}"
        );
    }
}
