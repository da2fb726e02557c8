//! What rustc emits.

use crate::compile::{Folder, rustc, rustc_in};
use crate::{entry, load, namespace};
use runtime_port::memory::VirtualAddress;
use runtime_port::unwind::catch_unwind_with_arg;

type Unary = extern "C-unwind" fn(u64) -> u64;
type Binary = extern "C-unwind" fn(u64, u64) -> u64;

const LEVELS: [&[&str]; 5] = [
    &["-Copt-level=0"],
    &["-Copt-level=1", "-Cdebuginfo=2"],
    &["-Copt-level=3"],
    &["-Copt-level=3", "-Csymbol-mangling-version=v0"],
    &["-Copt-level=s", "-Ccode-model=large"],
];

#[test]
fn crates_of_every_optimisation_level_load_and_run() {
    for flags in LEVELS {
        let ns = namespace();
        let cell = load(&ns, "shapes", &rustc("shapes", flags));
        // SAFETY: the types are those of the fixture.
        unsafe {
            assert_eq!(entry::<Unary>(&cell, "shapes_total")(5), 25 + 10 + 1, "{flags:?}");
            assert_eq!(entry::<Unary>(&cell, "shapes_count")(3), 10);
            assert_eq!(entry::<Unary>(&cell, "shapes_count")(1), 11);
            assert_eq!(entry::<Binary>(&cell, "shapes_apply")(0, 20), 21);
            assert_eq!(entry::<Binary>(&cell, "shapes_apply")(1, 20), 40);
            let text = format!("{:>8}|{:?}", 77, Some(77));
            assert_eq!(entry::<Unary>(&cell, "shapes_format")(77), text.bytes().map(u64::from).sum::<u64>());
            // The address of a function is its entry, for the cell itself too.
            let function = entry::<extern "C-unwind" fn(u64) -> usize>(&cell, "shapes_function")(0);
            assert_eq!(function, cell.native_address("shapes_total").unwrap());
        }
        ns.unload("shapes").unwrap();
    }
}

#[test]
fn panics_unwind_through_native_cells_and_run_their_destructors() {
    for flags in LEVELS {
        let ns = namespace();
        let cell = load(&ns, "shapes", &rustc("shapes", flags));
        // SAFETY: the types are those of the fixture.
        unsafe {
            let fail = entry::<Unary>(&cell, "shapes_fail");
            assert_eq!(catch_unwind_with_arg(|x| fail(x), 2).unwrap(), 2);
            let reason = catch_unwind_with_arg(|x| fail(x), 3).unwrap_err();
            assert_eq!(reason.message(), Some("x is 3"), "{flags:?}");
            let drops = entry::<extern "C-unwind" fn() -> u64>(&cell, "shapes_drops");
            assert_eq!(drops(), 2);
            // A panic of this process crosses the cell's frames.
            extern "C-unwind" fn thrower(x: u64) -> u64 {
                panic!("thrown {x}")
            }
            let call = entry::<extern "C-unwind" fn(Unary, u64) -> u64>(&cell, "shapes_call");
            let reason = catch_unwind_with_arg(|x| call(thrower, x), 9).unwrap_err();
            assert_eq!(reason.message(), Some("thrown 9"));
            assert_eq!(drops(), 3);
        }
    }
}

#[test]
fn crates_link_to_functions_data_and_vtables_of_other_cells() {
    for level in ["-Copt-level=0", "-Copt-level=3"] {
        let folder = Folder::new();
        let shapes = rustc_in(&folder, "shapes", &[level]);
        let uses = rustc_in(&folder, "uses_shapes", &[level, "--extern=shapes"]);
        let ns = namespace();
        let exporter = load(&ns, "shapes", &shapes);
        let cell = load(&ns, "uses_shapes", &uses);
        // SAFETY: the types are those of the fixture.
        unsafe {
            assert_eq!(entry::<Unary>(&cell, "uses_total")(6), 18 + 36);
            assert_eq!(entry::<extern "C-unwind" fn() -> u64>(&cell, "uses_counter")(), 7);
            entry::<Unary>(&exporter, "shapes_count")(5);
            assert_eq!(entry::<extern "C-unwind" fn() -> u64>(&cell, "uses_counter")(), 12);
            assert_eq!(entry::<Binary>(&cell, "uses_many")(5, 10), 360);
        }
        let depends: Vec<String> = cell.dependencies().iter().map(|(s, _)| s.name.to_string()).collect();
        assert!(depends.iter().any(|n| n.starts_with("shapes::COUNTER::h")), "{depends:?}");
        assert!(ns.unload("shapes").unwrap_err().to_string().contains("uses_shapes"));
        ns.unload("uses_shapes").unwrap();
        ns.unload("shapes").unwrap();
    }
}

#[test]
fn symbols_are_found_by_their_rust_paths_and_addresses_by_their_section() {
    let ns = namespace();
    let cell = load(&ns, "shapes", &rustc("shapes", &["-Copt-level=0"]));
    let total = ns.get_symbol_starting_with("shapes::total::h").upgrade().expect("one function has this name");
    assert_eq!(total.typ.name(), ".text");
    let address = VirtualAddress::new(total.virt_addr.value() + 1).unwrap();
    let (section, offset) = ns.get_section_containing_address(address).unwrap();
    assert_eq!((&*section.name, offset), (&*total.name, 1));
    assert_eq!(ns.get_crate_containing_address(address).unwrap().crate_name, cell.crate_name);
    assert!(ns.get_symbol("shapes_total").upgrade().is_some());
    let name = runtime_port::backtrace::resolve(address.value()).unwrap();
    assert_eq!((name.name.as_str(), name.module.as_deref()), ("shapes::total", Some("shapes")));
}
