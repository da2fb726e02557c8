//! `planks bench reload`: what the next version of a module costs when one function changed, beside compiling it in full.
//!
//! Each round makes another version of the module: a `nop` at the end of another function, so that everything behind it moves in
//! the module. Times are from bytes to a module ready to be instantiated; what is compared is the same bytes both ways.

use super::load::BenchError;
use super::measure::Sample;
use super::report::Row;
use super::subject::SubjectError;
use namespace_bridge::{CellModule, LoadOptions, compile_module, compile_module_reusing};
use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// Goal: reload in this part of the time that a full compile takes.
const GOAL: f64 = 0.05;

/// Functions of the module that is measured when none is given: about 1.2 MB.
pub const FUNCTIONS: usize = 9_000;

/// Measures reloads of `wasm` with one function changed, `rounds` times.
///
/// # Errors
/// The module is refused, or has no function to change.
pub fn row(name: &str, wasm: &[u8], rounds: usize) -> Result<Row, BenchError> {
    let options = LoadOptions::default();
    let failed = |e| BenchError::from(SubjectError::from(e));
    let old = compile_module(name, wasm, &options).map_err(failed)?;
    let functions = old.metadata().funcs.len();
    let mut times: [Vec<f64>; 3] = Default::default();
    let (mut changed_ones, mut compiled) = (0, 0);
    let holders = holders(&old);
    for round in 0..rounds.max(1) {
        // Spread over the module, from its middle on.
        let at = (functions / 2 + round * functions / rounds.max(1)) % functions.max(1);
        let Some(changed) = with_nop(wasm, at) else { return Err(BenchError::NothingToChange) };
        let (time, report) = timed(|| compile_module_reusing(name, &changed, &options, &old)).map_err(failed)?;
        times[0].push(time);
        changed_ones += 1 + holders.get(at).copied().unwrap_or(0);
        compiled += report.1.compiled;
        drop(report);
        times[1].push(timed(|| compile_module(name, &changed, &options)).map_err(failed)?.0);
        // The same bytes again, from the version itself: reading, validating, hashing and laying out alone.
        let copy = copy_of(&old, name, wasm).map_err(failed)?;
        times[2].push(copy);
    }
    if compiled > changed_ones {
        return Err(BenchError::ChangedMore { changed: changed_ones, compiled });
    }
    let names = ["planks, one function changed", "planks, full compile", "planks, nothing changed"];
    let samples: Vec<_> = names.into_iter().zip(times.into_iter().map(Sample::of)).collect();
    let full = samples.get(1).map(|s| s.1.median);
    let megabytes = wasm.len() as f64 / 1e6;
    Ok(Row {
        name: format!("reload of {name} ({megabytes:.1} MB, {functions} functions)"),
        samples,
        goal_ns: full.map(|full| GOAL * full),
    })
}

/// How many functions may hold the body of each function in place of calls to it: those that name it.
fn holders(module: &CellModule) -> Vec<u32> {
    let imported = module.metadata().imported_funcs.len();
    let mut holders = vec![0; module.metadata().funcs.len()];
    for function in 0..holders.len() {
        for named in module.reuse_table().named_functions(function) {
            let defined = (named as usize).checked_sub(imported).filter(|f| *f != function);
            if let Some(count) = defined.and_then(|f| holders.get_mut(f)) {
                *count += 1;
            }
        }
    }
    holders
}

/// Time of making the module `old` again without compiling anything. The bytes differ from those in the cache by an empty
/// custom section.
fn copy_of(old: &Arc<CellModule>, name: &str, wasm: &[u8]) -> Result<f64, namespace_bridge::LoadError> {
    let same = [wasm, &[0, 1, 0]].concat();
    Ok(timed(|| compile_module_reusing(name, &same, &LoadOptions::default(), old))?.0)
}

fn timed<T, E>(f: impl FnOnce() -> Result<T, E>) -> Result<(f64, T), E> {
    let start = Instant::now();
    let value = black_box(f()?);
    Ok((start.elapsed().as_nanos() as f64, value))
}

/// The module with a `nop` before the last `end` of defined function `index`. `None` if there is no such function.
pub fn with_nop(wasm: &[u8], index: usize) -> Option<Vec<u8>> {
    const CODE: u8 = 10;
    const NOP: u8 = 1;
    let mut at = 8;
    loop {
        let section = at;
        let id = *wasm.get(at)?;
        at += 1;
        let size = leb(wasm, &mut at)? as usize;
        let (start, end) = (at, at.checked_add(size)?);
        if id != CODE {
            at = end;
            continue;
        }
        let count = leb(wasm, &mut at)? as usize;
        if index >= count {
            return None;
        }
        for _ in 0..index {
            let size = leb(wasm, &mut at)? as usize;
            at = at.checked_add(size)?;
        }
        let before = at;
        let size = leb(wasm, &mut at)?;
        let last = at.checked_add(size as usize)?.checked_sub(1)?;
        let mut content = wasm.get(start..before)?.to_vec();
        write_leb(&mut content, size + 1);
        content.extend_from_slice(wasm.get(at..last)?);
        content.push(NOP);
        content.extend_from_slice(wasm.get(last..end)?);
        let mut changed = wasm.get(..=section)?.to_vec();
        write_leb(&mut changed, content.len() as u32);
        changed.extend(content);
        changed.extend_from_slice(wasm.get(end..)?);
        return Some(changed);
    }
}

/// Reads an unsigned LEB128 integer (core spec, 5.2.2).
fn leb(bytes: &[u8], at: &mut usize) -> Option<u32> {
    let mut value = 0u32;
    for shift in (0..32).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn write_leb(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A module of many functions that differ: arithmetic, memory accesses, calls of one another, loops.
///
/// # Errors
/// Never; the text is the benchmark's own.
pub fn generated(functions: usize) -> Result<Vec<u8>, BenchError> {
    let mut text = String::from("(module (memory 16) (global $g (mut i32) (i32.const 0)) (table 4 funcref)\n");
    for i in 0..functions {
        let (callee, constant) = (i.saturating_sub(1 + i % 7), i.wrapping_mul(2_654_435_761) & 0x7fff_ffff);
        let _ = write!(
            text,
            r#"(func $f{i} (param $x i32) (param $y i32) (result i32) (local $sum i64)
              (loop $again
                (local.set $sum (i64.add (local.get $sum) (i64.load offset={offset} (i32.and (local.get $x) (i32.const 65528)))))
                (i32.store offset={offset} (i32.and (local.get $y) (i32.const 65528)) (i32.wrap_i64 (local.get $sum)))
                (local.set $x (i32.xor (i32.mul (local.get $x) (i32.const {constant})) (i32.rotl (local.get $y) (i32.const {turn}))))
                (if (i32.gt_s (local.get $x) (i32.const {constant}))
                  (then (local.set $y (call $f{callee} (local.get $y) (i32.sub (local.get $x) (i32.const {i}))))))
                (br_if $again (i32.lt_u (local.tee $y (i32.sub (local.get $y) (i32.const 1))) (i32.const {i}))))
              (global.set $g (i32.add (global.get $g) (local.get $y)))
              (i32.div_u (local.get $x) (i32.or (local.get $y) (i32.const 1))))
            "#,
            offset = 8 * (i % 1000),
            turn = i % 31,
        );
    }
    text.push_str("(func (export \"run\") (param i32) (result i32) (call $f0 (local.get 0) (i32.const 3))))");
    Ok(wat::parse_str(&text)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_function_is_the_only_one_compiled() {
        let wasm = generated(40).unwrap();
        let row = row("generated", &wasm, 3).unwrap();
        assert!(row.samples.iter().all(|(_, s)| s.median > 0.0), "{row:?}");
        assert!(row.goal_ns.is_some());
    }

    #[test]
    fn a_module_without_functions_cannot_be_changed() {
        assert_eq!(with_nop(b"\0asm\x01\0\0\0", 0), None);
        assert_eq!(with_nop(&generated(2).unwrap(), 3), None);
        assert!(with_nop(&generated(2).unwrap(), 2).is_some());
    }
}
