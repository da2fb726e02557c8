//! The cells that faults are injected into.

/// A module that does some work, step by step, and makes a fault at one of its steps (`workloads/faults.wat`).
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// The module.
    pub wasm: &'static [u8],
    /// How many steps `n` units of work have.
    pub steps: fn(u32) -> u32,
}

macro_rules! workload {
    ($name:literal, $steps:expr) => {
        Workload { name: $name, wasm: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm")), steps: $steps }
    };
}

/// All of them.
pub const WORKLOADS: [Workload; 10] = [
    workload!("numeric", |n| n),
    workload!("walker", |n| 2 * n),
    workload!("dispatch", |n| n),
    workload!("recursion", |n| n + 1),
    workload!("hosted", |n| n),
    workload!("bulk", |n| n),
    workload!("vector", |n| n),
    workload!("nested", |n| 2 + (n & 7)),
    workload!("grow", |n| n),
    workload!("visitor", |n| n),
];

/// A cell that the workloads call: overflows the stack for them, with frames of three sizes, or computes something.
pub const DEEP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/deep.wasm"));

/// A cell that nothing is injected into.
pub const WITNESS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/witness.wasm"));

/// A cell that is quickly compiled.
pub const SMALL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/small.wasm"));
