//! What compiling costs.

use super::{
    Check, Outcome,
    cells::{load, text},
    expect, expect_eq,
};
use alloc::{format, vec::Vec};
use kernel_config::memory::PAGE_SIZE;
use namespace_bridge::CrateNamespace;
use runtime_port::{
    bare_metal::memory::{frame_use, take_peak},
    println,
};

/// The checks of this file.
pub const CHECKS: &[Check] =
    &[("a_module_of_1_mib_is_compiled_within_64_mib", a_module_of_1_mib_is_compiled_within_64_mib)];

/// Bytes of the module, and of the memory in which it has to be compiled.
const MODULE: usize = 1 << 20;
const MEMORY: usize = 64 << 20;

/// Functions of the module.
const FUNCTIONS: u32 = 600;

/// Appends a number in LEB128.
fn leb(to: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        to.push(n as u8 | 0x80);
        n >>= 7;
    }
    to.push(n as u8);
}

fn section(to: &mut Vec<u8>, id: u8, content: &[u8]) {
    to.push(id);
    leb(to, content.len() as u32);
    to.extend_from_slice(content);
}

/// A module of at least [`MODULE`] bytes: functions of about the size and the mix that compiled programs have, with loads, stores, branches
/// and calls. Each takes and gives an i32; `f` is the last one. Those before are called by it and each other, in branches never
/// taken for small arguments.
fn module() -> Vec<u8> {
    let mut module = Vec::from(*b"\0asm\x01\0\0\0");
    // (i32) -> i32
    section(&mut module, 1, &[1, 0x60, 1, 0x7f, 1, 0x7f]);
    let mut functions = Vec::new();
    leb(&mut functions, FUNCTIONS);
    functions.resize(functions.len() + FUNCTIONS as usize, 0);
    section(&mut module, 3, &functions);
    // One memory of two pages.
    section(&mut module, 5, &[1, 0, 2]);
    let mut exports = Vec::from([1, 1, b'f', 0]);
    leb(&mut exports, FUNCTIONS - 1);
    section(&mut module, 7, &exports);
    let mut code = Vec::new();
    leb(&mut code, FUNCTIONS);
    let units = MODULE / FUNCTIONS as usize / UNIT + 1;
    for function in 0..FUNCTIONS {
        // Two more locals of type i32.
        let mut body = Vec::from([1, 2, 0x7f]);
        for unit in 0..units as u32 {
            unit_of(&mut body, function, unit);
        }
        // local.get 0, end
        body.extend([0x20, 0, 0x0b]);
        leb(&mut code, body.len() as u32);
        code.extend(body);
    }
    section(&mut module, 10, &code);
    module
}

/// About the bytes of a unit.
const UNIT: usize = 58;

/// A step of a function.
fn unit_of(body: &mut Vec<u8>, function: u32, unit: u32) {
    // local1 = load(local0 & 0xffff) + local2
    body.extend([0x20, 0, 0x41, 0xff, 0xff, 3, 0x71, 0x28, 2]);
    leb(body, unit * 4);
    body.extend([0x20, 2, 0x6a, 0x21, 1]);
    // store(local1 & 0xfffc, local0 ^ k)
    body.extend([0x20, 1, 0x41, 0xfc, 0xff, 3, 0x71, 0x20, 0, 0x41]);
    leb(body, function & 0x3f);
    body.extend([0x73, 0x36, 2]);
    leb(body, unit * 8);
    // if (local0 >u 0x3fffffff) local2 = f(local1) else local2 = local1 * 3
    body.extend([0x20, 0, 0x41, 0xff, 0xff, 0xff, 0xff, 3, 0x4b, 0x04, 0x40, 0x20, 1, 0x10]);
    leb(body, (function + unit) % FUNCTIONS);
    body.extend([0x21, 2, 0x05, 0x20, 1, 0x41, 3, 0x6c, 0x21, 2, 0x0b]);
}

fn a_module_of_1_mib_is_compiled_within_64_mib() -> Outcome {
    let module = module();
    expect(&format!("the module has {} bytes", module.len()), (MODULE..MODULE * 5 / 4).contains(&module.len()))?;
    let namespace = CrateNamespace::new("checks", None);
    // What earlier checks left free on the heap counts too: everything in use but what was in use on it.
    let used = |frames: runtime_port::bare_metal::memory::FrameUse| frames.total - frames.free - frames.promised;
    let before = used(frame_use());
    let free_on_heap = runtime_port::heap::statistics().map_or(0, |heap| heap.size - heap.used) / PAGE_SIZE;
    take_peak();
    let cell = load(&namespace, "large", &module)?;
    let peak = (take_peak().saturating_sub(before) + free_on_heap) * PAGE_SIZE;
    println!("{} bytes of wasm were compiled in at most {} KiB of memory", module.len(), peak >> 10);
    let f = cell.typed_func::<(i32,), i32>("f").map_err(text)?;
    expect_eq("f(5)", f.call((5,)).map_err(text)?, 5)?;
    expect(&format!("{} MiB were needed", peak >> 20), peak <= MEMORY)
}
