//! Loading, linking, calling and unloading cells on the hosted port.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{AddPolicy, CrateNamespace, LoadError, LoadOptions, StrongCrateRef, UnloadError, Val};
use std::sync::Arc;
use wasm_cell::trap::TrapCode;

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

fn namespace() -> Arc<CrateNamespace> {
    CrateNamespace::new("test", None)
}

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    ns.load_wasm(name, &wat(text), LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn call1(cell: &StrongCrateRef, name: &str, args: &[Val]) -> Val {
    let mut results = [Val::I32(0)];
    cell.func(name).unwrap().call(args, &mut results).unwrap();
    results[0]
}

const ADDER: &str = r#"(module (func (export "add") (param i32 i32) (result i32) local.get 0 local.get 1 i32.add))"#;

#[test]
fn a_loaded_cell_answers_calls() {
    let ns = namespace();
    let cell = load(&ns, "adder", ADDER);
    assert_eq!(call1(&cell, "add", &[Val::I32(2), Val::I32(40)]), Val::I32(42));
    let add = cell.typed_func::<(i32, i32), i32>("add").unwrap();
    assert_eq!(add.call((5, 6)).unwrap(), 11);
}

#[test]
fn a_cell_calls_another_through_its_import() {
    let ns = namespace();
    load(&ns, "adder", ADDER);
    let user = load(
        &ns,
        "user",
        r#"(module (import "adder" "add" (func $add (param i32 i32) (result i32)))
            (func (export "double") (param i32) (result i32) local.get 0 local.get 0 call $add))"#,
    );
    assert_eq!(call1(&user, "double", &[Val::I32(21)]), Val::I32(42));
    let adder = ns.get_crate("adder").unwrap();
    let dependents = adder.dependents();
    assert_eq!(dependents.len(), 1);
    assert_eq!(&*dependents[0].0.crate_name, "user");
    assert_eq!(&*dependents[0].1.name, "adder::add");
    assert_eq!(user.dependencies()[0].0.name, dependents[0].1.name);
}

#[test]
fn memories_tables_and_globals_are_shared_by_import() {
    let ns = namespace();
    let owner = load(
        &ns,
        "owner",
        r#"(module (memory (export "mem") 1 4) (table (export "tab") 2 funcref) (global (export "g") (mut i32) (i32.const 7))
            (global (export "k") i64 (i64.const 99))
            (func (export "peek") (result i32) (i32.load (i32.const 16)))
            (func (export "g_now") (result i32) global.get 0)
            (func (export "call0") (result i32) (call_indirect (result i32) (i32.const 0))))"#,
    );
    let user = load(
        &ns,
        "user",
        r#"(module (memory (import "owner" "mem") 1) (table (import "owner" "tab") 1 funcref)
            (global $g (import "owner" "g") (mut i32)) (global $k (import "owner" "k") i64)
            (elem (i32.const 0) func $five) (func $five (result i32) i32.const 5)
            (data (i32.const 16) "\2a\00\00\00")
            (func (export "set") (param i32) (global.set $g (local.get 0)))
            (func (export "k") (result i64) global.get $k)
            (func (export "grow") (result i32) (memory.grow (i32.const 1))))"#,
    );
    assert_eq!(call1(&owner, "peek", &[]), Val::I32(42));
    assert_eq!(call1(&owner, "call0", &[]), Val::I32(5));
    user.func("set").unwrap().call(&[Val::I32(123)], &mut []).unwrap();
    assert_eq!(call1(&owner, "g_now", &[]), Val::I32(123));
    assert_eq!(call1(&user, "k", &[]), Val::I64(99));
    assert_eq!(call1(&user, "grow", &[]), Val::I32(1));
    assert_eq!(owner.instance().unwrap().memory(0).unwrap().pages(), 2);
}

#[test]
fn host_closures_and_native_functions_are_imported_by_type() {
    extern "C-unwind" fn triple(x: i32) -> i32 {
        x.wrapping_mul(3)
    }
    let ns = namespace();
    ns.define("env", "plus", |a: i32, b: i32| a + b).unwrap();
    let ty = wasm_cell::types::FuncType::new([wasm_cell::types::ValType::I32], [wasm_cell::types::ValType::I32]);
    // SAFETY: `triple` has this signature.
    unsafe { ns.define_native("env", "triple", ty, triple as *const () as usize) }.unwrap();
    let user = load(
        &ns,
        "user",
        r#"(module (import "env" "plus" (func $plus (param i32 i32) (result i32)))
            (import "env" "triple" (func $triple (param i32) (result i32)))
            (table funcref (elem $plus $triple))
            (func (export "both") (param i32) (result i32) (call $plus (call $triple (local.get 0)) (i32.const 1)))
            (func (export "indirect") (param i32) (result i32)
                (call_indirect (param i32) (result i32) (local.get 0) (i32.const 1))))"#,
    );
    assert_eq!(call1(&user, "both", &[Val::I32(5)]), Val::I32(16));
    assert_eq!(call1(&user, "indirect", &[Val::I32(5)]), Val::I32(15));
}

#[test]
fn every_missing_import_is_named_with_its_type_and_what_is_spelled_alike() {
    let ns = namespace();
    load(&ns, "adder", ADDER);
    let bytes = wat(r#"(module (import "adder" "ad" (func (param i32 i32) (result i32)))
            (import "nowhere" "thing" (memory 1))
            (import "adder" "add" (func (param i64))))"#);
    let before = (ns.crate_count(), ns.symbol_count());
    let error = ns.load_wasm("user", &bytes, LoadOptions::default()).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("unknown import `adder::ad`: expected func (i32, i32) -> (i32); did you mean `adder::add`"),
        "{text}"
    );
    assert!(text.contains("unknown import `nowhere::thing`: expected memory 1"), "{text}");
    assert!(
        text.contains(
            "incompatible import type for `adder::add`: expected func (i64) -> (), found func (i32, i32) -> (i32)"
        ),
        "{text}"
    );
    assert_eq!((ns.crate_count(), ns.symbol_count()), before);
    assert!(ns.get_crate("adder").unwrap().dependents().is_empty());
}

#[test]
fn unloading_is_refused_while_others_depend_and_force_leaves_traps() {
    let ns = namespace();
    let adder = load(&ns, "adder", ADDER);
    let add = adder.typed_func::<(i32, i32), i32>("add").unwrap();
    let user = load(
        &ns,
        "user",
        r#"(module (import "adder" "add" (func $add (param i32 i32) (result i32)))
            (func (export "double") (param i32) (result i32) local.get 0 local.get 0 call $add))"#,
    );
    let error = ns.unload("adder").unwrap_err();
    assert!(matches!(&error, UnloadError::InUse { dependents, .. } if dependents[0].contains("`user`")), "{error}");
    assert_eq!(call1(&user, "double", &[Val::I32(4)]), Val::I32(8));

    ns.unload_force("adder").unwrap();
    assert!(ns.get_crate("adder").is_none());
    assert!(ns.get_symbol("adder::add").upgrade().is_none() || ns.find_symbols_starting_with("adder").is_empty());
    let trap = user.typed_func::<(i32,), i32>("double").unwrap().call((1,)).unwrap_err();
    assert_eq!(trap.code(), TrapCode::FunctionGone);
    assert_eq!(add.call((1, 2)).unwrap_err().code(), TrapCode::FunctionGone);
    ns.unload("user").unwrap();
    assert_eq!(ns.crate_count(), 0);
}

#[test]
fn memories_outlive_a_forced_unload_as_long_as_somebody_uses_them() {
    let ns = namespace();
    load(&ns, "owner", r#"(module (memory (export "mem") 1) (global (export "g") (mut i32) (i32.const 5)))"#);
    let user = load(
        &ns,
        "user",
        r#"(module (memory (import "owner" "mem") 1) (global $g (import "owner" "g") (mut i32))
            (func (export "rw") (param i32) (result i32)
                (i32.store (i32.const 8) (local.get 0)) (global.set $g (local.get 0))
                (i32.add (i32.load (i32.const 8)) (global.get $g))))"#,
    );
    ns.unload_force("owner").unwrap();
    assert_eq!(call1(&user, "rw", &[Val::I32(20)]), Val::I32(40));
}

#[test]
fn a_name_that_is_taken_is_refused_replaced_or_kept_by_policy() {
    let ns = namespace();
    let first = load(&ns, "a", r#"(module (func (export "f") (result i32) i32.const 1))"#);
    let second = wat(r#"(module (func (export "f") (result i32) i32.const 2))"#);
    let error = ns.load_wasm("a", &second, LoadOptions::default()).unwrap_err();
    assert!(matches!(error, LoadError::NameTaken { .. }));
    let kept = ns.load_wasm("a", &second, LoadOptions::default().policy(AddPolicy::KeepExisting)).unwrap();
    assert!(Arc::ptr_eq(&kept, &first));
    let replaced = ns.load_wasm("a", &second, LoadOptions::default().policy(AddPolicy::Replace)).unwrap();
    assert_eq!(call1(&replaced, "f", &[]), Val::I32(2));
    assert_eq!(replaced.version(), 2);
    assert!(first.is_unloaded());
    load(&ns, "user", r#"(module (import "a" "f" (func (result i32))))"#);
    let error = ns.load_wasm("a", &second, LoadOptions::default().policy(AddPolicy::Replace)).unwrap_err();
    assert!(error.to_string().contains("`user`"), "{error}");
}

#[test]
fn a_load_that_traps_leaves_the_namespace_as_it_was() {
    let ns = namespace();
    let owner = load(
        &ns,
        "owner",
        r#"(module (memory (export "mem") 1) (table (export "tab") 4 funcref)
        (func (export "call") (param i32) (result i32) (call_indirect (result i32) (local.get 0)))
        (func (export "peek") (result i32) (i32.load8_u (i32.const 0))))"#,
    );
    let before = (ns.crate_count(), ns.symbol_count());
    let bytes = wat(r#"(module (memory (import "owner" "mem") 1) (table (import "owner" "tab") 4 funcref)
        (func $f (result i32) i32.const 77) (elem (i32.const 1) $f) (data (i32.const 0) "\09") (data (i32.const 65536) "x"))"#);
    let error = ns.load_wasm("bad", &bytes, LoadOptions::default()).unwrap_err();
    assert!(matches!(&error, LoadError::Trap { trap, .. } if trap.code() == TrapCode::MemoryOutOfBounds), "{error}");
    assert_eq!((ns.crate_count(), ns.symbol_count()), before);
    // What it wrote before stays, and its function lives on in the foreign table.
    assert_eq!(call1(&owner, "peek", &[]), Val::I32(9));
    assert_eq!(call1(&owner, "call", &[Val::I32(1)]), Val::I32(77));
    ns.unload("owner").unwrap();
}

#[test]
fn the_start_function_runs_before_the_cell_is_visible() {
    let ns = namespace();
    let cell = load(
        &ns,
        "s",
        r#"(module (global $g (mut i32) (i32.const 0)) (func $s (global.set $g (i32.const 3))) (start $s)
        (func (export "g") (result i32) global.get $g))"#,
    );
    assert_eq!(call1(&cell, "g", &[]), Val::I32(3));
    let error =
        ns.load_wasm("t", &wat("(module (func $s unreachable) (start $s))"), LoadOptions::default()).unwrap_err();
    assert!(matches!(&error, LoadError::Trap { trap, .. } if trap.code() == TrapCode::Unreachable), "{error}");
    assert!(ns.get_crate("t").is_none());
}

#[test]
fn function_references_keep_their_identity_through_reexport_and_reload() {
    let ns = namespace();
    let a = load(
        &ns,
        "a",
        r#"(module (func (export "f") (result i32) i32.const 1) (table (export "t") 1 funcref) (elem (i32.const 0) 0))"#,
    );
    let b = load(&ns, "b", r#"(module (import "a" "f" (func $f (result i32))) (export "g" (func $f)))"#);
    let (f, g) = (a.func("f").unwrap().reference(), b.func("g").unwrap().reference());
    assert_eq!(f, g);
    let in_table = a.instance().unwrap().table(0).unwrap().get(0).unwrap();
    assert_eq!(f.unwrap().address() as u64, in_table);
    ns.unload("b").unwrap();
    ns.unload("a").unwrap();
    // The cell exported a table, so its entries may be held anywhere: the next cell of the name takes them over.
    let again = load(
        &ns,
        "a",
        r#"(module (func (export "f") (result i32) i32.const 2) (table (export "t") 1 funcref) (elem (i32.const 0) 0))"#,
    );
    assert_eq!(again.func("f").unwrap().reference(), f);
    assert_eq!(call1(&again, "f", &[]), Val::I32(2));
}

#[test]
fn parents_are_searched_and_children_hide_their_names() {
    let parent = namespace();
    load(&parent, "lib", r#"(module (func (export "f") (result i32) i32.const 1))"#);
    let child = CrateNamespace::new("child", Some(parent.clone()));
    let user = r#"(module (import "lib" "f" (func $f (result i32))) (func (export "g") (result i32) call $f))"#;
    assert_eq!(call1(&load(&child, "u1", user), "g", &[]), Val::I32(1));
    load(&child, "lib", r#"(module (func (export "f") (result i32) i32.const 2))"#);
    assert_eq!(call1(&load(&child, "u2", user), "g", &[]), Val::I32(2));
    assert!(parent.unload("lib").is_err());
    assert_eq!(child.crate_names(true).len(), 4);
    assert!(child.get_symbol("u1::g").upgrade().is_some());
    assert!(parent.get_symbol("u1::g").upgrade().is_none());
}

#[test]
fn addresses_lead_to_cells_and_sections() {
    let ns = namespace();
    let cell = load(&ns, "adder", ADDER);
    let section = cell.export("add").unwrap();
    let (found, offset) = ns.get_section_containing_address(section.virt_addr + 1).unwrap();
    assert_eq!((&*found.name, offset), ("adder::add", 1));
    let data = cell.instance().unwrap().image().data().start;
    let at = runtime_port::memory::VirtualAddress::new_canonical(data + 8);
    assert_eq!(&*ns.get_section_containing_address(at).unwrap().0.name, ".data");
    assert!(ns.dump_symbol_map().contains("adder::add"));
}

#[test]
fn missing_cells_come_from_providers_and_circles_are_named() {
    let ns = namespace();
    ns.add_provider(Arc::new(|name: &str| {
        let text = match name {
            "lib" => r#"(module (func (export "f") (result i32) i32.const 7))"#,
            "a" => r#"(module (import "b" "f" (func)) (func (export "f")))"#,
            "b" => r#"(module (import "a" "f" (func)) (func (export "f")))"#,
            _ => return None,
        };
        Some(namespace_bridge::CellSource::Wasm(wat::parse_str(text).unwrap()))
    }));
    let user = load(
        &ns,
        "user",
        r#"(module (import "lib" "f" (func $f (result i32))) (func (export "g") (result i32) call $f))"#,
    );
    assert_eq!(call1(&user, "g", &[]), Val::I32(7));
    assert!(ns.get_symbol_or_load("lib::f").upgrade().is_some());
    let error = ns.load_wasm("c", &wat(r#"(module (import "a" "f" (func)))"#), LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("`a` -> `b` -> `a`"), "{error}");
    assert_eq!(ns.crate_count(), 2);
}

#[test]
fn a_long_chain_of_cells_loaded_on_demand_is_refused_before_the_stack_ends() {
    let ns = namespace();
    ns.add_provider(Arc::new(|name: &str| {
        let next = name.strip_prefix("link")?.parse::<u32>().ok()? + 1;
        let text = format!(r#"(module (import "link{next}" "f" (func $f)) (export "f" (func $f)))"#);
        Some(namespace_bridge::CellSource::Wasm(wat::parse_str(text).unwrap()))
    }));
    let error = ns.load_wasm("c", &wat(r#"(module (import "link0" "f" (func)))"#), LoadOptions::default()).unwrap_err();
    assert!(error.to_string().contains("load some of them first"), "{error}");
    assert_eq!(ns.crate_count(), 0);
}

#[test]
fn instances_of_one_module_share_frames_and_nothing_else() {
    let ns = namespace();
    let text = r#"(module (global $g (mut i32) (i32.const 0)) (memory 1)
        (func (export "inc") (result i32) (global.set $g (i32.add (global.get $g) (i32.const 1)))
            (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (i32.const 10)))
            (i32.add (global.get $g) (i32.load (i32.const 0)))))"#;
    let a = load(&ns, "a", text);
    let b = ns.load_module("b", a.module().unwrap(), LoadOptions::default()).unwrap();
    let c = load(&ns, "c", text);
    assert!(a.module().unwrap().frames().same_frames(c.module().unwrap().frames()));
    assert_eq!(call1(&a, "inc", &[]), Val::I32(11));
    assert_eq!(call1(&a, "inc", &[]), Val::I32(22));
    assert_eq!(call1(&b, "inc", &[]), Val::I32(11));
    assert_eq!(call1(&c, "inc", &[]), Val::I32(11));
}

#[test]
fn an_object_file_loads_like_the_module_it_was_made_from() {
    let ns = namespace();
    let object = namespace_bridge::compiler().unwrap().compile(&wat(ADDER), &Default::default()).unwrap();
    let elf = object.to_elf().unwrap();
    let cell = ns.load_elf("from_elf", &elf, LoadOptions::default()).unwrap();
    assert_eq!(call1(&cell, "add", &[Val::I32(1), Val::I32(2)]), Val::I32(3));
    let cell = ns.load_object("from_object", object, LoadOptions::default()).unwrap();
    assert_eq!(call1(&cell, "add", &[Val::I32(3), Val::I32(4)]), Val::I32(7));
    let error = ns.load_elf("broken", &elf[..elf.len() / 2], LoadOptions::default()).unwrap_err();
    assert!(matches!(error, LoadError::Compile { .. }), "{error}");
}

#[test]
fn a_raw_entry_is_a_function_pointer_that_traps_once_the_cell_is_gone() {
    let ns = namespace();
    let cell = load(&ns, "adder", ADDER);
    // SAFETY: the signature is the function's; no call runs while the cell is unloaded.
    let add: extern "C-unwind" fn(i32, i32) -> i32 = unsafe { cell.entry("add") }.unwrap();
    assert_eq!(add(20, 22), 42);
    drop(cell);
    ns.unload("adder").unwrap();
    let trap = namespace_bridge::catch_trap(|| add(1, 2)).unwrap_err();
    assert_eq!(trap.code(), TrapCode::FunctionGone);
    // The next cell of the name takes the entry over.
    load(&ns, "adder", ADDER);
    assert_eq!(add(1, 2), 3);
}

#[test]
fn closures_learn_who_calls_them() {
    let ns = namespace();
    ns.define("env", "who", |caller: &namespace_bridge::Caller, at: u32| {
        let cell = caller.cell().unwrap().to_string();
        caller.write(u64::from(at), cell.as_bytes()).unwrap();
        cell.len() as u32
    })
    .unwrap();
    let text = r#"(module (import "env" "who" (func $who (param i32) (result i32))) (memory 1)
        (func (export "f") (result i32) (drop (call $who (i32.const 8))) (i32.load8_u (i32.const 8))))"#;
    for name in ["alpha", "beta"] {
        assert_eq!(call1(&load(&ns, name, text), "f", &[]), Val::I32(i32::from(name.as_bytes()[0])));
    }
}

#[test]
fn the_embedder_defines_memories_tables_and_globals() {
    use wasm_cell::types::{GlobalType, MemoryType, RefType, TableType, ValType};
    let ns = namespace();
    let options = LoadOptions::default();
    let ty = MemoryType { is64: false, shared: false, min: 1, max: Some(2), page_size_log2: 16 };
    let memory = ns.define_memory("env", "m", ty, &options).unwrap();
    let ty = TableType { element: RefType::FUNCREF, is64: false, min: 2, max: None };
    let table = ns.define_table("env", "t", ty, &options).unwrap();
    let ty = GlobalType { content: ValType::I64, mutable: true };
    let global = ns.define_global("env", "g", ty, Val::I64(5)).unwrap();
    assert!(ns.define_global("env", "h", ty, Val::I32(5)).is_err());
    assert!(ns.define_global("env", "g", ty, Val::I64(6)).unwrap_err().to_string().contains("env::g"));
    let cell = load(
        &ns,
        "user",
        r#"(module (memory (import "env" "m") 1 2) (table (import "env" "t") 1 funcref) (global $g (import "env" "g") (mut i64))
            (elem (i32.const 1) func $f) (func $f)
            (func (export "run") (result i32) (global.set $g (i64.add (global.get $g) (i64.const 1)))
                (i32.store (i32.const 4) (i32.const 77)) (memory.grow (i32.const 5))))"#,
    );
    assert_eq!(call1(&cell, "run", &[]), Val::I32(-1));
    let mut word = [0; 4];
    memory.read(4, &mut word).unwrap();
    assert_eq!((u32::from_le_bytes(word), global.bits()), (77, 6));
    assert_ne!(table.get(1), Some(0));
    assert_eq!(table.get(2), None);
}
