//! Function types whose ids collide load beside each other, and calls tell them apart.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::error::TypeCollision;
use namespace_bridge::types_registry::{registered_types, salts};
use namespace_bridge::{
    CellModule, CrateNamespace, HostFunc, LoadError, LoadOptions, StrongCrateRef, Val, reclaim, retired,
};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, PoisonError};
use std::thread;
use wasm_cell::trap::TrapCode;
use wasm_cell::types::{FuncType, TypeHash, TypeId, ValType};
use wasm_cell::{CellObject, CompileOptions};

/// These tests look at what the whole process has registered, so they run one at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Waits for the others, and until what they unloaded is freed.
fn alone() -> MutexGuard<'static, ()> {
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    settle();
    guard
}

/// Frees what was unloaded.
fn settle() {
    assert!(
        (0..5000).any(|_| apart(reclaim) == 0 || {
            thread::yield_now();
            false
        }),
        "{:?}",
        retired()
    );
}

/// In a task of its own, which has ended afterwards: its stack keeps nothing that was unloaded.
fn apart<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    thread::scope(|s| s.spawn(f).join().unwrap_or_else(|e| std::panic::resume_unwind(e)))
}

/// Parameters of two function types, both with an `i32` as result, whose ids of salt 0 are equal.
const A: &str = "f32 f64 i64 f64 i64 f64 i64";
const B: &str = "i64 f64 i64 i64 i64 f32 i64 i32";

/// Two more pairs, for tests after which references to functions may be left for ever, and with them the ids.
const C: &str = "f64 i64 i32 i64 i32 f32 i64 i32";
const D: &str = "f64 f64 f64 i32 i64 f32 f32 f32";
const E: &str = "i32 f32 f64 i32 f32 i32 f64 f64";
const F: &str = "i64 f32 f64 f32 i32 i32 f32 i64 i32";

fn ty(params: &str) -> FuncType {
    let scalar = |name| match name {
        "i32" => ValType::I32,
        "i64" => ValType::I64,
        "f32" => ValType::F32,
        _ => ValType::F64,
    };
    FuncType::new(params.split(' ').map(scalar).collect::<Vec<_>>(), [ValType::I32])
}

#[test]
fn the_types_collide() {
    for [one, other] in [[A, B], [C, D], [E, F]].map(|pair| pair.map(|params| ty(params).hash)) {
        assert_ne!(one, other);
        assert_eq!(one.id(0), other.id(0));
        assert_ne!(one.id(0), other.id(1));
    }
}

/// A module with a function `f` of a type that gives `answer`, and `call`, which calls element `i` of a table of three as that
/// type. `table` defines or imports the table, `$f` goes to `slot`.
fn caller(params: &str, table: &str, slot: usize, answer: i32) -> Vec<u8> {
    let zeroes: String = params.split(' ').map(|p| format!("({p}.const 0) ")).collect();
    let text = format!(
        r#"(module (type $t (func (param {params}) (result i32))) {table}
            (elem (i32.const {slot}) $f)
            (func $f (export "f") (type $t) (i32.const {answer}))
            (func (export "call") (param i32) (result i32) (call_indirect (type $t) {zeroes} (local.get 0))))"#
    );
    wat::parse_str(text).unwrap()
}

const OWN: &str = r#"(table (export "t") 3 funcref)"#;
const IMPORTED: &str = r#"(import "a" "t" (table 3 funcref))"#;

/// Those of the first pair of types that have a salt.
fn salted() -> Vec<(TypeHash, u8)> {
    salts().into_iter().filter(|(hash, _)| [A, B].iter().any(|params| ty(params).hash == *hash)).collect()
}

fn load(ns: &CrateNamespace, name: &str, wasm: &[u8]) -> StrongCrateRef {
    apart(|| ns.load_wasm(name, wasm, LoadOptions::default())).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn call(cell: &StrongCrateRef, element: i32) -> Result<i32, TrapCode> {
    apart(|| cell.typed_func::<(i32,), i32>("call").unwrap().call((element,)).map_err(|t| t.code()))
}

/// The id of the first type of a cell.
fn first_id(cell: &StrongCrateRef) -> TypeId {
    cell.module().unwrap().metadata().type_ids[0].id
}

#[test]
fn indirect_calls_through_a_shared_table_tell_colliding_types_apart() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let a = load(&ns, "a", &caller(E, OWN, 0, 10));
    let b = load(&ns, "b", &caller(F, IMPORTED, 1, 20));
    assert_eq!((first_id(&a), first_id(&b)), (ty(E).hash.id(0), ty(F).hash.id(1)));
    assert_eq!(salts().into_iter().find(|(hash, _)| *hash == ty(F).hash), Some((ty(F).hash, 1)));
    assert_eq!([call(&a, 0), call(&a, 1)], [Ok(10), Err(TrapCode::BadSignature)]);
    assert_eq!([call(&b, 1), call(&b, 0)], [Ok(20), Err(TrapCode::BadSignature)]);
    assert_eq!(call(&b, 2), Err(TrapCode::IndirectCallToNull));
}

#[test]
fn one_module_may_have_both_types_and_its_object_is_consistent() {
    let _alone = alone();
    let zeroes = |params: &str| params.split(' ').map(|p| format!("({p}.const 0) ")).collect::<String>();
    let text = format!(
        r#"(module (type $a (func (param {A}) (result i32))) (type $b (func (param {B}) (result i32)))
            (table 2 funcref) (elem (i32.const 0) $fa $fb)
            (func $fa (type $a) (i32.const 10)) (func $fb (type $b) (i32.const 20))
            (func (export "call") (param i32) (result i32) (call_indirect (type $a) {} (local.get 0)))
            (func (export "call_b") (param i32) (result i32) (call_indirect (type $b) {} (local.get 0))))"#,
        zeroes(A),
        zeroes(B)
    );
    let wasm = wat::parse_str(text).unwrap();
    let ns = CrateNamespace::new("test", None);
    let object = compile(&wasm, &[]);
    object.validate().unwrap();
    for cell in [load(&ns, "wasm", &wasm), ns.load_object("object", object, LoadOptions::default()).unwrap()] {
        let call_b = |n| apart(|| cell.typed_func::<(i32,), i32>("call_b").unwrap().call((n,)));
        assert_eq!([call(&cell, 0), call(&cell, 1)], [Ok(10), Err(TrapCode::BadSignature)]);
        assert_eq!(call_b(1).unwrap(), 20);
        assert_eq!(call_b(0).unwrap_err().code(), TrapCode::BadSignature);
    }
}

#[test]
fn host_and_native_functions_of_colliding_types_are_imported_and_referred_to() {
    extern "C-unwind" fn native(_: f64, _: i64, _: i32, _: i64, _: i32, _: f32, _: i64, last: i32) -> i32 {
        last + 1
    }
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let a = load(&ns, "a", &caller(D, OWN, 0, 10));
    let host = HostFunc::dynamic(ty(C), |_, args, out| {
        let Some(Val::I32(last)) = args.last() else { unreachable!("the last parameter is an i32") };
        out[0] = Val::I32(last + 2);
        Ok(())
    });
    ns.define_func("env", "host", host).unwrap();
    // SAFETY: a function of that type, for ever.
    unsafe { ns.define_native("env", "native", ty(C), native as *const () as usize) }.unwrap();
    let text = format!(
        r#"(module (type $t (func (param {C}) (result i32))) {IMPORTED}
            (import "env" "host" (func $host (type $t))) (import "env" "native" (func $native (type $t)))
            (elem (i32.const 1) $host $native)
            (func (export "direct") (result i32) (i32.add (call $host {zeroes}) (call $native {zeroes})))
            (func (export "call") (param i32) (result i32) (call_indirect (type $t) {zeroes} (local.get 0))))"#,
        zeroes = C.split(' ').map(|p| format!("({p}.const 0) ")).collect::<String>()
    );
    let b = load(&ns, "b", &wat::parse_str(text).unwrap());
    assert_eq!((first_id(&a), first_id(&b)), (ty(D).hash.id(0), ty(C).hash.id(1)));
    assert_eq!(apart(|| b.typed_func::<(), i32>("direct").unwrap().call(()).unwrap()), 3);
    assert_eq!([call(&b, 1), call(&b, 2), call(&b, 0)], [Ok(2), Ok(1), Err(TrapCode::BadSignature)]);
    let wrong = Err(TrapCode::BadSignature);
    assert_eq!([call(&a, 0), call(&a, 1), call(&a, 2)], [Ok(10), wrong, wrong]);
    // References to native functions are for ever, so the id in front of them is too.
    drop((a, b, ns));
    settle();
    assert!(salts().contains(&(ty(C).hash, 1)));
}

#[test]
fn a_salt_is_given_back_with_the_last_cell_that_needs_it() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    settle();
    let before = registered_types();
    let (bytes_a, bytes_b) = (caller(A, "(table 3 funcref)", 0, 11), caller(B, "(table 3 funcref)", 0, 21));
    drop(load(&ns, "a", &bytes_a));
    let first = load(&ns, "b", &bytes_b);
    apart(|| ns.unload("a")).unwrap();
    // The id that `b` could have is free, but `b` lives: another instance, and other code with its type, agree with it.
    let second = load(&ns, "b2", &bytes_b);
    assert!(Arc::ptr_eq(first.module().unwrap(), second.module().unwrap()));
    let other = load(&ns, "b3", &caller(B, "(table 3 funcref)", 0, 22));
    assert_eq!([first_id(&second), first_id(&other)], [ty(B).hash.id(1); 2]);
    assert_eq!([call(&first, 0), call(&second, 0), call(&other, 0)], [Ok(21), Ok(21), Ok(22)]);
    drop((first, second, other));
    for name in ["b", "b2", "b3"] {
        apart(|| ns.unload(name)).unwrap();
    }
    settle();
    assert_eq!((registered_types(), salted()), (before, vec![]));
    // Nothing of the old code is shared: now the other type is second.
    let b = load(&ns, "b", &bytes_b);
    let a = load(&ns, "a", &bytes_a);
    assert_eq!((first_id(&a), first_id(&b)), (ty(A).hash.id(1), ty(B).hash.id(0)));
    assert_eq!([call(&a, 0), call(&b, 0)], [Ok(11), Ok(21)]);
}

fn compile(wasm: &[u8], type_salts: &[(TypeHash, u8)]) -> CellObject {
    let options = CompileOptions { type_salts, ..CompileOptions::default() };
    namespace_bridge::compiler().unwrap().compile(wasm, &options).unwrap()
}

fn collision(result: Result<Arc<CellModule>, LoadError>) -> (TypeCollision, String) {
    match result {
        Err(LoadError::TypeCollision(c)) => (c.clone(), c.to_string()),
        other => panic!("not refused for its type ids: {other:?}"),
    }
}

#[test]
fn an_object_whose_ids_do_not_fit_is_refused_with_the_salts_that_would() {
    let _alone = alone();
    let ns = CrateNamespace::new("test", None);
    let wasm = caller(B, "(table 3 funcref)", 0, 30);
    let elf = compile(&wasm, &[]).to_elf().unwrap();
    drop(load(&ns, "a", &caller(A, "(table 3 funcref)", 0, 10)));

    // The id belongs to another type.
    let registered = registered_types();
    let (error, text) = collision(CellModule::new(&"object".into(), CellObject::from_elf(&elf).unwrap()));
    let TypeCollision::Taken { id, holder, salts, .. } = error else { panic!("{text}") };
    assert_eq!((id, &*holder, &*salts), (ty(A).hash.id(0), "a", &[(ty(B).hash, 1)][..]));
    let hash = format!("{:032x}=1", u128::from_be_bytes(ty(B).hash.0));
    for part in ["`object`", "`a`", "(i64, f64, i64, i64, i64, f32, i64, i32) -> (i32)", "recompile it with", &hash] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(registered_types(), registered);
    assert!(ns.load_elf("object", &elf, LoadOptions::default()).is_err_and(|e| e.to_string() == text));

    // Recompiled as the error says, it loads; read back from a file too.
    let salted = compile(&wasm, &salts).to_elf().unwrap();
    let object = ns.load_elf("object", &salted, LoadOptions::default()).unwrap();
    assert_eq!(call(&object, 0), Ok(30));

    // Without the other type the id is free, but the type has another one.
    apart(|| ns.unload("a")).unwrap();
    settle();
    let (error, text) = collision(CellModule::new(&"late".into(), CellObject::from_elf(&elf).unwrap()));
    let TypeCollision::Renamed { here, holder, salts, .. } = error else { panic!("{text}") };
    assert_eq!((here, &*holder, &*salts), (ty(B).hash.id(1), "object", &[(ty(B).hash, 1)][..]));

    // When nobody needs the other type either, both objects fit.
    drop(object);
    apart(|| ns.unload("object")).unwrap();
    settle();
    for (elf, id) in [(&salted, ty(B).hash.id(1)), (&elf, ty(B).hash.id(0))] {
        let object = ns.load_elf("object", elf, LoadOptions::default()).unwrap();
        assert_eq!((first_id(&object), call(&object, 0)), (id, Ok(30)));
        drop(object);
        apart(|| ns.unload("object")).unwrap();
        settle();
    }
}

#[test]
fn an_object_with_ids_of_its_own_making_is_refused() {
    let _alone = alone();
    let mut object = compile(&caller(A, "(table 3 funcref)", 0, 10), &[]);
    object.metadata.type_ids[0].id = TypeId(77);
    assert!(object.validate().is_err());
    collision(CellModule::new(&"forged".into(), object.clone()));
    object.metadata.type_ids = Box::new([]);
    assert!(matches!(CellModule::new(&"forged".into(), object), Err(LoadError::Object { .. })));
}

#[test]
fn tasks_that_load_colliding_types_at_the_same_time_agree_on_their_ids() {
    let _alone = alone();
    const TASKS: usize = 4;
    let ns = CrateNamespace::new("test", None);
    for round in 0..25 {
        let barrier = Barrier::new(TASKS);
        let cells: Vec<StrongCrateRef> = thread::scope(|scope| {
            let loading: Vec<_> = (0..TASKS)
                .map(|task| {
                    let (ns, barrier) = (&ns, &barrier);
                    scope.spawn(move || {
                        let params = if task % 2 == 0 { A } else { B };
                        // Pairs of tasks with different code, and, every other round, with the same.
                        let answer = if round % 2 == 0 { task } else { task % 2 };
                        let wasm = caller(params, "(table 3 funcref)", 0, answer as i32);
                        barrier.wait();
                        let cell = load(ns, &format!("cell{task}"), &wasm);
                        assert_eq!(call(&cell, 0), Ok(answer as i32));
                        cell
                    })
                })
                .collect();
            loading.into_iter().map(|l| l.join().unwrap()).collect()
        });
        let ids: Vec<_> = cells.iter().map(first_id).collect();
        assert_eq!((ids[0], ids[1]), (ids[2], ids[3]));
        assert_ne!(ids[0], ids[1]);
        drop(cells);
        (0..TASKS).for_each(|task| apart(|| ns.unload(&format!("cell{task}"))).unwrap());
        settle();
        assert_eq!(salted(), []);
    }
}
