//! What an earlier instance left behind must not be seen by the next: pooled reservations, data blocks, tables.

use super::{call, load, namespace};
use namespace_bridge::{LoadOptions, Val};

const USER: &str = r#"(module (memory (export "m") 2 4) (table $t 3 10 funcref)
    (global $g (mut i64) (i64.const 0)) (global $f (mut funcref) (ref.null func))
    (func $self (export "dirty")
        (memory.fill (i32.const 0) (i32.const 0xaa) (i32.const 131072))
        (if (i32.eq (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable))
        (memory.fill (i32.const 131072) (i32.const 0xbb) (i32.const 131072))
        (global.set $g (i64.const -1)) (global.set $f (ref.func $self))
        (if (i32.eq (table.grow $t (ref.func $self) (i32.const 5)) (i32.const -1)) (then unreachable))
        (table.fill $t (i32.const 0) (ref.func $self) (i32.const 8)))
    (func (export "grow") (drop (memory.grow (i32.const 2))) (drop (table.grow $t (ref.null func) (i32.const 7))))
    (func (export "seen") (result i64) (local $i i32) (local $sum i64)
        (loop $bytes
            (local.set $sum (i64.or (local.get $sum) (i64.load (local.get $i))))
            (local.set $i (i32.add (local.get $i) (i32.const 8)))
            (br_if $bytes (i32.lt_u (local.get $i) (i32.mul (memory.size) (i32.const 65536)))))
        (local.set $i (i32.const 0))
        (loop $elements
            (if (i32.eqz (ref.is_null (table.get $t (local.get $i)))) (then (return (i64.const -2))))
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $elements (i32.lt_u (local.get $i) (table.size $t))))
        (if (i32.eqz (ref.is_null (global.get $f))) (then (return (i64.const -3))))
        (i64.or (local.get $sum) (global.get $g))))"#;

#[test]
fn a_fresh_instance_sees_zeroes_wherever_another_one_wrote() {
    let ns = namespace();
    let bytes = wat::parse_str(USER).unwrap();
    for round in 0..12 {
        let options = LoadOptions::default().guarded_memories(round % 2 == 0);
        let cell = ns.load_wasm("user", &bytes, options).unwrap();
        assert_eq!(call(&cell, "seen", &[]), Ok(Val::I64(0)), "round {round}");
        if round % 3 == 2 {
            call(&cell, "grow", &[]).unwrap();
            assert_eq!(call(&cell, "seen", &[]), Ok(Val::I64(0)), "grown, round {round}");
        } else {
            call(&cell, "dirty", &[]).unwrap();
            assert_ne!(call(&cell, "seen", &[]), Ok(Val::I64(0)));
        }
        drop(cell);
        ns.unload("user").unwrap();
    }
}

#[test]
fn a_load_that_fails_half_way_leaves_nothing_for_the_next_one() {
    let ns = namespace();
    // Fails in its second segment, after the first was written.
    let failing = r#"(module (memory 1) (table 2 funcref) (func $f)
        (elem (i32.const 0) func $f $f)
        (data (i32.const 0) "secret secret secret secret") (data (i32.const 65530) "beyond the end"))"#;
    let reader = r#"(module (memory 1) (func (export "read") (result i64) (i64.load (i32.const 0))))"#;
    for _ in 0..20 {
        assert!(ns.load_wasm("failing", &wat::parse_str(failing).unwrap(), LoadOptions::default()).is_err());
        let cell = load(&ns, "reader", reader);
        assert_eq!(call(&cell, "read", &[]), Ok(Val::I64(0)));
        drop(cell);
        ns.unload("reader").unwrap();
    }
}

#[test]
fn a_smaller_module_in_the_place_of_a_larger_one_cannot_read_beyond_its_end() {
    let ns = namespace();
    let large =
        load(&ns, "large", r#"(module (memory 64) (func (export "w") (i32.store (i32.const 4000000) (i32.const 7))))"#);
    call(&large, "w", &[]).unwrap();
    drop(large);
    ns.unload("large").unwrap();
    let small = load(
        &ns,
        "small",
        r#"(module (memory 0 64) (func (export "r") (param i32) (result i32) (i32.load (local.get 0)))
            (func (export "g") (param i32) (result i32) (memory.grow (local.get 0))))"#,
    );
    assert!(call(&small, "r", &[Val::I32(4_000_000)]).is_err());
    assert!(call(&small, "r", &[Val::I32(0)]).is_err());
    call(&small, "g", &[Val::I32(64)]).unwrap();
    assert_eq!(call(&small, "r", &[Val::I32(4_000_000)]), Ok(Val::I32(0)));
}
