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

macro_rules! counting {
    ($($name:literal)*) => {
        [$([
            include_bytes!(concat!(env!("OUT_DIR"), "/", $name, "_instruction.wasm")),
            include_bytes!(concat!(env!("OUT_DIR"), "/", $name, "_call.wasm")),
            include_bytes!(concat!(env!("OUT_DIR"), "/", $name, "_access.wasm")),
        ]),*]
    };
}

/// The same in versions that count their instructions, calls, and accesses of memories, tables and globals, and make the fault at one of
/// those.
#[rustfmt::skip] // a list
pub const COUNTING: [[&[u8]; 3]; WORKLOADS.len()] = counting!(
    "numeric" "walker" "dispatch" "recursion" "hosted" "bulk" "vector" "nested" "grow" "visitor"
);

/// A cell that the workloads call: overflows the stack for them, with frames of three sizes, or computes something.
pub const DEEP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/deep.wasm"));

/// A cell that nothing is injected into.
pub const WITNESS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/witness.wasm"));

/// A cell that is quickly compiled.
pub const SMALL: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/small.wasm"));

/// A cell whose start function traps.
pub const START: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/start.wasm"));

/// Two versions of a native cell.
pub const NATIVE: [&[u8]; 2] =
    [include_bytes!(concat!(env!("OUT_DIR"), "/native_0.o")), include_bytes!(concat!(env!("OUT_DIR"), "/native_1.o"))];

/// Two versions of a cell without state, and of one with state.
pub const VERSIONS: [[&[u8]; 2]; 2] = [
    [
        include_bytes!(concat!(env!("OUT_DIR"), "/storm_plain_0.wasm")),
        include_bytes!(concat!(env!("OUT_DIR"), "/storm_plain_1.wasm")),
    ],
    [
        include_bytes!(concat!(env!("OUT_DIR"), "/storm_counter_0.wasm")),
        include_bytes!(concat!(env!("OUT_DIR"), "/storm_counter_1.wasm")),
    ],
];
