use crate::{CellObject, CompileError, sample, seal};
use alloc::{string::String, vec::Vec};
use std::process::Command;

const KEY: [u8; 32] = [3; 32];

#[test]
fn reading_restores_what_was_written() {
    let object = sample::object();
    object.validate().unwrap();
    let elf = object.to_elf().unwrap();
    assert_eq!(CellObject::from_elf(&elf).unwrap(), object);
    assert_eq!(CellObject::from_elf(&elf).unwrap().to_elf().unwrap(), elf);
}

#[test]
fn reading_does_not_depend_on_the_alignment_of_the_bytes() {
    let object = sample::object();
    let elf = object.to_elf().unwrap();
    for shift in 0..16 {
        let mut bytes = alloc::vec![0; shift];
        bytes.extend(&elf);
        assert_eq!(CellObject::from_elf(&bytes[shift..]).as_ref(), Ok(&object));
    }
}

#[test]
fn sealed_object_is_the_same_object() {
    let object = sample::object();
    let mut elf = object.to_elf().unwrap();
    assert!(seal::verify(&elf, &KEY).is_err());
    seal::seal(&mut elf, &KEY).unwrap();
    seal::verify(&elf, &KEY).unwrap();
    assert_eq!(CellObject::from_elf(&elf).unwrap(), object);
    for i in 0..elf.len() {
        elf[i] ^= 0x10;
        assert!(seal::verify(&elf, &KEY).is_err(), "byte {i}");
        elf[i] ^= 0x10;
    }
}

#[test]
fn another_format_version_is_refused_by_number() {
    let mut elf = sample::object().to_elf().unwrap();
    let at = elf.windows(8).position(|w| w == super::METADATA_MAGIC).unwrap() + 8;
    elf[at..at + 4].copy_from_slice(&77u32.to_le_bytes());
    let Err(CompileError::Object(reason)) = CellObject::from_elf(&elf) else { panic!("accepted") };
    assert!(reason.contains("version 77"), "{reason}");
}

#[test]
fn damaged_files_are_errors_or_consistent_objects() {
    let elf = sample::object().to_elf().unwrap();
    for end in 0..elf.len() {
        let _ = CellObject::from_elf(&elf[..end]);
    }
    for i in 0..elf.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff, elf[i] ^ 1, elf[i].wrapping_add(1)] {
            let mut damaged = elf.clone();
            damaged[i] = value;
            if let Ok(object) = CellObject::from_elf(&damaged) {
                object.validate().unwrap();
            }
        }
    }
    // Pairs of bytes, by a fixed linear congruence.
    let mut state = 1u64;
    let mut random = |n: usize| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize % n
    };
    for _ in 0..20_000 {
        let mut damaged = elf.clone();
        for _ in 0..1 + random(4) {
            damaged[random(elf.len())] = random(256) as u8;
        }
        let _ = CellObject::from_elf(&damaged);
    }
}

#[test]
fn many_symbols_with_one_long_name_are_refused() {
    let mut object = sample::object();
    object.symbols = (0..1000)
        .map(|_| crate::object::Symbol { name: "x".repeat(10_000), offset: 0x10, size: 1, global: false })
        .collect();
    assert!(CellObject::from_elf(&object.to_elf().unwrap()).is_err());
}

/// A file in the temporary directory, removed when dropped.
struct TemporaryFile(std::path::PathBuf);

impl TemporaryFile {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(alloc::format!("planks-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        TemporaryFile(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What a tool prints, with nothing on standard error; `None` if it is not installed.
fn run(tool: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(tool).args(args).output().ok()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{tool}: {errors}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn binutils_and_gdb_understand_the_file() {
    let object = sample::object();
    let file = TemporaryFile::new("tools.o", &object.to_elf().unwrap());
    if let Some(text) = run("readelf", &["-aW", file.path()]) {
        for part in ["FUNC    GLOBAL DEFAULT    1 get", "R_X86_64_PC32", ".bss + 3c", ".planks.metadata"] {
            assert!(text.contains(part), "no `{part}` in\n{text}");
        }
        assert!(!text.contains("Warning"), "{text}");
    }
    if let Some(text) = run("readelf", &["--debug-dump=frames", file.path()]) {
        assert!(text.contains("pc=0000000000000010..000000000000001e"), "{text}");
    }
    if let Some(text) = run("objdump", &["-dr", file.path()]) {
        assert!(text.contains("<get>:") && text.contains("R_X86_64_PC32"), "{text}");
    }
    if let Some(text) = run("gdb", &["-nx", "-batch", "-ex", "disassemble get", file.path()]) {
        assert!(text.contains("push   %rbp") && text.contains("ret"), "{text}");
    }
}

/// `ld` lays the sections out as it likes; its relocations then give what ours gave.
#[test]
fn ld_relocates_references_and_unwind_info() {
    let object = sample::object();
    let file = TemporaryFile::new("ld.o", &object.to_elf().unwrap());
    let partial = TemporaryFile::new("ld-r.o", &[]);
    let linked = TemporaryFile::new("ld.elf", &[]);
    if run("ld", &["-r", file.path(), "-o", partial.path()]).is_none() {
        return;
    }
    run("ld", &["-e", "get", "--eh-frame-hdr", partial.path(), "-o", linked.path()]);
    let bytes: Vec<u8> = std::fs::read(&linked.0).unwrap();
    let find = |name: &str| {
        use object::read::elf::ElfFile64;
        use object::{Object, ObjectSection};
        let file = ElfFile64::<object::LittleEndian>::parse(&bytes[..]).unwrap();
        let section = file.section_by_name(name).unwrap();
        (section.address(), section.data().unwrap().to_vec())
    };
    let (text_at, text) = find(".text");
    let (bss_at, _) = find(".bss");
    let field = i32::from_le_bytes(text[0x17..0x1b].try_into().unwrap());
    assert_eq!(text_at + 0x1b + field as u64, bss_at + 0x40);
    let frames = run("readelf", &["--debug-dump=frames", linked.path()]).unwrap();
    assert!(frames.contains(&alloc::format!("pc={:016x}..{:016x}", text_at + 0x30, text_at + 0x36)), "{frames}");
}
