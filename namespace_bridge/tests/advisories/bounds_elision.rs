//! Bounds checks that were left out, or done on another address than the one accessed.

use super::{call, load_with, namespace};
use namespace_bridge::{AddPolicy, LoadOptions, Val};
use std::fmt::Write;
use wasm_cell::trap::TrapCode;

const PAGE: u64 = 65536;

/// An address as code computes it: the index type, the text, and the value for an argument.
type Address = (&'static str, &'static str, fn(u64) -> u64);

/// Arithmetic that an instruction selector may fold into the addressing mode, where it would not wrap at 32 bits.
const ADDRESSES: [Address; 9] = [
    ("i32", "(local.get 0)", |x| x & 0xffff_ffff),
    ("i32", "(i32.shl (local.get 0) (i32.const 3))", |x| (x << 3) & 0xffff_ffff),
    ("i32", "(i32.shl (local.get 0) (i32.const 1))", |x| (x << 1) & 0xffff_ffff),
    ("i32", "(i32.add (local.get 0) (i32.const -65536))", |x| x.wrapping_sub(PAGE) & 0xffff_ffff),
    ("i32", "(i32.add (i32.shl (local.get 0) (i32.const 2)) (i32.const 64))", |x| ((x << 2) + 64) & 0xffff_ffff),
    ("i32", "(i32.mul (local.get 0) (i32.const 9))", |x| (x.wrapping_mul(9)) & 0xffff_ffff),
    ("i32", "(i32.sub (i32.const 0) (local.get 0))", |x| x.wrapping_neg() & 0xffff_ffff),
    ("i64", "(i64.extend_i32_u (local.get 0))", |x| x & 0xffff_ffff),
    ("i64", "(i64.add (i64.extend_i32_s (local.get 0)) (i64.const 32))", |x| (i64::from(x as u32 as i32) + 32) as u64),
];

const OFFSETS: [u64; 9] = [0, 1, 8, 4095, 65528, 65536, 0x7fff_fff0, 0xffff_fff0, 0xffff_ffff];

const ACCESSES: [(&str, u64); 4] = [("i32.load8_u", 1), ("i32.load16_s", 2), ("i64.load", 8), ("v128.load", 16)];

/// Arguments around everything that could be a limit.
fn arguments() -> impl Iterator<Item = u64> {
    let edges = [0, 8, 64, PAGE / 8, PAGE / 4, PAGE, 2 * PAGE, 1 << 28, 1 << 29, 1 << 30, 1 << 31, 1 << 32];
    edges.into_iter().flat_map(|e: u64| (0..3).flat_map(move |d| [e.wrapping_add(d * 8), e.wrapping_sub(1 + d * 7)]))
}

#[test]
fn every_access_is_checked_at_the_address_that_it_uses() {
    let ns = namespace();
    for guarded in [true, false] {
        for index in ["i32", "i64"] {
            let mut text = format!("(module (memory {index} 1)");
            let chosen: Vec<&Address> = ADDRESSES.iter().filter(|a| a.0 == index).collect();
            for (a, (_, address, _)) in chosen.iter().enumerate() {
                for (o, offset) in OFFSETS.iter().enumerate() {
                    for (w, (op, _)) in ACCESSES.iter().enumerate() {
                        let access = format!("(drop ({op} offset={offset} {address}))");
                        write!(text, r#"(func (export "{a} {o} {w}") (param i32) {access})"#).unwrap();
                    }
                }
            }
            text.push(')');
            let options = LoadOptions::default().policy(AddPolicy::Replace).guarded_memories(guarded);
            let cell = load_with(&ns, "accesses", &text, options);
            for (a, (_, address, value)) in chosen.iter().enumerate() {
                for (o, offset) in OFFSETS.iter().enumerate() {
                    for (w, (op, width)) in ACCESSES.iter().enumerate() {
                        let f = cell.typed_func::<(i32,), ()>(&format!("{a} {o} {w}")).unwrap();
                        for x in arguments() {
                            let end = u128::from(value(x & 0xffff_ffff)) + u128::from(offset + width);
                            let outcome = f.call((x as u32 as i32,)).map_err(|t| t.code());
                            let expected =
                                if end <= u128::from(PAGE) { Ok(()) } else { Err(TrapCode::MemoryOutOfBounds) };
                            assert_eq!(outcome, expected, "{op} offset={offset} at {address} of {x:#x}, {guarded}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_check_does_not_stand_for_a_later_access_that_reaches_further() {
    let ns = namespace();
    let text = r#"(module (memory i64 1)
        (func (export "ascending") (param i64) (result i32)
            (i32.add (i32.load8_u offset=0 (local.get 0)) (i32.load8_u offset=1000 (local.get 0))))
        (func (export "descending") (param i64) (result i32)
            (i32.add (i32.load8_u offset=1000 (local.get 0)) (i32.load8_u offset=0 (local.get 0))))
        (func (export "branches") (param i64 i32) (result i32)
            (if (local.get 1) (then (drop (i32.load8_u offset=1000 (local.get 0)))))
            (i32.load8_u offset=1000 (local.get 0)))
        (func (export "wider") (param i64) (result i64)
            (drop (i32.load8_u (local.get 0)))
            (i64.load (local.get 0)))
        (func (export "loop") (param i64 i64) (result i32) (local $sum i32)
            (loop $again
                (local.set $sum (i32.add (local.get $sum) (i32.load8_u (local.get 0))))
                (local.set 0 (i64.add (local.get 0) (i64.const 1)))
                (br_if $again (i64.lt_u (local.get 0) (local.get 1))))
            (local.get $sum)))"#;
    for guarded in [true, false] {
        let options = LoadOptions::default().policy(AddPolicy::Replace).guarded_memories(guarded);
        let cell = load_with(&ns, "twice", text, options);
        let last = (PAGE - 1001) as i64;
        for name in ["ascending", "descending"] {
            assert!(call(&cell, name, &[Val::I64(last)]).is_ok());
            assert_eq!(call(&cell, name, &[Val::I64(last + 1)]), Err(TrapCode::MemoryOutOfBounds));
        }
        for taken in [0, 1] {
            assert!(call(&cell, "branches", &[Val::I64(last), Val::I32(taken)]).is_ok());
            let beyond = call(&cell, "branches", &[Val::I64(last + 1), Val::I32(taken)]);
            assert_eq!(beyond, Err(TrapCode::MemoryOutOfBounds));
        }
        assert!(call(&cell, "wider", &[Val::I64(65528)]).is_ok());
        assert_eq!(call(&cell, "wider", &[Val::I64(65529)]), Err(TrapCode::MemoryOutOfBounds));
        assert!(call(&cell, "loop", &[Val::I64(65000), Val::I64(65536)]).is_ok());
        assert_eq!(call(&cell, "loop", &[Val::I64(65000), Val::I64(65537)]), Err(TrapCode::MemoryOutOfBounds));
    }
}

#[test]
fn growing_between_two_accesses_moves_the_limit_for_the_second() {
    let ns = namespace();
    let text = r#"(module (memory 1 3)
        (func (export "f") (param i32) (result i32)
            (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then (return (i32.const -1))))
            (i32.load (local.get 0)))
        (func (export "g") (param i32) (result i32) (i32.load (local.get 0)))
        (table $t 1 2 funcref)
        (func (export "grown") (param i32) (result i32)
            (drop (table.grow $t (ref.null func) (i32.const 1)))
            (ref.is_null (table.get $t (local.get 0)))))"#;
    for guarded in [true, false] {
        let options = LoadOptions::default().policy(AddPolicy::Replace).guarded_memories(guarded);
        let cell = load_with(&ns, "growing", text, options);
        let at = |x: u64| [Val::I32(x as i32)];
        assert_eq!(call(&cell, "g", &at(PAGE)), Err(TrapCode::MemoryOutOfBounds));
        assert_eq!(call(&cell, "f", &at(PAGE)), Ok(Val::I32(0)));
        assert_eq!(call(&cell, "f", &at(3 * PAGE)), Err(TrapCode::MemoryOutOfBounds));
        assert_eq!(call(&cell, "g", &at(3 * PAGE - 4)), Ok(Val::I32(0)));
        assert_eq!(call(&cell, "f", &at(0)), Ok(Val::I32(-1)));
        assert_eq!(call(&cell, "grown", &at(1)), Ok(Val::I32(1)));
        assert_eq!(call(&cell, "grown", &at(2)), Err(TrapCode::TableOutOfBounds));
    }
}

#[test]
fn table_indices_are_compared_in_full() {
    let ns = namespace();
    let text = r#"(module (type $f (func (result i32)))
        (table $t i64 2 2 funcref) (elem (table $t) (i64.const 0) func $one $two)
        (func $one (result i32) i32.const 1) (func $two (result i32) i32.const 2)
        (func (export "call") (param i64) (result i32) (call_indirect $t (type $f) (local.get 0)))
        (func (export "get") (param i64) (result i32) (ref.is_null (table.get $t (local.get 0)))))"#;
    let cell = load_with(&ns, "table", text, LoadOptions::default());
    for index in [2, 1 << 32, (1 << 32) + 1, 1 << 61, i64::MIN, -1, -2] {
        assert_eq!(call(&cell, "call", &[Val::I64(index)]), Err(TrapCode::TableOutOfBounds), "{index:#x}");
        assert_eq!(call(&cell, "get", &[Val::I64(index)]), Err(TrapCode::TableOutOfBounds), "{index:#x}");
    }
    assert_eq!(call(&cell, "call", &[Val::I64(1)]), Ok(Val::I32(2)));
}
