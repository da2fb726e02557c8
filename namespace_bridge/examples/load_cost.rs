//! What loading costs, phase by phase: `cargo run --release -p namespace_bridge --example load_cost`.

use namespace_bridge::{CellModule, CrateNamespace, LoadOptions};
use std::{hint::black_box, time::Instant};

fn measure(what: &str, rounds: u32, mut f: impl FnMut(u32)) {
    for i in 0..rounds / 10 {
        f(i);
    }
    let mut best = f64::MAX;
    let mut total = 0.0;
    for i in 0..rounds {
        let start = Instant::now();
        f(i + rounds);
        let t = start.elapsed().as_nanos() as f64 / 1000.0;
        best = best.min(t);
        total += t;
    }
    println!("{what:44} {:8.2} us mean {best:8.2} us best", total / f64::from(rounds));
}

fn main() {
    let ns = CrateNamespace::new("bench", None);
    let one = |i: u32| {
        wat::parse_str(format!(
            r#"(module (func (export "f") (param i32) (result i32) local.get 0 i32.const {i} i32.add))"#
        ))
        .expect("the text is a module")
    };
    let modules: Vec<Vec<u8>> = (0..2 * 2000 + 10).map(one).collect();
    measure("bytes -> callable -> unloaded, one function", 2000, |i| {
        let cell = ns.load_wasm("a", &modules[i as usize], LoadOptions::default()).expect("it loads");
        black_box(cell.typed_func::<(i32,), i32>("f").expect("it has f"));
        ns.unload("a").expect("it is there");
    });
    let mut cells = Vec::new();
    measure("bytes -> callable, one function, kept", 1000, |i| {
        let name = format!("k{i}");
        let cell = ns.load_wasm(&name, &modules[i as usize], LoadOptions::default()).expect("it loads");
        black_box(cell.typed_func::<(i32,), i32>("f").expect("it has f"));
        cells.push(cell);
    });
    let compiler = namespace_bridge::compiler().expect("there is a code generator");
    measure("  compile", 2000, |i| {
        black_box(compiler.compile(&modules[i as usize], &Default::default()).expect("it compiles"));
    });
    let object = compiler.compile(&modules[0], &Default::default()).expect("it compiles");
    let name = "m".into();
    measure("  module (frames, types)", 2000, |_| {
        black_box(CellModule::new(&name, object.clone()).expect("it fits"));
    });
    let paged = wat::parse_str(
        r#"(module (memory (export "m") 1) (func (export "f") (param i32) (result i32)
            (i32.store (i32.const 0) (local.get 0)) (i32.load (i32.const 0))))"#,
    )
    .expect("the text is a module");
    let cell = ns.load_wasm("first", &paged, LoadOptions::default()).expect("it loads");
    let module = cell.module().expect("it is wasm").clone();
    measure("second load, one page of memory, + unload", 10000, |_| {
        black_box(ns.load_module("b", &module, LoadOptions::default()).expect("it loads"));
        ns.unload("b").expect("it is there");
    });
    let names: Vec<String> = (0..30000).map(|i| format!("c{i}")).collect();
    measure("second load, one page of memory, kept", 10000, |i| {
        black_box(ns.load_module(&names[i as usize], &module, LoadOptions::default()).expect("it loads"));
    });
}
