//! Kills at random times: several tasks work in cells of their own, in loops, host calls, bulk operations, growing memories and
//! calls of another cell; some or all of them are told to stop.
//!
//! Who was told must end with the trap `Killed`, or with the right result if it was done already; the others must not
//! notice; and all cells must be right in the next call, the killed tasks' too.

use crate::random::Random;
use crate::verdict::{Outcome, Verdict};
use crate::workload::WORKLOADS;
use crate::world::{Run, SetupError, Subject, World, scrub, setup};
use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::fmt::Write;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use kernel_config::task::DEFAULT_STACK;
use namespace_bridge::{Trap, kill, kill_task};
use runtime_port::platform;
use spin::Mutex;
use wasm_cell::trap::TrapCode;

/// Tasks that work.
const VICTIMS: usize = 3;

/// Longest time between the start of the work and the kill, in nanoseconds.
const DELAY: usize = 400_000;

/// Kills between two unloadings of the cells.
const BURST: usize = 16;

/// Names of the faults, by how many tasks were told.
pub(crate) const NAMES: [&str; VICTIMS] = ["one task", "two tasks", "all tasks"];

/// A task that is told to stop, and when, in nanoseconds from the start of the work.
#[derive(Debug, Clone, Copy)]
struct Kill {
    victim: usize,
    delay: u64,
}

const IDLE: u32 = 0;
const POSTED: u32 = 1;
const DONE: u32 = 2;
const CLEAN: u32 = 3;
const STOP: u32 = 4;

/// Units of work that take some hundred microseconds.
fn work(workload: usize) -> i32 {
    match WORKLOADS[workload].name {
        "recursion" => 1_500,
        "bulk" => 4_000,
        "grow" => 8_000,
        _ => 30_000,
    }
}

/// What a victim and its master share.
#[derive(Debug, Default)]
struct Desk {
    state: AtomicU32,
    id: AtomicU64,
    job: Mutex<Option<(Run, i32)>>,
    result: Mutex<Option<Result<i64, Trap>>>,
}

impl Desk {
    fn go_to(&self, state: u32) {
        self.state.store(state, SeqCst);
        platform().tasks().wake(&self.state, 2);
    }

    /// Waits until the state is none of these.
    fn wait_while(&self, states: &[u32]) -> u32 {
        loop {
            let state = self.state.load(SeqCst);
            if !states.contains(&state) {
                return state;
            }
            platform().tasks().wait(&self.state, state, Some(1_000_000_000));
        }
    }

    /// The life of a victim.
    fn serve(&self) {
        self.id.store(platform().tasks().current().id.get(), SeqCst);
        self.go_to(IDLE);
        loop {
            match self.wait_while(&[IDLE, DONE]) {
                POSTED => {
                    self.work();
                    // Nothing of the call is left where the task waits: it would keep the cell.
                    scrub();
                    self.go_to(DONE);
                }
                CLEAN => {
                    // A kill that came when the call was over would end the next one.
                    kill::withdraw();
                    self.go_to(IDLE);
                }
                _ => return,
            }
        }
    }

    /// Does the job, in a frame of its own.
    #[inline(never)]
    fn work(&self) {
        let result = self.job.lock().take().map(|(run, n)| run.call((n, 0, 0, 0)));
        *self.result.lock() = result;
    }

    fn post(&self, run: Run, n: i32) {
        *self.job.lock() = Some((run, n));
        self.go_to(POSTED);
    }

    fn finish(&self) -> Option<Result<i64, Trap>> {
        self.wait_while(&[POSTED]);
        let result = self.result.lock().take();
        self.go_to(CLEAN);
        self.wait_while(&[CLEAN]);
        result
    }
}

/// The state between kills.
#[derive(Debug)]
pub struct Kills {
    desks: Vec<Arc<Desk>>,
    tasks: Vec<u64>,
    /// Each victim's workload and cell.
    cells: Vec<(usize, Subject)>,
    left: usize,
    right: Vec<i64>,
}

impl Kills {
    /// Starts the victims.
    pub fn new(world: &World) -> Result<Kills, SetupError> {
        let right = (0..WORKLOADS.len()).map(|w| {
            let subject = world.load(w)?;
            let right = subject.run.call((work(w), 0, 0, 0)).map_err(|e| setup(WORKLOADS[w].name)(&e));
            world.unload(subject).map_err(SetupError)?;
            right
        });
        let right = right.collect::<Result<Vec<_>, SetupError>>()?;
        let mut kills = Kills { desks: Vec::new(), tasks: Vec::new(), cells: Vec::new(), left: 0, right };
        for i in 0..VICTIMS {
            let desk = Arc::new(Desk { state: AtomicU32::new(CLEAN), ..Desk::default() });
            let its = desk.clone();
            let body = Box::new(move || its.serve());
            let task = platform().tasks().spawn(&format!("victim {i}"), DEFAULT_STACK / 2, body);
            kills.tasks.push(task.map_err(|e| setup("victim")(&e))?);
            desk.wait_while(&[CLEAN]);
            kills.desks.push(desk);
        }
        Ok(kills)
    }

    /// Kills some of the tasks and looks at what that did.
    pub fn inject(&mut self, world: &mut World, random: &mut Random) -> Verdict {
        let told = 1 + random.below((1 << VICTIMS) - 1);
        let mut kills: Vec<Kill> = (0..VICTIMS)
            .filter(|victim| told >> victim & 1 != 0)
            .map(|victim| Kill { victim, delay: random.below(DELAY) as u64 })
            .collect();
        kills.sort_by_key(|k| k.delay);
        let mut place = String::new();
        let mut result = self.attempt(world, random, &kills, &mut place);
        self.left = self.left.saturating_sub(1);
        if self.left == 0 || result.is_err() {
            let unloaded = self.finish(world);
            result = result.and_then(|killed| unloaded.map(|()| killed));
        }
        let (detected, outcome) = match result {
            Ok(0) => (false, Outcome::Quiet),
            Ok(_) => (true, Outcome::Recovered),
            Err(what) => (false, Outcome::Lost(what)),
        };
        Verdict { fault: NAMES[kills.len() - 1], place, detected, outcome }
    }

    /// Returns how many kills came before the end of the work.
    fn attempt(
        &mut self,
        world: &mut World,
        random: &mut Random,
        kills: &[Kill],
        place: &mut String,
    ) -> Result<usize, String> {
        if self.left == 0 {
            self.left = BURST;
            let first = random.below(WORKLOADS.len());
            for i in 0..VICTIMS {
                let workload = (first + 3 * i) % WORKLOADS.len();
                self.cells.push((workload, world.load(workload).map_err(|e| format!("{e}"))?));
            }
        }
        for Kill { victim, delay } in kills {
            let workload = self.cells.get(*victim).map_or("", |(w, _)| WORKLOADS[*w].name);
            // Text that grows in memory.
            let _ = write!(place, "{workload} (task {victim}) after {delay} ns; ");
        }
        for (desk, (workload, subject)) in self.desks.iter().zip(&self.cells) {
            desk.post(subject.run.clone(), work(*workload));
        }
        let clock = platform().clock();
        let start = clock.monotonic_ns();
        let mut refused = None;
        for Kill { victim, delay } in kills {
            while clock.monotonic_ns().saturating_sub(start) < *delay {
                core::hint::spin_loop();
            }
            refused = self.desks.get(*victim).and_then(|d| kill_task(d.id.load(SeqCst)).err()).or(refused);
        }
        let results: Vec<_> = self.desks.iter().map(|d| d.finish()).collect();
        if let Some(e) = refused {
            return Err(format!("a task cannot be killed: {e}"));
        }
        let mut killed = 0;
        for (i, (result, (workload, _))) in results.into_iter().zip(&self.cells).enumerate() {
            match result {
                Some(Ok(value)) if value == self.right[*workload] => {}
                Some(Err(trap)) if trap.code() == TrapCode::Killed && kills.iter().any(|k| k.victim == i) => {
                    killed += 1
                }
                other => return Err(format!("task {i} ended with {other:?}")),
            }
        }
        for (desk, (workload, subject)) in self.desks.iter().zip(&self.cells) {
            desk.post(subject.run.clone(), work(*workload));
            match desk.finish() {
                Some(Ok(value)) if value == self.right[*workload] => {}
                other => return Err(format!("the next call of {} ended with {other:?}", WORKLOADS[*workload].name)),
            }
        }
        world.check_others()?;
        Ok(killed)
    }

    /// Unloads the cells and checks that nothing remains.
    pub fn finish(&mut self, world: &World) -> Result<(), String> {
        self.left = 0;
        for (_, subject) in self.cells.drain(..) {
            world.unload(subject)?;
        }
        world.check_idle()
    }
}

impl Drop for Kills {
    fn drop(&mut self) {
        for (desk, task) in self.desks.iter().zip(&self.tasks) {
            desk.go_to(STOP);
            // It ends in any case.
            let _ = platform().tasks().join(*task);
        }
    }
}
