//! Commands over a namespace with modules in memory.

use super::*;
use crate::failure::Kind;

struct Modules(Vec<(&'static str, &'static str)>);

impl Host for Modules {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        let found = self.0.iter().find(|(name, _)| *name == path);
        found.map(|(_, text)| text.as_bytes().to_vec()).ok_or_else(|| Failure::file(path, "not found"))
    }

    fn assemble(&mut self, path: &str, text: &[u8]) -> Result<Vec<u8>, Failure> {
        wat::parse_bytes(text).map(|b| b.into_owned()).map_err(|e| Failure::new(Kind::Invalid, format!("{path}: {e}")))
    }
}

fn modules() -> Modules {
    Modules(vec![
        (
            "math.wat",
            r#"(module (memory (export "memory") 1)
            (func (export "div") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1))))"#,
        ),
        (
            "user.wat",
            r#"(module (import "math" "div" (func $div (param i32 i32) (result i32)))
            (func (export "half") (param i32) (result i32) (call $div (local.get 0) (i32.const 2))))"#,
        ),
        ("bad.wat", "(module (func (result i32)))"),
        (
            "math2.wat",
            r#"(module (memory (export "memory") 1)
            (func (export "div") (param i32 i32) (result i32) (i32.div_u (local.get 0) (local.get 1)))
            (func (export "rem") (param i32 i32) (result i32) (i32.rem_u (local.get 0) (local.get 1))))"#,
        ),
        ("other.wat", r#"(module (func (export "div") (param i64) (result i64) (local.get 0)))"#),
        ("quotes.wat", r#"(module (func (export "a\"b\\c\0a")))"#),
        ("uses_quotes.wat", r#"(module (import "q\"x" "a\"b\\c\0a" (func)) (func (export "f")))"#),
    ])
}

fn run(lines: &[&str]) -> Vec<Result<Reply, Failure>> {
    let mut host = modules();
    let mut shell = Shell::new(CrateNamespace::new("test", None), &mut host);
    lines.iter().filter_map(|l| shell.run_line(l)).collect()
}

fn last(lines: &[&str]) -> Result<Reply, Failure> {
    run(lines).pop().unwrap()
}

#[test]
fn cells_are_loaded_linked_and_called() {
    let replies = run(&["load math.wat", "load user.wat as u", "call u::half 84", "--json call u::half 0x54"]);
    let texts: Vec<String> = replies.into_iter().map(|r| r.unwrap().to_string()).collect();
    assert!(texts[0].starts_with("loaded math (version 1)"), "{}", texts[0]);
    assert_eq!(texts[2], "42: i32\n");
    assert_eq!(texts[3], "{\"results\":[{\"type\":\"i32\",\"value\":42}]}\n");
}

#[test]
fn a_trap_is_reported_and_the_cell_stays_usable() {
    let replies = run(&["load math.wat", "call math::div 1 0", "call math::div 6 3"]);
    let trap = replies[1].clone().unwrap_err();
    assert_eq!(trap.kind, Kind::Failed);
    assert!(trap.message.contains("integer divide by zero"), "{}", trap.message);
    assert_eq!(replies[2].clone().unwrap().to_string(), "2: i32\n");
}

#[test]
fn a_cell_in_use_is_unloaded_only_by_force() {
    let replies = run(&["load math.wat", "load user.wat", "unload math", "unload math --force", "call user::half 2"]);
    let refused = replies[2].clone().unwrap_err();
    assert_eq!(refused.kind, Kind::Link);
    assert!(refused.message.contains("user"), "{}", refused.message);
    assert!(replies[3].is_ok());
    assert_eq!(replies[4].clone().unwrap_err().kind, Kind::Failed);
}

#[test]
fn errors_have_kinds_and_name_what_is_wrong() {
    for (line, kind, says) in [
        ("frobnicate", Kind::Usage, "help"),
        ("load", Kind::Usage, "usage: load"),
        ("load nowhere.wasm", Kind::File, "nowhere.wasm"),
        ("load bad.wat", Kind::Invalid, "type mismatch"),
        ("load user.wat", Kind::Link, "math"),
        ("call x::y", Kind::Link, "no cell is loaded"),
        ("call x", Kind::Usage, "CELL::FUNCTION"),
        ("sym nothing", Kind::Link, "nothing"),
        ("unload 'x", Kind::Usage, "not closed"),
    ] {
        let e = last(&[line]).unwrap_err();
        assert_eq!(e.kind, kind, "{line}: {e}");
        assert!(e.message.contains(says), "{line}: {e}");
    }
}

#[test]
fn the_dependency_graph_names_cells_and_symbols() {
    let reply = last(&["load math.wat", "load user.wat", "deps"]).unwrap();
    assert_eq!(reply.to_string(), "user\n└─ math  (div)\n");
    let json = last(&["load math.wat", "load user.wat", "deps"]).unwrap().json().clone();
    assert_eq!(json["edges"][0]["symbols"][0], "math::div");
}

#[test]
fn symbols_are_listed_by_prefix_and_found_by_address() {
    let mut host = modules();
    let mut shell = Shell::new(CrateNamespace::new("test", None), &mut host);
    shell.run_line("load math.wat").unwrap().unwrap();
    let reply = shell.run_line("sym math::d").unwrap().unwrap();
    let address = reply.json()[0]["address"].as_u64().unwrap();
    let at = shell.run_line(&format!("sym {:#x}", address + 1)).unwrap().unwrap();
    assert_eq!(at.json()["symbol"], "math::div");
    assert_eq!(at.json()["offset"], 1);
}

#[test]
fn help_explains_every_command() {
    let text = last(&["help"]).unwrap().to_string();
    for c in COMMANDS {
        assert!(text.contains(c.summary));
        assert!(last(&[&format!("help {}", c.name)]).is_ok());
    }
}

#[test]
fn what_failed_is_listed_with_place_count_and_action() {
    let lines = [
        "load math.wat as failing",
        "call failing::div 1 0",
        "call failing::div 2 0",
        "ls --faults",
        "ls --faults --json",
    ];
    let replies: Vec<_> = run(&lines).into_iter().skip(3).map(|r| r.unwrap()).collect();
    let text = replies[0].to_string();
    let line = text.lines().find(|l| l.starts_with("failing!div ")).unwrap_or_else(|| panic!("{text}"));
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!((words[1], words[2], words[6]), ("1", "2", "none"), "{line}");
    assert!(line.contains("integer divide by zero at wasm offset 0x"), "{line}");
    let faults = replies[1].json().as_array().unwrap();
    let fault = faults.iter().find(|f| f["cell"] == "failing").unwrap();
    assert_eq!((&fault["count"], &fault["name"]), (&2.into(), &"div".into()));
}

#[test]
fn a_swap_is_reported_and_users_reach_the_new_version() {
    let lines = [
        "load math.wat",
        "load user.wat",
        "swap math math2.wat --state adopt",
        "call math::rem 9 4",
        "ls",
        "rollback math",
    ];
    let replies: Vec<_> = run(&lines).into_iter().skip(2).map(|r| r.unwrap()).collect();
    let text = replies[0].to_string();
    for part in [
        "math went from version 1 to 2, state: adopt",
        "added: rem",
        "used by   user",
        "64.0 KiB taken over",
        "+ rem",
        "~ div",
        "commit ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = replies[0].json();
    // Another test may have the same module in use: then nothing is compiled.
    let count = |name: &str| json[name].as_u64().unwrap();
    assert_eq!(count("functions_compiled") + count("functions_reused"), 2);
    assert_eq!(json["dry_run"], false);
    assert_eq!(json["cells"][0]["dependents"], serde_json::json!(["user"]));
    assert_eq!(json["diff"]["functions"]["changed"], serde_json::json!(["div"]));
    assert_eq!(replies[1].to_string(), "1: i32\n");
    assert!(replies[2].to_string().contains("waits for a rollback: math@1"), "{}", replies[2]);
    assert_eq!(replies[2].json()[0]["previous"], serde_json::json!(["math@1"]));
    assert!(replies[3].to_string().contains("math went from version 2 to "), "{}", replies[3]);
}

#[test]
fn a_dry_run_changes_nothing_and_a_refused_swap_names_every_reason() {
    let lines = ["load math.wat", "load user.wat", "swap math math2.wat --dry-run", "call math::rem 9 4"];
    let replies = run(&lines);
    let text = replies[2].clone().unwrap().to_string();
    assert!(text.contains("math would go from version 1 to 2") && text.contains("+ rem"), "{text}");
    assert!(replies[3].is_err());
    let refused = last(&["load math.wat", "load user.wat", "swap math other.wat"]).unwrap_err();
    assert_eq!(refused.kind, Kind::Link);
    assert!(refused.message.contains("div") && refused.message.contains("user"), "{}", refused.message);
    assert_eq!(last(&["load math.wat", "swap math bad.wat"]).unwrap_err().kind, Kind::Invalid);
    assert_eq!(last(&["load math.wat", "swap math math2.wat --state hope"]).unwrap_err().kind, Kind::Usage);
    assert!(last(&["load math.wat", "rollback math"]).is_err());
}

#[test]
fn dependencies_are_a_graph_that_graphviz_reads() {
    let text = last(&["load math.wat", "load user.wat", "deps --dot"]).unwrap().to_string();
    assert_eq!(text, "digraph cells {\n  \"math\";\n  \"user\";\n  \"user\" -> \"math\" [label=\"div\"];\n}\n");
    let text = last(&["load quotes.wat as q\\\"x", "load uses_quotes.wat as u", "deps u --dot"]).unwrap().to_string();
    assert!(text.contains(r#""u" -> "q\"x" [label="a\"b\\c"#), "{text}");
}

#[test]
fn files_that_never_change_cannot_be_watched() {
    let failure = last(&["load math.wat", "watch math math.wat"]).unwrap_err();
    assert!(failure.message.contains("cannot be watched"), "{}", failure.message);
}

#[test]
fn ls_says_which_task_is_inside_by_which_cell_and_how_many_wait() {
    use std::sync::mpsc;
    let namespace = CrateNamespace::new("test", None);
    let (entered, is_inside) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    let may_leave = std::sync::Mutex::new(may_leave);
    namespace
        .define("env", "stay", move || {
            entered.send(runtime_port::task::current().id.get()).unwrap();
            may_leave.lock().unwrap().recv().unwrap();
        })
        .unwrap();
    let text = r#"(module (import "env" "stay" (func $stay)) (memory 1) (func (export "f") (call $stay)))"#;
    let busy = namespace.load_wasm("busy", &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap();
    let f = busy.typed_func::<(), ()>("f").unwrap();
    let domain = busy.instance().unwrap().domain().unwrap();
    drop(busy);
    let mut host = modules();
    let mut shell = Shell::new(namespace, &mut host);
    let mut list =
        || (shell.run_line("ls").unwrap().unwrap().to_string(), shell.run_line("--json ls").unwrap().unwrap());
    assert!(!list().0.contains("inside"), "{}", list().0);
    std::thread::scope(|s| {
        let call = || {
            runtime_port::platform().tasks().attach().unwrap();
            f.call(()).unwrap();
        };
        s.spawn(call);
        let task = is_inside.recv().unwrap();
        assert!(list().0.contains(&format!("inside of busy: task {task}, by busy\n")), "{}", list().0);
        s.spawn(call);
        while domain.owner().is_some_and(|inside| inside.waiting == 0) {
            std::thread::yield_now();
        }
        let (text, json) = list();
        assert!(text.contains(&format!("inside of busy: task {task}, by busy; 1 task waits\n")), "{text}");
        let inside = &json.json().as_array().unwrap().iter().find(|c| c["cell"] == "busy").unwrap()["inside"];
        assert_eq!(*inside, serde_json::json!({ "task": task, "by": "busy", "waiting": 1 }));
        leave.send(()).unwrap();
        assert_ne!(is_inside.recv().unwrap(), task);
        leave.send(()).unwrap();
    });
    assert!(!list().0.contains("inside"), "{}", list().0);
}
