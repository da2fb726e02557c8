//! A trap is reported at the instruction that trapped, also where the processor does it as part of another one.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{CrateNamespace, LoadOptions, Trap};
use wasm_cell::trap::TrapCode;

/// Static offset of the access that is to trap; no other bytes of the module look like it.
const MARK: u32 = 0x1_5a5a;

/// Offset in the module of the access with the mark, whose opcode is so many bytes long.
fn access_in(module: &[u8], opcode_bytes: usize) -> u32 {
    // LEB128 of the mark.
    let mark = [MARK as u8 | 0x80, (MARK >> 7) as u8 | 0x80, (MARK >> 14) as u8];
    let places: Vec<usize> = module.windows(3).enumerate().filter(|(_, w)| *w == mark).map(|(i, _)| i).collect();
    let [place] = places[..] else { panic!("{places:?}") };
    // In between is the alignment.
    (place - 1 - opcode_bytes) as u32
}

fn trap_of(body: &str, opcode_bytes: usize) -> (Trap, u32) {
    let body = body.replace("MARK", &format!("offset={MARK}"));
    let text = format!(
        r#"(module (memory 1) (global $g (mut i32) (i32.const 0)) (func (export "f") (param i32 i32) (local v128) {body}))"#
    );
    let module = wat::parse_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let ns = CrateNamespace::new("test", None);
    let cell = ns.load_wasm("cell", &module, LoadOptions::default()).unwrap();
    let f = cell.typed_func::<(i32, i32), ()>("f").unwrap();
    (f.call((-1, 7)).unwrap_err(), access_in(&module, opcode_bytes))
}

#[test]
fn loads_that_are_part_of_other_instructions_trap_where_they_are() {
    for body in [
        "(global.set $g (i32.load MARK (local.get 0)))",
        "(global.set $g (i32.add (local.get 1) (i32.load MARK (local.get 0))))",
        "(global.set $g (i32.sub (local.get 1) (i32.load MARK (local.get 0))))",
        "(global.set $g (i32.mul (local.get 1) (i32.load MARK (local.get 0))))",
        "(global.set $g (i32.xor (i32.load MARK (local.get 0)) (local.get 1)))",
        "(global.set $g (i32.lt_u (i32.load MARK (local.get 0)) (local.get 1)))",
        "(global.set $g (i32.eqz (i32.load MARK (local.get 0))))",
        "(global.set $g (i32.popcnt (i32.load MARK (local.get 0))))",
        "(if (i32.lt_s (i32.load MARK (local.get 0)) (local.get 1)) (then (global.set $g (i32.const 3))))",
        "(if (i32.load MARK (local.get 0)) (then (global.set $g (i32.const 3))))",
        "(loop (br_if 0 (i32.ne (local.get 1) (i32.load MARK (local.get 0)))))",
        "(global.set $g (select (local.get 0) (local.get 1) (i32.eq (local.get 1) (i32.load MARK (local.get 0)))))",
        "(i32.store (local.get 1) (i32.add (local.get 1) (i32.load MARK (local.get 0))))",
    ] {
        let (trap, expected) = trap_of(body, 1);
        assert_eq!((trap.code(), trap.wasm_offset()), (TrapCode::MemoryOutOfBounds, Some(expected)), "{body}");
    }
}

#[test]
fn loads_of_vectors_that_are_operands_trap_where_they_are() {
    for op in ["i32x4.add", "i8x16.add", "f32x4.mul", "v128.and", "i16x8.eq", "i64x2.sub"] {
        let body = format!("(v128.store (i32.const 0) ({op} (local.get 2) (v128.load MARK (local.get 0))))");
        let (trap, expected) = trap_of(&body, 2);
        assert_eq!((trap.code(), trap.wasm_offset()), (TrapCode::MemoryOutOfBounds, Some(expected)), "{op}");
    }
}

#[test]
fn a_load_that_is_done_by_the_store_back_traps_where_the_load_is() {
    // The same address twice: the load is what traps.
    for op in ["add", "sub", "and", "or", "xor"] {
        let text = format!(
            r#"(module (memory 1) (func (export "f") (param i32 i32)
                (i32.store offset={MARK} (local.get 0) (i32.{op} (i32.load offset={MARK} (local.get 0)) (local.get 1)))))"#
        );
        let module = wat::parse_str(text).unwrap();
        let load = module.windows(2).position(|w| w == [0x28, 2]).unwrap();
        let ns = CrateNamespace::new("test", None);
        let cell = ns.load_wasm("cell", &module, LoadOptions::default()).unwrap();
        let trap = cell.typed_func::<(i32, i32), ()>("f").unwrap().call((-1, 7)).unwrap_err();
        assert_eq!(trap.wasm_offset(), Some(load as u32), "{op}");
    }
}
