//! Parts of the kernel that are wasm cells: each with a native default, replaceable while the kernel runs.
//!
//! A component is a cell of a known name with known exports. The kernel asks it ([`Component::ask`]) through handles of the cell's
//! stable entries, so a swap is what the next question meets. Whenever the cell gives no sensible answer the native default gives
//! one instead:
//!
//! - it traps, or is out of service: its recovery policy ([`policy`]) gives it a fresh instance, or ends it after many failures;
//! - it takes longer than [`TICKS`]: the timer stops it ([`task::with_limit`]), which is a failure like others;
//! - it answers nonsense: after [`NONSENSE`] such answers it is not asked again until another instance or version serves;
//! - it is not loaded, or lacks a function.
//!
//! A component is asked by tasks, with interrupts on and no lock of the kernel held but the component's own, at which others
//! who want to ask sleep. What must not be lost (the line that is typed, files) is in the kernel's keeping, not the cell's.

pub mod event_filter;
pub mod file_system;
pub mod line_discipline;
pub mod scheduling;

use alloc::{
    format,
    string::{String, ToString},
    sync::{Arc, Weak},
    vec::Vec,
};
use core::time::Duration;
use lock_api::RawMutex as _;
use namespace_bridge::{CrateNamespace, FuncError, LoadOptions, LoadedCrate, Policy, RecoveryState, Trap, kill};
use runtime_port::{
    bare_metal::task,
    platform, println,
    sync::{Mutex, RawMutex},
};
use wasm_cell::trap::TrapCode;

/// Ticks of the processor's time that a question may take.
pub const TICKS: u32 = 20;

/// Nonsensical answers of one instance after which it is not asked any more.
pub const NONSENSE: u32 = 3;

/// What is done about a component that fails: a fresh instance after a pause, until it has failed ten times in a minute.
fn policy() -> Policy {
    Policy::restart(Duration::from_millis(10), Duration::from_secs(1)).quarantine_after(10, Duration::from_secs(60))
}

/// A part of the kernel that a cell can do. `H` has the handles of the cell's functions.
pub struct Component<H> {
    /// Name of the cell.
    pub name: &'static str,
    bind: fn(&Arc<LoadedCrate>) -> Result<H, FuncError>,
    state: Mutex<State<H>>,
}

struct State<H> {
    namespace: Option<Arc<CrateNamespace>>,
    bound: Option<H>,
    /// The instance that has answered nonsense, and how often.
    suspect: (Weak<LoadedCrate>, u32),
    report: Report,
}

/// How a component does.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Questions that the cell answered.
    pub by_cell: u64,
    /// Questions that the native default answered.
    pub by_default: u64,
    /// Why, the last time that the cell had been asked.
    pub last: Option<String>,
}

/// Why a cell has no answer.
enum Silence {
    /// There is none to ask.
    Absent,
    /// It failed.
    Failed(Trap, bool),
    Nonsense(String),
}

impl<H> Component<H> {
    const fn new(name: &'static str, bind: fn(&Arc<LoadedCrate>) -> Result<H, FuncError>) -> Self {
        let report = Report { by_cell: 0, by_default: 0, last: None };
        let state = State { namespace: None, bound: None, suspect: (Weak::new(), 0), report };
        Self { name, bind, state: Mutex::const_new(RawMutex::INIT, state) }
    }

    /// Has the cell of this component's name in the namespace asked from now on; `None`: nobody.
    pub fn serve_from(&self, namespace: Option<Arc<CrateNamespace>>) {
        let mut state = self.state.lock();
        let old = core::mem::replace(
            &mut *state,
            State { namespace, bound: None, suspect: (Weak::new(), 0), report: Report::default() },
        );
        drop(state);
        // Handles and namespace go with no lock held.
        drop(old);
    }

    /// How it does.
    pub fn report(&self) -> Report {
        self.state.lock().report.clone()
    }

    /// The recovery state of its cell, if there is one.
    pub fn recovery(&self) -> Option<RecoveryState> {
        let namespace = self.state.lock().namespace.clone()?;
        namespace.own_crate(self.name).map(|_| namespace.recovery_state(self.name))
    }

    /// Asks the cell: `question` calls one of its functions, `sense` makes what the kernel can use of the answer, or says what is wrong with it.
    /// `None` if the native default is to answer. A task inside of wasm gets that at once: what stops a
    /// cell that takes too long would stop its own call too.
    pub fn ask<A, R>(
        &self,
        question: impl FnOnce(&H) -> Result<A, Trap>,
        sense: impl FnOnce(A) -> Result<R, String>,
    ) -> Option<R> {
        if is_inside_wasm() {
            return None;
        }
        let mut state = self.state.lock();
        let answer = self.bound(&mut state).and_then(|handles| {
            let answer = limited(|| question(handles)).map_err(|(trap, late)| Silence::Failed(trap, late))?;
            sense(answer).map_err(Silence::Nonsense)
        });
        match answer {
            Ok(answer) => {
                state.report.by_cell += 1;
                Some(answer)
            }
            Err(silence) => {
                state.report.by_default += 1;
                self.note(&mut state, silence);
                None
            }
        }
    }

    /// The handles of the cell, if it can be asked.
    fn bound<'s>(&self, state: &'s mut State<H>) -> Result<&'s H, Silence> {
        let namespace = state.namespace.as_ref().ok_or(Silence::Absent)?;
        if state.suspect.1 >= NONSENSE {
            let serving = namespace.own_crate(self.name).ok_or(Silence::Absent)?;
            if core::ptr::eq(state.suspect.0.as_ptr(), Arc::as_ptr(&serving)) {
                return Err(Silence::Absent);
            }
            state.suspect.1 = 0;
        }
        if state.bound.is_none() {
            let cell = namespace.own_crate(self.name).ok_or(Silence::Absent)?;
            state.bound = Some((self.bind)(&cell).map_err(|e| Silence::Nonsense(e.to_string()))?);
            // Whoever loaded it. Only a cell in wasm has one.
            let _ = namespace.set_policy(self.name, policy());
        }
        state.bound.as_ref().ok_or(Silence::Absent)
    }

    fn note(&self, state: &mut State<H>, silence: Silence) {
        let why = match silence {
            Silence::Absent => return,
            Silence::Failed(_, true) => format!("stopped after {TICKS} ms"),
            Silence::Failed(trap, false) => {
                if trap.code() == TrapCode::FunctionGone {
                    // Unloaded, or swapped for a version without this function: what is loaded next has entries of its own.
                    state.bound = None;
                }
                trap.to_string()
            }
            Silence::Nonsense(what) => {
                let cell = state.namespace.as_ref().and_then(|n| n.own_crate(self.name));
                let cell = cell.as_ref().map(Arc::downgrade).unwrap_or_default();
                let count = if cell.ptr_eq(&state.suspect.0) { state.suspect.1 + 1 } else { 1 };
                state.suspect = (cell, count);
                what
            }
        };
        state.report.last = Some(why);
    }
}

/// Whether the current task runs wasm code further up its stack: its calls are linked from its first local.
fn is_inside_wasm() -> bool {
    platform().tasks().current().slots[0].get() != 0
}

/// Calls a cell for at most [`TICKS`]. The error says also whether that was the reason.
fn limited<A>(call: impl FnOnce() -> Result<A, Trap>) -> Result<A, (Trap, bool)> {
    let (answer, reached) = task::with_limit(TICKS, call);
    match &answer {
        Err(trap) if trap.code() == TrapCode::Killed && !reached => {
            // It was somebody else who asked the task to stop, and not this call that was meant. A task can always ask itself.
            let _ = kill::kill_task(platform().tasks().current().id.get());
        }
        // The limit was reached when the call had just ended.
        Ok(_) if reached => {
            kill::withdraw();
        }
        _ => {}
    }
    answer.map_err(|trap| (trap, reached))
}

/// Every component's name and the module that comes with the kernel.
fn shipped() -> [(&'static str, &'static [u8]); 4] {
    [
        (scheduling::COMPONENT.name, include_bytes!(concat!(env!("OUT_DIR"), "/scheduling.wasm"))),
        (file_system::COMPONENT.name, include_bytes!(concat!(env!("OUT_DIR"), "/file_system.wasm"))),
        (line_discipline::COMPONENT.name, include_bytes!(concat!(env!("OUT_DIR"), "/line_discipline.wasm"))),
        (event_filter::COMPONENT.name, include_bytes!(concat!(env!("OUT_DIR"), "/event_filter.wasm"))),
    ]
}

/// Loads the components that come with the kernel into a namespace, and has them serve. One that cannot be loaded is
/// reported, and its native default serves.
pub fn start(namespace: &Arc<CrateNamespace>) {
    if let Err(error) = file_system::define_disks(namespace) {
        println!("{}: {error}; the native default serves", file_system::COMPONENT.name);
    }
    for (name, module) in shipped() {
        if let Err(error) = namespace.load_wasm(name, module, LoadOptions::default()) {
            println!("{name}: {error}; the native default serves");
        }
    }
    serve_from(Some(namespace));
    for (name, started) in
        [(event_filter::COMPONENT.name, event_filter::start()), (scheduling::COMPONENT.name, scheduling::start())]
    {
        if let Err(error) = started {
            println!("{name}: {error}");
        }
    }
}

/// Has all components served from a namespace.
pub fn serve_from(namespace: Option<&Arc<CrateNamespace>>) {
    scheduling::COMPONENT.serve_from(namespace.cloned());
    file_system::COMPONENT.serve_from(namespace.cloned());
    line_discipline::COMPONENT.serve_from(namespace.cloned());
    event_filter::COMPONENT.serve_from(namespace.cloned());
}

/// How all components do: name, recovery state of the cell, report.
pub fn reports() -> Vec<(&'static str, Option<RecoveryState>, Report)> {
    fn of<H>(component: &Component<H>) -> (&'static str, Option<RecoveryState>, Report) {
        (component.name, component.recovery(), component.report())
    }
    Vec::from([
        of(&scheduling::COMPONENT),
        of(&file_system::COMPONENT),
        of(&line_discipline::COMPONENT),
        of(&event_filter::COMPONENT),
    ])
}
