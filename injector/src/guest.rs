//! Faults that a guest causes: every trap, at a random step of every workload.
//!
//! A cell lives for a few faults and is then unloaded, so that both are seen: that it can be used again after a trap, and that
//! nothing remains of it.

use crate::fault::GUEST_FAULTS;
use crate::random::Random;
use crate::verdict::{Outcome, Verdict};
use crate::workload::WORKLOADS;
use crate::world::{InjectedError, InjectedPanic, SetupError, Subject, World};
use alloc::{format, string::String, vec::Vec};
use core::error::Error;
use namespace_bridge::Trap;
use runtime_port::unwind::{KillReason, catch_unwind_with_arg};

/// Units of work of the call that checks the cell after a fault.
const CHECK_WORK: i32 = 5;

/// The state between faults of this kind.
#[derive(Debug)]
pub struct Guest {
    current: Option<(usize, Subject)>,
    /// Faults until the current cell is unloaded.
    left: usize,
    /// Right results of `CHECK_WORK` units, by workload.
    right: Vec<i64>,
    /// Whether nobody else changes what the baseline counts.
    alone: bool,
}

impl Guest {
    /// Finds out what is right.
    pub fn new(world: &World, alone: bool) -> Result<Guest, SetupError> {
        let right = (0..WORKLOADS.len()).map(|w| {
            let subject = world.load(w)?;
            let right = subject.run.call((CHECK_WORK, 0, 0, 0));
            world.unload(subject).map_err(SetupError)?;
            right.map_err(|e| SetupError(format!("{} fails without a fault: {e}", WORKLOADS[w].name)))
        });
        Ok(Guest { right: right.collect::<Result<_, SetupError>>()?, current: None, left: 0, alone })
    }

    /// Makes a fault and looks at what it did.
    pub fn inject(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        if self.left == 0 {
            self.left = 1 + random.below(32);
            let workload = random.below(WORKLOADS.len());
            // A failure shows as a missing cell below.
            self.current = world.load(workload).ok().map(|s| (workload, s));
        }
        let kind = random.below(GUEST_FAULTS.len());
        let fault = &GUEST_FAULTS[kind];
        let Some((workload, subject)) = &self.current else {
            self.left = 0;
            let outcome = Outcome::Lost("the workload cannot be loaded".into());
            return Verdict { fault: fault.name, place: String::new(), detected: false, outcome };
        };
        let workload = *workload;
        let n = 1 + random.below(60) as u32;
        let steps = (WORKLOADS[workload].steps)(n);
        let step = 1 + random.below(steps as usize) as i32;
        let argument = random.bits() as i64;
        let place = || format!("{} at step {step} of {steps}, argument {argument:#x}", WORKLOADS[workload].name);
        let arguments = (n as i32, kind as i32, step, argument);
        let result = catch_unwind_with_arg(|()| subject.run.call(arguments), ());
        let mut checks = judge(kind, argument, result);
        if checks.is_ok() {
            checks = match subject.run.call((CHECK_WORK, 0, 0, 0)) {
                Ok(r) if r == self.right[workload] => Ok(()),
                other => Err(format!("the next call gave {other:?} instead of {}", self.right[workload])),
            };
        }
        checks = checks.and_then(|()| world.check_others());
        self.left -= 1;
        if checks.is_err() {
            self.left = 0;
        }
        if self.left == 0 {
            checks = checks.and(self.finish(world));
        }
        match checks {
            Ok(()) => Verdict { fault: fault.name, place: String::new(), detected: true, outcome: Outcome::Recovered },
            Err(what) => Verdict { fault: fault.name, place: place(), detected: true, outcome: Outcome::Lost(what) },
        }
    }

    /// Unloads the current cell and checks that nothing remains.
    pub fn finish(&mut self, world: &World) -> Result<(), String> {
        let Some((_, subject)) = self.current.take() else { return Ok(()) };
        world.unload(subject)?;
        if self.alone { world.check_idle() } else { Ok(()) }
    }
}

/// Whether a call with a fault ended as the fault must.
pub(crate) fn judge(kind: usize, argument: i64, result: Result<Result<i64, Trap>, KillReason>) -> Result<(), String> {
    let fault = &GUEST_FAULTS[kind];
    match (fault.trap_code(argument), result) {
        (Some(code), Ok(Err(trap))) if trap.code() == code => match fault.name {
            "host error" if !carries(&trap, argument) => Err(format!("the host's error was lost: {trap}")),
            _ => Ok(()),
        },
        (None, Err(KillReason::Panic(payload))) if payload.downcast_ref() == Some(&InjectedPanic(argument)) => Ok(()),
        (_, Ok(Ok(value))) => Err(format!("the call returned {value}")),
        (_, Ok(Err(trap))) => Err(format!("the call trapped: {}", trap.code())),
        (_, Err(reason)) => Err(format!("the call panicked: {reason:?}")),
    }
}

/// Whether the trap brought the injected error, maybe through several calls.
fn carries(trap: &Trap, argument: i64) -> bool {
    let mut source = trap.source();
    while let Some(error) = source {
        if error.downcast_ref::<InjectedError>().is_some_and(|e| e.0 == argument) {
            return true;
        }
        source = error.source();
    }
    false
}
