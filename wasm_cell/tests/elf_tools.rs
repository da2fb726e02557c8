//! What ordinary tools make of a compiled module's object. A tool that is not installed is not asked.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Command;
use wasm_cell::{CellObject, CompileOptions, Compiler, CompilerSettings};

const MODULE: &str = r#"
(module $shop
  (import "log" "write" (func $write (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "hello from rodata")
  (global $sold (mut i32) (i32.const 0))
  (func $price (param $n i32) (result i32)
    ;; A table of branches: the call stays a call.
    (block (br_table 0 0 (local.get $n)))
    (i32.div_s (i32.const 1000) (local.get $n)))
  (func $sell (export "sell") (param $n i32) (result i32)
    (global.set $sold (i32.add (global.get $sold) (local.get $n)))
    (call $write (i32.const 16) (i32.const 17))
    (i32.add (call $price (local.get $n)) (global.get $sold)))
  (func (export "a name with spaces") (result v128) (v128.const i32x4 1 2 3 4)))
"#;

fn object() -> CellObject {
    let compiler = Compiler::new(CompilerSettings::default()).unwrap();
    compiler.compile(&wat::parse_str(MODULE).unwrap(), &CompileOptions::default()).unwrap()
}

/// A directory of this process, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("planks-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_string()
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a tool prints. It must not complain.
fn run(tool: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(tool).args(args).output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{tool} {args:?}: {errors}");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn object_of_a_compiled_module_survives_the_round_trip() {
    let object = object();
    object.validate().unwrap();
    assert_eq!(CellObject::from_elf(&object.to_elf().unwrap()).unwrap(), object);
}

#[test]
fn disassembly_shows_wasm_names_and_trap_stubs() {
    let directory = Directory::new("objdump");
    let file = directory.file("shop.o", &object().to_elf().unwrap());
    let Some(text) = run("objdump", &["-dr", &file]) else { return };
    for part in ["<price>:", "<sell>:", "<a name with spaces>:", "<trap.IntegerDivisionByZero>", "R_X86_64_PC32"] {
        assert!(text.contains(part), "no {part} in\n{text}");
    }
    // The call within the object is resolved.
    let sell = &text[text.find("<sell>:").unwrap()..];
    assert!(sell.lines().any(|line| line.contains("call") && line.ends_with("<price>")), "{sell}");
    let symbols = run("readelf", &["-sW", &file]).unwrap();
    assert!(symbols.lines().any(|l| l.contains("LOCAL") && l.ends_with("price")), "{symbols}");
    assert!(symbols.lines().any(|l| l.contains("GLOBAL") && l.ends_with("sell")), "{symbols}");
    assert!(symbols.lines().any(|l| l.contains("FILE") && l.ends_with("shop")), "{symbols}");
}

#[test]
fn debugger_finds_functions_by_name() {
    let directory = Directory::new("gdb");
    let file = directory.file("shop.o", &object().to_elf().unwrap());
    let args = ["-nx", "-batch", "-ex", "info symbol sell", "-ex", "disassemble price", &file];
    let Some(text) = run("gdb", &args) else { return };
    assert!(text.contains("sell in section .text") && text.contains("idiv"), "{text}");
}

/// Two objects linked by `ld` into one: symbols, data blocks and unwind info of both are there, apart from each other.
#[test]
fn linker_joins_objects() {
    let directory = Directory::new("ld");
    let shop = object();
    let first = directory.file("shop.o", &shop.to_elf().unwrap());
    let other = r#"(module $other (memory 1) (func (export "peek") (result i32) (i32.load (i32.const 0))))"#;
    let compiler = Compiler::new(CompilerSettings::default()).unwrap();
    let other = compiler.compile(&wat::parse_str(other).unwrap(), &CompileOptions::default()).unwrap();
    let second = directory.file("other.o", &other.to_elf().unwrap());
    let joined = directory.path("joined.o");
    if run("ld", &["-r", &first, &second, "-o", &joined]).is_none() {
        return;
    }
    assert!(Path::new(&joined).exists());
    let linked = directory.path("linked");
    run("ld", &["-e", "sell", "--eh-frame-hdr", &joined, "-o", &linked]);

    let symbols = run("readelf", &["-sW", &linked]).unwrap();
    let address = |name: &str| {
        let line = symbols.lines().find(|l| l.ends_with(&format!(" {name}"))).unwrap_or_else(|| panic!("{symbols}"));
        line.split_whitespace().nth(1).unwrap().to_string()
    };
    // ld rewrites every frame's beginning to where the function has come to lie.
    let frames = run("readelf", &["--debug-dump=frames", &linked]).unwrap();
    for name in ["price", "sell", "peek"] {
        assert!(frames.contains(&format!("pc={}", address(name))), "{name} in\n{frames}");
    }
    assert_eq!(symbols.lines().filter(|l| l.contains("OBJECT") && l.ends_with("data_block")).count(), 2);
}
