//! Loads stand next to what uses them, and trap in their order.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use support::{code_of, compile};
use wasm_cell::CellObject;
use wasm_cell::trap::TrapCode;

fn code(object: &CellObject) -> Vec<Instruction> {
    let (offset, size) = code_of(object, "run");
    let code = &object.text[offset as usize..(offset + size) as usize];
    Decoder::with_ip(64, code, offset.into(), DecoderOptions::NONE).iter().collect()
}

/// Wasm offsets of the accesses, in the order of the code.
fn accesses(object: &CellObject) -> Vec<u32> {
    let sites = object.metadata.traps.sites.iter().filter(|t| t.code == TrapCode::MemoryOutOfBounds);
    sites.map(|t| t.wasm_offset).collect()
}

#[test]
fn sums_that_go_around_a_loop_stay_in_registers() {
    // Parameters: address, count. Then twelve sums and a factor: with all loads first they would need twenty-five registers.
    let sum = |i: usize| {
        let load = format!("(v128.load offset={} (local.get 0))", 16 * i);
        format!("(local.set {} (f64x2.add (local.get {}) (f64x2.mul (local.get 14) {load})))", i + 2, i + 2)
    };
    let sums: String = (0..12).map(sum).collect();
    let total: String = (2..14).map(|i| format!("(local.get {i})")).collect::<String>() + &"(f64x2.add)".repeat(11);
    let object = compile(&format!(
        r#"(module (memory 1) (func (export "run") (param i32 i32) (result v128) (local {})
            (local.set 14 (f64x2.splat (f64.const 3)))
            (loop {sums} (local.set 0 (i32.add (local.get 0) (i32.const 192)))
                (br_if 0 (local.tee 1 (i32.sub (local.get 1) (i32.const 1)))))
            {total}))"#,
        "v128 ".repeat(13)
    ));
    let on_stack = |i: &Instruction| i.op_count() == 2 && i.memory_base() == Register::RSP;
    let of_vector = |i: &Instruction| {
        (0..2)
            .any(|k| i.op_kind(k) == OpKind::Register && (Register::XMM0..=Register::XMM15).contains(&i.op_register(k)))
    };
    assert_eq!(code(&object).into_iter().filter(|i| on_stack(i) && of_vector(i)).count(), 0);
    assert!(accesses(&object).is_sorted());
}

#[test]
fn loads_that_may_trap_do_so_in_their_order() {
    for reversed in [false, true] {
        // Twelve loads, and then what uses them.
        let loads: String =
            (0..12).map(|i| format!("(local.set {} (i32.load offset={} (local.get 0)))", i + 1, 64 * i)).collect();
        let uses: String = (0..12)
            .map(|i| if reversed { 11 - i } else { i })
            .map(|i| format!("(local.set 13 (i32.rotl (i32.mul (local.get 13) (i32.const 77)) (local.get {})))", i + 1))
            .collect();
        let locals = "i32 ".repeat(13);
        let object = compile(&format!(
            "(module (memory 1) (func (export \"run\") (param i32) (result i32) (local {locals}) (local.set 13 (i32.const 5))
                {loads} {uses} (local.get 13)))"
        ));
        let order = accesses(&object);
        assert!(order.len() == 12 && order.is_sorted(), "{reversed}: {order:?}");
    }
}

#[test]
fn loads_stay_before_stores_and_calls() {
    for barrier in ["(i32.store offset=4 (local.get 0) (local.get 1))", "(call $f)"] {
        let loads: String =
            (0..12).map(|i| format!("(local.set {} (i32.load offset={} (local.get 0)))", i + 1, 64 * i)).collect();
        let uses: String =
            (1..13).map(|i| format!("(local.set 13 (i32.add (local.get 13) (local.get {i})))")).collect();
        let locals = "i32 ".repeat(13);
        let object = compile(&format!(
            "(module (import \"h\" \"f\" (func $f)) (memory 1)
                (func (export \"run\") (param i32) (result i32) (local {locals}) {loads} {barrier} {uses} (local.get 13)))"
        ));
        let all = code(&object);
        let is_barrier = |i: &Instruction| {
            let site = object.metadata.traps.lookup(i.ip() as u32).is_some();
            i.mnemonic() == Mnemonic::Call || site && i.op0_kind() == OpKind::Memory
        };
        let at = all.iter().position(is_barrier).unwrap();
        let late = all[at + 1..].iter().filter(|i| object.metadata.traps.lookup(i.ip() as u32).is_some());
        assert_eq!(late.count(), 0, "{barrier}");
    }
}
