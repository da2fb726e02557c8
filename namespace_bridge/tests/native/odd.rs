//! Objects that compilers seldom write, and all relocations that they do.

use crate::compile::{Folder, assemble, cc};
use crate::{entry, load, namespace};
use namespace_bridge::entries::GoneFunction;
use namespace_bridge::swap::SwapRequest;
use namespace_bridge::{LoadOptions, catch_trap};
use std::ptr::read_unaligned;

type Nullary = extern "C-unwind" fn() -> u64;
type Unary = extern "C-unwind" fn(i32) -> i32;

const DATA: u64 = 0x1122_3344_5566_7788;

#[test]
fn every_relocation_of_assemblers_gives_what_the_psabi_says() {
    for compiler in ["gcc", "clang"] {
        let folder = Folder::new();
        let (Some(odd), Some(absolute)) =
            (assemble(&folder, compiler, "odd.s"), assemble(&folder, compiler, "absolute.s"))
        else {
            continue;
        };
        // The linker leaves every relocation as it is and makes one object of both.
        let Some(object) = folder.link(&[&odd, &absolute]) else { continue };
        let ns = namespace();
        let cell = load(&ns, "odd", &object);
        // SAFETY: the types are those of the fixture, whose table has 48 bytes.
        unsafe {
            let call = |name: &str| entry::<Nullary>(&cell, name)();
            let at = call("odd_table") as usize;
            let data = cell.native_address("odd_data").unwrap();
            let near = cell.export("odd_near").unwrap().virt_addr.value();
            assert_eq!(read_unaligned(at as *const usize), data, "{compiler}: R_X86_64_64");
            assert_eq!(read_unaligned((at + 8) as *const u64), 24, "{compiler}: R_X86_64_SIZE64");
            assert_eq!(read_unaligned((at + 16) as *const u32), 24, "{compiler}: R_X86_64_SIZE32");
            assert_eq!(read_unaligned((at + 20) as *const u32), 0x89ab_cdef, "{compiler}: R_X86_64_32");
            assert_eq!(read_unaligned((at + 24) as *const u16), 0x89ab, "{compiler}: R_X86_64_16");
            assert_eq!(read_unaligned((at + 26) as *const u8), 0x7f, "{compiler}: R_X86_64_8");
            let distance = read_unaligned((at + 28) as *const i16);
            assert_eq!((at + 28).wrapping_add_signed(distance.into()), near, "{compiler}: R_X86_64_PC16");
            let distance = read_unaligned((at + 32) as *const isize);
            assert_eq!((at + 32).wrapping_add_signed(distance), data, "{compiler}: R_X86_64_PC64");
            let distance = read_unaligned((at + 40) as *const i32);
            assert_eq!((at + 40).wrapping_add_signed(distance as isize), data, "{compiler}: R_X86_64_PC32");
            let of_data = ["got", "table_offset", "slot_offset", "slot_offset_32", "slot_64", "table_64"]
                .map(|n| format!("odd_{n}"));
            of_data.iter().for_each(|name| assert_eq!(call(name), DATA, "{compiler}: {name}"));
            let of_code = ["call", "call_slot", "stub_offset", "plt_slot", "near"].map(|n| format!("odd_{n}"));
            of_code.iter().for_each(|name| assert_eq!(call(name), 77, "{compiler}: {name}"));
            assert_eq!((call("odd_weak"), call("odd_compare")), (0, 1), "{compiler}: a weak symbol that nobody has");
            assert_eq!(call("odd_absolute"), 0x1234_5678_9abc_def0, "{compiler}: an absolute symbol");
            assert_eq!(call("odd_negative") as i64, -5, "{compiler}: R_X86_64_32S");
            assert_eq!(call("odd_string"), b'o'.into(), "{compiler}: a mergeable string");
            assert_eq!(call("odd_short"), 8, "{compiler}: R_X86_64_PC8");
        }
    }
}

#[test]
fn cpp_throws_and_catches_within_its_cell_and_has_type_information() {
    // SAFETY: the library has no initialiser that minds.
    unsafe { libc::dlopen(c"libstdc++.so.6".as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    for compiler in ["g++", "clang++"] {
        for flags in [["-O0", "-fPIC"], ["-O2", "-fPIC"], ["-O3", "-fPIC"]] {
            let Some(object) = cc(compiler, "exceptions.cpp", &flags) else { continue };
            let ns = namespace();
            let cell = load(&ns, "exceptions", &object);
            let what = format!("{compiler} {flags:?}");
            // SAFETY: the types are those of the fixture.
            unsafe {
                let results: Vec<i32> = (0..5).map(|x| entry::<Unary>(&cell, "catcher")(x)).collect();
                assert_eq!(results, [0, 107, 203, 302, 4], "{what}");
                let destroyed = entry::<extern "C-unwind" fn() -> i32>(&cell, "cpp_destroyed");
                assert_eq!(destroyed(), 10, "{what}: destructors on the way");
                assert_eq!(entry::<extern "C-unwind" fn() -> i32>(&cell, "rtti")(), 435, "{what}");
                let once = entry::<Unary>(&cell, "once");
                assert_eq!((once(41), once(7)), (42, 42), "{what}: a static is made once");
                assert_eq!(entry::<Unary>(&cell, "sum")(1000), 499_500, "{what}");
            }
            ns.unload("exceptions").unwrap();
        }
    }
}

#[test]
fn addresses_of_32_bits_follow_later_versions_wherever_they_are_kept() {
    let flags = |pic: &'static str, version: &'static str| ["-O2", pic, version];
    for compiler in ["gcc", "clang"] {
        let Some(basic) = cc(compiler, "c_basic.c", &["-O2", "-fPIC"]) else { continue };
        // The second begins in entries that 32 bits do not reach.
        for first in ["-fno-pie", "-fPIC"] {
            let ns = namespace();
            load(&ns, "basic", &basic);
            let version = |pic, number| cc(compiler, "c_callback.c", &flags(pic, number)).unwrap();
            let mut cell = load(&ns, "callback", &version(first, "-DVERSION=1"));
            let mut kept: Vec<(Unary, [i32; 3])> = Vec::new();
            for number in 1..=3 {
                // SAFETY: the types are those of the fixture.
                let mut give = |name: &str, expected: [i32; 3]| unsafe {
                    kept.push((entry::<extern "C-unwind" fn() -> Unary>(&cell, name)(), expected));
                };
                give("give_exported", [105, 205, 305]);
                give("give_local", [1005, 2005, 3005]);
                give("give_foreign", [-5; 3]);
                let results: Vec<i32> = kept.iter().map(|(f, _)| f(5)).collect();
                let expected: Vec<i32> = kept.iter().map(|(_, expected)| expected[number - 1]).collect();
                assert_eq!(results, expected, "{compiler}, at first {first}, version {number}");
                if number < 3 {
                    let next = version("-fno-pie", ["-DVERSION=2", "-DVERSION=3"][number - 1]);
                    ns.swap(SwapRequest::new("callback").with_native(&next).keep_old(false)).unwrap();
                    cell = ns.get_crate("callback").unwrap();
                }
            }
            drop(cell);
            namespace_bridge::reclaim();
            ns.unload("callback").unwrap();
            // Position-independent code has the other cell's own entry.
            let others = ns.get_crate("basic").unwrap().native_address("c_negate").unwrap();
            for (f, _) in kept.into_iter().filter(|(f, _)| *f as usize != others) {
                let gone = catch_trap(|| f(5)).unwrap_err();
                assert_eq!(&*gone.downcast_ref::<GoneFunction>().unwrap().cell, "callback", "{gone}");
            }
        }
    }
}

#[test]
fn an_object_may_have_more_sections_than_16_bits_count() {
    const FUNCTIONS: usize = 70_000;
    let text: String = (0..FUNCTIONS)
        .map(|i| {
            format!(
                ".section .text.f{i},\"ax\",@progbits\n.globl f{i}\n.type f{i},@function\nf{i}: mov ${i},%eax\nret\n.size f{i},.-f{i}\n"
            )
        })
        .collect();
    let folder = Folder::new();
    std::fs::write(folder.path("many.s"), text).unwrap();
    let Some(object) = assemble(&folder, "gcc", folder.path("many.s").to_str().unwrap()) else { return };
    let ns = namespace();
    let cell = load(&ns, "many", &std::fs::read(object).unwrap());
    for i in [0, 1, 65_279, 65_280, 65_535, 65_536, FUNCTIONS - 1] {
        // SAFETY: the type of all of them.
        assert_eq!(unsafe { entry::<Nullary>(&cell, &format!("f{i}")) }(), i as u64);
    }
}

#[test]
fn what_holds_no_code_or_compact_relocations_is_refused_by_section_and_flag() {
    let ns = namespace();
    if let Some(slim) = cc("gcc", "c_uses.c", &["-O2", "-flto", "-fno-fat-lto-objects"]) {
        let error = ns.load_native("slim", &slim, LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains(".gnu.lto_") && error.contains("-flto"), "{error}");
    }
    if let Some(bitcode) = cc("clang", "c_uses.c", &["-O2", "-flto"]) {
        let error = ns.load_native("bitcode", &bitcode, LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains("cc -c"), "{error}");
    }
    if let Some(mut object) = cc("gcc", "c_uses.c", &["-O2", "-fPIC"]) {
        let word = |object: &[u8], at: usize, n: usize| {
            object[at..at + n].iter().rev().fold(0usize, |value, byte| value << 8 | usize::from(*byte))
        };
        // Section headers (ELF-64, figure 3): the type stands at 4 of 64 bytes.
        let (table, count) = (word(&object, 0x28, 8), word(&object, 0x3c, 2));
        let rela = (0..count).map(|i| table + 64 * i).find(|at| word(&object, at + 4, 4) == 4).unwrap();
        object[rela + 4..rela + 8].copy_from_slice(&0x4000_0014u32.to_le_bytes());
        let error = ns.load_native("compact", &object, LoadOptions::default()).unwrap_err().to_string();
        assert!(error.contains(".rela") && error.contains("--crel"), "{error}");
    }
    assert_eq!(ns.crate_count(), 0);
}
