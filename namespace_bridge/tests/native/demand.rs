//! Cells that are loaded because others need them, or not at all.

use crate::compile::{Folder, cc, rustc, rustc_in, rustc_typed};
use crate::{entry, invoke, load, namespace};
use namespace_bridge::swap::{SwapRequest, SwapStep};
use namespace_bridge::{CellSource, CrateDirectory, CrateNamespace, LoadOptions, Val};
use runtime_port::fs::{DirRef, MemoryDirectory, write_all};
use std::sync::Arc;

const COUNTER: &str = r#"(module (global $n (mut i32) (i32.const 0))
    (func (export "inc") (param i32) (result i32)
        (global.set $n (i32.add (global.get $n) (local.get 0))) (global.get $n)))"#;

fn needs_all(flags: &[&str]) -> Vec<u8> {
    let include = format!("-I{}/../cell_export/include", env!("CARGO_MANIFEST_DIR"));
    let flags: Vec<&str> = flags.iter().copied().chain(["-O2", "-fPIC", &include]).collect();
    ["gcc", "clang"].iter().find_map(|c| cc(c, "needs_all.c", &flags)).expect("neither gcc nor clang is here")
}

/// Both halves of the ring, and a wasm cell.
fn providing(ns: &CrateNamespace) {
    let (a, b) = (rustc_typed("ring_a", &["-Copt-level=1"]), rustc_typed("ring_b", &["-Copt-level=1"]));
    ns.add_provider(Arc::new(move |name: &str| match name {
        "ring_a" => Some(CellSource::Native(a.clone())),
        "ring_b" => Some(CellSource::Native(b.clone())),
        "counter" => Some(CellSource::Wasm(wat::parse_str(COUNTER).unwrap())),
        _ => None,
    }));
}

#[test]
fn cells_that_need_each_other_in_a_circle_are_loaded_together() {
    let ns = namespace();
    providing(&ns);
    let a = load(&ns, "ring_a", &rustc_typed("ring_a", &["-Copt-level=3"]));
    assert_eq!(ns.crate_names(false).iter().map(|n| n.to_string()).collect::<Vec<_>>(), ["ring_a", "ring_b"]);
    assert_eq!(invoke(&a, "even", &[Val::I32(10)]).unwrap(), [Val::I32(1)]);
    assert_eq!(invoke(&a, "even", &[Val::I32(7)]).unwrap(), [Val::I32(0)]);
    assert!(ns.unload("ring_a").unwrap_err().to_string().contains("ring_b"));
    ns.unload_force("ring_a").unwrap();
    ns.unload("ring_b").unwrap();
}

#[test]
fn a_wasm_module_gets_the_native_cells_it_imports_from_a_provider() {
    let ns = namespace();
    providing(&ns);
    let text = r#"(module (import "ring_b" "odd" (func $odd (param i32) (result i32)))
                          (func (export "odd") (param i32) (result i32) (call $odd (local.get 0))))"#;
    let user = ns.load_wasm("user", &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap();
    assert_eq!(invoke(&user, "odd", &[Val::I32(9)]).unwrap(), [Val::I32(1)]);
    assert_eq!(ns.crate_count(), 3);
}

#[test]
fn a_load_that_fails_leaves_nothing_that_was_loaded_for_it() {
    let ns = namespace();
    providing(&ns);
    let before = runtime_port::unwind::registrations();
    let error = ns.load_native("all", &needs_all(&["-DMISSING"]), LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("1 symbol not found") && error.contains("does_not_exist"), "{error}");
    assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0));
    namespace_bridge::reclaim();
    assert!(runtime_port::unwind::registrations() <= before + 64, "other tests register too, but not this many");
    let all = load(&ns, "all", &needs_all(&[]));
    assert_eq!(invoke(&all, "use_all", &[Val::I32(4)]).unwrap(), [Val::I32(14)]);
    assert_eq!(ns.crate_count(), 4);
}

#[test]
fn an_initialiser_that_panics_ends_the_load() {
    extern "C-unwind" fn thrower() {
        panic!("not today");
    }
    let Some(object) = cc("clang", "init_panics.c", &["-O1", "-fPIC", "-fexceptions"]) else { return };
    let Some(plain) = cc("clang", "init_panics.c", &["-O1", "-fPIC", "-DPLAIN"]) else { return };
    let ns = namespace();
    let ty = wasm_cell::types::FuncType::new([], []);
    // SAFETY: the function has this type and stays.
    unsafe { ns.define_native("env", "thrower", ty, thrower as *const () as usize) }.unwrap();
    let error = ns.load_native("init", &object, LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("initialiser `start` panicked: not today"), "{error}");
    assert!(ns.get_crate("init").is_none() && ns.get_symbol("never").upgrade().is_none());
    // Definitions belong to a cell; the error says how they are spelled.
    let error = ns.load_native("init", &plain, LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("`thrower`; there is `env::thrower`"), "{error}");
}

#[test]
fn what_initialisers_did_is_undone_when_the_cell_does_not_come_into_service() {
    extern "C-unwind" fn thrower() {
        panic!("not today");
    }
    let flags = ["-O1", "-fPIC", "-fexceptions"];
    let Some(throws) = cc("clang", "init_undone.c", &flags) else { return };
    let Some(fine) = cc("clang", "init_undone.c", &[&flags[..], &["-DFINE"]].concat()) else { return };
    let ns = namespace();
    let ty = wasm_cell::types::FuncType::new([], []);
    // SAFETY: the function has this type and stays.
    unsafe { ns.define_native("env", "thrower", ty, thrower as *const () as usize) }.unwrap();
    let notes: Arc<std::sync::Mutex<Vec<i32>>> = Arc::default();
    let book = notes.clone();
    ns.define("env", "note", move |what: i32| book.lock().unwrap().push(what)).unwrap();
    let noted = || std::mem::take(&mut *notes.lock().unwrap());
    // Those before the one that panicked registered two functions; the cell's finaliser does not know how far it came.
    let error = ns.load_native("init", &throws, LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("initialiser `third` panicked: not today"), "{error}");
    assert_eq!(noted(), [1, 2, 12, 11]);
    // The same as a new version, which fails before and after it is initialised.
    ns.load_wasm("init", &wat::parse_str("(module)").unwrap(), LoadOptions::default()).unwrap();
    let error = ns.swap(SwapRequest::new("init").with_native(&throws)).unwrap_err().to_string();
    assert!(error.contains("initialiser `third` panicked: not today"), "{error}");
    assert_eq!(noted(), [1, 2, 12, 11]);
    ns.swap(SwapRequest::new("init").with_native(&fine).fail_at(SwapStep::Transfer)).unwrap_err();
    assert_eq!(noted(), []);
    ns.swap(SwapRequest::new("init").with_native(&fine).fail_at(SwapStep::Commit)).unwrap_err();
    assert_eq!(noted(), [1, 2, 12, 11, 9]);
    assert!(ns.get_crate("init").unwrap().is_wasm());
    ns.swap(SwapRequest::new("init").with_native(&fine)).unwrap();
    assert_eq!(noted(), [1, 2]);
    ns.unload("init").unwrap();
    assert_eq!(noted(), [12, 11, 9]);
}

#[test]
fn crates_come_from_a_folder_by_the_crate_in_the_symbol() {
    let folder = Folder::new();
    let (shapes, uses) = (
        rustc_in(&folder, "shapes", &["-Copt-level=2"]),
        rustc_in(&folder, "uses_shapes", &["-Copt-level=2", "--extern=shapes"]),
    );
    let directory: DirRef = MemoryDirectory::new("namespace");
    write_all(&directory, "ksse#shapes-0123456789abcdef.o", &shapes).unwrap();
    write_all(&directory, "notes.txt", b"nothing").unwrap();
    let parent = CrateNamespace::new("kernel", None);
    parent.add_provider(Arc::new(CrateDirectory::new(directory.clone())));
    let ns = CrateNamespace::new("applications", Some(parent.clone()));
    let cell =
        ns.load_crate_file("/apps/uses_shapes-fedcba9876543210.o", uses.clone(), LoadOptions::default()).unwrap();
    assert_eq!((&*cell.crate_name, parent.crate_count(), ns.crate_count()), ("uses_shapes", 1, 1));
    // SAFETY: the type is that of the fixture.
    assert_eq!(unsafe { entry::<extern "C-unwind" fn(u64) -> u64>(&cell, "uses_total") }(4), 24);
    // Two files for one crate are none.
    let (parent, other) = (CrateNamespace::new("kernel", None), directory);
    write_all(&other, "shapes.o", &shapes).unwrap();
    parent.add_provider(Arc::new(CrateDirectory::new(other)));
    let error = parent.load_native("uses", &uses, LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("shapes::total"), "{error}");
}

#[test]
fn symbols_that_exist_in_another_build_only_are_named_in_the_error() {
    let folder = Folder::new();
    rustc_in(&folder, "shapes", &["-Copt-level=2"]);
    let uses = rustc_in(&folder, "uses_shapes", &["-Copt-level=2", "--extern=shapes"]);
    let ns = namespace();
    load(&ns, "shapes", &rustc("shapes", &["-Copt-level=2", "-Cmetadata=other"]));
    let error = ns.load_native("uses_shapes", &uses, LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("`shapes::total::h") && error.contains("; there is `shapes::total::h"), "{error}");
}

#[test]
fn two_cells_cannot_define_the_same_symbol() {
    let ns = namespace();
    let shapes = rustc("shapes", &["-Copt-level=1"]);
    load(&ns, "shapes", &shapes);
    let error = ns.load_native("other", &shapes, LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("is defined by cell `shapes` already"), "{error}");
    assert_eq!(ns.crate_count(), 1);
    // A child may have its own.
    let child = CrateNamespace::new("child", Some(ns.clone()));
    load(&child, "other", &shapes);
}
