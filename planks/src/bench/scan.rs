//! What it costs to look whether a task still holds something of a version that was replaced: an interrupt, and a walk over its stack.

use super::load::BenchError;
use super::measure::Sample;
use super::report::Row;
use namespace_bridge::swap::SwapRequest;
use namespace_bridge::{CrateNamespace, LoadOptions, reclaim};
use std::hint::black_box;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

/// Looks per size of the stack.
const LOOKS: usize = 200;
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Calls out of a cell, into a function that stays.
const PARKED: &str = r#"(module (import "env" "stay" (func $stay)) (func (export "f") (call $stay)))"#;

/// Measures looks at tasks that have little on their stack, much outside of calls of cells, and much inside of them: only that must be looked at.
///
/// # Errors
/// Something that should run is refused.
pub fn measure() -> Result<Row, BenchError> {
    let [small, outside, large] = [looks_at(0, 64 * KIB)?, looks_at(8 * MIB, 64 * KIB)?, looks_at(0, 8 * MIB)?];
    let each = |small: f64, large: f64| (large - small).max(0.0) * MIB as f64 / (8 * MIB - 64 * KIB) as f64;
    let per_mib = Sample {
        median: each(small.median, large.median),
        min: each(small.min, large.min),
        max: each(small.max, large.max),
    };
    Ok(Row {
        name: "looking whether a task holds a retired version".into(),
        samples: vec![
            ("a task with 8 MiB of stack inside of calls", large),
            ("with 64 KiB inside of them", small),
            ("with 8 MiB more outside of them", outside),
            ("each MiB inside", per_mib),
        ],
        goal_ns: None,
    })
}

/// Runs `f` with so many bytes of stack above it that are in use.
fn with_stack(bytes: usize, f: &mut dyn FnMut()) {
    const FRAME: usize = 16 * KIB;
    let mut frame = [0u8; FRAME];
    black_box(&mut frame);
    match bytes > FRAME {
        true => with_stack(bytes - FRAME, f),
        false => f(),
    }
    black_box(&frame);
}

/// Times of looks at a task that is inside of an old version, with so many bytes of its stack in use before the call, and within it.
fn looks_at(outside: usize, within: usize) -> Result<Sample, BenchError> {
    let failed = |e: &dyn std::fmt::Display| BenchError::Swap(e.to_string());
    let namespace = CrateNamespace::new("bench", None);
    let (inside, is_inside) = channel();
    let (leave, may_leave) = channel::<()>();
    let may_leave: Mutex<Receiver<()>> = Mutex::new(may_leave);
    let stay = move || {
        with_stack(within, &mut || {
            let told = inside.send(());
            let left = may_leave.lock().map(|leave| leave.recv());
            drop((told, left));
        });
    };
    namespace.define("env", "stay", stay).map_err(|e| failed(&e))?;
    let wasm = wat::parse_str(PARKED)?;
    let cell = namespace.load_wasm("cell", &wasm, LoadOptions::default()).map_err(|e| failed(&e))?;
    let f = cell.typed_func::<(), ()>("f").map_err(|e| failed(&e))?;
    drop(cell);
    let task = move || with_stack(outside, &mut || drop(f.call(())));
    let task = thread::Builder::new().stack_size(outside + within + 4 * MIB).spawn(task).map_err(|e| failed(&e))?;
    is_inside.recv().map_err(|e| failed(&e))?;
    let next = wat::parse_str(PARKED.replace("(call $stay)", ""))?;
    namespace.swap(SwapRequest::new("cell").with_wasm(&next).keep_old(false)).map_err(|e| failed(&e))?;
    let look = |_| {
        let start = Instant::now();
        let waiting = reclaim();
        (start.elapsed().as_nanos() as f64, waiting)
    };
    let looks: Vec<(f64, usize)> = (0..LOOKS).map(look).collect();
    leave.send(()).map_err(|e| failed(&e))?;
    task.join().map_err(|_| failed(&"the task panicked"))?;
    match looks.iter().all(|(_, waiting)| *waiting > 0) {
        true => Ok(Sample::of(looks.into_iter().map(|(time, _)| time).collect())),
        false => Err(failed(&"a version was freed although a task is inside of it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_inside_is_looked_at_and_found() {
        let row = measure().unwrap();
        assert_eq!(row.samples.len(), 4);
    }
}
