//! Every vector, atomic and wide-arithmetic instruction compiles, on every generation of processors.
//!
//! That the code also computes the right thing is for the specification's own tests, which run elsewhere. Here it counts
//! that no instruction is missing and none needs a library function, for a cell has none to call.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use wasm_cell::cpu::CpuFeatures;
use wasm_cell::types::MemoryStyle;
use wasm_cell::{CellObject, CompileOptions, Compiler, CompilerSettings};

/// Instructions by signature. Letters: `i` i32, `I` i64, `f` f32, `d` f64, `v` v128.
const SIMD: &[(&str, &str, &[&str])] = &[
    ("", "v", &["v128.const i32x4 1 2 3 0xffffffff"]),
    (
        "i",
        "v",
        &[
            "v128.load",
            "v128.load offset=7 align=1",
            "v128.load8x8_s",
            "v128.load8x8_u",
            "v128.load16x4_s",
            "v128.load16x4_u",
            "v128.load32x2_s",
            "v128.load32x2_u",
            "v128.load8_splat",
            "v128.load16_splat",
            "v128.load32_splat",
            "v128.load64_splat",
            "v128.load32_zero",
            "v128.load64_zero",
            "i8x16.splat",
            "i16x8.splat",
            "i32x4.splat",
        ],
    ),
    ("I", "v", &["i64x2.splat"]),
    ("f", "v", &["f32x4.splat"]),
    ("d", "v", &["f64x2.splat"]),
    (
        "iv",
        "",
        &[
            "v128.store",
            "v128.store offset=0xfffffff0",
            "v128.store8_lane 15",
            "v128.store16_lane 7",
            "v128.store32_lane 3",
            "v128.store64_lane 1",
        ],
    ),
    ("iv", "v", &["v128.load8_lane 15", "v128.load16_lane 7", "v128.load32_lane 3", "v128.load64_lane 1"]),
    (
        "v",
        "i",
        &[
            "i8x16.extract_lane_s 15",
            "i8x16.extract_lane_u 0",
            "i16x8.extract_lane_s 7",
            "i16x8.extract_lane_u 0",
            "i32x4.extract_lane 3",
            "v128.any_true",
            "i8x16.all_true",
            "i16x8.all_true",
            "i32x4.all_true",
            "i64x2.all_true",
            "i8x16.bitmask",
            "i16x8.bitmask",
            "i32x4.bitmask",
            "i64x2.bitmask",
        ],
    ),
    ("v", "I", &["i64x2.extract_lane 1"]),
    ("v", "f", &["f32x4.extract_lane 2"]),
    ("v", "d", &["f64x2.extract_lane 1"]),
    ("vi", "v", &["i8x16.replace_lane 9", "i16x8.replace_lane 5", "i32x4.replace_lane 2"]),
    ("vI", "v", &["i64x2.replace_lane 1"]),
    ("vf", "v", &["f32x4.replace_lane 3"]),
    ("vd", "v", &["f64x2.replace_lane 0"]),
    (
        "vi",
        "v",
        &[
            "i8x16.shl",
            "i8x16.shr_s",
            "i8x16.shr_u",
            "i16x8.shl",
            "i16x8.shr_s",
            "i16x8.shr_u",
            "i32x4.shl",
            "i32x4.shr_s",
            "i32x4.shr_u",
            "i64x2.shl",
            "i64x2.shr_s",
            "i64x2.shr_u",
        ],
    ),
    (
        "v",
        "v",
        &[
            "v128.not",
            "i8x16.abs",
            "i16x8.abs",
            "i32x4.abs",
            "i64x2.abs",
            "i8x16.neg",
            "i16x8.neg",
            "i32x4.neg",
            "i64x2.neg",
            "i8x16.popcnt",
            "i16x8.extadd_pairwise_i8x16_s",
            "i16x8.extadd_pairwise_i8x16_u",
            "i32x4.extadd_pairwise_i16x8_s",
            "i32x4.extadd_pairwise_i16x8_u",
            "i16x8.extend_low_i8x16_s",
            "i16x8.extend_high_i8x16_s",
            "i16x8.extend_low_i8x16_u",
            "i16x8.extend_high_i8x16_u",
            "i32x4.extend_low_i16x8_s",
            "i32x4.extend_high_i16x8_s",
            "i32x4.extend_low_i16x8_u",
            "i32x4.extend_high_i16x8_u",
            "i64x2.extend_low_i32x4_s",
            "i64x2.extend_high_i32x4_s",
            "i64x2.extend_low_i32x4_u",
            "i64x2.extend_high_i32x4_u",
            "f32x4.ceil",
            "f32x4.floor",
            "f32x4.trunc",
            "f32x4.nearest",
            "f32x4.abs",
            "f32x4.neg",
            "f32x4.sqrt",
            "f64x2.ceil",
            "f64x2.floor",
            "f64x2.trunc",
            "f64x2.nearest",
            "f64x2.abs",
            "f64x2.neg",
            "f64x2.sqrt",
            "i32x4.trunc_sat_f32x4_s",
            "i32x4.trunc_sat_f32x4_u",
            "i32x4.trunc_sat_f64x2_s_zero",
            "i32x4.trunc_sat_f64x2_u_zero",
            "f32x4.convert_i32x4_s",
            "f32x4.convert_i32x4_u",
            "f64x2.convert_low_i32x4_s",
            "f64x2.convert_low_i32x4_u",
            "f32x4.demote_f64x2_zero",
            "f64x2.promote_low_f32x4",
        ],
    ),
    (
        "vv",
        "v",
        &[
            "i8x16.shuffle 0 1 2 3 16 17 18 19 4 5 6 7 31 30 29 28",
            "i8x16.shuffle 0 16 1 17 2 18 3 19 4 20 5 21 6 22 7 23",
            "i8x16.shuffle 15 14 13 12 11 10 9 8 7 6 5 4 3 2 1 0",
            "i8x16.swizzle",
            "i8x16.eq",
            "i8x16.ne",
            "i8x16.lt_s",
            "i8x16.lt_u",
            "i8x16.gt_s",
            "i8x16.gt_u",
            "i8x16.le_s",
            "i8x16.le_u",
            "i8x16.ge_s",
            "i8x16.ge_u",
            "i16x8.eq",
            "i16x8.ne",
            "i16x8.lt_s",
            "i16x8.lt_u",
            "i16x8.gt_s",
            "i16x8.gt_u",
            "i16x8.le_s",
            "i16x8.le_u",
            "i16x8.ge_s",
            "i16x8.ge_u",
            "i32x4.eq",
            "i32x4.ne",
            "i32x4.lt_s",
            "i32x4.lt_u",
            "i32x4.gt_s",
            "i32x4.gt_u",
            "i32x4.le_s",
            "i32x4.le_u",
            "i32x4.ge_s",
            "i32x4.ge_u",
            "i64x2.eq",
            "i64x2.ne",
            "i64x2.lt_s",
            "i64x2.gt_s",
            "i64x2.le_s",
            "i64x2.ge_s",
            "f32x4.eq",
            "f32x4.ne",
            "f32x4.lt",
            "f32x4.gt",
            "f32x4.le",
            "f32x4.ge",
            "f64x2.eq",
            "f64x2.ne",
            "f64x2.lt",
            "f64x2.gt",
            "f64x2.le",
            "f64x2.ge",
            "v128.and",
            "v128.andnot",
            "v128.or",
            "v128.xor",
            "i8x16.narrow_i16x8_s",
            "i8x16.narrow_i16x8_u",
            "i16x8.narrow_i32x4_s",
            "i16x8.narrow_i32x4_u",
            "i8x16.add",
            "i8x16.add_sat_s",
            "i8x16.add_sat_u",
            "i8x16.sub",
            "i8x16.sub_sat_s",
            "i8x16.sub_sat_u",
            "i8x16.min_s",
            "i8x16.min_u",
            "i8x16.max_s",
            "i8x16.max_u",
            "i8x16.avgr_u",
            "i16x8.q15mulr_sat_s",
            "i16x8.add",
            "i16x8.add_sat_s",
            "i16x8.add_sat_u",
            "i16x8.sub",
            "i16x8.sub_sat_s",
            "i16x8.sub_sat_u",
            "i16x8.mul",
            "i16x8.min_s",
            "i16x8.min_u",
            "i16x8.max_s",
            "i16x8.max_u",
            "i16x8.avgr_u",
            "i16x8.extmul_low_i8x16_s",
            "i16x8.extmul_high_i8x16_s",
            "i16x8.extmul_low_i8x16_u",
            "i16x8.extmul_high_i8x16_u",
            "i32x4.add",
            "i32x4.sub",
            "i32x4.mul",
            "i32x4.min_s",
            "i32x4.min_u",
            "i32x4.max_s",
            "i32x4.max_u",
            "i32x4.dot_i16x8_s",
            "i32x4.extmul_low_i16x8_s",
            "i32x4.extmul_high_i16x8_s",
            "i32x4.extmul_low_i16x8_u",
            "i32x4.extmul_high_i16x8_u",
            "i64x2.add",
            "i64x2.sub",
            "i64x2.mul",
            "i64x2.extmul_low_i32x4_s",
            "i64x2.extmul_high_i32x4_s",
            "i64x2.extmul_low_i32x4_u",
            "i64x2.extmul_high_i32x4_u",
            "f32x4.add",
            "f32x4.sub",
            "f32x4.mul",
            "f32x4.div",
            "f32x4.min",
            "f32x4.max",
            "f32x4.pmin",
            "f32x4.pmax",
            "f64x2.add",
            "f64x2.sub",
            "f64x2.mul",
            "f64x2.div",
            "f64x2.min",
            "f64x2.max",
            "f64x2.pmin",
            "f64x2.pmax",
        ],
    ),
    ("vvv", "v", &["v128.bitselect"]),
];

const RELAXED: &[(&str, &str, &[&str])] = &[
    (
        "v",
        "v",
        &[
            "i32x4.relaxed_trunc_f32x4_s",
            "i32x4.relaxed_trunc_f32x4_u",
            "i32x4.relaxed_trunc_f64x2_s_zero",
            "i32x4.relaxed_trunc_f64x2_u_zero",
        ],
    ),
    (
        "vv",
        "v",
        &[
            "i8x16.relaxed_swizzle",
            "f32x4.relaxed_min",
            "f32x4.relaxed_max",
            "f64x2.relaxed_min",
            "f64x2.relaxed_max",
            "i16x8.relaxed_q15mulr_s",
            "i16x8.relaxed_dot_i8x16_i7x16_s",
        ],
    ),
    (
        "vvv",
        "v",
        &[
            "f32x4.relaxed_madd",
            "f32x4.relaxed_nmadd",
            "f64x2.relaxed_madd",
            "f64x2.relaxed_nmadd",
            "i8x16.relaxed_laneselect",
            "i16x8.relaxed_laneselect",
            "i32x4.relaxed_laneselect",
            "i64x2.relaxed_laneselect",
            "i32x4.relaxed_dot_i8x16_i7x16_add_s",
        ],
    ),
];

const WIDE: &[(&str, &str, &[&str])] =
    &[("IIII", "II", &["i64.add128", "i64.sub128"]), ("II", "II", &["i64.mul_wide_s", "i64.mul_wide_u"])];

/// Atomics: `p` is the type of an address.
fn atomics() -> Vec<(String, &'static str, String)> {
    let mut rows = vec![
        ("".into(), "", "atomic.fence".into()),
        ("pi".into(), "i", "memory.atomic.notify offset=4".into()),
        ("piI".into(), "i", "memory.atomic.wait32 offset=4".into()),
        ("pII".into(), "i", "memory.atomic.wait64 offset=8".into()),
    ];
    for (letter, ty, widths) in [("i", "i32", &["", "8", "16"][..]), ("I", "i64", &["", "8", "16", "32"])] {
        for width in widths {
            let u = if width.is_empty() { "" } else { "_u" };
            rows.push(("p".into(), letter, format!("{ty}.atomic.load{width}{u}")));
            rows.push((format!("p{letter}"), "", format!("{ty}.atomic.store{width}")));
            for op in ["add", "sub", "and", "or", "xor", "xchg"] {
                rows.push((format!("p{letter}"), letter, format!("{ty}.atomic.rmw{width}.{op}{u}")));
            }
            rows.push((format!("p{letter}{letter}"), letter, format!("{ty}.atomic.rmw{width}.cmpxchg{u} offset=16")));
        }
    }
    rows
}

fn types(letters: &str) -> String {
    let name = |c| match c {
        'i' => "i32",
        'I' => "i64",
        'f' => "f32",
        'd' => "f64",
        _ => "v128",
    };
    letters.chars().map(name).collect::<Vec<_>>().join(" ")
}

/// A module with one exported function per row.
fn module<'a>(memory: &str, rows: impl IntoIterator<Item = (String, &'a str, String)>) -> (Vec<u8>, usize) {
    let mut text = format!("(module {memory}\n");
    let mut count = 0;
    for (params, results, op) in rows {
        let operands: String = (0..params.len()).map(|i| format!(" (local.get {i})")).collect();
        let (params, results) = (types(&params), types(results));
        text += &format!(r#"(func (export "{count} {op}") (param {params}) (result {results}) ({op}{operands}))"#);
        text += "\n";
        count += 1;
    }
    text += ")";
    (wat::parse_str(&text).unwrap_or_else(|e| panic!("{e}")), count)
}

fn rows(table: &'static [(&str, &str, &[&str])]) -> impl Iterator<Item = (String, &'static str, String)> {
    table.iter().flat_map(|(params, results, ops)| ops.iter().map(|op| (params.to_string(), *results, op.to_string())))
}

/// From SSE2 only to AVX-512, each with what comes with it.
fn processors() -> [CpuFeatures; 7] {
    let none = CpuFeatures::NONE;
    let ssse3 = CpuFeatures { sse3: true, ssse3: true, ..none };
    let sse41 = CpuFeatures { sse41: true, ..ssse3 };
    let sse42 = CpuFeatures { sse42: true, popcnt: true, ..sse41 };
    let avx = CpuFeatures { avx: true, ..sse42 };
    let v3 = CpuFeatures::V3;
    let avx512 = CpuFeatures {
        avx512f: true,
        avx512vl: true,
        avx512dq: true,
        avx512bitalg: true,
        avx512vbmi: true,
        ..CpuFeatures::V3
    };
    [none, ssse3, sse41, sse42, avx, v3, avx512]
}

/// Compiles for every processor and checks the objects.
fn compile(wasm: &[u8], functions: usize, guarded_memories: bool) -> Vec<CellObject> {
    processors()
        .map(|cpu| {
            let compiler =
                Compiler::new(CompilerSettings { cpu, verify_ir: true, ..CompilerSettings::default() }).unwrap();
            let options = CompileOptions { guarded_memories, ..CompileOptions::default() };
            let object = compiler.compile(wasm, &options).unwrap_or_else(|e| panic!("{cpu:?}: {e}"));
            object.validate().unwrap();
            assert_eq!(object.metadata.funcs.len(), functions);
            assert_eq!(CellObject::from_elf(&object.to_elf().unwrap()).unwrap(), object);
            object
        })
        .into()
}

#[test]
fn every_simd_instruction_compiles_on_every_processor() {
    let (wasm, count) = module("(memory 1)", rows(SIMD));
    // Two shuffles, a load and a store are there more than once.
    assert_eq!(count, 236 + 4);
    compile(&wasm, count, true);
    compile(&wasm, count, false);
}

#[test]
fn every_relaxed_instruction_compiles_on_every_processor() {
    let (wasm, count) = module("", rows(RELAXED));
    assert_eq!(count, 20);
    compile(&wasm, count, true);
}

#[test]
fn every_wide_instruction_compiles_on_every_processor() {
    let (wasm, count) = module("", rows(WIDE));
    compile(&wasm, count, true);
}

#[test]
fn every_atomic_instruction_compiles_for_every_kind_of_memory() {
    for (memory, index) in
        [("(memory 1 2 shared)", "i"), ("(memory 1)", "i"), ("(memory i64 1 2 shared)", "I"), ("(memory i64 1)", "I")]
    {
        let rows = atomics().into_iter().map(|(params, results, op)| (params.replace('p', index), results, op));
        let (wasm, count) = module(memory, rows);
        assert_eq!(count, 67);
        for guarded in [true, false] {
            for object in compile(&wasm, count, guarded) {
                let style = object.metadata.memories[0].style;
                assert_eq!(style == MemoryStyle::Guarded, guarded && index == "i");
            }
        }
    }
}
