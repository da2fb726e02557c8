//! `planks bench gate`: what it costs to keep others out of a cell.
//!
//! The gate's own cost is the difference between a gated cell and a stateless one with the same function; wasmtime, whose store
//! has one owner by its type, keeps others out at compile time.

use super::load::{ADD, BenchError, PEER, row};
use super::measure::{Candidate, Effort, Sample};
use super::report::Row;
use super::rival::Rival;
use super::subject::{Subject, SubjectError};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

/// Goal: the uncontended gate adds at most this much to a call.
const GATE_NS: f64 = 6.0;

/// The function of [`ADD`], beside a global that makes the cell one with state.
pub(super) const GATED_ADD: &str = r#"(module (global (mut i32) (i32.const 0))
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1))))"#;

/// The function of [`PEER`], in a cell with state.
const GATED_PEER: &str = r#"(module (global (mut i32) (i32.const 0))
    (func (export "next") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1))))"#;

/// As the caller of `bench load`, without state of its own.
const STATELESS_CALLER: &str = r#"(module (import "peer" "next" (func $next (param i64) (result i64)))
    (func (export "repeat") (param $n i64) (result i64) (local $x i64)
        (loop $again
            (local.set $x (call $next (local.get $x)))
            (br_if $again (i64.ne (i64.const 0) (local.tee $n (i64.sub (local.get $n) (i64.const 1))))))
        (local.get $x)))"#;

/// Shares the peer's state, so its calls are nested.
const INSIDE_CALLER: &str = r#"(module (import "peer" "g" (global (mut i32)))
    (import "peer" "next" (func $next (param i64) (result i64)))
    (func (export "repeat") (param $n i64) (result i64) (local $x i64)
        (loop $again
            (local.set $x (call $next (local.get $x)))
            (br_if $again (i64.ne (i64.const 0) (local.tee $n (i64.sub (local.get $n) (i64.const 1))))))
        (local.get $x)))"#;

/// A peer that shares its state.
const SHARING_PEER: &str = r#"(module (global (export "g") (mut i32) (i32.const 0))
    (func (export "next") (param i64) (result i64) (i64.add (local.get 0) (i64.const 1))))"#;

/// Measures every row.
///
/// # Errors
/// Something that should run is refused.
pub fn rows(effort: Effort, mut progress: impl FnMut(&str)) -> Result<Vec<Row>, BenchError> {
    type Part = fn(Effort) -> Result<Row, BenchError>;
    let parts: [(&str, Part); 3] = [
        ("typed call, native to a gated cell and back", from_native),
        ("call from a cell, outermost: takes and leaves the gate", outermost),
        ("call from a cell of the same domain, nested", nested),
    ];
    let mut rows = Vec::new();
    for (name, part) in parts {
        progress(name);
        let row = Row { name: name.into(), ..part(effort)? };
        let gate = difference(&row);
        rows.push(row);
        rows.extend(gate.map(|g| Row {
            name: format!("{name}: the gate alone (difference of the medians)"),
            samples: vec![("planks", g)],
            goal_ns: Some(GATE_NS),
        }));
    }
    progress("two tasks in one gated cell");
    rows.push(contended(effort)?);
    Ok(rows)
}

/// What gating added: gated against stateless, of this system.
fn difference(row: &Row) -> Option<Sample> {
    let of = |name: &str| row.samples.iter().find(|(n, _)| *n == name).map(|(_, s)| *s);
    let (gated, stateless) = (of(GATED)?, of(STATELESS)?);
    let less = |a: f64, b: f64| (a - b).max(0.0);
    Some(Sample {
        median: less(gated.median, stateless.median),
        min: less(gated.min, stateless.min),
        max: less(gated.max, stateless.max),
    })
}

const GATED: &str = "planks, gated";
const STATELESS: &str = "planks, stateless";

fn from_native(effort: Effort) -> Result<Row, BenchError> {
    let (gated, stateless) = (wat::parse_str(GATED_ADD)?, wat::parse_str(ADD)?);
    let candidates = vec![
        Candidate::batch(GATED, Subject::new().caller(&gated)?),
        Candidate::batch("wasmtime", Rival::new()?.caller(&gated)?),
        Candidate::batch(STATELESS, Subject::new().caller(&stateless)?),
    ];
    Ok(row(candidates, effort, None))
}

fn outermost(effort: Effort) -> Result<Row, BenchError> {
    let caller = wat::parse_str(STATELESS_CALLER)?;
    let (gated, stateless) = (wat::parse_str(GATED_PEER)?, wat::parse_str(PEER)?);
    let candidates = vec![
        Candidate::batch(GATED, Subject::new().peer_caller(&caller, &gated)?),
        Candidate::batch("wasmtime", Rival::new()?.peer_caller(&caller, &gated)?),
        Candidate::batch(STATELESS, Subject::new().peer_caller(&caller, &stateless)?),
    ];
    Ok(row(candidates, effort, None))
}

fn nested(effort: Effort) -> Result<Row, BenchError> {
    let (outside, inside) = (wat::parse_str(STATELESS_CALLER)?, wat::parse_str(INSIDE_CALLER)?);
    let (sharing, stateless) = (wat::parse_str(SHARING_PEER)?, wat::parse_str(PEER)?);
    let candidates = vec![
        Candidate::batch(GATED, Subject::new().peer_caller(&inside, &sharing)?),
        Candidate::batch("wasmtime", Rival::new()?.peer_caller(&outside, &stateless)?),
        Candidate::batch(STATELESS, Subject::new().peer_caller(&outside, &stateless)?),
    ];
    Ok(row(candidates, effort, None))
}

/// Time of one call while another task calls the same cell without pause; and of both in turns under one mutex around a stateless cell.
fn contended(effort: Effort) -> Result<Row, BenchError> {
    let (gated, stateless) = (wat::parse_str(GATED_ADD)?, wat::parse_str(ADD)?);
    let lock = Arc::new(std::sync::Mutex::new(()));
    let ours = Subject::new().adder(&gated)?;
    let theirs = Subject::new().adder(&stateless)?;
    let locked = move |a: i32| {
        let _guard = lock.lock();
        theirs(a)
    };
    let samples = vec![
        ("planks, gated", beside_another(&ours, effort)),
        ("planks, stateless behind a mutex", beside_another(&locked, effort)),
    ];
    Ok(Row { name: "a call while another task calls the same cell".into(), samples, goal_ns: None })
}

/// Nanoseconds per call of two tasks together.
fn beside_another(f: &(impl Fn(i32) -> Result<i32, SubjectError> + Sync), effort: Effort) -> Sample {
    let round = || {
        let (stop, calls) = (AtomicBool::new(false), AtomicU64::new(0));
        let start = Instant::now();
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    let mut n = 0;
                    while !stop.load(Ordering::Relaxed) && std::hint::black_box(f(1)).is_ok() {
                        n += 1;
                    }
                    calls.fetch_add(n, Ordering::Relaxed);
                });
            }
            std::thread::sleep(effort.slice);
            stop.store(true, Ordering::Relaxed);
        });
        start.elapsed().as_nanos() as f64 / calls.load(Ordering::Relaxed).max(1) as f64
    };
    Sample::of((0..effort.rounds.max(1)).map(|_| round()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_row_runs() {
        let effort = Effort { rounds: 1, slice: Duration::from_micros(200) };
        let measured = rows(effort, |_| {}).unwrap();
        assert_eq!(measured.len(), 7);
        assert!(measured.iter().all(|r| !r.samples.is_empty()));
    }
}
