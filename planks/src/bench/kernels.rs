//! `planks bench kernels`: how fast code runs, beside wasmtime, native code of the same sources, and an interpreter.
//!
//! Sources and modules lie in `planks/kernels`; `cargo xtask kernels` makes the modules anew.

use super::load::BenchError;
use super::measure::{Candidate, Effort, alike};
use super::native::Toolchain;
use super::report::Row;
use super::rival::Rival;
use super::subject::Subject;

/// Goal: no kernel takes longer than this many times wasmtime's time.
const MOST: f64 = 1.03;

/// A kernel: one function `run(n)` that works `n` times over and returns a checksum.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// Its name.
    pub name: &'static str,
    /// Its module.
    pub wasm: &'static [u8],
    /// Its source in C.
    pub source: &'static str,
}

macro_rules! kernels {
    ($($name:literal)*) => {
        [$(Kernel {
            name: $name,
            wasm: include_bytes!(concat!("../../kernels/", $name, ".wasm")),
            source: include_str!(concat!("../../kernels/", $name, ".c")),
        }),*]
    };
}

/// What runs a kernel.
pub(super) type Runner = Box<dyn FnMut(u32) -> u32>;

/// All of them, by what they stress.
pub const KERNELS: [Kernel; 26] = kernels!(
    "nbody" "mandelbrot" "matmul" "fft"
    "sha256" "mixing" "crc32"
    "quicksort" "heapsort"
    "json" "utf8" "search"
    "lz" "huffman"
    "dijkstra" "components" "sieve"
    "interpreter" "fib" "queens"
    "indirect" "indirect_random" "objects"
    "allocation"
    "simd_blur" "simd_dot"
);

const HEADER: &str = include_str!("../../kernels/kernel.h");

/// Runs every kernel with `only` in its name on all sides. All sides work as many times over, and must agree on the checksum.
///
/// # Errors
/// Something that should run is refused, or two sides disagree.
pub fn rows(effort: Effort, only: &str, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, BenchError> {
    let toolchain = Toolchain::find();
    if toolchain.is_none() {
        progress("no C compiler (clang, gcc or cc) is there, so native code is left out");
    }
    let rival = Rival::new()?;
    KERNELS
        .iter()
        .filter(|k| k.name.contains(only))
        .map(|k| {
            progress(k.name);
            row(k, &rival, toolchain.as_ref(), effort)
        })
        .collect()
}

fn row(kernel: &Kernel, rival: &Rival, toolchain: Option<&Toolchain>, effort: Effort) -> Result<Row, BenchError> {
    let subject = Subject::new();
    let mut sides: Vec<(&'static str, Runner)> =
        vec![("planks", subject.kernel(kernel.wasm)?), ("wasmtime", rival.kernel(kernel.wasm)?)];
    if let Some(toolchain) = toolchain {
        let native = toolchain.compile(kernel.name, kernel.source, HEADER).map_err(BenchError::Native)?;
        sides.push((toolchain.name(), Box::new(move |n| native.run(n))));
    }
    for n in [1, 3] {
        let sums: Vec<u32> = sides.iter_mut().map(|(_, run)| run(n)).collect();
        if sums.iter().any(|s| *s != sums[0]) {
            return Err(BenchError::Disagree { kernel: kernel.name, sums });
        }
    }
    let names: Vec<&'static str> = sides.iter().map(|s| s.0).collect();
    let run = |(name, mut run): (&'static str, Runner)| {
        Candidate::batch(name, move |n| _ = std::hint::black_box(run(u32::try_from(n).unwrap_or(u32::MAX))))
    };
    let mut candidates: Vec<Candidate<'_>> = sides.into_iter().map(run).collect();
    let samples = alike(&mut candidates, effort);
    let goal_ns = samples.get(1).map(|theirs| MOST * theirs.median);
    Ok(Row { name: kernel.name.into(), samples: names.into_iter().zip(samples).collect(), goal_ns })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_kernel_gives_the_same_checksum_on_every_side() {
        let effort = Effort { rounds: 1, slice: Duration::from_micros(1) };
        assert_eq!(rows(effort, "", |_| {}).unwrap().len(), KERNELS.len());
    }
}
