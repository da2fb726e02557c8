//! Damaged files, many loads, entries that survive.

use crate::compile::{cc, rustc, rustc_typed};
use crate::{entry, invoke, load, namespace};
use namespace_bridge::{AddPolicy, LoadOptions, Val};

/// A small generator, so that failures repeat.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Objects of every compiler that is here. None has an initialiser: damaged code is loaded but never run.
fn objects() -> Vec<Vec<u8>> {
    let mut all = vec![rustc("shapes", &["-Copt-level=0"]), rustc_typed("math", &["-Copt-level=3"])];
    for compiler in ["gcc", "clang"] {
        all.extend(cc(compiler, "c_uses.c", &["-O2", "-fPIC", "-ffunction-sections", "-fexceptions", "-g"]));
        all.extend(cc(compiler, "c_uses.c", &["-O0", "-fno-pic", "-fno-pie"]));
    }
    all
}

/// Whether loading could run code of a damaged object: it has initialisers.
fn has_initialisers(bytes: &[u8]) -> bool {
    let names: [&[u8]; 4] = [b".init_array", b".ctors", b".fini_array", b".dtors"];
    names.iter().any(|n| bytes.windows(n.len()).any(|w| w == *n))
}

/// Types of sections that make a section a list of initialisers or finalisers.
fn damage_makes_initialisers(bytes: &[u8]) -> bool {
    let Ok(elf) = goblin::elf::Elf::parse(bytes) else { return false };
    elf.section_headers.iter().any(|h| matches!(h.sh_type, 14..=16))
}

#[test]
fn damaged_objects_are_an_error_or_a_cell_but_never_a_crash() {
    let ns = namespace();
    let fresh = |bytes: &[u8]| {
        if has_initialisers(bytes) || damage_makes_initialisers(bytes) {
            return;
        }
        if let Ok(cell) = ns.load_native("damaged", bytes, LoadOptions::default()) {
            let _ = (cell.sections().len(), cell.dependencies().len());
            drop(cell);
            ns.unload_force("damaged").unwrap();
        }
    };
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for object in objects() {
        // Every header byte, then everywhere.
        for at in 0..64 {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut damaged = object.clone();
                damaged[at] = value;
                fresh(&damaged);
            }
        }
        let headers = u64::from_le_bytes(object[40..48].try_into().unwrap()) as usize;
        for round in 0..400 {
            let mut damaged = object.clone();
            for _ in 0..=random.below(3) {
                // Half of the time in the section headers and what lies before them: symbols, relocations, names.
                let at = match round % 2 {
                    0 => headers + random.below(object.len() - headers),
                    _ => random.below(object.len()),
                };
                match random.below(3) {
                    0 => damaged[at] ^= 1 << random.below(8),
                    1 => damaged[at] = random.next() as u8,
                    _ => {
                        let value =
                            [0u64, 1, 0x7fff_ffff, 0xffff_ffff, u64::MAX, 1 << 63][random.below(6)].to_le_bytes();
                        let end = (at + 8).min(damaged.len());
                        damaged[at..end].copy_from_slice(&value[..end - at]);
                    }
                }
            }
            fresh(&damaged);
        }
        for _ in 0..100 {
            fresh(&object[..random.below(object.len())]);
        }
    }
    assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0));
}

#[test]
fn a_thousand_loads_and_unloads_leave_nothing() {
    let (shapes, math) = (rustc("shapes", &["-Copt-level=3"]), rustc_typed("math", &["-Copt-level=3"]));
    let ns = namespace();
    let user = wat::parse_str(
        r#"(module (import "math" "many" (func $f (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64)))
            (func (export "f") (result i64) (call $f (i64.const 1) (i64.const 0) (i64.const 0) (i64.const 0)
                (i64.const 0) (i64.const 0) (i64.const 0) (i64.const 1))))"#,
    )
    .unwrap();
    let round = || {
        let cell = load(&ns, "shapes", &shapes);
        load(&ns, "math", &math);
        let user = ns.load_wasm("user", &user, LoadOptions::default()).unwrap();
        assert_eq!(invoke(&user, "f", &[]).unwrap(), [Val::I64(9)]);
        // SAFETY: the type is that of the fixture.
        assert_eq!(unsafe { entry::<extern "C-unwind" fn(u64) -> u64>(&cell, "shapes_total") }(1), 4);
        drop((cell, user));
        ["user", "math", "shapes"].iter().for_each(|name| ns.unload(name).unwrap());
        namespace_bridge::reclaim();
    };
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().lines().count();
    let memory = || runtime_port::platform().memory().statistics();
    (0..50).for_each(|_| round());
    let (maps, before) = (mappings(), memory());
    (0..1000).for_each(|_| round());
    let (maps_after, after) = (mappings(), memory());
    // Other tests run beside this one; a leak of one page or mapping a round would show ten times over.
    assert!(maps_after < maps + 100, "{maps} mappings before, {maps_after} after");
    let grown = after.reserved_bytes.saturating_sub(before.reserved_bytes);
    assert!(
        grown < 64 << 20 && after.shared_bytes < before.shared_bytes + (8 << 20),
        "{before:?} before, {after:?} after"
    );
    assert_eq!((ns.crate_count(), ns.symbol_count()), (0, 0));
}

#[test]
fn pointers_to_functions_survive_unloading_and_loading_again() {
    let ns = namespace();
    let old = load(&ns, "shapes", &rustc("shapes", &["-Copt-level=0"]));
    // SAFETY: the type is that of the fixture.
    let total = unsafe { entry::<extern "C-unwind" fn(u64) -> u64>(&old, "shapes_total") };
    assert_eq!(total(2), 9);
    drop(old);
    ns.unload("shapes").unwrap();
    let gone = namespace_bridge::catch_trap(|| total(2)).unwrap_err().to_string();
    assert!(gone.contains("shapes_total"), "{gone}");
    let new = load(&ns, "shapes", &rustc("shapes", &["-Copt-level=3"]));
    assert_eq!((total(2), new.version()), (9, 2));
    assert_eq!(new.native_address("shapes_total").unwrap(), total as usize);
}

#[test]
fn entries_pass_from_a_wasm_cell_to_a_native_one_and_back() {
    let ns = namespace();
    let wasm =
        wat::parse_str(r#"(module (func (export "add") (param i32 i32) (result i32) (i32.const 1000)))"#).unwrap();
    let native = rustc_typed("math", &["-Copt-level=2"]);
    let cell = ns.load_wasm("math", &wasm, LoadOptions::default()).unwrap();
    // SAFETY: the type is the export's.
    let add: extern "C-unwind" fn(i32, i32) -> i32 = unsafe { cell.entry("add") }.unwrap();
    assert_eq!(add(3, 4), 1000);
    drop(cell);
    ns.unload("math").unwrap();
    load(&ns, "math", &native);
    assert_eq!(add(3, 4), 7);
    ns.load_wasm("math", &wasm, LoadOptions::default().policy(AddPolicy::Replace)).unwrap();
    ns.unload("math").unwrap();
    ns.load_wasm("math", &wasm, LoadOptions::default()).unwrap();
    assert_eq!(add(3, 4), 1000);
}
