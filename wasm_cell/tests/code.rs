//! Properties of the generated code and of the tables that describe it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use iced_x86::{Code as Op, Decoder, DecoderOptions, Instruction, Mnemonic};
use std::collections::HashSet;
use support::{code_of, compile, compiler};
use wasm_cell::trap::TrapCode;
use wasm_cell::{CellObject, CompileOptions, Compiler, CompilerSettings};

/// All instructions of the functions.
fn instructions(object: &CellObject) -> Vec<Instruction> {
    let mut all = vec![];
    for f in &object.metadata.funcs {
        let code = &object.text[f.offset as usize..(f.offset + f.size) as usize];
        all.extend(Decoder::with_ip(64, code, u64::from(f.offset), DecoderOptions::NONE));
    }
    all
}

/// The address and trap code of each stub, read from its instructions.
fn stubs(object: &CellObject) -> Vec<(u64, TrapCode)> {
    let end = object.metadata.funcs.last().map_or(0, |f| f.offset + f.size) as usize;
    let start = end.next_multiple_of(16);
    let mut stubs = vec![];
    for at in (start..object.text.len()).step_by(16) {
        let mut d = Decoder::with_ip(64, &object.text[at..], at as u64, DecoderOptions::NONE);
        let (mov, jmp) = (d.decode(), d.decode());
        assert_eq!((mov.code(), jmp.code()), (Op::Mov_r32_imm32, Op::Jmp_rm64));
        let raise = object.metadata.image.data_offset as i32 + wasm_cell::abi::HEADER_RAISE;
        assert_eq!(jmp.ip_rel_memory_address(), raise as u64);
        stubs.push((at as u64, TrapCode::from_u8(mov.immediate(1) as u8).unwrap()));
    }
    stubs
}

const TRAPPING: &str = r#"(module
  (memory 1) (table 3 10 funcref) (table $fixed 3 3 funcref)
  (type $t (func (param i32) (result i32)))
  (func (export "unreachable") unreachable)
  (func (export "div_s") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
  (func (export "rem_u") (param i64 i64) (result i64) (i64.rem_u (local.get 0) (local.get 1)))
  (func (export "indirect") (param i32) (result i32) (call_indirect (type $t) (local.get 0) (local.get 0)))
  (func (export "fixed") (param i32) (result i32) (call_indirect $fixed (type $t) (local.get 0) (local.get 0)))
  (func (export "get") (param i32) (result funcref) (table.get (local.get 0)))
  (func (export "non_null") (param funcref) (result (ref func)) (ref.as_non_null (local.get 0)))
  (func (export "fill") (param i32) (memory.fill (i32.const 0) (i32.const 0) (local.get 0)))
  (func (export "table_fill") (param i32) (table.fill (i32.const 0) (ref.null func) (local.get 0)))
  (func (export "far") (param i32) (result i32) (i32.load offset=0x10000000 (local.get 0)))
  (func (export "trunc") (param f64) (result i32) (i32.trunc_f64_s (local.get 0))))"#;

#[test]
fn explicit_traps_are_calls_to_stubs() {
    let object = compile(TRAPPING);
    let stubs = stubs(&object);
    let all = instructions(&object);
    let (start, size) = code_of(&object, "trunc");
    let conversion = u64::from(start)..u64::from(start + size);
    let mut sites = HashSet::new();
    for (i, instruction) in all.iter().enumerate() {
        let target = stubs.iter().find(|(at, _)| instruction.near_branch_target() == *at);
        if let (Mnemonic::Call, Some((_, code))) = (instruction.mnemonic(), target) {
            let site = object.metadata.traps.lookup(instruction.next_ip() as u32).expect("return address has a row");
            assert_eq!(site.code, *code);
            sites.insert(*code);
        }
        if instruction.code() == Op::Ud2 && !conversion.contains(&instruction.ip()) {
            // Never executed: behind a call to a stub, or for a divisor that was checked already.
            let before = &all[i - 1];
            let behind_stub = stubs.iter().any(|(at, _)| before.near_branch_target() == *at);
            let site = object.metadata.traps.lookup(instruction.ip() as u32).unwrap();
            assert!(behind_stub || site.code == TrapCode::IntegerDivisionByZero, "{:#x}", instruction.ip());
        }
    }
    use TrapCode::*;
    assert_eq!(
        sites,
        HashSet::from([
            Unreachable,
            IntegerDivisionByZero,
            IntegerOverflow,
            TableOutOfBounds,
            BadSignature,
            NullReference,
            MemoryOutOfBounds
        ])
    );
}

#[test]
fn trap_sites_give_the_wasm_offset_of_their_instruction() {
    let wat = "(module (memory 1) (func (export \"f\") (param i32) (result i32) nop nop
        (i32.div_u (i32.load offset=4 (local.get 0)) (local.get 0))))";
    let wasm = wat::parse_str(wat).unwrap();
    let object = compile(wat);
    let opcode_at = |code: TrapCode| {
        let sites: Vec<_> = object.metadata.traps.sites.iter().filter(|s| s.code == code).collect();
        assert!(!sites.is_empty());
        let offsets: HashSet<u32> = sites.iter().map(|s| s.wasm_offset).collect();
        assert_eq!(offsets.len(), 1, "{sites:?}");
        wasm[*offsets.iter().next().unwrap() as usize]
    };
    assert_eq!(opcode_at(TrapCode::MemoryOutOfBounds), 0x28, "i32.load");
    assert_eq!(opcode_at(TrapCode::IntegerDivisionByZero), 0x6e, "i32.div_u");
}

#[test]
fn calls_are_in_the_address_map_by_return_address() {
    // One with a table of branches is never put in place of calls.
    let wat = "(module (func $g (br_table 0 (i32.const 0))) (func (export \"f\") nop (call $g) (call $g)))";
    let wasm = wat::parse_str(wat).unwrap();
    let object = compile(wat);
    let calls: Vec<u64> =
        instructions(&object).iter().filter(|i| i.mnemonic() == Mnemonic::Call).map(|i| i.next_ip()).collect();
    let map = &object.metadata.addresses;
    assert_eq!(map.iter().map(|a| u64::from(a.code_offset)).collect::<Vec<_>>(), calls);
    assert!(map.iter().all(|a| wasm[a.wasm_offset as usize] == 0x10));
    assert!(map[0].wasm_offset < map[1].wasm_offset);
}

#[test]
fn full_address_map_covers_the_code() {
    let wasm = wat::parse_str(TRAPPING).unwrap();
    let options = CompileOptions { full_address_map: true, ..CompileOptions::default() };
    let full = compiler().compile(&wasm, &options).unwrap();
    let sparse = compiler().compile(&wasm, &CompileOptions::default()).unwrap();
    assert_eq!(full.text, sparse.text);
    assert!(full.metadata.addresses.len() > 2 * sparse.metadata.addresses.len());
    for (i, f) in full.metadata.funcs.iter().enumerate().skip(1) {
        assert!(full.metadata.place(f.offset + f.size - 1, false).is_some(), "function {i}");
    }
}

#[test]
fn same_bytes_in_same_bytes_out() {
    let wasm = wat::parse_str(TRAPPING).unwrap();
    let one = compiler();
    let first = one.compile(&wasm, &CompileOptions::default()).unwrap();
    // With used working memory, and with a compiler of its own.
    assert_eq!(one.compile(&wasm, &CompileOptions::default()).unwrap(), first);
    assert_eq!(compiler().compile(&wasm, &CompileOptions::default()).unwrap(), first);
}

#[test]
fn compiler_is_shared_between_threads() {
    let compiler = compiler();
    let wasm = wat::parse_str(TRAPPING).unwrap();
    let expected = compiler.compile(&wasm, &CompileOptions::default()).unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(compiler.compile(&wasm, &CompileOptions::default()).unwrap(), expected);
                }
            });
        }
    });
}

#[test]
fn functions_have_their_type_id_in_front() {
    let object = compile(TRAPPING);
    for f in &object.metadata.funcs {
        assert_eq!(f.offset % 16, 0);
        let at = f.offset as usize - 4;
        let id = u32::from_le_bytes(object.text[at..at + 4].try_into().unwrap());
        assert_eq!(id, object.metadata.type_ids[f.ty as usize].id.0);
    }
}

#[test]
fn every_reference_stays_in_the_image() {
    let object = compile(TRAPPING);
    let image = &object.metadata.image;
    for i in instructions(&object) {
        if i.is_ip_rel_memory_operand() {
            let to = i.ip_rel_memory_address();
            assert!(to <= u64::from(image.data_offset + image.data_size), "{:#x}", i.ip());
        }
        if i.near_branch_target() != 0 && matches!(i.mnemonic(), Mnemonic::Call | Mnemonic::Jmp) {
            assert!(i.near_branch_target() < object.text.len() as u64);
        }
    }
    assert!(object.data_references.iter().all(|r| (r.text_offset as usize) + 4 <= object.text.len()));
}

#[test]
fn symbols_are_unique_and_named_after_the_source() {
    let object = compile(
        r#"(module (func $same) (func $other) (func (export "exported")) (func)
             (@custom "name" "\00\03\02mm\01\0d\02\00\04same\01\04same"))"#,
    );
    let names: Vec<&str> = object.symbols.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["same", "same[1]", "exported", "wasm[3]"]);
    assert_eq!(object.symbols.iter().map(|s| s.global).collect::<Vec<_>>(), [false, false, true, false]);
    assert_eq!(object.metadata.module_name.as_deref(), Some("mm"));
}

#[test]
fn bad_name_section_is_ignored() {
    let object = compile(r#"(module (func (export "f")) (@custom "name" "\01\ff\ff\ff"))"#);
    assert_eq!(object.symbols[0].name, "f");
    assert!(object.metadata.func_names.is_empty());
}

#[test]
fn debug_sections_are_kept() {
    let object = compile(r#"(module (func) (@custom ".debug_info" "abc") (@custom "other" "x"))"#);
    assert_eq!(object.metadata.custom, [(".debug_info".to_string(), b"abc".to_vec())]);
}

#[test]
fn constant_globals_and_fixed_tables_are_not_loaded() {
    let object = compile(
        r#"(module (global i32 (i32.const 42)) (table 5 5 funcref)
             (func (export "g") (result i32) (global.get 0))
             (func (export "s") (result i32) (table.size 0)))"#,
    );
    assert!(object.data_references.is_empty());
}

#[test]
fn processors_without_rounding_use_builtins() {
    let compiler = Compiler::new(CompilerSettings { verify_ir: true, ..Default::default() }).unwrap();
    let wasm = wat::parse_str("(module (func (param f64) (result f64) (f64.floor (local.get 0))))").unwrap();
    let object = compiler.compile(&wasm, &CompileOptions::default()).unwrap();
    assert!(object.metadata.builtins.contains(&wasm_cell::builtin::Builtin::FloorF64));
}

#[test]
fn large_function_indices_and_many_functions_lie_in_order() {
    // With tail calls, so that they are not put in place of calls.
    let funcs = (0..20_000).map(|i| format!("(func (result i32) (return_call {i}))")).collect::<String>();
    let object = compile(&format!("(module {funcs} (func (result i32) (call 19999)) (func (result i32) (call 0)))"));
    let meta = &object.metadata;
    assert_eq!(meta.funcs.len(), 20_002);
    assert!(meta.funcs.windows(2).all(|w| w[0].offset + w[0].size <= w[1].offset - 4));
    assert_eq!(meta.func_at(meta.funcs[12_345].offset + 1), Some(12_345));
    let calls: Vec<u64> = instructions(&object)
        .iter()
        .filter(|i| i.mnemonic() == Mnemonic::Call)
        .map(|i| i.near_branch_target())
        .collect();
    assert_eq!(calls, [u64::from(meta.funcs[19_999].offset), u64::from(meta.funcs[0].offset)]);
}

/// Runs on a stack as small as a kernel task's.
fn on_small_stack(f: impl FnOnce() + Send) {
    std::thread::scope(|s| {
        std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(s, f).unwrap().join().unwrap();
    });
}

#[test]
fn deep_nesting_does_not_need_a_deep_stack() {
    let compiler = Compiler::new(CompilerSettings::default()).unwrap();
    let depth = 9_000;
    // Blocks whose branches leave all of them, and an operand 20,000 instructions deep.
    let mut body = vec![0u8];
    body.extend([2, 0x40].repeat(depth));
    body.extend([0x41, 0, 0x0d]);
    body.extend(leb(depth - 1));
    body.extend([0x0b].repeat(depth));
    body.extend([0x41, 1]);
    body.extend([0x41, 3, 0x6a].repeat(20_000));
    body.extend([0x1a, 0x0b]);
    let wasm = module_of(&body);
    on_small_stack(|| {
        compiler.compile(&wasm, &CompileOptions::default()).unwrap();
    });
}

#[test]
fn deep_expression_of_loads_does_not_need_a_deep_stack() {
    let compiler = Compiler::new(CompilerSettings::default()).unwrap();
    let mut body = vec![0u8, 0x41, 1];
    // xor, add and multiply by turns, so that nothing folds.
    for _ in 0..10_000 {
        body.extend([0x28, 2, 0, 0x41, 7, 0x6c, 0x41, 5, 0x73]);
    }
    body.extend([0x1a, 0x0b]);
    let mut wasm = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x05\x03\x01\0\x01".to_vec();
    wasm.extend(code_section(&body));
    on_small_stack(|| {
        compiler.compile(&wasm, &CompileOptions::default()).unwrap();
    });
}

#[test]
fn huge_branch_tables_compile() {
    let compiler = Compiler::new(CompilerSettings::default()).unwrap();
    let count = 50_000;
    let labels = (0..=count).map(|i| if i % 2 == 0 { "0 " } else { "1 " }).collect::<String>();
    for (ty, value, end) in [("", "", ""), ("(result i32)", "(i32.const 9)", "drop")] {
        let wasm = wat::parse_str(format!(
            "(module (func (param i32) (block {ty} (block {ty} {value} (br_table {labels} (local.get 0)))) {end}))"
        ));
        let wasm = wasm.unwrap();
        on_small_stack(|| {
            let object = compiler.compile(&wasm, &CompileOptions::default()).unwrap();
            assert!(object.text.len() > 4 * count);
        });
    }
}

/// A module with one function of type `() -> ()`.
fn module_of(body: &[u8]) -> Vec<u8> {
    let mut wasm = b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0".to_vec();
    wasm.extend(code_section(body));
    wasm
}

fn code_section(body: &[u8]) -> Vec<u8> {
    let mut section = vec![1];
    section.extend(leb(body.len()));
    section.extend(body);
    let mut bytes = vec![10];
    bytes.extend(leb(section.len()));
    bytes.extend(section);
    bytes
}

fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = vec![];
    while n >= 0x80 {
        bytes.push(n as u8 | 0x80);
        n >>= 7;
    }
    bytes.push(n as u8);
    bytes
}
