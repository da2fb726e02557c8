//! What several tasks compile together is what one compiles alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use wasm_cell::parallel::Helpers;
use wasm_cell::{CompileError, CompileOptions, Compiler, CompilerSettings};

#[derive(Debug)]
struct Threads;

impl Helpers for Threads {
    fn together(&self, work: &(dyn Fn() + Sync)) {
        std::thread::scope(|s| {
            (0..4).for_each(|_| _ = s.spawn(work));
            work();
        });
    }
}

/// A module of functions of very different sizes that call one another; those of `broken` are not valid.
fn module(broken: &[usize]) -> Vec<u8> {
    let mut text = String::from("(module (memory 1) (global $g (mut i64) (i64.const 0))\n");
    for i in 0..1500usize {
        let _ = writeln!(text, "(func $f{i} (param i32) (result i32)");
        for k in 0..i * 7 % 60 {
            let _ =
                writeln!(text, "(i32.store offset={k} (local.get 0) (call $f{} (i32.const {k})))", (i * 31 + k) % 1500);
        }
        let _ = match broken.contains(&i) {
            true => writeln!(text, "(i64.const {i}))"),
            false => writeln!(text, "(i32.div_s (local.get 0) (i32.const {i})))"),
        };
    }
    text.push(')');
    wat::parse_str(text).unwrap()
}

fn compilers() -> [Compiler; 2] {
    let compiler = || Compiler::new(CompilerSettings::default()).unwrap();
    [compiler(), compiler().with_helpers(&Threads)]
}

#[test]
fn the_object_is_the_same_byte_for_byte() {
    let wasm = module(&[]);
    let [alone, together] = compilers();
    let options = CompileOptions { full_address_map: true, ..CompileOptions::default() };
    let expected = alone.compile(&wasm, &options).unwrap().to_elf().unwrap();
    for _ in 0..3 {
        assert!(together.compile(&wasm, &options).unwrap().to_elf().unwrap() == expected);
    }
}

#[test]
fn the_first_error_is_the_one_that_is_told() {
    let wasm = module(&[1203, 1204, 1499, 1100]);
    let [alone, together] = compilers();
    let offset = |compiler: &Compiler| match compiler.compile(&wasm, &CompileOptions::default()) {
        Err(CompileError::Invalid { offset, .. }) => offset,
        other => panic!("{:?}", other.err()),
    };
    let expected = offset(&alone);
    for _ in 0..5 {
        assert_eq!(offset(&together), expected);
    }
}
