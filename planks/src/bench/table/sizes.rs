//! What loaded cells hold on the heap, and how long machine code is.

use super::heap;
use super::line::NOTHING;
use super::{Goal, Line, NO_COMPILER, Side, Unit, With};
use crate::bench::interpreter::Interpreter;
use crate::bench::kernels::KERNELS;
use crate::bench::load::{BenchError, PAGE};
use crate::bench::subject::Subject;

/// Goals: bytes of heap for each small cell, and machine code in wasmtime's bytes.
const CELL_BYTES: f64 = 4_000.0;
const CODE: f64 = 1.0;

/// Cells whose heap is counted together, so that what there is once hardly counts.
const CELLS: usize = 256;
/// Times that they are made. They differ by what other things do on the heap meanwhile.
const ROUNDS: usize = 3;

/// Measures what is wanted of these lines.
pub(super) fn measure(
    with: &With<'_>,
    progress: &mut dyn FnMut(&str),
    add: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    let (key, what) = ("memory.cell", "heap of a small loaded cell, beyond its pages");
    if with.plan.wants(key, what) {
        progress(what);
        let line =
            Line::absent(key, what, Unit::Bytes, Goal::at_most(CELL_BYTES), "the C library does not count its heap");
        let cells = cells(with)?;
        add(if cells.is_empty() { line } else { line.with(cells).without(Side::Native, NOTHING) });
    }
    let (key, what) = ("code.kernels", "machine code of the kernels, together");
    if with.plan.wants(key, what) {
        progress(what);
        add(kernels(with, key, what)?);
    }
    for module in &with.plan.modules {
        let (key, what) = code(&module.name);
        if with.plan.wants(&key, &what) {
            progress(&what);
            let goal = Goal::of_wasmtime(CODE);
            add(match &module.bytes {
                Ok(wasm) => Line::absent(key, what, Unit::Bytes, goal, NOTHING).with([
                    (Side::Planks, vec![Subject::text_size(wasm)? as f64]),
                    (Side::Wasmtime, vec![with.rival.text_size(wasm)? as f64]),
                ]),
                Err(why) => Line::absent(key, what, Unit::Bytes, goal, why),
            });
        }
    }
    Ok(())
}

/// Key and name of a row about a module's code.
pub(super) fn code(name: &str) -> (String, String) {
    (format!("code.{name}"), format!("machine code of {name}"))
}

/// A module of one page of memory and one function, compiled once; then many instances of it, each with its own memory.
fn cells(with: &With<'_>) -> Result<Vec<(Side, Vec<f64>)>, BenchError> {
    let wasm = wat::parse_str(PAGE)?;
    let subject = Subject::new();
    let (module, prepared) = (subject.compile(&wasm)?, with.rival.prepare(&wasm)?);
    let interpreter = Interpreter::eager();
    let interpreted = interpreter.module(&wasm)?;
    let mut figures: [Vec<f64>; 3] = Default::default();
    // Nobody's first cell counts: it may fill what is kept for all.
    for round in 0..=ROUNDS {
        let ours = Subject::new();
        let held = [
            heap::held(|| ours.instances(&module, CELLS))?,
            heap::held(|| with.rival.instances(&prepared, CELLS))?,
            heap::held(|| interpreter.instances(&interpreted, CELLS))?,
        ];
        ours.unload(CELLS)?;
        for (figures, held) in figures.iter_mut().zip(held).filter(|_| round > 0) {
            figures.extend(held.map(|bytes| bytes / CELLS as f64));
        }
    }
    let sides = [Side::Planks, Side::Wasmtime, Side::Wasmi].into_iter().zip(figures);
    Ok(sides.filter(|(_, figures)| !figures.is_empty()).collect())
}

fn kernels(with: &With<'_>, key: &str, what: &str) -> Result<Line, BenchError> {
    let (mut ours, mut theirs, mut native) = (0, 0, 0);
    for kernel in &KERNELS {
        ours += Subject::text_size(kernel.wasm)?;
        theirs += with.rival.text_size(kernel.wasm)?;
        if let Some(toolchain) = with.toolchain {
            native += kernel.native(toolchain)?.text();
        }
    }
    let line = Line::absent(key, what, Unit::Bytes, Goal::of_wasmtime(CODE), NOTHING)
        .with([(Side::Planks, vec![ours as f64]), (Side::Wasmtime, vec![theirs as f64])]);
    Ok(match with.toolchain {
        Some(_) => line.with([(Side::Native, vec![native as f64])]),
        None => line.without(Side::Native, NO_COMPILER),
    })
}
