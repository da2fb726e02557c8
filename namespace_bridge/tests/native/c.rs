//! What gcc and clang emit.

use crate::compile::cc;
use crate::{entry, load, namespace};
use namespace_bridge::LoadOptions;
use runtime_port::unwind::catch_unwind_with_arg;

type Nullary = extern "C-unwind" fn() -> i32;
type Unary = extern "C-unwind" fn(i32) -> i32;
type Binary = extern "C-unwind" fn(i32, i32) -> i32;

const COMPILERS: [&str; 2] = ["gcc", "clang"];
const UNWIND: &str = "-fexceptions";
const FLAGS: [&[&str]; 22] = [
    &["-O0", "-fPIC"],
    &["-O1", "-fPIC"],
    &["-O2", "-fPIC"],
    &["-O3", "-fPIC"],
    &["-Os", "-fPIC", "-fcf-protection", "-g", "-gz"],
    &["-O2", "-fPIC", "-fno-plt"],
    &["-O2", "-fPIC", "-ffunction-sections", "-fdata-sections", "-fcommon"],
    &["-O2", "-fPIC", "-fvisibility=hidden", "-DHIDDEN"],
    &["-O0", "-mcmodel=large", "-fPIC"],
    &["-O2", "-mcmodel=large", "-fPIC"],
    &["-O0", "-mcmodel=medium", "-fPIC"],
    &["-O3", "-mcmodel=medium", "-fPIC"],
    &["-O0", "-fPIE"],
    &["-O2", "-fPIE"],
    &["-O0", "-fno-pic", "-fno-pie"],
    &["-O1", "-fno-pic", "-fno-pie"],
    &["-O2", "-fno-pic", "-fno-pie"],
    &["-O3", "-fno-pic", "-fno-pie"],
    &["-O2", "-fno-pic", "-fno-pie", "-mcmodel=kernel"],
    &["-O2", "-fno-pic", "-fno-pie", "-mcmodel=medium"],
    &["-O0", "-fno-pic", "-fno-pie", "-mcmodel=large"],
    &["-O2", "-fno-pic", "-fno-pie", "-mcmodel=large"],
];

#[test]
fn c_of_every_code_model_that_d6_allows_runs() {
    for compiler in COMPILERS {
        for flags in FLAGS.iter().filter(|f| !f.contains(&"-DHIDDEN")) {
            let all: Vec<&str> = flags.iter().copied().chain([UNWIND]).collect();
            let Some(object) = cc(compiler, "c_basic.c", &all) else { continue };
            let ns = namespace();
            let cell = load(&ns, "basic", &object);
            let what = format!("{compiler} {flags:?}");
            // SAFETY: the types are those of the fixture.
            unsafe {
                assert_eq!(entry::<Unary>(&cell, "c_state")(1), 42 + 6 + 1 + 1 + 9, "{what}");
                assert_eq!(entry::<Unary>(&cell, "c_state")(1), 43 + 7 + 2 + 2 + 9, "{what}");
                assert_eq!(entry::<Binary>(&cell, "c_apply")(0, 21), 42, "{what}");
                assert_eq!(entry::<Binary>(&cell, "c_apply")(1, 21), -21, "{what}");
                assert_eq!(entry::<Unary>(&cell, "c_length")(0), 4, "{what}");
                assert_eq!(entry::<Nullary>(&cell, "c_weak")(), -1, "{what}");
                let results: Vec<i32> = (0..8).map(|x| entry::<Unary>(&cell, "c_switch")(x)).collect();
                assert_eq!(results, [-3, 100, 17, -8, 12, 1234, -99, 0], "{what}");
                let function = entry::<extern "C-unwind" fn() -> usize>(&cell, "c_function")();
                assert_eq!(function, cell.native_address("c_negate").unwrap(), "{what}");
                assert_eq!(entry::<Nullary>(&cell, "c_order")(), 12, "{what}");
                let mean = entry::<extern "C-unwind" fn(*const f64, usize) -> f64>(&cell, "c_mean");
                assert_eq!(mean([1.0, 2.0, 6.0].as_ptr(), 3), 3.0, "{what}");
                let mut told = 0i32;
                entry::<extern "C-unwind" fn(*mut i32)>(&cell, "c_tell")(&mut told);
                ns.unload("basic").unwrap();
                assert_eq!(std::ptr::read_volatile(&told), 1, "{what}: the finaliser did not run");
            }
        }
    }
}

#[test]
fn c_reaches_functions_of_other_cells_in_every_way() {
    for compiler in COMPILERS {
        let Some(basic) = cc(compiler, "c_basic.c", &["-O2", "-fPIC"]) else { continue };
        for flags in FLAGS {
            let Some(object) =
                cc(compiler, "c_uses.c", &flags.iter().copied().filter(|f| !f.contains("hidden")).collect::<Vec<_>>())
            else {
                continue;
            };
            let ns = namespace();
            let exporter = load(&ns, "basic", &basic);
            let cell = load(&ns, "uses", &object);
            let what = format!("{compiler} {flags:?}");
            // SAFETY: the types are those of the fixture.
            unsafe {
                assert_eq!(entry::<Unary>(&cell, "u_call")(5), -4, "{what}");
                assert_eq!(entry::<Unary>(&cell, "u_tail")(5), -5, "{what}");
                assert_eq!(entry::<Unary>(&cell, "u_through_table")(5), -5, "{what}");
                assert_eq!(entry::<Binary>(&cell, "u_many")(5, 3), -15, "{what}");
                let pointer = entry::<extern "C-unwind" fn() -> usize>(&cell, "u_pointer")();
                let by_entry = pointer == exporter.native_address("c_negate").unwrap();
                // 32 bits have room for an entry of the importer only.
                assert!(by_entry || (flags.contains(&"-fno-pic") && pointer < 1 << 31), "{what}: {pointer:#x}");
            }
            ns.unload("basic").unwrap_err();
        }
    }
}

#[test]
fn direct_references_to_data_of_others_are_refused_by_symbol_and_flag() {
    for compiler in COMPILERS {
        let Some(basic) = cc(compiler, "c_basic.c", &["-O2", "-fPIC"]) else { continue };
        let ns = namespace();
        load(&ns, "basic", &basic);
        let Some(direct) = cc(compiler, "c_uses.c", &["-O2", "-fno-pic", "-fno-pie", "-DDATA"]) else { continue };
        let error = ns.load_native("direct", &direct, LoadOptions::default()).unwrap_err().to_string();
        assert!(
            error.contains("c_initialised") && error.contains("-fPIC") && error.contains("R_X86_64_PC32"),
            "{error}"
        );
        assert_eq!(ns.crate_count(), 1);
        let Some(pic) = cc(compiler, "c_uses.c", &["-O2", "-fPIC", "-DDATA"]) else { continue };
        let cell = load(&ns, "pic", &pic);
        // SAFETY: the type is that of the fixture.
        assert_eq!(unsafe { entry::<Nullary>(&cell, "u_data") }(), 41);
    }
}

#[test]
fn thread_local_and_indirect_symbols_are_refused_by_name() {
    for compiler in COMPILERS {
        let ns = namespace();
        for (file, symbol) in [("c_tls.c", "per_task"), ("c_ifunc.c", "chosen")] {
            let Some(object) = cc(compiler, file, &["-O2", "-fPIC"]) else { continue };
            let error = ns.load_native("refused", &object, LoadOptions::default()).unwrap_err().to_string();
            assert!(error.contains(symbol), "{error}");
        }
        assert_eq!(ns.crate_count(), 0);
    }
}

#[test]
fn cells_may_have_weak_definitions_of_the_same_inline_functions() {
    // SAFETY: the library has no initialiser that minds.
    unsafe { libc::dlopen(c"libstdc++.so.6".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    for compiler in ["g++", "clang++"] {
        let flags = ["-O0", "-fPIC", "-fno-rtti", "-fno-threadsafe-statics"];
        let (Some(one), Some(two)) =
            (cc(compiler, "inline.cpp", &flags), cc(compiler, "inline.cpp", &[&flags[..], &["-DTWO"]].concat()))
        else {
            continue;
        };
        let ns = namespace();
        let (one, two) = (load(&ns, "one", &one), load(&ns, "two", &two));
        // SAFETY: the types are those of the fixture.
        unsafe {
            assert_eq!(entry::<Nullary>(&one, "count_one")(), 101);
            assert_eq!(entry::<Nullary>(&one, "count_one")(), 102);
            // A cell is a link unit: each has its own.
            assert_eq!(entry::<Nullary>(&two, "count_two")(), 101);
        }
        let holder = || {
            ns.get_symbol("_Z6sharedv")
                .upgrade()
                .and_then(|s| s.parent_crate.upgrade())
                .map(|c| c.crate_name.to_string())
        };
        assert_eq!(holder().as_deref(), Some("one"));
        ns.unload("one").unwrap();
        assert_eq!(holder().as_deref(), Some("two"));
        ns.unload("two").unwrap();
    }
}

#[test]
fn cpp_has_its_vtables_templates_and_static_objects() {
    // The base image is what its libraries are: C++ needs its own.
    // SAFETY: the library has no initialiser that minds.
    unsafe { libc::dlopen(c"libstdc++.so.6".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    for compiler in ["g++", "clang++"] {
        for level in ["-O0", "-O2"] {
            let Some(object) = cc(compiler, "cpp.cpp", &[level, "-fPIC", "-fno-rtti", "-fno-threadsafe-statics"])
            else {
                continue;
            };
            let ns = namespace();
            let cell = match ns.load_native("cpp", &object, LoadOptions::default()) {
                Ok(cell) => cell,
                Err(e) => panic!("{compiler} {level}: {e}"),
            };
            // SAFETY: the types are those of the fixture.
            unsafe {
                assert_eq!(entry::<Unary>(&cell, "cpp_virtual")(8), 9);
                assert_eq!(entry::<Binary>(&cell, "cpp_largest")(3, 4), 6);
                assert_eq!(entry::<Nullary>(&cell, "cpp_global")(), 7);
                assert_eq!(entry::<Nullary>(&cell, "cpp_shared")(), 101);
                assert_eq!(entry::<Nullary>(&cell, "cpp_shared")(), 102);
                extern "C-unwind" fn thrower(x: i32) -> i32 {
                    if x > 0 { panic!("thrown {x}") } else { x }
                }
                let call = entry::<extern "C-unwind" fn(Unary, i32) -> i32>(&cell, "cpp_call");
                assert_eq!(call(thrower, -1), 0);
                let reason = catch_unwind_with_arg(|x| call(thrower, x), 9).unwrap_err();
                assert_eq!(reason.message(), Some("thrown 9"));
                assert_eq!(entry::<Nullary>(&cell, "cpp_destroyed")(), 2);
                let mut told = 0i32;
                entry::<extern "C-unwind" fn(*mut i32)>(&cell, "cpp_tell")(&mut told);
                ns.unload("cpp").unwrap();
                assert_eq!(std::ptr::read_volatile(&told), 10, "{compiler} {level}");
            }
        }
    }
}
