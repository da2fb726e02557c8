//! What a hostile or careless embedder or guest tries: every attempt ends in an error or a trap.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{
    AddPolicy, Caller, CrateNamespace, FuncRef, LoadOptions, StrongCrateRef, Trap, Val, catch_trap,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use wasm_cell::trap::TrapCode;

fn namespace() -> Arc<CrateNamespace> {
    CrateNamespace::new("attacked", None)
}

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    let bytes = wat::parse_str(text).unwrap();
    ns.load_wasm(name, &bytes, LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn call(cell: &StrongCrateRef, name: &str, args: &[Val]) -> Result<Val, TrapCode> {
    let func = cell.func(name).unwrap();
    let mut results = vec![Val::I32(0); func.ty().results.len()];
    match func.call(args, &mut results) {
        Ok(()) => Ok(results.first().copied().unwrap_or(Val::I32(0))),
        Err(e) => Err(e.into_trap().unwrap().code()),
    }
}

/// Keeps a function reference in a table of its own and calls it.
const KEEPER: &str = r#"(module
    (type $t (func (result i32)))
    (table 4 funcref)
    (func (export "put") (param i32 funcref) local.get 0 local.get 1 table.set 0)
    (func (export "call") (param i32) (result i32) local.get 0 call_indirect (type $t)))"#;

#[test]
fn a_reference_taken_from_a_handle_outlives_cell_handle_and_namespace() {
    let ns = namespace();
    let keeper = load(&ns, "keeper", KEEPER);
    let other = namespace();
    let victim = load(&other, "victim", r#"(module (func (export "f") (result i32) i32.const 7))"#);
    let reference = victim.func("f").unwrap().reference();
    call(&keeper, "put", &[Val::I32(0), Val::FuncRef(reference)]).unwrap();
    assert_eq!(call(&keeper, "call", &[Val::I32(0)]), Ok(Val::I32(7)));
    drop(victim);
    other.unload("victim").unwrap();
    drop(other);
    assert_eq!(call(&keeper, "call", &[Val::I32(0)]), Err(TrapCode::FunctionGone));
}

#[test]
fn a_reference_to_a_native_or_host_function_can_be_called_indirectly() {
    extern "C-unwind" fn three() -> i32 {
        3
    }
    let ns = namespace();
    let keeper = load(&ns, "keeper", KEEPER);
    let other = namespace();
    let ty = wasm_cell::types::FuncType::new([], [wasm_cell::types::ValType::I32]);
    // SAFETY: a function of this type.
    unsafe { other.define_native("native", "three", ty, three as *const () as usize) }.unwrap();
    other.define("host", "four", || 4i32).unwrap();
    for (i, (cell, name)) in [("native", "three"), ("host", "four")].into_iter().enumerate() {
        let reference = other.get_crate(cell).unwrap().func(name).unwrap().reference();
        call(&keeper, "put", &[Val::I32(i as i32), Val::FuncRef(reference)]).unwrap();
    }
    assert_eq!(call(&keeper, "call", &[Val::I32(0)]), Ok(Val::I32(3)));
    assert_eq!(call(&keeper, "call", &[Val::I32(1)]), Ok(Val::I32(4)));
    drop(other);
    assert_eq!(call(&keeper, "call", &[Val::I32(0)]), Ok(Val::I32(3)));
    // The closure is gone, and whoever makes functions of its type now does not get its place.
    ns.define("host", "five", || 5i32).unwrap();
    let _five = ns.get_crate("host").unwrap().func("five").unwrap();
    assert_eq!(call(&keeper, "call", &[Val::I32(1)]), Err(TrapCode::FunctionGone));
}

#[test]
fn a_reference_of_another_type_is_refused_where_a_typed_one_is_expected() {
    let ns = namespace();
    let cell = load(
        &ns,
        "typed",
        r#"(module (type $t (func (param i64 i64 i64) (result i64)))
            (func $wrong (export "wrong") (result i32) i32.const 1)
            (func $right (export "right") (type $t) local.get 2)
            (func (export "apply") (param (ref null $t)) (result i64)
                i64.const 1 i64.const 2 i64.const 3 local.get 0 call_ref $t))"#,
    );
    let wrong = cell.func("wrong").unwrap().reference();
    let right = cell.func("right").unwrap().reference();
    let apply = cell.func("apply").unwrap();
    let mut result = [Val::I64(0)];
    apply.call(&[Val::FuncRef(right)], &mut result).unwrap();
    assert_eq!(result, [Val::I64(3)]);
    assert!(apply.call(&[Val::FuncRef(wrong)], &mut result).unwrap_err().into_trap().is_err());
    // The typed form knows no concrete reference types, so it cannot make sure.
    assert!(apply.typed::<(Option<FuncRef>,), i64>().is_err());
}

#[test]
fn an_escaped_reference_to_a_host_function_never_becomes_another_function() {
    let ns = namespace();
    ns.define("env", "one", || 1i32).unwrap();
    ns.define("env", "two", || 2i32).unwrap();
    let user = |function: &str| {
        format!(
            r#"(module (import "env" "{function}" (func $f (result i32))) (import "holder" "t" (table 4 funcref))
                (elem (i32.const 0) func $f))"#
        )
    };
    let holder = load(
        &ns,
        "holder",
        r#"(module (type $t (func (result i32))) (table (export "t") 4 funcref)
            (func (export "call") (param i32) (result i32) local.get 0 call_indirect (type $t)))"#,
    );
    load(&ns, "a", &user("one"));
    assert_eq!(call(&holder, "call", &[Val::I32(0)]), Ok(Val::I32(1)));
    ns.unload("a").unwrap();
    let b = load(
        &ns,
        "b",
        r#"(module (import "env" "two" (func $f (result i32))) (func (export "g") (result i32) call $f))"#,
    );
    assert_eq!(call(&b, "g", &[]), Ok(Val::I32(2)));
    // `a` goes when no task is inside of anything; until then its import is what it was.
    let now = call(&holder, "call", &[Val::I32(0)]);
    assert!(matches!(now, Err(TrapCode::FunctionGone) | Ok(Val::I32(1))), "{now:?}");
}

#[test]
fn a_raw_entry_outside_of_any_catch_ends_every_trap_as_a_panic() {
    let ns = namespace();
    let cell = load(
        &ns,
        "raw",
        r#"(module (memory 1) (func (export "load") (param i32) (result i32) local.get 0 i32.load)
            (func (export "stop") (param i32) (result i32) unreachable))"#,
    );
    for (name, code) in [("stop", TrapCode::Unreachable), ("load", TrapCode::MemoryOutOfBounds)] {
        // SAFETY: the function's signature; the cell stays.
        let entry: extern "C-unwind" fn(i32) -> i32 = unsafe { cell.entry(name) }.unwrap();
        let panic = catch_unwind(AssertUnwindSafe(|| entry(-1))).unwrap_err();
        assert_eq!(panic.downcast_ref::<Trap>().unwrap().code(), code, "{name}");
        assert_eq!(catch_trap(|| entry(-1)).unwrap_err().code(), code, "{name}");
    }
}

#[test]
fn a_cell_may_unload_itself_and_its_namespace_from_inside() {
    let ns = namespace();
    let mine = Arc::downgrade(&ns);
    ns.define("env", "unload", move |caller: &Caller| {
        let ns = mine.upgrade().unwrap();
        ns.unload_force("suicidal").unwrap();
        ns.unload_force("env").unwrap();
        caller.cell().map_or(0, |n| n.len() as i32)
    })
    .unwrap();
    let cell = load(
        &ns,
        "suicidal",
        r#"(module (import "env" "unload" (func $u (result i32))) (memory 1) (global $g (mut i32) (i32.const 5))
            (func (export "go") (result i32) (local i32)
                call $u local.set 0
                i32.const 0 i32.const 30 i32.store
                i32.const 1 memory.grow drop
                i32.const 0 i32.load global.get $g i32.add local.get 0 i32.add))"#,
    );
    let go = cell.typed_func::<(), i32>("go").unwrap();
    drop(cell);
    drop(ns.clone());
    assert_eq!(go.call(()).unwrap(), 43);
    drop(ns);
    assert_eq!(go.call(()).unwrap_err().code(), TrapCode::FunctionGone);
}

#[test]
fn a_start_function_may_load_call_and_unload_through_the_host() {
    let ns = namespace();
    let mine = Arc::downgrade(&ns);
    ns.define("env", "nest", move || -> i32 {
        let ns = mine.upgrade().unwrap();
        let inner = load(&ns, "inner", r#"(module (func (export "f") (result i32) i32.const 9))"#);
        let n = inner.typed_func::<(), i32>("f").unwrap().call(()).unwrap();
        assert!(ns.get_crate("outer").is_none());
        load(&ns, "outer", r#"(module (func (export "thief")))"#);
        n
    })
    .unwrap();
    let text = r#"(module (import "env" "nest" (func $n (result i32))) (global $g (mut i32) (i32.const 0))
        (func $start call $n global.set $g) (start $start))"#;
    let error = ns.load_wasm("outer", &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap_err();
    assert!(matches!(error, namespace_bridge::LoadError::NameTaken { .. }), "{error}");
    assert!(ns.get_crate("outer").unwrap().export("thief").is_some());
}

#[test]
fn stack_overflow_in_start_and_through_the_host_is_a_trap() {
    let ns = namespace();
    let text = r#"(module (func $f call $f) (start $f))"#;
    for _ in 0..3 {
        let error = ns.load_wasm("deep", &wat::parse_str(text).unwrap(), LoadOptions::default()).unwrap_err();
        let namespace_bridge::LoadError::Trap { trap, .. } = error else { panic!("{error}") };
        assert_eq!(trap.code(), TrapCode::StackOverflow);
    }
    ns.define("env", "back", |caller: &Caller, n: i32| -> Result<i32, Trap> {
        let again = caller.func("go").unwrap().typed::<(i32,), i32>().unwrap();
        again.call((n + 1,))
    })
    .unwrap();
    let cell = load(
        &ns,
        "pingpong",
        r#"(module (import "env" "back" (func $b (param i32) (result i32)))
            (func (export "go") (param i32) (result i32) local.get 0 call $b))"#,
    );
    for _ in 0..3 {
        assert_eq!(call(&cell, "go", &[Val::I32(0)]), Err(TrapCode::StackOverflow));
    }
}

#[test]
fn a_panicking_host_function_leaves_no_lock_held() {
    let ns = namespace();
    let mine = Arc::downgrade(&ns);
    ns.define("env", "panic", move |caller: &Caller| -> () {
        assert!(caller.memory(0).is_some());
        let _ns = mine.upgrade().unwrap();
        panic!("on purpose");
    })
    .unwrap();
    let text = r#"(module (import "env" "panic" (func $p)) (memory 1) (func (export "go") call $p) (start $p))"#;
    let bytes = wat::parse_str(text).unwrap();
    assert!(catch_unwind(AssertUnwindSafe(|| ns.load_wasm("p", &bytes, LoadOptions::default()))).is_err());
    assert!(ns.get_crate("p").is_none());
    load(&ns, "p", r#"(module)"#);
    ns.unload("p").unwrap();
}

#[test]
fn a_second_name_for_symbols_keeps_their_cell_in_use() {
    let ns = namespace();
    let cell = load(&ns, "original", r#"(module (func (export "f") (result i32) i32.const 1))"#);
    ns.add_symbols("facade", &cell.global_sections(), AddPolicy::Refuse).unwrap();
    let user = load(
        &ns,
        "user",
        r#"(module (import "facade" "f" (func $f (result i32))) (func (export "g") (result i32) call $f))"#,
    );
    let error = ns.unload("original").unwrap_err().to_string();
    assert!(error.contains("facade"), "{error}");
    assert_eq!(call(&user, "g", &[]), Ok(Val::I32(1)));
    ns.unload("user").unwrap();
    assert!(ns.undefine("facade", "f"));
    ns.unload("original").unwrap();
}

#[test]
fn names_with_the_separator_in_them_stay_apart() {
    let ns = namespace();
    load(&ns, "a::b", r#"(module (func (export "c") (result i32) i32.const 1))"#);
    ns.define("a", "d", || 0i32).unwrap();
    assert!(!ns.undefine("a", "b::c"));
    assert!(ns.get_symbol("a::b::c").upgrade().is_some());
}

#[test]
fn a_memory_of_single_bytes_never_reaches_a_size_that_its_index_type_cannot_say() {
    let ns = namespace();
    let cell = load(
        &ns,
        "bytes",
        r#"(module (memory 1 (pagesize 1)) (func (export "grow") (param i32) (result i32) local.get 0 memory.grow)
            (func (export "size") (result i32) memory.size))"#,
    );
    assert_eq!(call(&cell, "grow", &[Val::I32(-1)]), Ok(Val::I32(-1)));
    assert_eq!(call(&cell, "size", &[]), Ok(Val::I32(1)));
}

#[test]
fn traps_of_many_tasks_do_not_mind_loads_and_unloads() {
    let ns = namespace();
    let cell = load(
        &ns,
        "trapper",
        r#"(module (memory 1) (table 1 funcref) (type $t (func)) (func $deep call $deep)
            (func (export "f0") unreachable) (func (export "f1") i32.const -1 i32.load drop)
            (func (export "f2") i32.const 0 call_indirect (type $t)) (func (export "f3") call $deep))"#,
    );
    let codes =
        [TrapCode::Unreachable, TrapCode::MemoryOutOfBounds, TrapCode::IndirectCallToNull, TrapCode::StackOverflow];
    std::thread::scope(|scope| {
        for t in 0..4 {
            let (cell, ns) = (cell.clone(), ns.clone());
            scope.spawn(move || {
                for i in 0..200 {
                    let k = (i + t) % 4;
                    assert_eq!(call(&cell, &format!("f{k}"), &[]), Err(codes[k]));
                    let name = format!("temporary{t}");
                    let text = format!(r#"(module (func (export "x") (result i32) i32.const {}))"#, i % 7);
                    let other = load(&ns, &name, &text);
                    assert_eq!(call(&other, "x", &[]), Ok(Val::I32(i as i32 % 7)));
                    ns.unload(&name).unwrap();
                }
            });
        }
    });
}

#[test]
fn a_closure_that_is_called_by_reference_may_remove_its_own_definition() {
    let ns = namespace();
    let keeper = load(&ns, "keeper", KEEPER);
    let (of_ns, state) = (Arc::downgrade(&ns), Arc::new(vec![1i32; 1000]));
    let seen = Arc::downgrade(&state);
    ns.define("host", "once", move || {
        assert!(of_ns.upgrade().unwrap().undefine("host", "once"));
        namespace_bridge::reclaim();
        state.iter().sum::<i32>()
    })
    .unwrap();
    let reference = ns.get_crate("host").unwrap().func("once").unwrap().reference();
    call(&keeper, "put", &[Val::I32(0), Val::FuncRef(reference)]).unwrap();
    assert_eq!(call(&keeper, "call", &[Val::I32(0)]), Ok(Val::I32(1000)));
    assert_eq!(call(&keeper, "call", &[Val::I32(0)]), Err(TrapCode::FunctionGone));
    namespace_bridge::reclaim();
    // Another test's task may be inside.
    while seen.upgrade().is_some() {
        std::thread::yield_now();
        namespace_bridge::reclaim();
    }
}
