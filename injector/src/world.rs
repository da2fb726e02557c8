//! A namespace to inject faults into: workloads, host functions, and a witness that must not notice.

use crate::baseline::Baseline;
use crate::corrupt::Damage;
use crate::workload::{DEEP, START, VERSIONS, WITNESS, WORKLOADS, Workload};
use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::fmt::Display;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};
use namespace_bridge::{
    Caller, CellModule, CrateNamespace, HostError, LoadError, LoadOptions, StrongCrateRef, TypedFunc, compile_module,
    compiler, reclaim,
};
use runtime_port::platform;
use runtime_port::unwind::{KillReason, resume_unwind};
use spin::Mutex;
use wasm_cell::{CellObject, CompileOptions};

/// Why a campaign cannot be run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot prepare the campaign: {0}")]
pub struct SetupError(pub String);

pub(crate) fn setup(what: &str) -> impl Fn(&dyn Display) -> SetupError + '_ {
    move |e| SetupError(format!("{what}: {e}"))
}

/// The payload of an injected panic.
#[derive(Debug, PartialEq, Eq)]
pub struct InjectedPanic(pub i64);

/// The error of an injected failure of a host function.
#[derive(Debug, thiserror::Error)]
#[error("injected failure {0}")]
pub struct InjectedError(pub i64);

/// `run(n, kind, left, arg)` of a workload.
pub type Run = TypedFunc<(i32, i32, i32, i64), i64>;

/// A workload's cell.
#[derive(Debug)]
pub struct Subject {
    name: String,
    /// The cell.
    pub cell: StrongCrateRef,
    /// Its `run`.
    pub run: Run,
}

/// The namespace with what belongs to it.
#[derive(Debug)]
pub struct World {
    /// The namespace.
    pub namespace: Arc<CrateNamespace>,
    objects: Vec<CellObject>,
    modules: Vec<Arc<CellModule>>,
    versions: [[Arc<CellModule>; 2]; 2],
    starting: Arc<CellModule>,
    bump: TypedFunc<(), i32>,
    sum: TypedFunc<(), i64>,
    bumps: i32,
    first_sum: i64,
    destroyed: Arc<Destroyed>,
    strike: Arc<Mutex<Strike>>,
    /// Numbers with no workload loaded.
    pub idle: Baseline,
}

/// Damage that the host function `corrupt` does next, and what it did last.
#[derive(Debug, Default)]
struct Strike {
    pending: Option<Damage>,
    done: String,
}

/// Frames of host functions that were entered and left. A difference: a destructor did not run.
#[derive(Debug, Default)]
struct Destroyed {
    entered: AtomicU64,
    left: AtomicU64,
}

/// A frame of a host function.
struct HostFrame(Arc<Destroyed>);

impl HostFrame {
    fn enter(counters: &Arc<Destroyed>) -> HostFrame {
        counters.entered.fetch_add(1, Relaxed);
        HostFrame(counters.clone())
    }
}

impl Drop for HostFrame {
    fn drop(&mut self) {
        self.0.left.fetch_add(1, Relaxed);
    }
}

/// Calls a cell when it is dropped.
struct Calling<'a>(&'a Arc<Destroyed>, TypedFunc<(i64,), ()>, i64);

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        let _frame = HostFrame::enter(self.0);
        if self.1.call((self.2,)).is_ok() {
            // A frame that is entered and never left: the campaign sees it.
            self.0.entered.fetch_add(1, Relaxed);
        }
    }
}

impl World {
    /// Compiles and loads everything. `name` tells worlds of several tasks apart.
    pub fn new(name: &str) -> Result<World, SetupError> {
        let namespace = CrateNamespace::new(name, None);
        let destroyed = Arc::new(Destroyed::default());
        let strike = Arc::<Mutex<Strike>>::default();
        define_host(&namespace, &destroyed)?;
        define_corrupt(&namespace, &destroyed, &strike)?;
        let load = |cell: &str, wasm: &[u8]| {
            namespace.load_wasm(cell, wasm, LoadOptions::default()).map_err(|e| setup(cell)(&e))
        };
        load("deep", DEEP)?;
        let witness = load("witness", WITNESS)?;
        let compiler = compiler().map_err(|e| setup("compiler")(&e))?;
        let compile =
            |w: &Workload| compiler.compile(w.wasm, &CompileOptions::default()).map_err(|e| setup(w.name)(&e));
        let objects = WORKLOADS.iter().map(compile).collect::<Result<Vec<_>, SetupError>>()?;
        let module = |(w, object): (&Workload, &CellObject)| {
            CellModule::new(&w.name.into(), object.clone()).map_err(|e| setup(w.name)(&e))
        };
        let modules = WORKLOADS.iter().zip(&objects).map(module).collect::<Result<Vec<_>, SetupError>>()?;
        let compiled =
            |name: &str, wasm: &[u8]| compile_module(name, wasm, &LoadOptions::default()).map_err(|e| setup(name)(&e));
        let [[a, b], [c, d]] = VERSIONS;
        let versions =
            [[compiled("plain", a)?, compiled("plain", b)?], [compiled("counter", c)?, compiled("counter", d)?]];
        let starting = compiled("start", START)?;
        let bump = witness.typed_func("bump").map_err(|e| setup("witness")(&e))?;
        let sum: TypedFunc<(), i64> = witness.typed_func("sum").map_err(|e| setup("witness")(&e))?;
        let first_sum = sum.call(()).map_err(|e| setup("witness")(&e))?;
        let idle = Baseline::take(&namespace);
        let world = World {
            namespace,
            objects,
            modules,
            versions,
            starting,
            bump,
            sum,
            bumps: 0,
            first_sum,
            destroyed,
            strike,
            idle,
        };
        world.warm_up()?;
        Ok(world)
    }

    /// Makes what is made once and kept, such as pooled images.
    #[inline(never)]
    fn warm_up(&self) -> Result<(), SetupError> {
        for workload in 0..WORKLOADS.len() {
            let subject = self.load(workload)?;
            let _ = subject.run.call((4, 0, 0, 0));
            self.unload(subject).map_err(|e| setup("unloading")(&e))?;
        }
        Ok(())
    }

    /// What a workload was compiled to.
    pub fn object(&self, workload: usize) -> &CellObject {
        &self.objects[workload]
    }

    /// The compiled module of a workload.
    pub fn module(&self, workload: usize) -> &Arc<CellModule> {
        &self.modules[workload]
    }

    /// Two versions of a cell without state, and of one with state.
    pub fn versions(&self) -> &[[Arc<CellModule>; 2]; 2] {
        &self.versions
    }

    /// A module whose start function traps.
    pub fn starting(&self) -> &Arc<CellModule> {
        &self.starting
    }

    /// Makes a workload's module anew from its object.
    pub fn renew(&mut self, workload: usize) -> Result<(), LoadError> {
        let old = self.modules[workload].clone();
        self.modules[workload] = CellModule::new(&WORKLOADS[workload].name.into(), self.objects[workload].clone())?;
        drop(old);
        Ok(())
    }

    /// Has the next call of the host function `corrupt` do damage to its caller.
    pub fn strike_later(&self, damage: Damage) {
        *self.strike.lock() = Strike { pending: Some(damage), done: String::new() };
    }

    /// The damage that was done, in words. What is still pending is called off.
    pub fn struck(&self) -> String {
        core::mem::take(&mut *self.strike.lock()).done
    }

    /// A fresh instance of a workload.
    pub fn load(&self, workload: usize) -> Result<Subject, SetupError> {
        self.load_module(&WORKLOADS[workload], self.module(workload))
    }

    /// A fresh instance of a workload's module, or of what stands for it.
    pub fn load_module(&self, workload: &Workload, module: &Arc<CellModule>) -> Result<Subject, SetupError> {
        let failed = setup(workload.name);
        let name = format!("{} under test", workload.name);
        let cell = self.namespace.load_module(&name, module, LoadOptions::default()).map_err(|e| failed(&e))?;
        let run = cell.typed_func("run").map_err(|e| failed(&e))?;
        Ok(Subject { name, cell, run })
    }

    /// Unloads it.
    pub fn unload(&self, subject: Subject) -> Result<(), String> {
        let Subject { name, cell, run } = subject;
        drop((cell, run));
        self.namespace.unload(&name).map_err(|e| format!("cannot unload: {e}"))
    }

    /// Whether cells that nothing was injected into are right, and no frame of the host was forgotten.
    pub fn check_others(&mut self) -> Result<(), String> {
        self.bumps = self.bumps.wrapping_add(1) & i32::MAX;
        match self.bump.call(()) {
            Ok(n) if n == self.bumps => {}
            other => return Err(format!("the witness counts {other:?} instead of {}", self.bumps)),
        }
        match self.sum.call(()) {
            Ok(n) if n == self.first_sum => {}
            other => return Err(format!("the witness's memory sums to {other:?} instead of {}", self.first_sum)),
        }
        let (entered, left) = (self.destroyed.entered.load(Relaxed), self.destroyed.left.load(Relaxed));
        if entered != left {
            self.destroyed.left.store(entered, Relaxed);
            return Err(format!("{} destructors of the host did not run", entered.wrapping_sub(left)));
        }
        Ok(())
    }

    /// Whether everything is as without a workload. Only when no other task loads, unloads or runs cells.
    ///
    /// A word that happens to lie on a stack may keep an unloaded cell for a while (docs/SWAPPING.md, "Reclaim"): a few may wait,
    /// and nothing can be compared then. What is there when the tasks have ended ([`settled`](World::settled)) has the last word.
    pub fn check_idle(&self) -> Result<(), String> {
        let mut waiting = reclaim();
        if waiting != 0 {
            scrub();
            waiting = reclaim();
        }
        match waiting {
            0 => self.idle.compare(&self.baseline()),
            n if n <= MOST_WAITING => Ok(()),
            n => Err(format!("{n} instances wait although nobody is inside")),
        }
    }

    /// The numbers now, without the images that wait for the next instance of a module: how many of those there are depends on how many
    /// instances there were at one time.
    fn baseline(&self) -> Baseline {
        let modules = self.modules.iter().chain(self.versions.iter().flatten()).chain([&self.starting]);
        modules.for_each(|module| module.frames().release_idle_images());
        Baseline::take(&self.namespace)
    }

    /// The numbers when nothing waits to be freed. To be called where the tasks have ended that used cells: a word on the stack of one
    /// that lives may keep something.
    pub fn settled(&self) -> Result<Baseline, String> {
        match wait_for_reclaim() {
            Ok(()) => Ok(self.baseline()),
            Err(n) => Err(format!("{n} instances wait for ever although nobody is inside")),
        }
    }

    /// Takes what is there now for what is there without a workload.
    pub fn rest(&mut self) {
        // Where something waits for ever, every later comparison tells.
        let _ = wait_for_reclaim();
        self.idle = self.baseline();
    }
}

/// Unloaded cells that stale words on stacks may keep.
const MOST_WAITING: usize = 64;

/// Waits until nothing is left to be freed. `Err`: how many remain.
#[inline(never)]
fn wait_for_reclaim() -> Result<(), usize> {
    let mut waiting = reclaim();
    for _ in 0..1000 {
        if waiting == 0 {
            return Ok(());
        }
        scrub();
        platform().tasks().yield_now();
        waiting = reclaim();
    }
    if waiting == 0 { Ok(()) } else { Err(waiting) }
}

/// Overwrites what earlier calls left on the stack.
#[inline(never)]
pub(crate) fn scrub() {
    core::hint::black_box(&mut [0u64; 2048]);
}

/// The functions that workloads import.
fn define_host(namespace: &CrateNamespace, destroyed: &Arc<Destroyed>) -> Result<(), SetupError> {
    let failed = |e: &dyn Display| setup("host functions")(e);
    let frames = destroyed.clone();
    let add = move |a: i64, b: i64| {
        let _frame = HostFrame::enter(&frames);
        a.wrapping_add(b)
    };
    namespace.define("injector", "add", add).map_err(|e| failed(&e))?;
    let frames = destroyed.clone();
    let fail = move |a: i64| -> Result<(), HostError> {
        let _frame = HostFrame::enter(&frames);
        Err(Box::new(InjectedError(a)))
    };
    namespace.define("injector", "fail", fail).map_err(|e| failed(&e))?;
    let frames = destroyed.clone();
    let panic = move |a: i64| {
        let _frame = HostFrame::enter(&frames);
        // As a panic, but without the report that a panic hook would print a million times.
        resume_unwind(KillReason::Panic(Box::new(InjectedPanic(a))))
    };
    let panic = move |a: i64| -> Result<(), HostError> { panic(a) };
    namespace.define("injector", "panic", panic).map_err(|e| failed(&e))?;
    let frames = destroyed.clone();
    let nest = move |caller: &Caller, a: i64| -> Result<(), HostError> {
        let _frame = HostFrame::enter(&frames);
        let inner = caller.func("inner").ok_or("the caller has no `inner`")?;
        Ok(inner.typed::<(i64,), ()>()?.call((a,))?)
    };
    namespace.define("injector", "nest", nest).map_err(|e| failed(&e))?;
    let frames = destroyed.clone();
    let again = move |caller: &Caller, n: i32, x: i64| -> Result<i64, HostError> {
        let _frame = HostFrame::enter(&frames);
        let work = caller.func("nested_work").ok_or("the caller has no `nested_work`")?;
        Ok(work.typed::<(i32, i64), i64>()?.call((n, x))?)
    };
    namespace.define("injector", "again", again).map_err(|e| failed(&e))?;
    let frames = destroyed.clone();
    let raw = move |caller: &Caller, a: i64| -> Result<(), HostError> {
        let _frame = HostFrame::enter(&frames);
        let inner = caller.func("inner").ok_or("the caller has no `inner`")?;
        call_raw(&inner, a)
    };
    namespace.define("injector", "raw", raw).map_err(|e| failed(&e))?;
    let frames = destroyed.clone();
    let cleanup = move |caller: &Caller, a: i64| -> Result<(), HostError> {
        let _frame = HostFrame::enter(&frames);
        let inner = caller.func("inner").ok_or("the caller has no `inner`")?;
        // Traps, when the panic comes by.
        let _calling = Calling(&frames, inner.typed::<(i64,), ()>()?, a);
        resume_unwind(KillReason::Panic(Box::new(InjectedPanic(a))))
    };
    namespace.define("injector", "cleanup", cleanup).map_err(|e| failed(&e))?;
    Ok(())
}

fn define_corrupt(
    namespace: &CrateNamespace,
    destroyed: &Arc<Destroyed>,
    strike: &Arc<Mutex<Strike>>,
) -> Result<(), SetupError> {
    let (frames, strike) = (destroyed.clone(), strike.clone());
    let corrupt = move |caller: &Caller| -> Result<(), HostError> {
        let _frame = HostFrame::enter(&frames);
        let instance = caller.instance().ok_or("the caller is no cell")?;
        let mut strike = strike.lock();
        if let Some(damage) = strike.pending.take() {
            strike.done = damage.strike(instance);
        }
        Ok(())
    };
    namespace.define("injector", "corrupt", corrupt).map(|_| ()).map_err(|e| setup("host functions")(&e))
}

/// Calls a cell's function as C would, outside of any catch of its own.
#[expect(unsafe_code, reason = "the raw entry of a function")]
fn call_raw(inner: &namespace_bridge::Func, a: i64) -> Result<(), HostError> {
    // SAFETY: the type of `inner` in every workload; the caller's cell is running, so it stays.
    let entry = unsafe { inner.entry::<extern "C-unwind" fn(i64)>() }?;
    entry(a);
    Ok(())
}
