// A native cell that says which version it is, with data of its own and a table of functions.
#![no_std]

use core::sync::atomic::{AtomicI64, Ordering};

static CALLS: AtomicI64 = AtomicI64::new(0);

type Function = fn(i64) -> i64;

static FUNCTIONS: [Function; 2] = [shifted, marked];

#[inline(never)]
fn shifted(x: i64) -> i64 {
    x << 8
}

#[inline(never)]
fn marked(x: i64) -> i64 {
    x | VERSION
}

#[unsafe(no_mangle)]
pub extern "C-unwind" fn injector_native(x: i64) -> i64 {
    CALLS.fetch_add(1, Ordering::Relaxed);
    let mut value = x;
    for function in &FUNCTIONS {
        value = function(value);
    }
    value
}
