//! Faults at the k-th instruction, call or memory access of a workload: any of those that a guest causes.
//!
//! The modules are the workloads with a tick before each of these places. One call without a fault tells how many there are; then a
//! random one of them makes the fault. So operand stacks, locals and control flow are as they come, which they are not at the steps of
//! kind `guest`.

use crate::fault::GUEST_FAULTS;
use crate::guest::judge;
use crate::random::Random;
use crate::verdict::{Outcome, Verdict};
use crate::workload::{COUNTING, WORKLOADS, Workload};
use crate::world::{SetupError, Subject, World, setup};
use alloc::{format, string::String, sync::Arc, vec::Vec};
use namespace_bridge::{CellModule, LoadOptions, Trap, TypedFunc, compile_module};
use runtime_port::unwind::catch_unwind_with_arg;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// Every instruction.
    Instructions,
    /// Calls of all kinds.
    Calls,
    /// Accesses of memories, tables and globals.
    Accesses,
}

/// Most units of work of one call.
const MOST_WORK: usize = 24;

/// A workload's cell, with what arms it.
#[derive(Debug)]
struct Armed {
    subject: Subject,
    arm: TypedFunc<(i64,), ()>,
    ticks: TypedFunc<(), i64>,
}

/// The state between faults of these kinds.
#[derive(Debug)]
pub struct Points {
    modules: Vec<Arc<CellModule>>,
    current: Option<(usize, Armed)>,
    /// Faults until the current cell is unloaded.
    left: usize,
    /// Whether nobody else changes what the baseline counts.
    alone: bool,
}

impl Points {
    /// Compiles the modules, and uses each once.
    pub fn new(world: &World, alone: bool, counted: Counted) -> Result<Points, SetupError> {
        let compile = |(workload, wasm): (usize, &[&[u8]; 3])| {
            let failed = setup(WORKLOADS[workload].name);
            let wasm = wasm[counted as usize];
            compile_module(WORKLOADS[workload].name, wasm, &LoadOptions::default()).map_err(|e| failed(&e))
        };
        let modules = COUNTING.iter().enumerate().map(compile).collect::<Result<Vec<_>, SetupError>>()?;
        let points = Points { modules, current: None, left: 0, alone };
        for (workload, Workload { name, .. }) in WORKLOADS.iter().enumerate() {
            let armed = points.load(world, workload)?;
            armed.count(2).map_err(|e| setup(name)(&e))?;
            points.unload(world, armed).map_err(SetupError)?;
        }
        Ok(points)
    }

    fn load(&self, world: &World, workload: usize) -> Result<Armed, SetupError> {
        let failed = setup(WORKLOADS[workload].name);
        let subject = world.load_module(&WORKLOADS[workload], &self.modules[workload])?;
        let arm = subject.cell.typed_func("arm").map_err(|e| failed(&e))?;
        let ticks = subject.cell.typed_func("ticks").map_err(|e| failed(&e))?;
        Ok(Armed { subject, arm, ticks })
    }

    fn unload(&self, world: &World, armed: Armed) -> Result<(), String> {
        let Armed { subject, arm, ticks } = armed;
        drop((arm, ticks));
        let unloaded = world.unload(subject);
        self.modules.iter().for_each(|module| module.frames().release_idle_images());
        unloaded
    }

    /// Makes a fault and looks at what it did.
    pub fn inject(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        if self.left == 0 {
            self.left = 1 + random.below(32);
            let workload = random.below(WORKLOADS.len());
            // A failure shows as a missing cell below.
            self.current = self.load(world, workload).ok().map(|armed| (workload, armed));
        }
        let kind = random.below(GUEST_FAULTS.len());
        let (n, argument) = (1 + random.below(MOST_WORK) as i32, random.bits() as i64);
        let mut place = String::new();
        let mut checks = match &self.current {
            Some((workload, armed)) => {
                place = format!("{} with {n} units of work", WORKLOADS[*workload].name);
                armed.fail(kind, n, argument, random, &mut place)
            }
            None => Err("the workload cannot be loaded".into()),
        };
        checks = checks.and_then(|()| world.check_others());
        self.left -= 1;
        if checks.is_err() || self.left == 0 {
            self.left = 0;
            checks = checks.and(self.finish(world));
        }
        let (detected, outcome) = match checks {
            Ok(()) => (true, Outcome::Recovered),
            Err(what) => (false, Outcome::Lost(what)),
        };
        if outcome == Outcome::Recovered {
            place.clear();
        }
        Verdict { fault: GUEST_FAULTS[kind].name, place, detected, outcome }
    }

    /// Unloads the current cell and checks that nothing remains.
    pub fn finish(&mut self, world: &World) -> Result<(), String> {
        let Some((_, armed)) = self.current.take() else { return Ok(()) };
        self.unload(world, armed)?;
        if self.alone { world.check_idle() } else { Ok(()) }
    }
}

impl Armed {
    /// The result of `n` units of work, and how many ticks they take.
    fn count(&self, n: i32) -> Result<(i64, i64), Trap> {
        self.arm.call((i64::MAX,))?;
        let result = self.subject.run.call((n, 0, 0, 0))?;
        Ok((result, i64::MAX - self.ticks.call(())?))
    }

    /// Makes the fault at one of the ticks. The same work must then give what it gave before, in as many ticks.
    fn fail(&self, kind: usize, n: i32, argument: i64, random: &mut Random, place: &mut String) -> Result<(), String> {
        let before = self.count(n).map_err(|e| format!("without a fault: {e}"))?;
        let at = 1 + random.below(before.1 as usize) as i64;
        *place = format!("{place}, at {at} of {}, argument {argument:#x}", before.1);
        self.arm.call((at,)).map_err(|e| format!("{e}"))?;
        let result = catch_unwind_with_arg(|()| self.subject.run.call((n, kind as i32, 0, argument)), ());
        judge(kind, argument, result)?;
        match self.count(n) {
            Ok(after) if after == before => Ok(()),
            other => Err(format!("the next call gave {other:?} instead of {before:?}")),
        }
    }
}
