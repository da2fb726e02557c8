//! Dumps, read back with the readers of wasmparser.

use super::*;
use crate::{CrateNamespace, LoadOptions, StrongCrateRef};
use alloc::string::ToString;
use std::collections::BTreeMap;
use wasmparser::{
    CoreDumpInstance, CoreDumpStackFrame, CoreDumpValue, DataKind, KnownCustom, Operator, Parser, Payload, Validator,
    WasmFeatures,
};

/// A dump, read.
#[derive(Default)]
struct Read {
    name: std::string::String,
    modules: Vec<std::string::String>,
    instances: Vec<CoreDumpInstance>,
    frames: Vec<CoreDumpStackFrame>,
    memories: Vec<wasmparser::MemoryType>,
    globals: Vec<std::string::String>,
    /// Bytes that are not zero, by memory and address.
    data: BTreeMap<(u32, u64), u8>,
}

fn read(dump: &[u8]) -> Read {
    Validator::new_with_features(WasmFeatures::all()).validate_all(dump).unwrap();
    let mut all = Read::default();
    for payload in Parser::new(0).parse_all(dump) {
        match payload.unwrap() {
            Payload::CustomSection(section) => match section.as_known() {
                KnownCustom::CoreDump(s) => all.name = s.name.into(),
                KnownCustom::CoreDumpModules(s) => all.modules = s.modules.iter().map(|m| m.to_string()).collect(),
                KnownCustom::CoreDumpInstances(s) => all.instances = s.instances,
                KnownCustom::CoreDumpStack(s) => all.frames = s.frames,
                _ => panic!("unknown section {}", section.name()),
            },
            Payload::MemorySection(s) => all.memories = s.into_iter().map(|m| m.unwrap()).collect(),
            Payload::GlobalSection(s) => {
                for global in s {
                    let global = global.unwrap();
                    assert!(!global.ty.mutable);
                    let value = global.init_expr.get_operators_reader().read().unwrap();
                    all.globals.push(std::format!("{value:?}"));
                }
            }
            Payload::DataSection(s) => s.into_iter().for_each(|d| add_data(&mut all.data, d.unwrap())),
            _ => {}
        }
    }
    all
}

fn add_data(to: &mut BTreeMap<(u32, u64), u8>, segment: wasmparser::Data<'_>) {
    let DataKind::Active { memory_index, offset_expr } = segment.kind else { panic!("passive") };
    let at = match offset_expr.get_operators_reader().read().unwrap() {
        Operator::I32Const { value } => u64::from(value as u32),
        Operator::I64Const { value } => value as u64,
        other => panic!("{other:?}"),
    };
    let bytes = segment.data.iter().enumerate().filter(|(_, b)| **b != 0);
    to.extend(bytes.map(|(i, b)| ((memory_index, at + i as u64), *b)));
}

fn load(ns: &CrateNamespace, name: &str, wat: &str) -> StrongCrateRef {
    ns.load_wasm(name, &wat::parse_str(wat).unwrap(), LoadOptions::default()).unwrap()
}

const PROVIDER: &str = r#"(module
    (memory (export "memory") 2 3)
    (global $calls (export "calls") (mut i64) (i64.const -5))
    (func $fail (export "fail") (param i32 f64)
        (i32.store (i32.const 70000) (i32.const 0x01020304))
        (global.set $calls (i64.const -6))
        unreachable))"#;

const USER: &str = r#"(module
    (import "provider" "memory" (memory 1))
    (import "provider" "calls" (global (mut i64)))
    (import "provider" "fail" (func $fail (param i32 f64)))
    (memory 1 1)
    (global f32 (f32.const 1.5))
    (global f64 (f64.const -2.5))
    (global v128 (v128.const i32x4 1 2 3 4))
    (global funcref (ref.func $run))
    (global i32 (i32.const -7))
    (data (memory 1) (i32.const 65535) "\ff")
    (data (i32.const 1) "ab")
    (func $run (export "run") (param i32) (call $fail (local.get 0) (f64.const 0)) nop))"#;

fn trap(cell: &StrongCrateRef) -> Trap {
    cell.typed_func::<(i32,), ()>("run").unwrap().call((1,)).unwrap_err()
}

#[test]
fn a_dump_holds_frames_memory_and_globals_of_all_instances_on_the_stack() {
    let ns = CrateNamespace::new("dump", None);
    let (provider, user) = (load(&ns, "provider", PROVIDER), load(&ns, "user", USER));
    let trap = trap(&user);
    let state = State::of(&[provider.clone(), user.clone()]);
    let dump = Coredump::new(&trap, &state, DEFAULT_MEMORY_LIMIT);
    assert_eq!(dump.left_out(), 0);
    let bytes = dump.to_vec().unwrap();
    assert!(bytes.len() < 20_000, "pages of zeroes are left out: {} bytes", bytes.len());
    let all = read(&bytes);

    assert_eq!((all.name.as_str(), &all.modules[..]), ("provider", &["provider".into(), "user".into()][..]));
    // The provider's memory and global are shared: each is in the dump once.
    let indices = |i: &CoreDumpInstance| (i.module_index, i.memories.clone(), i.globals.clone());
    let instances: Vec<_> = all.instances.iter().map(indices).collect();
    assert_eq!(instances, [(0, [0].into(), [0].into()), (1, [0, 1].into(), [0, 1, 2, 3, 4, 5].into())]);

    let offset = |cell: &StrongCrateRef, frame: &WasmFrame<'_>| {
        frame.wasm_offset.unwrap() - cell.module().unwrap().metadata().funcs[0].wasm_offset
    };
    let from_trap: Vec<WasmFrame<'_>> = trap.frames().filter_map(|f| f.wasm).collect();
    let frames: Vec<_> = all.frames.iter().map(|f| (f.instanceidx, f.funcidx, f.codeoffset)).collect();
    assert_eq!(frames, [(0, 0, offset(&provider, &from_trap[0])), (1, 1, offset(&user, &from_trap[1]))]);
    assert!(frames.iter().all(|f| f.2 > 0));
    let missing = |f: &CoreDumpStackFrame| f.locals.iter().filter(|l| matches!(l, CoreDumpValue::Missing)).count();
    assert_eq!(all.frames.iter().map(missing).collect::<Vec<_>>(), [2, 1], "one for each parameter");

    let sizes: Vec<_> = all.memories.iter().map(|m| (m.initial, m.maximum)).collect();
    assert_eq!(sizes, [(2, Some(3)), (1, Some(1))]);
    let expected = [
        ((0, 1), b'a'),
        ((0, 2), b'b'),
        ((0, 70000), 4),
        ((0, 70001), 3),
        ((0, 70002), 2),
        ((0, 70003), 1),
        ((1, 65535), 0xff),
    ];
    assert_eq!(all.data, expected.into());
    let bits = |f: f64| std::format!("{f:?}");
    assert_eq!(all.globals[0], "I64Const { value: -6 }", "the value at the trap");
    assert_eq!(all.globals[1], std::format!("F32Const {{ value: Ieee32({}) }}", 1.5f32.to_bits()), "{}", bits(1.5));
    assert_eq!(all.globals[2], std::format!("F64Const {{ value: Ieee64({}) }}", (-2.5f64).to_bits()));
    assert!(all.globals[3].starts_with("V128Const") && all.globals[4].starts_with("RefNull"), "{:?}", all.globals);
    assert_eq!(all.globals[5], "I32Const { value: -7 }");
}

#[test]
fn a_dump_of_unloaded_cells_still_has_the_stack() {
    let ns = CrateNamespace::new("dump", None);
    let (provider, user) = (load(&ns, "provider", PROVIDER), load(&ns, "user", USER));
    let trap = trap(&user);
    ns.unload("user").unwrap();
    let state = State::of(&[provider, user]);
    let all = read(&Coredump::new(&trap, &state, DEFAULT_MEMORY_LIMIT).to_vec().unwrap());
    assert_eq!(all.frames.len(), 2);
    let of = |f: &CoreDumpStackFrame| &all.instances[f.instanceidx as usize];
    assert_eq!((of(&all.frames[0]).memories.len(), of(&all.frames[1]).memories.len()), (1, 0));
    assert_eq!(all.modules.len(), 2);
}

#[test]
fn memory_beyond_the_limit_is_left_out_and_counted() {
    let ns = CrateNamespace::new("dump", None);
    load(&ns, "provider", PROVIDER);
    let user = load(&ns, "user", USER);
    let trap = trap(&user);
    let state = State::of(core::slice::from_ref(&user));
    let dump = Coredump::new(&trap, &state, 5000);
    assert_eq!(dump.left_out(), 2 * PAGE_SIZE as u64);
    let all = read(&dump.to_vec().unwrap());
    assert_eq!(all.data.keys().copied().collect::<Vec<_>>(), [(0, 1), (0, 2)]);
}

#[test]
fn writing_ends_with_the_first_error_of_the_sink() {
    let trap = Trap::new(wasm_cell::trap::TrapCode::OutOfMemory);
    let state = State::of(&[]);
    let dump = Coredump::new(&trap, &state, 0);
    let mut pieces = 0;
    let ended = dump.write(|_| {
        pieces += 1;
        if pieces == 3 { Err("disk full") } else { Ok(()) }
    });
    assert_eq!((ended, pieces), (Err("disk full"), 3));
    let all = read(&dump.to_vec().unwrap());
    assert!(all.frames.is_empty() && all.instances.is_empty());
}
