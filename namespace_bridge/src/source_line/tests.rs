//! Lines of modules with hand-made DWARF, of what clang makes, and of garbage.

use super::*;
use crate::{CrateNamespace, LoadOptions, Trap};
use alloc::{format, string::ToString, vec};
use gimli::write::{
    Address, AttributeValue, DwarfUnit, EndianVec, LineProgram, LineString, Range, RangeList, Sections,
};
use gimli::{Encoding, Format, LineEncoding};
use std::process::Command;

/// Debug sections by name.
type Debug = Vec<(String, Vec<u8>)>;

/// `outer` covers `[begin, begin + 10)`; from `begin + 4` on `inner` is inlined in it, called at line 22.
fn debug_sections(version: u16, begin: u64) -> Debug {
    let encoding = Encoding { format: Format::Dwarf32, version, address_size: 4 };
    let mut dwarf = DwarfUnit::new(encoding);
    let text = |t: &str| LineString::String(t.as_bytes().to_vec());
    let mut program = LineProgram::new(encoding, LineEncoding::default(), text("/src"), None, text("plank.c"), None);
    let directory = program.default_directory();
    let file = program.add_file(text("plank.c"), directory, None);
    let headers = program.add_directory(text("include"));
    let header = program.add_file(text("inner.h"), headers, None);
    program.begin_sequence(Some(Address::Constant(begin)));
    for (offset, file, line, column) in [(0, file, 20, 3), (4, header, 5, 7), (8, file, 23, 0)] {
        let row = program.row();
        (row.address_offset, row.file, row.line, row.column) = (offset, file, line, column);
        program.generate_row();
    }
    program.end_sequence(10);
    dwarf.unit.line_program = program;

    let unit = &mut dwarf.unit;
    let root = unit.root();
    unit.get_mut(root).set(gimli::DW_AT_comp_dir, AttributeValue::String(b"/src".to_vec()));
    let range = |begin, length| RangeList(vec![Range::StartLength { begin: Address::Constant(begin), length }]);
    let all = unit.ranges.add(range(begin, 10));
    unit.get_mut(root).set(gimli::DW_AT_ranges, AttributeValue::RangeListRef(all));
    let inner = unit.add(root, gimli::DW_TAG_subprogram);
    unit.get_mut(inner).set(gimli::DW_AT_name, AttributeValue::String(b"inner".to_vec()));
    let outer = unit.add(root, gimli::DW_TAG_subprogram);
    let entry = unit.get_mut(outer);
    entry.set(gimli::DW_AT_name, AttributeValue::String(b"outer".to_vec()));
    entry.set(gimli::DW_AT_low_pc, AttributeValue::Address(Address::Constant(begin)));
    entry.set(gimli::DW_AT_high_pc, AttributeValue::Udata(10));
    let block = unit.add(outer, gimli::DW_TAG_lexical_block);
    let inlined = unit.add(block, gimli::DW_TAG_inlined_subroutine);
    let inlined_at = unit.ranges.add(range(begin + 4, 4));
    let entry = unit.get_mut(inlined);
    entry.set(gimli::DW_AT_abstract_origin, AttributeValue::UnitRef(inner));
    entry.set(gimli::DW_AT_ranges, AttributeValue::RangeListRef(inlined_at));
    entry.set(gimli::DW_AT_call_file, AttributeValue::FileIndex(Some(file)));
    entry.set(gimli::DW_AT_call_line, AttributeValue::Udata(22));
    entry.set(gimli::DW_AT_call_column, AttributeValue::Udata(9));

    let mut sections = Sections::new(EndianVec::new(gimli::LittleEndian));
    dwarf.write(&mut sections).unwrap();
    let mut all = Vec::new();
    sections
        .for_each(|id, data| -> Result<(), ()> {
            all.push((id.name().to_string(), data.slice().to_vec()));
            Ok(())
        })
        .unwrap();
    all
}

fn metadata(custom: Debug) -> Metadata {
    Metadata { custom, code_section_offset: 1000, ..Metadata::default() }
}

fn lookup(metadata: &Metadata, offset: u32) -> Vec<String> {
    let show = |f: &SourceFrame| {
        let place = f.location.as_ref().map_or("?".to_string(), |l| l.to_string());
        format!("{} {place}", f.function.as_deref().unwrap_or("?"))
    };
    SourceLines::default().lookup(metadata, offset).iter().map(show).collect()
}

#[test]
fn lines_and_inlined_functions_are_found_in_dwarf_4_and_5() {
    for version in [4, 5] {
        let m = metadata(debug_sections(version, 50));
        assert_eq!(lookup(&m, 1049), [""; 0], "before the function");
        assert_eq!(lookup(&m, 1050), ["outer /src/plank.c:20:3"]);
        assert_eq!(lookup(&m, 1053), ["outer /src/plank.c:20:3"], "between rows");
        let inlined = ["inner /src/include/inner.h:5:7", "outer /src/plank.c:22:9"];
        assert_eq!(lookup(&m, 1054), inlined);
        assert_eq!(lookup(&m, 1057), inlined);
        assert_eq!(lookup(&m, 1058), ["outer /src/plank.c:23"]);
        assert_eq!(lookup(&m, 1060), [""; 0], "behind the function");
        assert_eq!(lookup(&m, 999), [""; 0], "before the code section");
        assert_eq!(lookup(&m, u32::MAX), [""; 0]);
    }
}

#[test]
fn answers_are_kept_up_to_a_limit() {
    let m = metadata(debug_sections(5, 50));
    let lines = SourceLines::default();
    let first = lines.lookup(&m, 1054);
    assert!(Arc::ptr_eq(&first, &lines.lookup(&m, 1054)));
    for offset in 0..3 * KEPT as u32 {
        lines.lookup(&m, 2000 + offset);
    }
    assert_eq!(lines.0.lock().kept.len(), KEPT);
    assert_eq!(lines.lookup(&m, 1054), first);
}

#[test]
fn a_backtrace_does_not_wait_for_the_cache() {
    let m = metadata(debug_sections(5, 50));
    let lines = SourceLines::default();
    let _held = lines.0.lock();
    assert_eq!(lines.lookup(&m, 1050).len(), 1);
}

/// A module with custom sections behind it, which move nothing.
fn with_sections(mut wasm: Vec<u8>, sections: &Debug) -> Vec<u8> {
    for (name, bytes) in sections {
        let mut contents = vec![name.len() as u8];
        contents.extend(name.as_bytes());
        contents.extend(bytes);
        wasm.push(0);
        let mut size = contents.len();
        while size >= 0x80 {
            wasm.push(size as u8 | 0x80);
            size >>= 7;
        }
        wasm.push(size as u8);
        wasm.extend(contents);
    }
    wasm
}

fn trap_of(wasm: &[u8], function: &str) -> (Trap, u32) {
    let namespace = CrateNamespace::new("lines", None);
    let cell = namespace.load_wasm("cell", wasm, LoadOptions::default()).unwrap();
    let trap = match cell.typed_func::<(i32,), i32>(function).unwrap().call((7,)) {
        Err(trap) => trap,
        Ok(n) => panic!("no trap but {n}"),
    };
    (trap, cell.module().unwrap().metadata().code_section_offset)
}

#[test]
fn a_trap_shows_lines_of_its_module_after_the_cell_is_gone() {
    let wasm = wat::parse_str(
        r#"(module (func $divide (param i32) (result i32) (i32.div_s (local.get 0) (i32.const 0)))
            (func $run (export "run") (param i32) (result i32) (i32.add (i32.const 1) (call $divide (local.get 0)))))"#,
    )
    .unwrap();
    let (trap, code) = trap_of(&wasm, "run");
    let at = trap.wasm_offset().unwrap();
    assert_eq!(trap.origin().unwrap().location(), None);
    assert_eq!(trap.to_string(), format!("integer divide by zero in cell!divide at wasm offset {at:#x}"));

    // The division is where `inner` is inlined.
    let debug = debug_sections(5, u64::from(at - code) - 5);
    let (trap, _) = trap_of(&with_sections(wasm, &debug), "run");
    let location = trap.origin().unwrap().location().unwrap();
    assert_eq!((location.file.as_str(), location.line, location.column), ("/src/include/inner.h", 5, 7));
    assert_eq!(
        trap.to_string(),
        format!(
            "integer divide by zero in cell!inner inlined in divide at /src/include/inner.h:5:7 (wasm offset {at:#x})"
        )
    );
    let all = format!("{trap:#}");
    let frames = format!(
        "\n   0: cell!inner at /src/include/inner.h:5:7 (inlined)\n      cell!divide at /src/plank.c:22:9 (wasm offset {at:#x})\n   1: cell!run at wasm offset"
    );
    assert!(all.contains(&frames), "{all}");
}

const SOURCE: &str = "static volatile int zero;
__attribute__((always_inline)) static inline int quotient(int a, int b) {
    return a / b;
}
__attribute__((noinline)) int middle(int a) {
    return quotient(a, zero) + 1;
}
__attribute__((export_name(\"run\"))) int run(int a) {
    return middle(a) * 2;
}
";

#[test]
fn lines_of_a_c_program_are_those_of_its_source() {
    let dir = std::env::temp_dir().join(format!("planks-lines-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("demo.c"), SOURCE).unwrap();
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let built = Command::new("clang")
            .args(["--target=wasm32", "-g", version, "-O1", "-nostdlib", "-Wl,--no-entry", "demo.c", "-o", "demo.wasm"])
            .current_dir(&dir)
            .output();
        match built {
            Ok(o) if o.status.success() => {}
            other => {
                std::println!("SKIPPED: no clang with a wasm32 target here ({other:?})");
                break;
            }
        }
        let (trap, _) = trap_of(&std::fs::read(dir.join("demo.wasm")).unwrap(), "run");
        let all = format!("{trap:#}");
        let at = |function: &str, place: &str| format!("cell!{function} at {}/demo.c:{place}", dir.display());
        let lines: Vec<&str> = all.lines().collect();
        assert_eq!(lines.len(), 4, "{all}");
        assert!(lines[0].contains("integer divide by zero in cell!quotient inlined in middle at "), "{all}");
        assert_eq!(lines[1], format!("   0: {} (inlined)", at("quotient", "3:14")));
        assert!(lines[2].starts_with(&format!("      {} (wasm offset 0x", at("middle", "6:12"))), "{all}");
        assert!(lines[3].starts_with(&format!("   1: {} (wasm offset 0x", at("run", "9:12"))), "{all}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below.max(1)
    }
}

#[test]
fn damaged_dwarf_gives_no_line_or_another_but_no_panic() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for round in 0..20_000 {
        let mut custom = debug_sections_cached(round % 2 == 0);
        for _ in 0..1 + random.next(6) {
            let at = random.next(custom.len());
            let bytes = &mut custom[at].1;
            match random.next(4) {
                0 => bytes.truncate(random.next(bytes.len() + 1)),
                1 => bytes.insert(random.next(bytes.len() + 1), random.next(256) as u8),
                _ if !bytes.is_empty() => {
                    let at = random.next(bytes.len());
                    bytes[at] = [0, 0xff, 0x7f, 0x80, random.next(256) as u8][random.next(5)];
                }
                _ => {}
            }
        }
        let m = metadata(custom);
        let lines = SourceLines::default();
        for offset in [1000, 1050, 1054, 1059, u32::MAX] {
            assert!(lines.lookup(&m, offset).len() <= 34);
        }
    }
}

fn debug_sections_cached(four: bool) -> Debug {
    static BOTH: spin::Once<[Debug; 2]> = spin::Once::new();
    BOTH.call_once(|| [debug_sections(4, 50), debug_sections(5, 50)])[usize::from(four)].clone()
}

#[test]
fn noise_is_no_dwarf() {
    let mut random = Random(7);
    for _ in 0..2_000 {
        let names = [".debug_info", ".debug_abbrev", ".debug_line", ".debug_str", ".debug_ranges", ".debug_rnglists"];
        let noise = |n: &&str| (n.to_string(), (0..random.next(400)).map(|_| random.next(256) as u8).collect());
        let m = metadata(names.iter().map(noise).collect());
        lookup(&m, 1000 + random.next(100) as u32);
    }
}

/// Units that all cover everything, with one table of abbreviations and one line number program for all of them.
fn hostile(units: usize, abbreviations: Vec<u8>, entries: Vec<u8>, program: usize) -> Metadata {
    let mut info = Vec::new();
    for _ in 0..units {
        info.extend((7 + entries.len() as u32).to_le_bytes());
        info.extend([4, 0, 0, 0, 0, 0, 4]);
        info.extend(&entries);
    }
    // minimum_instruction_length, maximum_operations, default_is_stmt, line_base, line_range, opcode_base 1, no tables
    let header = [1u8, 1, 1, 0, 1, 1, 0, 0];
    let mut line = Vec::new();
    line.extend((2 + 4 + header.len() as u32 + program as u32).to_le_bytes());
    line.extend([4, 0]);
    line.extend((header.len() as u32).to_le_bytes());
    line.extend(header);
    line.extend(std::iter::repeat_n(1, program));
    metadata(vec![
        (".debug_info".to_string(), info),
        (".debug_abbrev".to_string(), abbreviations),
        (".debug_line".to_string(), line),
    ])
}

/// What an index, and then a search with it, are paid for with.
#[derive(Debug, PartialEq, Eq)]
struct Cost {
    index: usize,
    search: usize,
}

fn cost(m: &Metadata) -> Cost {
    let dwarf = dwarf(m);
    let mut budget = Budget(INDEX_STEPS);
    let index = Index::new(&dwarf, &mut budget);
    let cost = INDEX_STEPS - budget.0;
    let mut budget = Budget(LOOKUP_STEPS);
    assert!(find(&dwarf, &index, 499_000, &mut budget).is_empty());
    Cost { index: cost, search: LOOKUP_STEPS - budget.0 }
}

/// A unit of one entry that names the line number program.
const WITH_LINE: [u8; 8] = [1, 0x11, 0, 0x10, 0x17, 0, 0, 0];

/// A table of `attributes` that need no bytes, and as many entries of one byte with all of them.
fn entries(attributes: usize, count: usize) -> Metadata {
    let mut table = vec![1, 0x11, 1, 0, 0, 2, 0x2e, 1];
    (0..attributes).for_each(|_| table.extend([0x03, 0x21, 0]));
    table.extend([0, 0, 0]);
    let mut entries = vec![1];
    entries.extend(std::iter::repeat_n(2, count));
    hostile(1, table, entries, 0)
}

/// Many units that all read one table of abbreviations.
fn one_table(units: usize, abbreviations: u32) -> Metadata {
    let mut table = vec![1, 0x11, 0, 0, 0];
    (2..abbreviations)
        .for_each(|code| table.extend([code as u8 | 0x80, (code >> 7) as u8 & 0x7f | 0x80, 0, 0x2e, 0, 0, 0]));
    table.push(0);
    hostile(units, table, vec![1], 0)
}

#[test]
fn dwarf_made_to_take_forever_is_given_up_when_its_budget_is_spent() {
    // Units and a line number program without end.
    let all = Cost { index: INDEX_STEPS, search: LOOKUP_STEPS };
    assert_eq!(cost(&hostile(200_000, WITH_LINE.to_vec(), vec![1, 0, 0, 0, 0], 4 << 20)), all);
    // A megabyte of entries of one byte with as many attributes as are allowed.
    assert_eq!(cost(&entries(ATTRIBUTES_ALLOWED, 1 << 20)).search, LOOKUP_STEPS);
    // With far more, only the table is looked at.
    let refused = cost(&entries(20_000, 1 << 20));
    assert!(refused.index <= 8 * (64 << 10) + 16 && refused.search <= refused.index, "{refused:?}");
    // A large table of abbreviations, read for each of many units.
    assert_eq!(cost(&one_table(200_000, 20_000)).index, INDEX_STEPS);
    assert_eq!(cost(&one_table(200_000, 9_000)).index, INDEX_STEPS);

    // Through the interface too, there is no line and no second index.
    let m = one_table(200_000, 20_000);
    let lines = SourceLines::default();
    (0..4).for_each(|i| assert!(lines.lookup(&m, 500_000 + i).is_empty()));
}

#[test]
fn what_is_read_is_paid_for_and_twice_as_much_costs_no_more_than_twice() {
    type Input = fn(usize) -> Metadata;
    let inputs: [(&str, Input); 4] = [
        ("units", |n| hostile(n, WITH_LINE.to_vec(), vec![1, 0, 0, 0, 0], 10)),
        ("instructions", |n| hostile(1, WITH_LINE.to_vec(), vec![1, 0, 0, 0, 0], 100 * n)),
        ("entries", |n| entries(3, 100 * n)),
        ("abbreviations", |n| one_table(1, 8 * n as u32)),
    ];
    for (what, input) in inputs {
        let total = |n: usize| {
            let Cost { index, search } = cost(&input(n));
            assert!(index < INDEX_STEPS && search < LOOKUP_STEPS, "{what}: {n} is meant to be affordable");
            index + search
        };
        let (once, twice, again) = (total(100), total(200), total(400));
        // As much for each further one as for those before.
        assert_eq!(again - twice, 2 * (twice - once), "{what}: {once}, {twice}, {again} steps");
        assert!(twice - once >= 100, "{what}: {once}, {twice}: not paid for");
    }
}

const ATTRIBUTES_ALLOWED: usize = 256;
