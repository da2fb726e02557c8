//! Native cells in swaps: new versions of each other, and of wasm cells.

#![expect(clippy::unwrap_used, reason = "tests")]

use crate::compile::{cc, rustc_typed};
use crate::{entry, load, namespace};
use namespace_bridge::swap::{StatePlan, SwapError, SwapProblem, SwapRequest, SwapStep, TransferError};
use namespace_bridge::{CrateNamespace, LoadOptions};
use wasm_cell::trap::TrapCode;

/// The same exports as the fixture `swapped`, as version 3.
const WASM: &str = r#"(module
    (global $total (mut i32) (i32.const 0))
    (func (export "f") (param i32) (result i32) (i32.add (i32.const 3000) (local.get 0)))
    (func (export "add") (param i32) (result i32)
        (global.set $total (i32.add (global.get $total) (local.get 0))) (global.get $total))
    (func (export "many") (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64)
        (i64.add (i64.const 3) (i64.mul (i64.const 100) (i64.add (local.get 0) (local.get 5))))))"#;

const USER: &str = r#"(module (import "cell" "f" (func $f (param i32) (result i32)))
    (import "cell" "many" (func $many (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64)))
    (func (export "f") (param i32) (result i32) (call $f (local.get 0)))
    (func (export "many") (result i64) (call $many (i64.const 1) (i64.const 0) (i64.const 0) (i64.const 0)
        (i64.const 0) (i64.const 2) (i64.const 7) (i64.const 7))))"#;

fn version(number: i32) -> Vec<u8> {
    let flags: &[&str] = if number == 1 { &["-Copt-level=2", "--cfg=one"] } else { &["-Copt-level=2"] };
    rustc_typed("swapped", flags)
}

fn f(ns: &CrateNamespace, cell: &str) -> i32 {
    ns.get_crate(cell).unwrap().typed_func::<(i32,), i32>("f").unwrap().call((7,)).unwrap()
}

#[test]
fn native_versions_replace_each_other_and_come_back() {
    let ns = namespace();
    let old = load(&ns, "cell", &version(1));
    ns.load_wasm("user", &wat::parse_str(USER).unwrap(), LoadOptions::default()).unwrap();
    let only = old.typed_func::<(), i32>("only_one").unwrap();
    // SAFETY: the function's type.
    let raw: extern "C-unwind" fn(i32) -> i32 = unsafe { old.entry("f") }.unwrap();
    drop(old);
    assert_eq!((f(&ns, "user"), raw(1), only.call(()).unwrap()), (1007, 1001, 11));
    let request = || SwapRequest::new("cell").with_native(&version(2));
    for step in SwapStep::ALL {
        let error = ns.swap(request().fail_at(step)).unwrap_err();
        assert!(matches!(error, SwapError::Injected { .. }), "{error}");
        assert_eq!((f(&ns, "user"), raw(1)), (1007, 1001), "{step}");
    }
    let report = ns.swap(request()).unwrap();
    assert_eq!((report.cells[0].old_version, report.cells[0].new_version), (Some(1), Some(2)));
    assert!(report.cells[0].removed.iter().any(|e| e == "only_one"), "{report:?}");
    assert_eq!((f(&ns, "user"), raw(1), f(&ns, "cell")), (2007, 2001, 2007));
    let gone = only.call(()).unwrap_err();
    assert_eq!(gone.code(), TrapCode::FunctionGone);
    assert!(gone.to_string().contains("only_one"), "{gone}");
    ns.rollback("cell").unwrap();
    assert_eq!((f(&ns, "user"), raw(1), only.call(()).unwrap()), (1007, 1001, 11));
    assert!(ns.unload("cell").is_err(), "the user counts");
    ns.unload("user").unwrap();
    ns.unload("cell").unwrap();
    assert_eq!(ns.crate_count(), 0);
}

#[test]
fn a_native_cell_becomes_a_wasm_cell_and_back() {
    let ns = namespace();
    let add = load(&ns, "cell", &version(1)).typed_func::<(i32,), i32>("add").unwrap();
    ns.load_wasm("user", &wat::parse_str(USER).unwrap(), LoadOptions::default()).unwrap();
    let many = ns.get_crate("user").unwrap().typed_func::<(), i64>("many").unwrap();
    assert_eq!((add.call((40,)).unwrap(), f(&ns, "user"), many.call(()).unwrap()), (40, 1007, 301));
    let wasm = wat::parse_str(WASM).unwrap();
    let refused = ns.swap(SwapRequest::new("cell").with_wasm(&wasm).state(StatePlan::Adopt)).unwrap_err();
    let SwapError::Refused(refusal) = refused else { panic!("{refused}") };
    assert!(matches!(&refusal.problems[..], [SwapProblem::NativeState { .. }]), "{refusal}");
    // State goes over by a function.
    let carry = || {
        StatePlan::custom(|context| {
            let total = context.old.typed_func::<(i32,), i32>("add")?.call((0,))?;
            context.new.typed_func::<(i32,), i32>("add")?.call((total,))?;
            Ok(())
        })
    };
    ns.swap(SwapRequest::new("cell").with_wasm(&wasm).state(carry())).unwrap();
    assert!(ns.get_crate("cell").unwrap().is_wasm());
    assert_eq!((add.call((2,)).unwrap(), f(&ns, "user"), many.call(()).unwrap()), (42, 3007, 303));
    ns.swap(SwapRequest::new("cell").with_native(&version(2)).state(carry())).unwrap();
    assert_eq!((add.call((8,)).unwrap(), f(&ns, "user"), many.call(()).unwrap()), (50, 2007, 302));
    ns.rollback("cell").unwrap();
    assert_eq!((f(&ns, "user"), many.call(()).unwrap()), (3007, 303));
}

/// As `WASM`, but with state in a memory that it saves; `len` bytes of it.
fn saving(len: i32) -> Vec<u8> {
    let text = format!(
        r#"(module (memory 1)
        (func (export "f") (param i32) (result i32) (i32.add (i32.const 3000) (local.get 0)))
        (func (export "add") (param i32) (result i32)
            (i32.store (i32.const 8) (i32.add (i32.load (i32.const 8)) (local.get 0))) (i32.load (i32.const 8)))
        (func (export "plank_save") (result i32 i32) (i32.const 8) (i32.const {len}))
        (func (export "plank_restore") (param i32 i32) (result i32) (i32.const 0)))"#
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn a_wasm_cell_exports_its_state_to_a_native_one_which_exports_none() {
    let restores = rustc_typed("swapped", &["-Copt-level=2", "--cfg=restores"]);
    let ns = namespace();
    let cell = ns.load_wasm("cell", &saving(4), LoadOptions::default()).unwrap();
    let add = cell.typed_func::<(i32,), i32>("add").unwrap();
    drop(cell);
    assert_eq!(add.call((40,)).unwrap(), 40);
    let exported = |bytes: &[u8]| SwapRequest::new("cell").with_native(bytes).state(StatePlan::Export);
    let problems = |e: SwapError| match e {
        SwapError::Refused(refusal) => refusal.problems,
        other => panic!("{other}"),
    };
    // One that cannot take state is refused, before it runs.
    let refused = problems(ns.swap(exported(&version(2))).unwrap_err());
    let [SwapProblem::CannotExport { lacks, .. }] = &refused[..] else { panic!("{refused:?}") };
    assert!(lacks.len() == 1 && lacks[0].contains("no `plank_restore` of type [i64 i64] -> [i32]"), "{lacks:?}");
    for step in SwapStep::ALL {
        ns.swap(exported(&restores).fail_at(step)).unwrap_err();
        assert_eq!((f(&ns, "cell"), add.call((0,)).unwrap()), (3007, 40), "{step}");
    }
    let report = ns.swap(exported(&restores)).unwrap();
    assert_eq!((report.cells[0].bytes_copied, report.cells[0].plan), (4, "export"));
    assert_eq!((f(&ns, "cell"), add.call((2,)).unwrap()), (2007, 42));
    // Nothing keeps callers out of it while it would save, so its state goes nowhere but by a function.
    let back = problems(ns.rollback("cell").unwrap_err());
    assert!(matches!(&back[..], [SwapProblem::NativeState { plan: "export", .. }]), "{back:?}");
    for source in [exported(&restores), SwapRequest::new("cell").with_wasm(&saving(4)).state(StatePlan::Export)] {
        let refused = problems(ns.swap(source).unwrap_err());
        assert!(matches!(&refused[..], [SwapProblem::NativeState { plan: "export", .. }]), "{refused:?}");
    }
    let adopted = SwapRequest::new("cell").with_native(&restores).state(StatePlan::Adopt);
    let refused = problems(ns.swap(adopted).unwrap_err());
    assert!(matches!(&refused[..], [SwapProblem::NativeState { plan: "adopt", .. }]), "{refused:?}");
    assert_eq!((f(&ns, "cell"), add.call((8,)).unwrap()), (2007, 50));
}

#[test]
fn a_native_cell_that_refuses_the_state_leaves_the_wasm_cell_in_service() {
    let restores = rustc_typed("swapped", &["-Copt-level=2", "--cfg=restores"]);
    let ns = namespace();
    ns.load_wasm("cell", &saving(3), LoadOptions::default()).unwrap();
    let refused = ns.swap(SwapRequest::new("cell").with_native(&restores).state(StatePlan::Export)).unwrap_err();
    assert!(matches!(&refused, SwapError::Transfer { source: TransferError::Code(7), .. }), "{refused}");
    assert_eq!(f(&ns, "cell"), 3007);
}

#[test]
fn native_cells_that_use_each_others_data_are_swapped_in_one_step() {
    type Read = extern "C-unwind" fn() -> i32;
    let version = |file, number| cc("gcc", file, &["-O2", "-fPIC", number]);
    let Some(provides) = version("c_provides.c", "-DVERSION=1") else { return };
    let requires = version("c_requires.c", "-DVERSION=1").unwrap();
    let [new_provides, new_requires] =
        ["c_provides.c", "c_requires.c"].map(|file| version(file, "-DVERSION=2").unwrap());
    let ns = namespace();
    load(&ns, "provides", &provides);
    let cell = load(&ns, "requires", &requires);
    // SAFETY: the types are those of the fixtures.
    let [read, seen] = ["requires_read", "requires_seen"].map(|name| unsafe { entry::<Read>(&cell, name) });
    drop(cell);
    assert_eq!((read(), seen()), (1001, 1));
    let alone = ns.swap(SwapRequest::new("provides").with_native(&new_provides)).unwrap_err();
    assert!(
        matches!(&alone, SwapError::Refused(r) if r.problems.iter().any(|p| matches!(p, SwapProblem::Split { .. })))
    );
    // Who needs the other comes first.
    let both = || {
        let provides = SwapRequest::new("provides").with_native(&new_provides);
        SwapRequest::new("requires").with_native(&new_requires).and(provides)
    };
    for step in SwapStep::ALL {
        ns.swap(both().fail_at(step)).unwrap_err();
        assert_eq!((read(), seen()), (1001, 1), "{step}");
    }
    ns.swap(both()).unwrap();
    assert_eq!((read(), seen()), (2002, 2));
    // SAFETY: the types are those of the fixtures.
    unsafe {
        assert_eq!(entry::<Read>(&ns.get_crate("requires").unwrap(), "requires_more")(), 7);
        let provides = ns.get_crate("provides").unwrap();
        entry::<extern "C-unwind" fn(i32)>(&provides, "provides_write")(5);
    }
    assert_eq!(read(), 5005, "both use the new datum");
    ns.unload("provides").unwrap_err();
    ns.rollback("provides").unwrap();
    assert_eq!((read(), seen()), (1001, 1));
    ns.rollback("requires").unwrap();
    assert_eq!((read(), seen()), (5005, 2));
}

#[test]
fn an_address_that_the_large_model_works_out_outlives_the_version() {
    type Step = extern "C-unwind" fn(i32) -> i32;
    for compiler in ["gcc", "clang"] {
        for level in ["-O0", "-O2"] {
            let version = |number| cc(compiler, "c_large.c", &[level, "-mcmodel=large", "-fPIC", number]);
            let (Some(one), Some(two)) = (version("-DVERSION=1"), version("-DVERSION=2")) else { continue };
            let ns = namespace();
            let cell = load(&ns, "large", &one);
            let old = cell.native_address("large_get").unwrap();
            // SAFETY: the type is the fixture's.
            let get: extern "C-unwind" fn() -> Step = unsafe { std::mem::transmute(old) };
            let (step, image) = (
                get(),
                cell.sections().iter().map(|s| s.virt_addr.value()..s.virt_addr.value() + s.size).collect::<Vec<_>>(),
            );
            drop(cell);
            assert_eq!(step(40), 41);
            assert!(
                !image.iter().any(|r| r.contains(&(step as usize))),
                "{compiler} {level}: it is an address of this version's image"
            );
            ns.swap(SwapRequest::new("large").with_native(&two).keep_old(false)).unwrap();
            assert_eq!((step(40), get()(40)), (42, 42), "{compiler} {level}: it leads to the version in service");
            assert_eq!(step as usize, get() as usize);
        }
    }
}

/// The partner of the fixture `c_partner`.
fn partner(number: i32) -> Vec<u8> {
    let text = format!(
        r#"(module (import "native" "down" (func $down (param i32) (result i32)))
        (func (export "down") (param i32) (result i32) (if (result i32) (local.get 0)
            (then (i32.add (i32.const {number}) (i32.mul (i32.const 100) (call $down (i32.sub (local.get 0) (i32.const 1)))))) (else (i32.const 0))))
        {})"#,
        match number {
            1 => "",
            _ => {
                r#"(func (export "more") (param i64 i64 i64 i64 i64 i64 i64 f64) (result f64)
                (f64.add (f64.mul (local.get 7) (f64.const 4)) (f64.convert_i64_s (i64.add (local.get 0) (local.get 6)))))"#
            }
        }
    );
    wat::parse_str(text).unwrap()
}

#[test]
fn native_and_wasm_cells_of_one_step_link_to_each_others_new_versions() {
    let include = format!("-I{}/../cell_export/include", env!("CARGO_MANIFEST_DIR"));
    let native = |number| cc("gcc", "c_partner.c", &["-O2", "-fPIC", &include, number]);
    let (Some(one), Some(two)) = (native("-DVERSION=1"), native("-DVERSION=2")) else { return };
    let ns = namespace();
    // New ones.
    let first = || SwapRequest::add("native").with_native(&one).and(SwapRequest::add("wasm").with_wasm(&partner(1)));
    for step in SwapStep::ALL {
        ns.swap(first().fail_at(step)).unwrap_err();
        assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0), "{step}");
    }
    ns.swap(first()).unwrap();
    let down = |cell: &str| ns.get_crate(cell).unwrap().typed_func::<(i32,), i32>("down").unwrap().call((3,)).unwrap();
    assert_eq!((down("native"), down("wasm")), (1_01_01, 1_01_01));
    // New versions; the native one needs what only the new wasm version has, which needs what only it has.
    let second = || SwapRequest::new("wasm").with_wasm(&partner(2)).and(SwapRequest::new("native").with_native(&two));
    let alone = ns.swap(SwapRequest::new("native").with_native(&two)).unwrap_err().to_string();
    assert!(alone.contains("more"), "{alone}");
    for step in SwapStep::ALL {
        ns.swap(second().fail_at(step)).unwrap_err();
        assert_eq!((down("native"), down("wasm")), (1_01_01, 1_01_01), "{step}");
    }
    ns.swap(second()).unwrap();
    assert_eq!((down("native"), down("wasm")), (2_02_02, 2_02_02));
    let more = ns.get_crate("native").unwrap().typed_func::<(), i32>("more").unwrap();
    assert_eq!(more.call(()).unwrap(), 10);
    let needs = |cell: &str| {
        let on = ns.get_crate(cell).unwrap().crates_i_depend_on();
        on.iter().map(|c| (c.crate_name.to_string(), c.version())).collect::<Vec<_>>()
    };
    assert_eq!((needs("native"), needs("wasm")), (vec![("wasm".into(), 2)], vec![("native".into(), 2)]));
    assert!(ns.unload("wasm").is_err() && ns.unload("native").is_err(), "each is in use");
    ns.rollback("native").unwrap();
    assert_eq!((down("native"), down("wasm")), (1_01_01, 1_01_01));
    assert_eq!(more.call(()).unwrap_err().code(), TrapCode::FunctionGone);
    ns.rollback("wasm").unwrap();
    assert_eq!((down("native"), more.call(()).unwrap()), (2_02_02, 10));
    // What goes in the same step is nothing to link to.
    let lonely = SwapRequest::remove("wasm").and(SwapRequest::new("native").with_native(&one));
    let refused = ns.swap(lonely).unwrap_err().to_string();
    assert!(refused.contains("down"), "{refused}");
    ns.swap(SwapRequest::remove("wasm").and(SwapRequest::remove("native"))).unwrap();
    assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0));
}

#[test]
fn a_wasm_version_with_another_signature_takes_a_native_cells_place_by_force_only() {
    let ns = namespace();
    load(&ns, "cell", &version(1));
    ns.load_wasm("user", &wat::parse_str(USER).unwrap(), LoadOptions::default()).unwrap();
    let wide = wat::parse_str(
        r#"(module (func (export "f") (param i64) (result i64) (i64.add (local.get 0) (i64.const 5)))
        (func (export "many") (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64) (i64.const 3)))"#,
    )
    .unwrap();
    let request = || SwapRequest::new("cell").with_wasm(&wide);
    let refused = ns.swap(request()).unwrap_err();
    let retyped =
        |p: &SwapProblem| matches!(p, SwapProblem::Retyped { export, old, new, .. } if export == "f" && old != new);
    assert!(matches!(&refused, SwapError::Refused(r) if r.problems.iter().any(retyped)), "{refused}");
    assert_eq!(f(&ns, "user"), 1007);
    ns.swap(request().force(true)).unwrap();
    // The entry that users have is that of a function of their type, which there is none of.
    let of_user = ns.get_crate("user").unwrap().typed_func::<(i32,), i32>("f").unwrap();
    assert_eq!(of_user.call((7,)).unwrap_err().code(), TrapCode::FunctionGone);
    let new = ns.get_crate("cell").unwrap().typed_func::<(i64,), i64>("f").unwrap();
    assert_eq!(new.call((7,)).unwrap(), 12);
    ns.rollback("cell").unwrap();
    assert_eq!((f(&ns, "user"), new.call((7,)).unwrap_err().code()), (1007, TrapCode::FunctionGone));
}
