//! The rows of `.eh_frame` are right at every instruction of every prologue.
//!
//! The prologue is executed symbolically: stack pointer and frame pointer as distances from the CFA, and what the stack
//! slots hold. At each instruction the unwind row must give the CFA, and the places of the return address and of every
//! callee-saved register that was changed.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use gimli::{
    BaseAddresses, CfaRule, EhFrame, LittleEndian, Register, RegisterRule, UnwindContext, UnwindSection, X86_64,
};
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register as Reg};
use std::collections::HashMap;
use support::compile;
use wasm_cell::CellObject;

/// What a stack slot holds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Held {
    ReturnAddress,
    /// A register's value at entry, by DWARF number.
    Entry(u16),
}

struct Machine {
    /// Distance of rsp from the CFA.
    rsp: i64,
    /// Distance of rbp from the CFA, once it is a frame pointer.
    rbp: Option<i64>,
    r11: Option<Held>,
    slots: HashMap<i64, Held>,
}

fn dwarf(reg: Reg) -> Option<u16> {
    Some(match reg {
        Reg::RBX => 3,
        Reg::RBP => 6,
        Reg::R12 => 12,
        Reg::R13 => 13,
        Reg::R14 => 14,
        Reg::R15 => 15,
        _ => return None,
    })
}

impl Machine {
    /// Executes an instruction; false if it is behind the prologue.
    fn step(&mut self, i: &Instruction) -> bool {
        let address = || i.memory_displacement64() as i64 + self.rsp;
        match i.mnemonic() {
            Mnemonic::Push if i.op0_register() == Reg::RBP => {
                self.rsp -= 8;
                self.slots.insert(self.rsp, Held::Entry(6));
            }
            Mnemonic::Sub if i.op0_register() == Reg::RSP => self.rsp -= i.immediate(1) as i64,
            Mnemonic::Add if i.op0_register() == Reg::RSP => self.rsp += i.immediate(1) as i64,
            Mnemonic::Mov if i.op0_register() == Reg::RBP && i.op1_register() == Reg::RSP => self.rbp = Some(self.rsp),
            Mnemonic::Mov if i.op0_register() == Reg::R11 && i.op1_kind() == OpKind::Memory => {
                self.r11 = self.slots.get(&address()).copied();
            }
            Mnemonic::Mov if i.op0_kind() == OpKind::Memory && i.memory_base() == Reg::RSP => {
                let held = match i.op1_register() {
                    Reg::R11 => self.r11,
                    other => dwarf(other).map(Held::Entry),
                };
                match held {
                    Some(held) => self.slots.insert(address(), held),
                    // A probe, or the body.
                    None => return i.memory_displacement64() == 0 && i.op1_register() == Reg::ESP,
                };
            }
            _ => return false,
        }
        true
    }
}

/// Bytes that a function's `ret` pops; `None` if it has none, because it ends in a tail call.
fn popped(code: &[u8]) -> Option<i64> {
    let decoder = Decoder::with_ip(64, code, 0, DecoderOptions::NONE);
    let ret = decoder.into_iter().find(|i| i.mnemonic() == Mnemonic::Ret)?;
    Some(if ret.op_count() == 0 { 0 } else { i64::from(ret.immediate16()) })
}

/// Checks one function, which pops this many bytes of stack arguments; the number of instructions checked.
fn check(object: &CellObject, offset: u32, size: u32, popped: i64) -> usize {
    let image = &object.metadata.image;
    let section = &object.rodata[(image.eh_frame_offset - image.rodata_offset) as usize..];
    let section = EhFrame::new(section, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(u64::from(image.eh_frame_offset));
    let mut context = UnwindContext::new();
    let code = &object.text[offset as usize..(offset + size) as usize];
    let mut decoder = Decoder::with_ip(64, code, u64::from(offset), DecoderOptions::NONE);
    let entry = -8 - popped;
    let mut m = Machine { rsp: entry, rbp: None, r11: None, slots: HashMap::from([(entry, Held::ReturnAddress)]) };
    let mut checked = 0;
    loop {
        let i = decoder.decode();
        let row = section
            .unwind_info_for_address(&bases, &mut context, i.ip(), EhFrame::cie_from_offset)
            .unwrap_or_else(|e| panic!("no row at {:#x}: {e}", i.ip()));
        let CfaRule::RegisterAndOffset { register, offset: cfa } = *row.cfa() else { panic!("CFA by expression") };
        let base = if register == X86_64::RSP { m.rsp } else { m.rbp.expect("rbp is the frame pointer") };
        assert_eq!(base + cfa, 0, "CFA at {:#x} ({i})", i.ip());
        let holds = |register: Register, held: Held| match row.register(register) {
            Some(RegisterRule::Offset(at)) => {
                assert_eq!(m.slots.get(&at), Some(&held), "{held:?} at {:#x} ({i})", i.ip())
            }
            _ => assert!(
                register.0 != 16 && (register.0 != 6 || m.rbp.is_none()),
                "no rule for {held:?} at {:#x}",
                i.ip()
            ),
        };
        holds(X86_64::RA, Held::ReturnAddress);
        for n in [3, 6, 12, 13, 14, 15] {
            holds(Register(n), Held::Entry(n));
        }
        checked += 1;
        if !m.step(&i) {
            // Whatever the body changes must have a rule by now: every register that was stored has.
            for held in m.slots.values() {
                if let Held::Entry(n) = held {
                    assert!(
                        matches!(row.register(Register(*n)), Some(RegisterRule::Offset(_))),
                        "register {n} saved, no rule"
                    );
                }
            }
            return checked;
        }
    }
}

fn check_all(wat: &str) {
    let object = compile(wat);
    for func in &object.metadata.funcs {
        let code = &object.text[func.offset as usize..(func.offset + func.size) as usize];
        let checked = check(&object, func.offset, func.size, popped(code).unwrap_or(0));
        assert!(checked >= 2);
    }
}

#[test]
fn leaf() {
    check_all("(module (func (param i32) (result i32) local.get 0))");
}

#[test]
fn callee_saved_registers() {
    let body = (0..8).map(|i| format!("(local.get {i})")).collect::<String>();
    let calls = "(call $g)".repeat(3);
    let adds = "(i64.add)".repeat(7);
    check_all(&format!(
        "(module (func $g) (func (param i64 i64 i64 i64 i64 i64 i64 i64) (result i64) {calls} {body} {adds}))"
    ));
}

#[test]
fn stack_arguments_are_below_the_cfa() {
    for (types, bytes) in [("i64", 8), ("f64", 8), ("v128", 16)] {
        for extra in [1, 2, 3, 16, 40, 400] {
            let in_registers = if types == "i64" { 6 } else { 8 };
            let params = format!("{types} ").repeat(in_registers + extra);
            let object = compile(&format!("(module (func $g) (func (param {params}) (call $g) (call $g)))"));
            let func = &object.metadata.funcs[1];
            let code = &object.text[func.offset as usize..(func.offset + func.size) as usize];
            assert_eq!(popped(code), Some((extra as i64 * bytes + 15) & !15));
            check_all(&format!("(module (func $g) (func (param {params}) (call $g) (call $g)))"));
        }
    }
    // The address of a return area takes an integer register.
    let results = "(result i64 i64 i64 i64 i64 i64 i64 i64 i64)";
    let values = "(local.get 0)".repeat(9);
    check_all(&format!("(module (func (param i64 i64 i64 i64 i64 i64) {results} {values}))"));
}

#[test]
fn frame_over_several_pages() {
    // Many values live across a call need a frame of many spill slots.
    for count in [600, 2000] {
        let loads = (0..count).map(|i| format!("(i64.load offset={} (local.get 0))", 8 * i)).collect::<String>();
        let adds = "(i64.add)".repeat(count - 1);
        check_all(&format!("(module (memory 1) (func $g) (func (param i32) (result i64) {loads} (call $g) {adds}))"));
    }
}

#[test]
fn tail_call_with_more_stack_arguments() {
    for extra in [1, 2, 9, 15, 16, 17, 40] {
        let params = "i64 ".repeat(6 + extra);
        let args = "(i64.const 1)".repeat(6 + extra);
        check_all(&format!(
            "(module (memory 1) (func $g (param {params}))
               (func (param i64) (return_call $g {args}))
               (func $h (param i64) (local i64 i64 i64)
                 (local.set 1 (i64.load (i32.const 0))) (local.set 2 (i64.load (i32.const 8)))
                 (call $h (local.get 0)) (call $h (local.get 1)) (call $h (local.get 2))
                 (drop (i64.add (local.get 1) (local.get 2)))
                 (return_call $g {args})))"
        ));
    }
}

#[test]
fn trap_stubs_have_a_row() {
    let object = compile("(module (func unreachable))");
    let image = &object.metadata.image;
    let section = &object.rodata[(image.eh_frame_offset - image.rodata_offset) as usize..];
    let section = EhFrame::new(section, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(u64::from(image.eh_frame_offset));
    let stub = u64::from(image.text_size) - 1;
    let mut context = UnwindContext::new();
    let row = section.unwind_info_for_address(&bases, &mut context, stub, EhFrame::cie_from_offset).unwrap();
    assert_eq!(*row.cfa(), CfaRule::RegisterAndOffset { register: X86_64::RSP, offset: 8 });
}
