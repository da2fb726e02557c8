//! What cells go through while something is refused: from loading to unloading, with failures, swaps and recoveries in between.
//!
//! A life is a sequence of [`Steps`], in each of which something may be refused. A step that fails ends the life where an embedder
//! would give up, and is done again where one would try again: then it must work, and until then everything must be as before.
//! Whatever happens, nothing is left when the life is over.

use crate::verdict::{Outcome, Verdict};
use crate::workload::{NATIVE, SMALL, WORKLOADS};
use crate::world::World;
use alloc::{format, string::String, vec::Vec};
use core::cell::Cell;
use core::convert::Infallible;
use core::fmt::Display;
use namespace_bridge::recovery::{Policy, RecoveryState};
use namespace_bridge::swap::{StatePlan, SwapRequest};
use namespace_bridge::{LoadError, LoadOptions, StrongCrateRef, Trap, TypedFunc, catch_trap};
use runtime_port::unwind::catch_unwind_with_arg;

/// A kind of life. Each is one row of the report.
#[derive(Debug)]
struct Life {
    name: &'static str,
    /// How many there are of it.
    variants: usize,
    lead: fn(&World, usize, &mut Steps) -> Result<i64, String>,
}

const LIVES: [Life; 8] = [
    Life { name: "load, call, unload", variants: WORKLOADS.len(), lead: plain },
    Life { name: "trap", variants: 1, lead: traps },
    Life { name: "host error and nesting", variants: 1, lead: host_failures },
    Life { name: "compile", variants: 1, lead: compile },
    Life { name: "trap in start", variants: 1, lead: start_traps },
    Life { name: "swap and rollback", variants: 3, lead: swap },
    Life { name: "reset and fallback", variants: 3, lead: recover },
    Life { name: "native cell", variants: 1, lead: native },
];

/// Name of the cell.
const NAME: &str = "short-lived";

/// Units of work of each call.
const WORK: i32 = 5;

/// How the message begins of what must not happen.
const BROKEN: &str = "broken: ";

/// Calls a function while the `n`-th request is refused (0: none). Returns how many it made.
pub(crate) type Refusing = fn(n: u64, f: &mut dyn FnMut()) -> u64;

/// A life under way.
pub(crate) struct Steps {
    refusing: Refusing,
    /// Requests until one is refused; 0: none will be.
    left: u64,
    made: u64,
    /// A step has failed.
    failed: bool,
}

impl Steps {
    /// A step. An error of it, or a panic, which must not be.
    fn run<R, E: Display>(&mut self, f: impl FnOnce() -> Result<R, E>) -> Result<R, String> {
        let (mut f, mut result) = (Some(f), None);
        let made = (self.refusing)(self.left, &mut || {
            if let Some(f) = f.take() {
                result = Some(catch_unwind_with_arg(|()| f(), ()));
            }
        });
        self.left = self.left.saturating_sub(made);
        self.made += made;
        let result = match result {
            Some(Ok(result)) => result.map_err(|e| format!("{e}")),
            Some(Err(reason)) => {
                Err(format!("{BROKEN}no error, but an unwinding: {}", reason.message().unwrap_or("?")))
            }
            None => Err(format!("{BROKEN}the step did not happen")),
        };
        self.failed |= result.is_err();
        result
    }

    /// A step that is done again when it fails. Then it must work; until then, `check` must hold.
    fn surely<R, E: Display>(
        &mut self,
        f: impl Fn() -> Result<R, E>,
        check: impl FnOnce() -> Result<(), String>,
    ) -> Result<R, String> {
        match self.run(&f) {
            Err(e) if !e.starts_with(BROKEN) => {
                check().map_err(|what| format!("{BROKEN}after `{e}`: {what}"))?;
                self.run(f).map_err(|again| format!("{BROKEN}`{e}`, and then again `{again}`"))
            }
            result => result,
        }
    }
}

/// What the embedder makes before a step, for the step and for doing it again.
struct Prepared<T>([Cell<Option<T>>; 2]);

impl<T> Prepared<T> {
    fn new(make: impl Fn() -> T) -> Prepared<T> {
        Prepared([Cell::new(Some(make())), Cell::new(Some(make()))])
    }

    fn take(&self) -> T {
        self.0.iter().find_map(Cell::take).expect("a step is done twice at most")
    }
}

/// One life of those that there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    life: usize,
    variant: usize,
    /// Requests that it makes when none is refused.
    requests: u64,
    /// Its result.
    right: i64,
}

/// Leads every life without a refusal, and counts what it requests.
pub(crate) fn count(world: &World, refusing: Refusing) -> Result<Vec<Known>, String> {
    let mut all = Vec::new();
    for (life, Life { name, variants, .. }) in LIVES.iter().enumerate() {
        for variant in 0..*variants {
            let failed = |e| format!("{name}, {variant}: {e}");
            // What is made once and kept must be there before anybody counts.
            for _ in 0..2 {
                lead(world, life, variant, 0, refusing).0.map_err(failed)?;
            }
            let (result, steps) = lead(world, life, variant, 0, refusing);
            all.push(Known { life, variant, requests: steps.made, right: result.map_err(failed)? });
        }
    }
    Ok(all)
}

/// Requests of all lives.
pub(crate) fn total(known: &[Known]) -> u64 {
    known.iter().map(|k| k.requests).sum()
}

/// Refuses one request of the lives one after the other, and looks at what that did. As many numbers in a row as there are requests
/// refuse each of them once, and a few are a sample of all.
pub(crate) fn inject(world: &mut World, known: &[Known], number: u64, what: &str, refusing: Refusing) -> Verdict {
    /// A prime, larger than the number of requests.
    const STRIDE: u64 = 1_000_003;
    let mut n = (number % total(known).max(1)) * STRIDE % total(known).max(1);
    let found = known.iter().find(|k| {
        let inside = n < k.requests;
        if !inside {
            n -= k.requests;
        }
        inside
    });
    let Some(Known { life, variant, right, .. }) = found.copied() else {
        let outcome = Outcome::Lost("there is nothing to refuse".into());
        return Verdict { fault: "none", place: String::new(), detected: false, outcome };
    };
    let (result, steps) = lead(world, life, variant, n + 1, refusing);
    let mut checks = match result {
        Ok(r) if r == right => Ok(()),
        Ok(r) => Err(format!("the result is {r} instead of {right}")),
        Err(e) if e.starts_with(BROKEN) => Err(e),
        Err(_) => Ok(()),
    };
    checks = checks.and_then(|()| world.check_idle()).and_then(|()| world.check_others());
    checks = checks.and_then(|()| match lead(world, life, variant, 0, refusing).0 {
        Ok(r) if r == right => world.check_idle(),
        other => Err(format!("without a refusal the result is {other:?} instead of {right}")),
    });
    let Life { name, variants, .. } = &LIVES[life];
    let workload = if *variants == WORKLOADS.len() { WORKLOADS[variant].name } else { "" };
    let outcome = match checks {
        Err(what) => Outcome::Lost(what),
        Ok(()) if steps.failed => Outcome::Recovered,
        Ok(()) => Outcome::Quiet,
    };
    Verdict {
        fault: name,
        place: format!("{what} {} of life {variant} {workload}", n + 1),
        detected: steps.failed,
        outcome,
    }
}

/// One life, in a frame of its own, whose `n`-th request is refused (0: none).
#[inline(never)]
fn lead(world: &World, life: usize, variant: usize, n: u64, refusing: Refusing) -> (Result<i64, String>, Steps) {
    let mut steps = Steps { refusing, left: n, made: 0, failed: false };
    let mut result = (LIVES[life].lead)(world, variant, &mut steps);
    // A load that failed must have left nothing. An unloading that fails can be repeated.
    if world.namespace.get_crate(NAME).is_some() {
        let unloaded = steps.surely(|| world.namespace.unload(NAME), || Ok(()));
        result = result.and_then(|r| unloaded.map(|()| r));
    }
    (result, steps)
}

/// Whether a load that failed left something.
fn nothing_half_loaded<R>(world: &World, loaded: Result<R, String>) -> Result<R, String> {
    match loaded {
        Err(e) if world.namespace.get_crate(NAME).is_some() => Err(format!("{BROKEN}half a load: {e}")),
        loaded => loaded,
    }
}

/// Loads a workload.
fn load(world: &World, workload: usize, steps: &mut Steps) -> Result<StrongCrateRef, String> {
    let object = world.object(workload).clone();
    nothing_half_loaded(world, steps.run(|| world.namespace.load_object(NAME, object, LoadOptions::default())))
}

type Run = TypedFunc<(i32, i32, i32, i64), i64>;

/// Loads a workload, grows its memory, and gives its function.
fn begin(world: &World, workload: usize, steps: &mut Steps) -> Result<Run, String> {
    let cell = load(world, workload, steps)?;
    let instance = cell.instance().ok_or("the cell has no instance")?;
    let memory = instance.memory(0).ok_or("the cell has no memory")?;
    steps.run(|| memory.grow(1).ok_or("the memory does not grow"))?;
    steps.run(|| cell.typed_func("run"))
}

fn plain(world: &World, workload: usize, steps: &mut Steps) -> Result<i64, String> {
    let run = begin(world, workload, steps)?;
    steps.run(|| run.call((WORK, 0, 0, 0)))
}

/// Calls that must fail, one for each kind. How does not matter: a lack of memory may come first.
fn fail(run: &Run, kinds: &[i32], steps: &mut Steps) -> Result<i64, String> {
    for kind in kinds {
        let failed_before = steps.failed;
        match steps.run(|| run.call((WORK, *kind, 1, 0))) {
            Ok(_) => return Err(format!("{BROKEN}the call did not fail")),
            Err(e) if e.starts_with(BROKEN) => return Err(e),
            Err(_) => steps.failed = failed_before,
        }
    }
    Ok(kinds.len() as i64)
}

fn traps(world: &World, _: usize, steps: &mut Steps) -> Result<i64, String> {
    let run = begin(world, 0, steps)?;
    fail(&run, &[0, 3, 20, 31], steps)
}

fn host_failures(world: &World, _: usize, steps: &mut Steps) -> Result<i64, String> {
    let run = begin(world, 0, steps)?;
    fail(&run, &[40, 42, 43], steps)
}

fn compile(world: &World, _: usize, steps: &mut Steps) -> Result<i64, String> {
    let loaded = steps.run(|| world.namespace.load_wasm(NAME, SMALL, LoadOptions::default()));
    nothing_half_loaded(world, loaded).map(|_| 1)
}

fn start_traps(world: &World, _: usize, steps: &mut Steps) -> Result<i64, String> {
    let load = || world.namespace.load_module(NAME, world.starting(), LoadOptions::default());
    let loaded = steps.run(|| Ok::<_, Infallible>(load()))?;
    match nothing_half_loaded(world, Ok(loaded))? {
        Err(LoadError::Trap { .. }) => Ok(1),
        Err(e) => {
            steps.failed = true;
            Err(format!("{e}"))
        }
        Ok(_) => Err(format!("{BROKEN}its start function does not trap")),
    }
}

/// A cell with two versions: forth, and back.
fn swap(world: &World, variant: usize, steps: &mut Steps) -> Result<i64, String> {
    let [plain, counter] = world.versions();
    let (versions, plan) = match variant {
        0 => (plain, StatePlan::Fresh),
        1 => (counter, StatePlan::Adopt),
        _ => (counter, StatePlan::Export),
    };
    let namespace = &world.namespace;
    let loaded = steps.run(|| namespace.load_module(NAME, &versions[0], LoadOptions::default()));
    let cell = nothing_half_loaded(world, loaded)?;
    let f = steps.run(|| cell.typed_func::<(i64,), i64>("f"))?;
    let count = match variant {
        0 => None,
        _ => Some(steps.run(|| cell.typed_func::<(), i64>("count"))?),
    };
    drop(cell);
    let calls = Cell::new(0);
    // Which version serves, and whether it knows of all calls.
    let serves = |version: i64| {
        calls.set(calls.get() + 1);
        match f.call((7,)) {
            Ok(r) if r == 7 << 8 | version => {}
            other => return Err(format!("{BROKEN}not version {version} but {other:?}")),
        }
        match count.as_ref().map(|count| count.call(())) {
            None => Ok(()),
            Some(Ok(n)) if n == calls.get() => Ok(()),
            Some(other) => Err(format!("{BROKEN}{other:?} instead of {} calls", calls.get())),
        }
    };
    serves(0)?;
    let request = || SwapRequest::new(NAME).with_module(&versions[1]).state(plan.clone()).keep_old(true);
    let prepared = Prepared::new(request);
    steps.surely(|| namespace.swap(prepared.take()), || serves(0))?;
    serves(1)?;
    steps.surely(|| namespace.rollback(NAME), || serves(1))?;
    serves(0)?;
    Ok(1)
}

/// A cell that fails, and what its policy does.
fn recover(world: &World, variant: usize, steps: &mut Steps) -> Result<i64, String> {
    const FALLBACK: &str = "fallback";
    let namespace = &world.namespace;
    let run = begin(world, 0, steps)?;
    if variant == 2 {
        let object = world.object(0).clone();
        steps.run(|| namespace.load_object(FALLBACK, object, LoadOptions::default()))?;
    }
    let policy = Prepared::new(|| match variant {
        2 => Policy::swap_to(FALLBACK),
        _ => Policy::reset(),
    });
    let no_policy = Prepared::new(Policy::propagate);
    let result = (|| {
        if variant == 0 {
            steps.surely(|| namespace.reset(NAME).map(drop), || serves(&run))?;
        } else {
            steps.surely(|| namespace.set_policy(NAME, policy.take()), || serves(&run))?;
            fail(&run, &[0], steps)?;
            // A recovery that fails takes the cell out of service, until somebody resets it.
            if namespace.recovery_state(NAME) == RecoveryState::Quarantined {
                steps.failed = true;
                steps.run(|| namespace.reset(NAME).map(drop))?;
            }
        }
        serves(&run).map_err(|e| format!("{BROKEN}{e}"))
    })();
    let over = steps.surely(|| namespace.set_policy(NAME, no_policy.take()), || Ok(()));
    let gone = match namespace.get_crate(FALLBACK).is_some() {
        true => steps.surely(|| namespace.unload(FALLBACK), || Ok(())),
        false => Ok(()),
    };
    result.and(over).and(gone).map(|()| 1)
}

/// Whether a workload works. A task that failed looks before its call whether there is something to recover.
fn serves(run: &Run) -> Result<(), String> {
    run.call((WORK, 0, 0, 0)).map(|_| ()).map_err(|e| format!("it does not serve: {e}"))
}

/// A native cell, and another version of it.
fn native(world: &World, _: usize, steps: &mut Steps) -> Result<i64, String> {
    let namespace = &world.namespace;
    let loaded = steps.run(|| namespace.load_native(NAME, NATIVE[0], LoadOptions::default()));
    nothing_half_loaded(world, loaded)?;
    let serves = |version: i64| match call_native(world) {
        Some(Ok(r)) if r == 7 << 8 | version => Ok(()),
        other => Err(format!("{BROKEN}not version {version} but {other:?}")),
    };
    serves(0)?;
    let prepared = Prepared::new(|| SwapRequest::new(NAME).with_native(NATIVE[1]));
    steps.surely(|| namespace.swap(prepared.take()), || serves(0))?;
    serves(1)?;
    Ok(1)
}

/// The native cell's function of 7.
#[expect(unsafe_code, reason = "a native function has no type but the one that it was compiled with")]
fn call_native(world: &World) -> Option<Result<i64, Trap>> {
    let address = world.namespace.get_crate(NAME)?.native_address("injector_native")?;
    // SAFETY: the type in `workloads/native.rs`; the cell stays loaded meanwhile.
    let f = unsafe { core::mem::transmute::<usize, extern "C-unwind" fn(i64) -> i64>(address) };
    Some(catch_trap(|| f(7)))
}
