//! A new version of a module takes over the code of what did not change, and the object is the one that compiling every
//! function gives, byte for byte.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use support::compiler;
use wasm_cell::reuse::{OldVersion, ReuseReport, ReuseTable};
use wasm_cell::{CellObject, CompileOptions, Compiler, CompilerSettings, CpuFeatures};

/// Compiles `new` as the version after `old`, both ways. Everything in the objects is compared.
fn next_with(
    compiler: &Compiler,
    old: &CellObject,
    new: &[u8],
    options: &CompileOptions<'_>,
) -> (CellObject, ReuseReport) {
    let (object, report) = compiler.compile_reusing(new, options, Some(OldVersion::of(old))).unwrap();
    // The same layout, but nothing to take over.
    let empty = ReuseTable::default();
    let nothing = OldVersion { reuse: &empty, ..OldVersion::of(old) };
    let (full, all) = compiler.compile_reusing(new, options, Some(nothing)).unwrap();
    assert_eq!(all.reused, 0);
    assert_eq!(report.reused + report.compiled, all.compiled);
    assert_eq!(object.text, full.text, "text");
    assert_eq!(object.rodata, full.rodata, "rodata and .eh_frame");
    assert_eq!(object.metadata.traps, full.metadata.traps, "trap table");
    assert_eq!(object.metadata.addresses, full.metadata.addresses, "address map");
    assert_eq!(object, full);
    object.validate().unwrap();
    assert_eq!(CellObject::from_elf(&object.to_elf().unwrap()).unwrap(), object);
    if object.metadata.layout == compiler.compile(new, options).unwrap().metadata.layout {
        assert_eq!(object, compiler.compile(new, options).unwrap());
    }
    (object, report)
}

fn next(old: &str, new: &str) -> ReuseReport {
    let compiler = compiler();
    let options = CompileOptions::default();
    let old = compiler.compile(&wat::parse_str(old).unwrap(), &options).unwrap();
    next_with(&compiler, &old, &wat::parse_str(new).unwrap(), &options).1
}

/// Functions with traps, calls of all kinds, globals, tables and memory, on many lines of which each test changes one.
const BASE: &str = r#"(module $m
    (type $unary (func (param i32) (result i32)))
    (type $pair (func (param i32 i32) (result i32 i32)))
    (import "host" "log" (func $log (type $unary)))
    (import "host" "note" (func $note (param i64)))
    (import "host" "limit" (global $limit i32))
    (import "host" "state" (global $state (mut i64)))
    (memory $mem 2)
    (table $t 4 8 funcref)
    (global $count (mut i32) (i32.const 0))
    (global $scale f64 (f64.const 2.5))
    (global $last (mut f32) (f32.const 0))
    (func $div (export "div") (param i32 i32) (result i32) (i32.div_s (local.get 0) (local.get 1)))
    (func $load (param i32) (result i32) (i32.load offset=4 (local.get 0)))
    (func $bump (result i32) (global.set $count (i32.add (global.get $count) (i32.const 1))) (global.get $count))
    (func $scaled (param f64) (result f64) (f64.mul (local.get 0) (global.get $scale)))
    (func $limited (param i32) (result i32)
        (if (i32.gt_u (local.get 0) (global.get $limit)) (then (unreachable))) (call $log (local.get 0)))
    (func $both (param i32) (result i32) (call $load (call $div (local.get 0) (call $bump))))
    (func $fac (param i32) (result i32)
        (if (result i32) (local.get 0)
            (then (i32.mul (local.get 0) (call $fac (i32.sub (local.get 0) (i32.const 1))))) (else (i32.const 1))))
    (func $indirect (param i32) (result i32) (call_indirect $t (type $unary) (i32.const 3) (local.get 0)))
    (func $tail (param i32) (result i32) (return_call $fac (local.get 0)))
    (func $grow (result i32) (memory.grow (i32.const 1)))
    (func $fill (memory.fill (i32.const 0) (i32.const 1) (i32.const 9)) (data.drop 1))
    (func $swap (param i32 i32) (result i32 i32)
        local.get 0 local.get 1 block (type $pair) loop (type $pair) br 1 end end)
    (func $ref (result funcref) (ref.func $fac))
    (func $store (param i64) (global.set $state (local.get 0)) (call $note (global.get $state))
        (global.set $last (f32.const 1.5)))
    (func $vector (param v128) (result v128)
        (i32x4.add (local.get 0) (v128.const i32x4 1 2 3 4)) (v128.load offset=16 (i32.const 0)) (v128.xor))
    (func (export "last") (result f32) (global.get $last))
    (elem (i32.const 0) $both $fac)
    (data (i32.const 8) "hello") (data $passive "xyz"))"#;

/// Functions that `BASE` defines.
const ALL: u32 = 16;

/// `BASE` with `from` (which occurs once) made `to`.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(BASE.matches(from).count(), 1, "{from}");
    BASE.replace(from, to)
}

fn after(from: &str, to: &str) -> ReuseReport {
    next(BASE, &changed(from, to))
}

#[test]
fn an_equal_module_compiles_nothing() {
    let report = next(BASE, BASE);
    assert_eq!((report.reused, report.compiled), (ALL, 0));
    assert_eq!((report.layout.added, report.layout.packed), (0, false));
    assert!(report.reused_bytes > 0 && report.compiled_bytes == 0);
}

#[test]
fn a_changed_body_is_compiled_with_those_that_hold_it_and_no_other() {
    // `both` has the small bodies of `load` and `bump` in place of calls.
    assert_eq!(after("i32.load offset=4", "i32.load offset=12").compiled, 2);
    assert_eq!(after("(i32.const 1))))) (else (i32.const 1)", "(i32.const 2))))) (else (i32.const 1)").compiled, 1);
    // Longer, so that offsets in the module and in the text move.
    assert_eq!(
        after(
            "(func $bump (result i32)",
            "(func $bump (result i32) (drop (i32.div_u (i32.const 9) (global.get $limit)))"
        )
        .compiled,
        2
    );
}

#[test]
fn functions_can_be_added_removed_and_reordered() {
    let added = after("(func $load ", "(func $new (param i32) (result i32) (call $load (local.get 0)))\n(func $load ");
    assert_eq!(added.compiled, 1);
    assert_eq!(next(&changed("(func $load ", "(func $new (param i64))\n(func $load "), BASE).compiled, 0);
    let fill = "(func $fill (memory.fill (i32.const 0) (i32.const 1) (i32.const 9)) (data.drop 1))";
    let moved = changed(fill, "").replace("(func $div ", &format!("{fill}\n(func $div "));
    assert_eq!(next(BASE, &moved).compiled, 0);
}

#[test]
fn a_call_of_another_function_of_the_same_type_keeps_the_code_and_gets_the_new_target() {
    let report = after("(return_call $fac", "(return_call $load");
    assert_eq!(report.compiled, 0);
    assert_eq!(after("(ref.func $fac)", "(ref.func $both)").compiled, 1, "another slot");
}

#[test]
fn a_callee_of_another_type_changes_its_callers() {
    let new = BASE
        .replace(
            "(func $bump (result i32)",
            "(func $bump (result f32) (f32.convert_i32_s (call $bump_before)))\n(func $bump_before (result i32)",
        )
        .replace("(call $bump))", "(i32.trunc_sat_f32_s (call $bump)))");
    // The new function of that name, and its caller; the old one goes on under another name.
    assert_eq!(next(BASE, &new).compiled, 2);
}

#[test]
fn imports_can_be_inserted_before_others() {
    let report = after("(import \"host\" \"log\"", "(import \"host\" \"new\" (func))\n(import \"host\" \"log\"");
    assert_eq!((report.compiled, report.layout.added), (0, 1));
    let report =
        after("(import \"host\" \"state\"", "(import \"host\" \"new\" (global (mut i32)))\n(import \"host\" \"state\"");
    assert_eq!((report.compiled, report.layout.added), (0, 1));
}

#[test]
fn globals_change_those_who_use_them() {
    assert_eq!(after("(f64.const 2.5)", "(f64.const 2.25)").compiled, 1, "folded");
    assert_eq!(after("(global $count (mut i32) (i32.const 0))", "(global $count (mut i32) (i32.const 7))").compiled, 0);
    let inserted = after("(global $last", "(global $new (mut i64) (i64.const 1))\n(global $last");
    assert_eq!((inserted.compiled, inserted.layout.added), (0, 1));
    assert_eq!(after("(global $limit i32)", "(global $limit (mut i32))").compiled, 1);
}

#[test]
fn memories_change_those_who_access_them() {
    assert_eq!(after("(memory $mem 2)", "(memory $mem 3)").compiled, 0, "a minimum that no code depends on");
    assert_eq!(after("(memory $mem 2)", "(memory $mem 2) (memory 1)").compiled, 0);
    // Checked: load and both, which holds it, fill, grow, vector.
    let report = after("(memory $mem 2)", "(memory $mem 2 (pagesize 1))");
    assert!((3..=5).contains(&report.compiled), "{report:?}");
}

#[test]
fn a_minimum_that_code_depends_on_changes_that_code() {
    let far = changed("i32.load offset=4", "i32.load offset=4294967280");
    // The function and the one that holds it.
    assert_eq!(next(&far, &far.replace("(memory $mem 2)", "(memory $mem 65536)")).compiled, 2);
    let compiler = compiler();
    let options = CompileOptions { guarded_memories: false, ..CompileOptions::default() };
    let old = compiler.compile(&wat::parse_str(BASE).unwrap(), &options).unwrap();
    let new = wat::parse_str(changed("(memory $mem 2)", "(memory $mem 3)")).unwrap();
    assert!(next_with(&compiler, &old, &new, &options).1.compiled > 0);
}

#[test]
fn tables_change_those_who_use_them() {
    assert_eq!(after("(table $t 4 8 funcref)", "(table $t 4 9 funcref)").compiled, 0);
    assert_eq!(after("(table $t 4 8 funcref)", "(table $t 5 5 funcref)").compiled, 1, "a constant bound");
    assert_eq!(
        after("(table $t 4 8 funcref)", "(table 1 funcref) (table $t 4 8 funcref)").compiled,
        1,
        "another table"
    );
}

#[test]
fn types_are_compared_by_content() {
    assert_eq!(after("(type $unary (func", "(type $new (func (param f64 i64)))\n(type $unary (func").compiled, 0);
    let report = after(
        "(type $pair (func (param i32 i32) (result i32 i32)))",
        "(type $pair (func (param i32 i32) (result i32 i32)))\n(type (func))",
    );
    assert_eq!(report.compiled, 0);
    // Of the function's own type, of a callee's, of an indirect call's.
    assert_eq!(
        after(
            "(func $grow (result i32) (memory.grow (i32.const 1)))",
            "(func $grow (result i64) (i64.extend_i32_u (memory.grow (i32.const 1))))"
        )
        .compiled,
        1
    );
    assert_eq!(after("(call_indirect $t (type $unary)", "(call_indirect $t (param i32) (result i32)").compiled, 0);
}

#[test]
fn segments_exports_and_names_change_no_code() {
    assert_eq!(after("\"hello\"", "\"a longer text\"").compiled, 0);
    assert_eq!(after("(data $passive \"xyz\")", "(data $passive \"\") (data \"more\")").compiled, 0);
    assert_eq!(
        after("(data (i32.const 8) \"hello\")", "(data (i32.const 0) \"x\") (data (i32.const 8) \"hello\")").compiled,
        0
    );
    assert_eq!(after("(elem (i32.const 0) $both $fac)", "(elem (i32.const 0) $fac $div $both $swap)").compiled, 0);
    assert_eq!(after("(func $swap ", "(func $swap (export \"swap\") ").compiled, 0);
    assert_eq!(after("(export \"div\")", "(export \"quotient\")").compiled, 0);
    assert_eq!(next(BASE, &BASE.replace("$fac", "$factorial")).compiled, 0);
    assert_eq!(after("(func $swap ", "(start $fill) (func $swap ").compiled, 0);
}

#[test]
fn an_index_that_takes_more_bytes_is_a_change_because_offsets_in_the_body_move() {
    // 126 functions more: some indices need two bytes now.
    let many: String = (0..126).map(|i| format!("(func $x{i} (result i32) (i32.const {i}))")).collect();
    let report = after("(func $div ", &format!("{many}\n(func $div "));
    // The callers of functions whose index has crossed 127, and nobody else.
    assert!(report.compiled >= 126, "{report:?}");
    assert!(report.reused >= ALL - 6, "{report:?}");
}

#[test]
fn type_salts_change_those_who_compare_ids() {
    let compiler = compiler();
    let options = CompileOptions::default();
    let wasm = wat::parse_str(BASE).unwrap();
    let old = compiler.compile(&wasm, &options).unwrap();
    let salts = [(old.metadata.types[0].hash, 3)];
    let (new, report) = next_with(&compiler, &old, &wasm, &CompileOptions { type_salts: &salts, ..options });
    assert_ne!(old.text, new.text);
    assert!(report.compiled > 0 && report.reused > 0, "{report:?}");
}

#[test]
fn other_settings_take_nothing_over() {
    let wasm = wat::parse_str(BASE).unwrap();
    let options = CompileOptions::default();
    let baseline = Compiler::new(CompilerSettings { cpu: CpuFeatures::NONE, ..Default::default() }).unwrap();
    let old = baseline.compile(&wasm, &options).unwrap();
    assert_eq!(next_with(&compiler(), &old, &wasm, &options).1.reused, 0);
    let old = compiler().compile(&wasm, &options).unwrap();
    let (mapped, report) = next_with(&compiler(), &old, &wasm, &CompileOptions { full_address_map: true, ..options });
    assert_eq!(report.reused, 0);
    let (_, report) = next_with(&compiler(), &mapped, &wasm, &CompileOptions { full_address_map: true, ..options });
    assert_eq!(report.compiled, 0);
}

#[test]
fn many_versions_in_a_row_stay_exact() {
    let compiler = compiler();
    let options = CompileOptions::default();
    let mut old = compiler.compile(&wat::parse_str(BASE).unwrap(), &options).unwrap();
    let mut text = BASE.to_string();
    for i in 0..30 {
        text = match i % 3 {
            0 => text.replace(
                "(func $load ",
                &format!("(func $n{i} (param i32) (result i32) (call $load (i32.const {i})))\n(func $load "),
            ),
            1 => text.replace("(global $last", &format!("(global $g{i} (mut i32) (i32.const {i}))\n(global $last")),
            _ => text.replace(
                "(import \"host\" \"log\"",
                &format!("(import \"host\" \"i{i}\" (func))\n(import \"host\" \"log\""),
            ),
        };
        let (object, report) = next_with(&compiler, &old, &wat::parse_str(&text).unwrap(), &options);
        assert!(report.compiled <= 1, "{i}: {report:?}");
        old = object;
    }
}

#[test]
fn an_invalid_new_version_is_refused_like_any_module() {
    let compiler = compiler();
    let options = CompileOptions::default();
    let wasm = wat::parse_str(BASE).unwrap();
    let old = compiler.compile(&wasm, &options).unwrap();
    for i in (8..wasm.len()).step_by(3) {
        let mut damaged = wasm.clone();
        damaged[i] ^= 1 << (i % 8);
        let full = compiler.compile(&damaged, &options);
        match compiler.compile_reusing(&damaged, &options, Some(OldVersion::of(&old))) {
            Ok((object, report)) => {
                assert_eq!(report.reused + report.compiled, object.metadata.funcs.len() as u32);
                full.unwrap();
                next_with(&compiler, &old, &damaged, &options);
            }
            Err(e) => assert_eq!(full.unwrap_err(), e),
        }
    }
}

#[test]
fn parts_that_do_not_belong_together_cost_a_full_compile_and_nothing_else() {
    let compiler = compiler();
    let options = CompileOptions::default();
    let wasm = wat::parse_str(BASE).unwrap();
    let old = compiler.compile(&wasm, &options).unwrap();
    let whole = OldVersion::of(&old);
    for (text, eh_frame) in
        [(&whole.text[..9], whole.eh_frame), (whole.text, &whole.eh_frame[..99]), (whole.text, &[][..])]
    {
        let broken = OldVersion { text, eh_frame, ..whole };
        let (object, _) = compiler.compile_reusing(&wasm, &options, Some(broken)).unwrap();
        assert_eq!(object, old);
    }
}
