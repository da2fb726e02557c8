//! Compiling modules of other people, on one thread and on two.

use super::line::NOTHING;
use super::{Goal, Line, PROCESSORS, Side, Unit, With};
use crate::bench::interpreter::Interpreter;
use crate::bench::load::{BenchError, Failures};
use crate::bench::measure::{Clock, figures_of_one};
use crate::bench::rival::Rival;
use crate::bench::subject::Subject;
use std::path::{Path, PathBuf};
use xtask::{kernel, third_party};

/// Goals, in wasmtime's time.
const ONE_THREAD: f64 = 0.75;
const TWO_THREADS: f64 = 0.8;

/// Modules of this size and more have goals.
const LARGE: usize = 100_000;

/// Most rounds: one of a large module takes seconds.
const ROUNDS: usize = 5;

/// A module to compile.
#[derive(Clone, Debug)]
pub struct Module {
    /// What it is called.
    pub name: String,
    /// Its bytes, or why they cannot be had.
    pub bytes: Result<Vec<u8>, String>,
}

impl Module {
    /// The large ones among those that the tests use, fetched from npm the first time. Those without a row that has `only` in its
    /// key or name are left where they are.
    pub fn third_party(only: &str) -> Vec<Module> {
        let folder = folder();
        let wanted = |name: &str| {
            let rows = [one_thread(name, ""), two_threads(name, ""), super::sizes::code(name)];
            rows.iter().any(|(key, what)| key.contains(only) || what.contains(only))
        };
        let fetched = third_party::MODULES
            .iter()
            .filter(|m| wanted(m.name))
            .map(|m| Module { name: m.name.into(), bytes: m.bytes(&folder).map_err(|e| e.to_string()) });
        fetched.filter(|m| m.bytes.as_ref().map_or(true, |b| b.len() >= LARGE)).collect()
    }
}

/// Key and name of a row about one thread.
fn one_thread(name: &str, size: &str) -> (String, String) {
    (format!("compile.one_thread.{name}"), format!("compile {name}{size}, one thread"))
}

/// Key and name of a row about two threads.
fn two_threads(name: &str, size: &str) -> (String, String) {
    (format!("compile.two_threads.{name}"), format!("compile {name}{size}, two threads"))
}

/// Where the tests of this build keep theirs, or what stands for it when this program was installed elsewhere.
fn folder() -> PathBuf {
    let of = |exe: &Path| Some(exe.parent()?.parent()?.to_path_buf());
    let built_in =
        std::env::current_exe().ok().and_then(|exe| of(&exe)).filter(|dir| dir.join("CACHEDIR.TAG").is_file());
    third_party::folder(&built_in.unwrap_or_else(|| kernel::workspace().join("target")))
}

/// Measures what is wanted of these lines.
pub(super) fn measure(
    with: &With<'_>,
    progress: &mut dyn FnMut(&str),
    add: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    for module in &with.plan.modules {
        let size = module.bytes.as_ref().map_or(String::new(), |b| format!(" ({:.2} MB)", b.len() as f64 / 1e6));
        let name = &module.name;
        let one = one_thread(name, &size);
        let two = two_threads(name, &size);
        let large = module.bytes.as_ref().map_or(true, |b| b.len() >= LARGE);
        let goal = |most: f64| if large { Goal::of_wasmtime(most) } else { None };
        if with.plan.wants(&one.0, &one.1) {
            progress(&one.1);
            add(line(with, module, one, goal(ONE_THREAD), alone)?);
        }
        if with.plan.wants(&two.0, &two.1) {
            progress(&two.1);
            add(line(with, module, two, goal(TWO_THREADS), together)?);
        }
    }
    Ok(())
}

/// What each side took, or why nobody was measured.
type Measured = Result<Vec<(Side, Vec<f64>)>, String>;
type Part = fn(&With<'_>, &[u8]) -> Result<Measured, BenchError>;

fn line(
    with: &With<'_>,
    module: &Module,
    (key, what): (String, String),
    goal: Option<Goal>,
    figures: Part,
) -> Result<Line, BenchError> {
    let measured = match &module.bytes {
        Ok(wasm) => figures(with, wasm)?,
        Err(why) => Err(why.clone()),
    };
    Ok(match measured {
        Ok(measured) => Line::absent(key, what, Unit::Nanoseconds, goal, NOTHING).with(measured),
        Err(why) => Line::absent(key, what, Unit::Nanoseconds, goal, &why),
    })
}

fn rounds(with: &With<'_>) -> usize {
    with.plan.effort.rounds.min(ROUNDS)
}

fn alone(with: &With<'_>, wasm: &[u8]) -> Result<Measured, BenchError> {
    let (ours, rival, interpreter) = (Subject::compiler_alone()?, Rival::one_thread()?, Interpreter::eager());
    let failures = Failures::default();
    let mut candidates = [
        failures.candidate("", || Subject::compile_with(&ours, wasm)),
        failures.candidate("", || rival.compile_only(wasm)),
        failures.candidate("", || interpreter.compile_only(wasm)),
    ];
    let figures = figures_of_one(&mut candidates, rounds(with), Clock::Thread);
    drop(candidates);
    failures.none()?;
    Ok(Ok([Side::Planks, Side::Wasmtime, Side::Wasmi].into_iter().zip(figures).collect()))
}

fn together(with: &With<'_>, wasm: &[u8]) -> Result<Measured, BenchError> {
    if with.processors < PROCESSORS {
        return Ok(Err("this process may use one processor only".into()));
    }
    let failures = Failures::default();
    let mut candidates = [
        failures.candidate("", || Subject::compile_only(wasm)),
        failures.candidate("", || with.rival.compile_only(wasm)),
    ];
    let figures = figures_of_one(&mut candidates, rounds(with), Clock::Wall);
    drop(candidates);
    failures.none()?;
    Ok(Ok([Side::Planks, Side::Wasmtime].into_iter().zip(figures).collect()))
}
