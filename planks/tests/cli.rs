//! The command line from outside: outputs, exit codes, and that no input makes it panic.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

fn planks(args: &[&str]) -> Output {
    with_input(args, b"")
}

fn with_input(args: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_planks"))
        .args(args)
        // The key that seals objects.
        .env("XDG_STATE_HOME", std::env::temp_dir().join("planks-cli-state"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The child may end before it has read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

fn code(o: &Output) -> i32 {
    o.status.code().expect("not ended by a signal")
}

fn out(o: &Output) -> String {
    String::from_utf8_lossy(&o.stdout).into_owned()
}

fn err(o: &Output) -> String {
    String::from_utf8_lossy(&o.stderr).into_owned()
}

/// A directory of the test's own, with these files.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str, files: &[(&str, &[u8])]) -> Dir {
        let dir = std::env::temp_dir().join(format!("planks-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        files.iter().for_each(|(name, bytes)| std::fs::write(dir.join(name), bytes).unwrap());
        Dir(dir)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_string()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const FIB: &[u8] = br#"(module (func $fib (export "fib") (param i32) (result i32)
    (if (result i32) (i32.lt_u (local.get 0) (i32.const 2)) (then (local.get 0))
      (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1))) (call $fib (i32.sub (local.get 0) (i32.const 2)))))))
    (func (export "both") (param v128 f64) (result f64 v128) (local.get 1) (local.get 0))
    (func (export "trap") unreachable))"#;

/// Prints its standard input's first bytes and ends with status 7.
const ECHO: &[u8] = br#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\00\01\00\00")
    (func (export "_start")
      (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 4)))
      (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
      (call $exit (i32.const 7))))"#;

#[test]
fn a_function_is_invoked_with_typed_arguments_and_results() {
    let o = with_input(&["run", "-", "--invoke", "fib", "0x14"], FIB);
    assert_eq!((code(&o), out(&o).as_str()), (0, "6765: i32\n"), "{}", err(&o));
    let o = with_input(&["run", "-", "--invoke", "both", "i32x4:1,2,3,4", "-0.5"], FIB);
    assert_eq!(out(&o), "-0.5: f64\n0x00000004000000030000000200000001: v128\n", "{}", err(&o));
    let o = with_input(&["--json", "run", "-", "--invoke", "fib", "10"], FIB);
    assert_eq!(out(&o), "{\"results\":[{\"type\":\"i32\",\"value\":55}]}\n");
}

#[test]
fn a_program_sees_its_streams_and_gives_its_status() {
    let dir = Dir::new("echo", &[("echo.wat", ECHO)]);
    let o = with_input(&["run", &dir.path("echo.wat")], b"ahoy\n");
    assert_eq!(code(&o), 7, "{}", err(&o));
    assert!(out(&o).starts_with("ahoy\n"));
}

#[test]
fn an_abort_of_assemblyscript_shows_its_message_and_place() {
    // Strings are UTF-16 with their length in bytes before them.
    let text = r#"(module (import "env" "abort" (func $abort (param i32 i32 i32 i32))) (memory 1)
        (data (i32.const 4) "\04\00\00\00n\00o\00") (data (i32.const 16) "\08\00\00\00a\00.\00t\00s\00")
        (func (export "main") (call $abort (i32.const 8) (i32.const 20) (i32.const 3) (i32.const 7))))"#;
    let o = with_input(&["run", "-"], text.as_bytes());
    assert_eq!(code(&o), 1);
    assert!(err(&o).contains("abort: no at a.ts:3:7"), "{}", err(&o));
}

#[test]
fn a_compiled_object_runs_as_the_module_does() {
    let dir = Dir::new("object", &[("fib.wat", FIB)]);
    let o = planks(&["compile", &dir.path("fib.wat"), "-o", &dir.path("fib.o")]);
    assert_eq!(code(&o), 0, "{}", err(&o));
    let o = planks(&["run", &dir.path("fib.o"), "--invoke", "fib", "12"]);
    assert_eq!(out(&o), "144: i32\n", "{}", err(&o));
    let o = planks(&["objdump", &dir.path("fib.o"), "--function", "fib"]);
    assert!(out(&o).contains("<fib>: func 0") && out(&o).contains("push rbp"), "{}", out(&o));
    let o = planks(&["objdump", &dir.path("fib.wat"), "--list", "--json"]);
    assert_eq!(out(&o).lines().count(), 3);
}

/// A native object, compiled here.
const NATIVE: &str = r#"
#![no_std]
#![crate_type = "lib"]
pub struct Pair(pub u64, pub u64);
impl Pair {
    #[inline(never)]
    pub fn sum(&self) -> u64 { self.0.checked_add(self.1).unwrap() }
}
#[unsafe(no_mangle)]
pub extern "C-unwind" fn native_sum(a: u64, b: u64) -> u64 { Pair(a, b).sum() }
"#;

#[test]
fn native_objects_are_listed_loaded_and_inspected() {
    let dir = Dir::new("native", &[("pairs.rs", NATIVE.as_bytes())]);
    let object = dir.path("pairs-0123456789abcdef.o");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let made = Command::new(rustc)
        .args(["--edition=2024", "--emit=obj", "-Copt-level=1", &dir.path("pairs.rs"), "-o", &object])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let o = planks(&["objdump", &object]);
    assert!(
        out(&o).contains("<native_sum>: .text.native_sum") && out(&o).contains("option::unwrap_failed"),
        "{}",
        out(&o)
    );
    let o = planks(&["objdump", &object, "--list", "--json"]);
    assert_eq!((code(&o), out(&o).lines().count()), (0, 2), "{}", err(&o));
    let script = format!("load {object}\nls\ninfo pairs\nsym pairs::\nsym native_sum\ndeps\nunload pairs\n");
    let o = with_input(&["shell"], script.as_bytes());
    let text = out(&o);
    assert_eq!(code(&o), 0, "{text}{}", err(&o));
    for part in [
        "loaded pairs (version 1): 2 functions, 0 exports and 2 symbols",
        "native",
        "pairs::Pair::sum::h",
        "unloaded pairs",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn exit_codes_say_what_went_wrong_and_where() {
    let dir = Dir::new(
        "codes",
        &[
            ("fib.wat", FIB),
            ("empty", b""),
            ("junk", &[0xff, 0xfe, 0, 1]),
            ("cut.wasm", b"\0asm\x01\0\0\0\x01\x7f"),
            ("elf.o", b"\x7fELF\x02\x01\x01"),
            ("bad.wat", b"(module (func (result i32)))"),
            ("gc.wat", b"(module (type (struct)))"),
            ("import.wat", b"(module (import \"wasi_snapshot_preview1\" \"fd_wrte\" (func)) (func (export \"main\")))"),
            ("start.wat", b"(module (func $f unreachable) (start $f))"),
            ("fail.wast", b"(module (func (export \"f\")))\n(assert_trap (invoke \"f\") \"x\")"),
        ],
    );
    let p = |name: &str| dir.path(name);
    for (args, expected, says) in [
        (vec!["run", &p("fib.wat"), "--invoke", "trap"], 1, "unreachable"),
        (vec!["run", &p("start.wat")], 1, "unreachable"),
        (vec!["wast", &p("fail.wast")], 1, ""),
        (vec!["frob"], 2, "frob"),
        (vec!["run", &p("fib.wat")], 2, "--invoke"),
        (vec!["run", &p("fib.wat"), "--invoke", "fib"], 2, "1 argument"),
        (vec!["run", &p("fib.wat"), "--invoke", "fib", "ten"], 2, "ten"),
        (vec!["run", &p("fib.wat"), "--env", "x"], 2, "NAME=VALUE"),
        (vec!["run", &p("empty")], 3, "empty"),
        (vec!["run", &p("junk")], 3, "junk"),
        (vec!["run", &p("cut.wasm")], 3, "offset"),
        (vec!["run", &p("elf.o")], 3, "cell object"),
        (vec!["run", &p("bad.wat")], 3, "type mismatch"),
        (vec!["compile", &p("gc.wat"), "-o", "/dev/null"], 3, "`gc`"),
        (vec!["run", &p("import.wat")], 4, "fd_write"),
        (vec!["run", &p("fib.wat"), "--invoke", "fob", "1"], 4, "fib"),
        (vec!["run", &p("nowhere")], 5, "nowhere"),
        (vec!["run", &p("")], 5, "directory"),
        (vec!["run", &p("fib.wat"), "--dir", "/nowhere"], 5, "/nowhere"),
        (vec!["compile", &p("fib.wat"), "-o", "/nowhere/x.o"], 5, "/nowhere/x.o"),
        (vec!["boot", &p("bad.wat"), "--kernel", "/nowhere"], 5, "/nowhere"),
        (vec!["boot", &p("junk")], 3, "junk"),
        (vec!["wast", &p("")], 1, ""),
        (vec!["wast", &p("nowhere")], 5, "nowhere"),
    ] {
        let o = planks(&args);
        assert_eq!(code(&o), expected, "{args:?}: {}{}", out(&o), err(&o));
        assert!(err(&o).contains(says), "{args:?}: {}", err(&o));
    }
    let o = planks(&["--json", "run", &p("bad.wat")]);
    assert!(out(&o).contains("\"kind\":\"invalid\",\"exit_code\":3"), "{}", out(&o));
}

#[test]
fn the_shell_runs_a_script_and_stops_at_the_first_failure() {
    let dir = Dir::new("shell", &[("fib.wat", FIB)]);
    let script = format!("load {}\ncall fib::fib 10\nfrob\ncall fib::fib 11\n", dir.path("fib.wat"));
    let o = with_input(&["shell"], script.as_bytes());
    assert_eq!(code(&o), 2);
    assert!(out(&o).ends_with("55: i32\n"), "{}", out(&o));
    assert!(err(&o).contains("line 3"), "{}", err(&o));
    let o = with_input(&["shell", "--keep-going"], script.as_bytes());
    assert!(out(&o).ends_with("89: i32\n"), "{}", out(&o));
}

#[test]
fn the_demo_shows_what_it_says() {
    let o = planks(&["demo"]);
    assert_eq!(code(&o), 0, "{}", err(&o));
    for says in [
        "counter::add",
        "└─ kernel  (note)",
        "42: i32",
        "told 84",
        "integer divide by zero in mean!divide",
        "120: i32",
        "counter went from version 1 to 2, state: adopt",
        "calls that each add 1, and the counter counted",
        "waits for a rollback: counter@1",
        "counter went from version 2 to",
        "in use by `mean`",
    ] {
        assert!(out(&o).contains(says), "{says}: {}", out(&o));
    }
}

#[test]
fn a_closed_pipe_ends_it_quietly() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_planks"))
        .args(["wast", "--suite", "--only", "proposals/annotations", "--verbose"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let o = child.wait_with_output().unwrap();
    assert_eq!((code(&o), err(&o).as_str()), (141, ""));
}

#[test]
fn no_arguments_make_it_panic() {
    let dir = Dir::new("odd", &[("fib.wat", FIB)]);
    let file = dir.path("fib.wat");
    let long = "x".repeat(100_000);
    let odd = [
        "",
        "-",
        "--",
        "\u{0}".trim_matches('\0'),
        "é\u{202e}",
        "-1",
        "--json",
        "::",
        "=",
        "nan:0x",
        &long,
        "/dev/null",
        "/",
        &file,
    ];
    for command in ["run", "compile", "objdump", "wast", "shell", "demo", "help"] {
        for a in odd {
            for b in odd {
                let o = planks(&[command, a, b, "-o", "/dev/null"]);
                let c = code(&o);
                assert!(c <= 6, "{command} {a:.20} {b:.20}: {c} {}", err(&o));
            }
        }
    }
}

#[test]
fn mutated_modules_never_make_it_panic() {
    let wasm = wat::parse_bytes(FIB).unwrap();
    let mut state = 7u64;
    let mut next = move |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for _ in 0..60 {
        let mut bytes = wasm.to_vec();
        for _ in 0..1 + next(3) {
            let at = 8 + next(bytes.len() - 8);
            bytes[at] = next(256) as u8;
        }
        bytes.truncate(8 + next(2 * bytes.len()));
        let o = with_input(&["run", "-", "--invoke", "fib", "5"], &bytes);
        assert!((0..=6).contains(&code(&o)), "{bytes:02x?}: {}", err(&o));
        assert!(!err(&o).contains("panicked"), "{bytes:02x?}: {}", err(&o));
    }
}

#[test]
fn a_trap_leaves_a_core_dump_where_it_is_asked_for() {
    let fill: &[u8] = br#"(module (memory 1) (global (mut i32) (i32.const 3))
        (func $fail (i32.store8 (i32.const 5000) (i32.const 88)) unreachable) (func (export "_start") (call $fail)))"#;
    let dir = Dir::new("coredump", &[("m.wat", fill), ("quiet.wat", b"(module (func (export \"_start\")))")]);
    let dump = dir.path("core.wasm");
    let o = planks(&["run", "--coredump", &dump, &dir.path("m.wat")]);
    assert_eq!(code(&o), 1);
    assert!(err(&o).contains("core dump in") && err(&o).contains("trap: unreachable in m!fail"), "{}", err(&o));
    let bytes = std::fs::read(&dump).unwrap();
    assert!(bytes.starts_with(b"\0asm") && bytes.contains(&88) && bytes.len() < 9000, "{} bytes", bytes.len());
    assert!(bytes.windows(9).any(|w| w == b"corestack"));

    let none = dir.path("none.wasm");
    assert_eq!(code(&planks(&["run", "--coredump", &none, &dir.path("quiet.wat")])), 0);
    assert!(!std::path::Path::new(&none).exists());
    let o = planks(&["run", "--coredump", &dir.path("no/such/dir"), &dir.path("m.wat")]);
    assert_eq!(code(&o), 1);
    assert!(err(&o).contains("no core dump") && err(&o).contains("trap: unreachable"), "{}", err(&o));
}

#[test]
fn a_trap_as_json_has_its_frames() {
    let dir = Dir::new("trap-json", &[("fib.wat", FIB)]);
    let o = planks(&["--json", "run", &dir.path("fib.wat"), "--invoke", "trap"]);
    assert_eq!(code(&o), 1);
    let v: serde_json::Value = serde_json::from_str(out(&o).trim()).unwrap();
    let trap = &v["error"]["trap"];
    assert_eq!((trap["code"].as_str(), trap["depth"].as_u64()), (Some("unreachable"), Some(1)));
    let frame = &trap["frames"][0];
    assert_eq!((frame["cell"].as_str(), frame["name"].as_str()), (Some("fib"), Some("trap")));
    assert!(frame["wasm_offset"].as_u64().is_some() && frame["location"].is_null(), "{frame}");
}

#[test]
fn names_of_a_module_give_the_terminal_no_orders() {
    let text = br#"(module (func (export "a\1b[2J") unreachable) (func (export "b\c2\9b") unreachable))"#;
    let dir = Dir::new("orders", &[("orders.wat", text)]);
    for args in
        [&["run"][..], &["objdump"], &["run", "--invoke", "a\u{1b}[2J"], &["run", "--json"], &["objdump", "--json"]]
    {
        let mut args = args.to_vec();
        let path = dir.path("orders.wat");
        args.insert(1, &path);
        let o = planks(&args);
        let json = args.contains(&"--json");
        let all = out(&o) + &err(&o);
        assert!(!all.contains('\u{1b}') && (json || !all.contains('\u{9b}')), "{args:?}: {all:?}");
        if json {
            for line in out(&o).lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap();
            }
        }
    }
}

#[test]
fn an_object_that_is_not_sealed_is_refused() {
    let dir = Dir::new("sealed", &[("fib.wat", FIB)]);
    let (object, key) = (dir.path("fib.o"), dir.path("other.key"));
    assert_eq!(code(&planks(&["compile", &dir.path("fib.wat"), "-o", &object])), 0);
    let run = |args: &[&str]| planks(&[&["run", &object, "--invoke", "fib"], args, &["9"]].concat());
    assert_eq!(out(&run(&[])), "34: i32\n");
    let o = run(&["--seal-key", &key]);
    assert_eq!((code(&o), err(&o).contains("seal does not match")), (3, true), "{}", err(&o));
    // In the shell as well.
    let o = planks(&["shell", "--seal-key", &key, "-c", &format!("load {object}")]);
    assert!(err(&o).contains("--seal-key"), "{}", err(&o));
    let o = planks(&["shell", "-c", &format!("load {object}"), "-c", "call fib::fib 9"]);
    assert!(out(&o).contains("34: i32"), "{}", err(&o));
    // One bit of the code.
    let mut bytes = std::fs::read(&object).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&object, &bytes).unwrap();
    let o = run(&[]);
    assert_eq!((code(&o), out(&o).as_str()), (3, ""), "{}", err(&o));
}

#[test]
fn a_cache_saves_the_compilation_and_a_damaged_entry_costs_one() {
    let dir = Dir::new("cache", &[("fib.wat", FIB)]);
    let cache = dir.path("cache");
    let run = || planks(&["run", &dir.path("fib.wat"), "--cache", &cache, "--invoke", "fib", "10"]);
    for _ in 0..2 {
        let o = run();
        assert_eq!((out(&o).as_str(), err(&o).as_str()), ("55: i32\n", ""));
    }
    let entry = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let good = std::fs::read(&entry).unwrap();
    std::fs::write(&entry, &good[..good.len() - 1]).unwrap();
    let o = run();
    assert_eq!(out(&o), "55: i32\n");
    assert!(err(&o).contains("cached object was not usable"), "{}", err(&o));
    assert_eq!(std::fs::read(&entry).unwrap(), good);
    assert_eq!(err(&run()), "");
    let o =
        planks(&["shell", "--cache", &cache, "-c", &format!("load {}", dir.path("fib.wat")), "-c", "call fib::fib 10"]);
    assert!(out(&o).ends_with("55: i32\n"), "{}", err(&o));
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 1, "the same entry serves both");
}

const ONE: &[u8] = br#"(module (memory 1) (func (export "next") (result i32)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 1))) (i32.load (i32.const 0))))"#;
const TEN: &[u8] = br#"(module (memory 1) (func (export "next") (result i32)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 10))) (i32.load (i32.const 0))))"#;

#[test]
fn swap_shows_what_changes_and_what_becomes_of_the_state() {
    let dir = Dir::new("swap", &[("one.wat", ONE), ("ten.wat", TEN)]);
    let swap = |args: &[&str]| {
        planks(&[&["swap", &dir.path("one.wat"), &dir.path("ten.wat"), "--invoke", "next"], args].concat())
    };
    let o = swap(&["--state", "adopt"]);
    let text = out(&o);
    assert!(text.contains("1: i32") && text.ends_with("11: i32\n"), "{text}{}", err(&o));
    assert!(text.contains("~ next") && text.contains("taken over in place"), "{text}");
    assert!(out(&swap(&["--state", "fresh"])).ends_with("10: i32\n"));
    let o = swap(&["--dry-run"]);
    assert!(out(&o).contains("would go from version 1 to 2") && !out(&o).contains("10: i32"), "{}", out(&o));
    let o = swap(&["--state", "export"]);
    assert_eq!((code(&o), err(&o).contains("plank_save")), (4, true), "{}", err(&o));
    let o = planks(&["--json", "swap", &dir.path("one.wat"), &dir.path("ten.wat"), "--state", "adopt"]);
    let report = out(&o).lines().last().unwrap_or_default().to_string();
    for part in ["\"functions_compiled\":1", "\"bytes_adopted\":65536", "\"phases_ns\"", "\"old\":\"cached\""] {
        assert!(report.contains(part), "{part}: {report}");
    }
}

#[test]
fn versions_come_from_the_cache_in_swap_and_shell_alike() {
    let dir = Dir::new("swap-cache", &[("one.wat", ONE), ("ten.wat", TEN)]);
    let (cache, one, ten) = (dir.path("cache"), dir.path("one.wat"), dir.path("ten.wat"));
    let swap = ["swap", &one, &ten, "--state", "adopt", "--cache", &cache, "--invoke", "next"];
    let first = planks(&swap);
    assert!(out(&first).contains("1 functions compiled, 0 taken over"), "{}{}", out(&first), err(&first));
    let again = planks(&swap);
    assert!(out(&again).contains("from the cache, nothing compiled"), "{}{}", out(&again), err(&again));
    assert_eq!((out(&again).lines().last(), err(&again).as_str()), (Some("11: i32"), ""));
    let (load, replace) = (format!("load {one} as cell"), format!("swap cell {ten} --state adopt"));
    let shell = planks(&[
        "shell",
        "--cache",
        &cache,
        "-c",
        &load,
        "-c",
        "call cell::next",
        "-c",
        &replace,
        "-c",
        "call cell::next",
    ]);
    let text = out(&shell);
    assert!(text.contains("from the cache, nothing compiled") && text.ends_with("11: i32\n"), "{text}{}", err(&shell));
    // The same report in both.
    for part in [
        "went from version 1 to 2, state: adopt",
        "~ next",
        "64.0 KiB taken over in place",
        "waits for a rollback",
        "commit ",
    ] {
        assert!(text.contains(part) && out(&again).contains(part), "{part}: {text}");
    }
    assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 2);
}

#[test]
fn a_native_object_can_be_swapped_in_from_the_shell() {
    let dir = Dir::new("swap-native", &[("sum.rs", NATIVE.as_bytes()), ("one.wat", ONE)]);
    let object = dir.path("sum.o");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let made = Command::new(rustc)
        .args(["--edition=2024", "--crate-name=sum", "--emit=obj", "-Copt-level=1", &dir.path("sum.rs"), "-o", &object])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let one = dir.path("one.wat");
    let script = format!(
        "load {one} as cell\nswap cell {object}\nls\nrollback cell\ncall cell::next\nswap cell {object}\nswap cell {one}\ncall cell::next\n"
    );
    let o = with_input(&["shell"], script.as_bytes());
    let text = out(&o);
    assert_eq!(code(&o), 0, "{text}{}", err(&o));
    assert!(text.contains("went from version 1 to 2") && text.contains("native"), "{text}");
    assert!(text.ends_with("1: i32\n"), "{text}");
}

/// The program at work, and what gives its output up to a line with a text.
fn watching(args: &[&str]) -> (Child, impl FnMut(&str) -> String + use<>) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_planks"))
        .args(args)
        .env("XDG_STATE_HOME", std::env::temp_dir().join("planks-cli-state"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let until = move |what: &str| {
        let mut seen = String::new();
        for line in lines.by_ref() {
            seen += &line.unwrap();
            seen.push('\n');
            if seen.contains(what) {
                return seen;
            }
        }
        panic!("`{what}` was never said, but: {seen}");
    };
    (child, until)
}

#[test]
fn a_watched_file_is_swapped_in_when_it_changes_and_a_bad_version_is_not() {
    let dir = Dir::new("watch", &[("cell.wat", ONE)]);
    let file = dir.path("cell.wat");
    let (mut child, mut until) = watching(&["watch", &file, "--state", "adopt", "--invoke", "next", "--times", "3"]);
    until("1: i32");
    // Half a file, as a compiler leaves it while it writes.
    std::fs::write(&file, &TEN[..60]).unwrap();
    until("stays as it is");
    std::fs::write(&file, TEN).unwrap();
    until("went from version 1 to 2");
    until("time ");
    std::fs::write(&file, b"(module (func (export \"next\") (result i64) (i64.const 1)))").unwrap();
    until("stays as it is");
    let end = until("11: i32");
    assert!(end.contains("1 new versions, 2 refused"), "{end}");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_watched_link_is_followed_through_all_that_happens_to_its_file() {
    let dir = Dir::new("watch-link", &[("a.wat", ONE), ("b.wat", TEN)]);
    let (link, a, b) = (dir.path("link.wat"), dir.path("a.wat"), dir.path("b.wat"));
    std::os::unix::fs::symlink(&a, &link).unwrap();
    let (mut child, mut until) = watching(&["watch", &link, "--invoke", "next", "--times", "5"]);
    until("1: i32");
    // The link leads to another file.
    let other = dir.path("other");
    std::os::unix::fs::symlink(&b, &other).unwrap();
    std::fs::rename(&other, &link).unwrap();
    until("went from version 1 to 2");
    // Its file is cut to nothing, and somebody goes on writing it.
    let mut file = std::fs::File::create(&b).unwrap();
    until("is being written by");
    std::io::Write::write_all(&mut file, ONE).unwrap();
    drop(file);
    until("went from version 2 to 3");
    // Removed, and there again some time later.
    std::fs::remove_file(&b).unwrap();
    until("is gone, or is no file");
    std::fs::write(&b, TEN).unwrap();
    until("went from version 3 to 4");
    // Cut to a module without anything.
    std::fs::write(&b, "(module)").unwrap();
    until("lacks next");
    // Replaced by one that is complete.
    let complete = dir.path("complete");
    std::fs::write(&complete, ONE).unwrap();
    std::fs::rename(&complete, &b).unwrap();
    until("went from version 4 to 5");
    let end = until("1: i32");
    assert!(end.contains("4 new versions, 1 refused"), "{end}");
    assert!(child.wait().unwrap().success());
}
