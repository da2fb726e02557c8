//! What the compiler leaves out or does in another way has the same results.

#![expect(clippy::unwrap_used, reason = "tests")]

use namespace_bridge::{CrateNamespace, LoadOptions, StrongCrateRef};
use std::fmt::Write;
use wasm_cell::trap::TrapCode;

fn load(text: &str) -> StrongCrateRef {
    let module = wat::parse_str(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    CrateNamespace::new("test", None).load_wasm("cell", &module, LoadOptions::default()).unwrap()
}

/// Around each power of two, around the ends, and some others.
fn numbers() -> Vec<i64> {
    let near = (0..64).flat_map(|k| (-2..=2).map(move |i| (1i64 << k).wrapping_add(i)));
    let others = [3, 5, 6, 7, 9, 10, 11, 12, 13, 24, 25, 60, 100, 125, 365, 641, 1000, 3600, 10_000, 86_400, 1_000_000];
    let wide = (1..40u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) as i64);
    let mut all: Vec<i64> = near.chain(others).chain(wide).flat_map(|n| [n, n.wrapping_neg()]).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// A module with a function for each divisor.
fn divisions(op: &str, ty: &str, divisors: &[i64]) -> StrongCrateRef {
    let mut text = String::from("(module ");
    for (i, d) in divisors.iter().enumerate() {
        let body = format!("({ty}.{op} (local.get 0) ({ty}.const {d}))");
        write!(text, r#"(func (export "f{i}") (param {ty}) (result {ty}) {body})"#).unwrap();
    }
    load(&format!("{text})"))
}

#[test]
fn division_by_constants_is_exact() {
    let numbers = numbers();
    let mut narrow: Vec<i64> = numbers.iter().map(|n| i64::from(*n as i32)).collect();
    narrow.sort_unstable();
    narrow.dedup();
    let mut compared = 0;
    type Narrow = fn(i32, i32) -> Option<i32>;
    let in_32: [(&str, Narrow); 4] = [
        ("div_s", |n, d| n.checked_div(d)),
        ("rem_s", |n, d| (d != 0).then(|| n.wrapping_rem(d))),
        ("div_u", |n, d| (n as u32).checked_div(d as u32).map(|q| q as i32)),
        ("rem_u", |n, d| (n as u32).checked_rem(d as u32).map(|r| r as i32)),
    ];
    for (op, expected) in in_32 {
        let cell = divisions(op, "i32", &narrow);
        for (i, d) in narrow.iter().enumerate() {
            let f = cell.typed_func::<(i32,), i32>(&format!("f{i}")).unwrap();
            for n in &narrow {
                let expected = expected(*n as i32, *d as i32);
                assert_eq!(f.call((*n as i32,)).ok(), expected, "i32.{op} {n} {d}");
                compared += 1;
            }
        }
    }
    type Wide = fn(i64, i64) -> Option<i64>;
    let in_64: [(&str, Wide); 4] = [
        ("div_s", |n, d| n.checked_div(d)),
        ("rem_s", |n, d| (d != 0).then(|| n.wrapping_rem(d))),
        ("div_u", |n, d| (n as u64).checked_div(d as u64).map(|q| q as i64)),
        ("rem_u", |n, d| (n as u64).checked_rem(d as u64).map(|r| r as i64)),
    ];
    for (op, expected) in in_64 {
        let cell = divisions(op, "i64", &numbers);
        for (i, d) in numbers.iter().enumerate() {
            let f = cell.typed_func::<(i64,), i64>(&format!("f{i}")).unwrap();
            for n in &numbers {
                assert_eq!(f.call((*n,)).ok(), expected(*n, *d), "i64.{op} {n} {d}");
                compared += 1;
            }
        }
    }
    assert!(compared > 1_000_000, "{compared}");
}

#[test]
fn division_by_a_constant_zero_and_overflow_trap() {
    let cell = load(
        r#"(module
            (func (export "zero") (param i32) (result i32) (i32.div_s (local.get 0) (i32.const 0)))
            (func (export "remainder") (param i32) (result i32) (i32.rem_u (local.get 0) (i32.const 0)))
            (func (export "overflow") (param i32) (result i32) (i32.div_s (local.get 0) (i32.const -1))))"#,
    );
    let f = |name: &str| cell.typed_func::<(i32,), i32>(name).unwrap();
    assert_eq!(f("zero").call((1,)).unwrap_err().code(), TrapCode::IntegerDivisionByZero);
    assert_eq!(f("remainder").call((1,)).unwrap_err().code(), TrapCode::IntegerDivisionByZero);
    assert_eq!(f("overflow").call((i32::MIN,)).unwrap_err().code(), TrapCode::IntegerOverflow);
    assert_eq!(f("overflow").call((7,)).unwrap(), -7);
}

/// Each function returns what it loads after something that may have changed it. `$loop` makes it one that is optimised.
#[test]
fn what_may_have_changed_is_loaded_again() {
    let cell = load(
        r#"(module
            (memory $m 1) (memory $n 1)
            (table $t 2 funcref)
            (global $g (mut i32) (i32.const 5))
            (func $change (i32.store $m (i32.const 64) (i32.const 9)) (global.set $g (i32.const 9)))
            (func (export "overlapping") (param i32) (result i32)
              (loop $loop (br_if $loop (i32.const 0)))
              (i32.store $m (local.get 0) (i32.const 0x01020304))
              (i32.store8 $m offset=1 (local.get 0) (i32.const 0xff))
              (i32.load $m (local.get 0)))
            (func (export "elsewhere") (param i32 i32) (result i32)
              (loop $loop (br_if $loop (i32.const 0)))
              (i32.store $m (local.get 0) (i32.const 1))
              (i32.store $m (local.get 1) (i32.const 2))
              (i32.load $m (local.get 0)))
            (func (export "narrow") (param i32) (result i32)
              (loop $loop (br_if $loop (i32.const 0)))
              (i32.store $m (local.get 0) (i32.const -2))
              (i32.add (i32.load8_u $m (local.get 0)) (i32.load16_s $m (local.get 0))))
            (func (export "floats") (param i32) (result i32)
              (loop $loop (br_if $loop (i32.const 0)))
              (f32.store $m (local.get 0) (f32.const 1))
              (i32.load $m (local.get 0)))
            (func (export "called") (result i32)
              (loop $loop (br_if $loop (i32.const 0)))
              (i32.store $m (i32.const 64) (i32.const 1))
              (global.set $g (i32.const 1))
              (call $change)
              (i32.add (i32.load $m (i32.const 64)) (global.get $g)))
            (func (export "branches") (param i32) (result i32)
              (loop $loop (br_if $loop (i32.const 0)))
              (i32.store $m (i32.const 64) (i32.const 1))
              (if (local.get 0) (then (i32.store $m (i32.const 64) (i32.const 2))))
              (i32.load $m (i32.const 64)))
            (func (export "around") (param i32) (result i32) (local i32)
              (i32.store $m (i32.const 64) (i32.const 1))
              (loop $loop
                (local.set 1 (i32.add (local.get 1) (i32.load $m (i32.const 64))))
                (i32.store $m (i32.const 64) (i32.const 10))
                (br_if $loop (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
              (local.get 1))
            (func (export "grown") (result i32)
              (loop $loop (br_if $loop (i32.const 0)))
              (memory.size $m)
              (drop (memory.grow $m (i32.const 1)))
              (i32.add (i32.mul (i32.const 10) (memory.size $m))))
            (func (export "two") (result i32)
              (loop $loop (br_if $loop (i32.const 0)))
              (i32.store $m (i32.const 64) (i32.const 1))
              (i32.store $n (i32.const 64) (i32.const 2))
              (i32.add (i32.load $m (i32.const 64)) (i32.mul (i32.const 10) (i32.load $n (i32.const 64))))))"#,
    );
    let one = |name: &str, n: i32| cell.typed_func::<(i32,), i32>(name).unwrap().call((n,)).unwrap();
    let none = |name: &str| cell.typed_func::<(), i32>(name).unwrap().call(()).unwrap();
    assert_eq!(one("overlapping", 8), 0x0102_ff04);
    let elsewhere = cell.typed_func::<(i32, i32), i32>("elsewhere").unwrap();
    assert_eq!(elsewhere.call((16, 16)).unwrap(), 2);
    assert_eq!(elsewhere.call((16, 17)).unwrap(), 0x201);
    assert_eq!(elsewhere.call((16, 20)).unwrap(), 1);
    assert_eq!(one("narrow", 32), 0xfe - 2);
    assert_eq!(one("floats", 32), 0x3f80_0000);
    assert_eq!(none("called"), 18);
    assert_eq!((one("branches", 0), one("branches", 1)), (1, 2));
    assert_eq!(one("around", 4), 31);
    assert_eq!(none("grown"), 21);
    assert_eq!(none("two"), 21);
}
