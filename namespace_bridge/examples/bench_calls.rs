//! What calls, traps and host functions cost. `cargo run --release -p namespace_bridge --example bench_calls`
#![expect(clippy::unwrap_used, reason = "a measurement that cannot run has nothing to report")]

use namespace_bridge::{CrateNamespace, LoadOptions, TypedFunc, catch_trap};
use std::hint::black_box;
use std::time::Instant;

const MODULE: &str = r#"(module
    (import "host" "add" (func $add (param i32 i32) (result i32)))
    (import "host" "mix" (func $mix (param i32 f64) (result f64)))
    (import "host" "fail" (func $fail (param i32) (result i32)))
    (memory 1)
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (func (export "mul") (param f64 f64) (result f64) (f64.mul (local.get 0) (local.get 1)))
    (func (export "pair") (param i32 i32) (result i32 i32) (local.get 1) (local.get 0))
    (func $trap (export "trap") (param i32) (result i32)
        (if (result i32) (local.get 0)
            (then (i32.add (i32.const 1) (call $trap (i32.sub (local.get 0) (i32.const 1)))))
            (else unreachable)))
    (func (export "load") (param i32) (result i32) (i32.load (local.get 0)))
    (func (export "fail") (result i32) (call $fail (i32.const 1)))
    (func (export "loop") (param $n i32) (result i32) (local $i i32)
        (loop $l
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (local.get $n))))
        (local.get $i))
    (func (export "hostloop") (param $n i32) (result i32) (local $i i32)
        (loop $l
            (local.set $i (call $add (local.get $i) (i32.const 1)))
            (br_if $l (i32.lt_u (local.get $i) (local.get $n))))
        (local.get $i))
    (func (export "mixloop") (param $n i32) (result f64) (local $i i32) (local $x f64)
        (loop $l
            (local.set $i (i32.add (local.get $i) (i32.const 1)))
            (local.set $x (call $mix (local.get $i) (local.get $x)))
            (br_if $l (i32.lt_u (local.get $i) (local.get $n))))
        (local.get $x)))"#;

/// Calls of one timed batch: short enough to find moments when nothing else runs.
const BATCH: u32 = 1000;

/// Nanoseconds per call of `f`, the best of `n / BATCH` batches.
fn measure(what: &str, n: u32, mut f: impl FnMut()) -> f64 {
    let best = (0..n / BATCH)
        .map(|_| {
            let start = Instant::now();
            (0..BATCH).for_each(|_| f());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{what:<44} {best:9.2} ns");
    best
}

fn main() {
    let ns = CrateNamespace::new("bench", None);
    ns.define("host", "add", |a: i32, b: i32| a.wrapping_add(b)).unwrap();
    ns.define("host", "mix", |a: i32, x: f64| x + f64::from(a)).unwrap();
    ns.define("host", "fail", |a: i32| if a == 0 { Ok(1) } else { Err("no") }).unwrap();
    let cell = ns.load_wasm("bench", &wat::parse_str(MODULE).unwrap(), LoadOptions::default()).unwrap();

    let add: TypedFunc<(i32, i32), i32> = cell.func("add").unwrap().typed().unwrap();
    // SAFETY: the function's signature; the cell stays loaded.
    let raw: extern "C-unwind" fn(i32, i32) -> i32 = unsafe { cell.func("add").unwrap().entry().unwrap() };
    let bare = measure("bare call by a raw entry", 20_000_000, || {
        black_box(raw(black_box(1), black_box(2)));
    });
    let typed = measure("typed call", 20_000_000, || {
        black_box(add.call((black_box(1), black_box(2))).unwrap());
    });
    println!("{:<44} {:9.2} ns", "  minus the bare call", typed - bare);
    measure("catch_trap around a raw entry", 20_000_000, || {
        black_box(catch_trap(|| raw(black_box(1), black_box(2))).unwrap());
    });
    let mul: TypedFunc<(f64, f64), f64> = cell.func("mul").unwrap().typed().unwrap();
    measure("typed call, floats", 20_000_000, || {
        black_box(mul.call((black_box(1.0), black_box(2.0))).unwrap());
    });
    let pair: TypedFunc<(i32, i32), (i32, i32)> = cell.func("pair").unwrap().typed().unwrap();
    measure("typed call, two results", 20_000_000, || {
        black_box(pair.call((black_box(1), black_box(2))).unwrap());
    });

    let trap: TypedFunc<(i32,), i32> = cell.func("trap").unwrap().typed().unwrap();
    let one = measure("explicit trap to Err, 1 frame", 1_000_000, || {
        black_box(trap.call((0,)).unwrap_err());
    });
    let many = measure("explicit trap to Err, 51 frames", 1_000_000, || {
        black_box(trap.call((50,)).unwrap_err());
    });
    let deep = measure("explicit trap to Err, 1001 frames", 20_000, || {
        black_box(trap.call((1000,)).unwrap_err());
    });
    println!("{:<44} {:9.2} ns", "  per frame (51)", (many - one) / 50.0);
    println!("{:<44} {:9.2} ns", "  per frame (1001, calls and returns included)", (deep - one) / 1000.0);
    let load: TypedFunc<(i32,), i32> = cell.func("load").unwrap().typed().unwrap();
    measure("out of bounds load to Err", 200_000, || {
        black_box(load.call((-1,)).unwrap_err());
    });
    let fail: TypedFunc<(), i32> = cell.func("fail").unwrap().typed().unwrap();
    measure("host error to Err", 500_000, || {
        black_box(fail.call(()).unwrap_err());
    });

    let run: TypedFunc<(i32,), i32> = cell.func("hostloop").unwrap().typed().unwrap();
    let mix: TypedFunc<(i32,), f64> = cell.func("mixloop").unwrap().typed().unwrap();
    let inner = BATCH as i32;
    let ints = measure("1000 host closure calls, integers", 2_000_000, || {
        black_box(run.call((inner,)).unwrap());
    });
    let mixed = measure("1000 host closure calls, integer and float", 2_000_000, || {
        black_box(mix.call((inner,)).unwrap());
    });
    println!("{:<44} {:9.2} ns", "  each", ints / f64::from(inner));
    println!("{:<44} {:9.2} ns", "  each", mixed / f64::from(inner));
}
