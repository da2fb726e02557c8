//! `planks bench kernels`: how fast code runs, beside wasmtime, native code of the same sources, and an interpreter.
//!
//! Sources and modules lie in `planks/kernels`; `cargo xtask kernels` makes the modules anew.

use super::interpreter::Interpreter;
use super::load::BenchError;
use super::measure::{Candidate, Clock, Effort, Sample, figures_alike};
use super::native::{Native, Toolchain};
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
    let sides = Sides { rival, interpreter: None, toolchain };
    let named = |(name, figures)| (name, Sample::of(figures));
    let samples: Vec<_> = sides.figures(kernel, effort)?.into_iter().map(named).collect();
    let goal_ns = samples.get(1).map(|(_, theirs)| MOST * theirs.median);
    Ok(Row { name: kernel.name.into(), samples, goal_ns })
}

/// Who runs kernels beside this system.
pub(super) struct Sides<'a> {
    pub rival: &'a Rival,
    pub interpreter: Option<&'a Interpreter>,
    pub toolchain: Option<&'a Toolchain>,
}

impl Sides<'_> {
    /// Each side's name and nanoseconds of one turn of the kernel in each round: this system, wasmtime, the interpreter if there is
    /// one, native code if there is a compiler. All work as many times over, and must agree on the checksum.
    pub fn figures(&self, kernel: &Kernel, effort: Effort) -> Result<Vec<(&'static str, Vec<f64>)>, BenchError> {
        let mut sides: Vec<(&'static str, Runner)> =
            vec![("planks", Subject::new().kernel(kernel.wasm)?), ("wasmtime", self.rival.kernel(kernel.wasm)?)];
        if let Some(interpreter) = self.interpreter {
            sides.push(("wasmi", interpreter.kernel(kernel.wasm)?));
        }
        if let Some(toolchain) = self.toolchain {
            let native = kernel.native(toolchain)?;
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
        Ok(names.into_iter().zip(figures_alike(&mut candidates, effort, Clock::Thread)).collect())
    }
}

impl Kernel {
    /// The same source as native code.
    pub(super) fn native(&self, toolchain: &Toolchain) -> Result<Native, BenchError> {
        toolchain.compile(self.name, self.source, HEADER).map_err(BenchError::Native)
    }
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
