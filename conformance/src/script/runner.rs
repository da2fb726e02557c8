//! Runs one script.

use super::directive::{Action, Directive, Execute, Invoke, Module as Form, Script};
use super::message::describes_trap;
use super::value::{Argument, NeedsFeature, Pattern, match_results};
use super::world::{Failed, Instance, Module, Refusal, World};
use super::{FileReport, Outcome};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use namespace_bridge::val::Val;
use runtime_port::platform;
use runtime_port::sync::Mutex;
use runtime_port::unwind::{KillReason, catch_unwind_with_arg};
use wasm_cell::trap::TrapCode;

/// Stack of a script's own threads, in bytes: the compiler runs on it.
const THREAD_STACK: usize = 4 << 20;

/// Features that scripts of the testsuite use and the compiler refuses.
const SUITE_FEATURES: [&str; 4] = ["gc", "exception-handling", "legacy-exceptions", "custom-descriptors"];

/// Runs a script. A panic that escapes a directive is a failure of the directive.
pub fn run_script(script: &Arc<Script>) -> FileReport {
    let mut report = FileReport::new(&script.name);
    let world = match World::new() {
        Ok(world) => world,
        Err(e) => {
            report.record(1, Outcome::Failed(format!("cannot set up the namespace: {e}")), false);
            return report;
        }
    };
    let mut unused: BTreeSet<u32> = script.excluded.iter().copied().collect();
    let mut runner = Runner::new(script.clone(), world);
    for directive in &script.directives {
        let (line, is_assertion) = (directive.line as usize, directive.action.is_assertion());
        let outcome = runner.guarded(directive);
        match (unused.remove(&directive.line), outcome) {
            (true, Outcome::Failed(_)) => report.totals.excluded += 1,
            (true, _) => {
                let reason = "is on the list of exclusions but does not fail: remove the entry";
                report.record(line, Outcome::Failed(reason.into()), is_assertion);
            }
            (false, outcome) => report.record(line, outcome, is_assertion),
        }
    }
    for thread in runner.finish() {
        report.absorb(thread);
    }
    for line in unused {
        let reason = "the list of exclusions names this line: no directive here";
        report.record(line as usize, Outcome::Failed(reason.into()), false);
    }
    report
}

/// What a panic said.
fn panic_reason(reason: &KillReason) -> String {
    format!("panicked: {}", reason.message().unwrap_or("(no message)"))
}

/// An instance as later directives find it: alive, or why it is not.
#[derive(Clone)]
enum Slot {
    Alive(Instance),
    Refused(String),
    Failed,
}

/// Where a script stands.
struct Runner {
    script: Arc<Script>,
    world: World,
    current: Slot,
    named: BTreeMap<String, Slot>,
    /// Registered names of modules that were refused, with the feature.
    refused_names: BTreeMap<String, String>,
    definitions: BTreeMap<String, Result<Module, String>>,
    last_definition: Option<Result<Module, String>>,
    threads: BTreeMap<String, Thread>,
    finished: Vec<FileReport>,
}

/// A thread of a script.
struct Thread {
    task: u64,
    report: Arc<Mutex<Option<FileReport>>>,
}

impl Thread {
    /// Waits for its end; what it found.
    fn join(self) -> Result<FileReport, String> {
        platform().tasks().join(self.task).map_err(|e| e.to_string())?;
        self.report.lock().take().ok_or_else(|| "the thread ended without a result".into())
    }
}

/// Why a directive does not pass.
enum Stop {
    Failed(String),
    Refused(String),
}

impl From<NeedsFeature> for Stop {
    fn from(NeedsFeature(feature): NeedsFeature) -> Stop {
        Stop::Refused(feature)
    }
}

fn fail<T>(reason: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Failed(reason.into()))
}

type Step = Result<(), Stop>;

impl Runner {
    fn new(script: Arc<Script>, world: World) -> Self {
        Runner {
            script,
            world,
            current: Slot::Failed,
            named: BTreeMap::new(),
            refused_names: BTreeMap::new(),
            definitions: BTreeMap::new(),
            last_definition: None,
            threads: BTreeMap::new(),
            finished: Vec::new(),
        }
    }

    /// Runs a directive; a panic is a failure of it.
    fn guarded(&mut self, directive: &Directive) -> Outcome {
        match catch_unwind_with_arg(|action| self.perform(action), &directive.action) {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(Stop::Failed(reason))) => Outcome::Failed(reason),
            Ok(Err(Stop::Refused(feature))) => Outcome::Refused(feature),
            Err(reason) => Outcome::Failed(panic_reason(&reason)),
        }
    }

    fn perform(&mut self, action: &Action) -> Step {
        match action {
            Action::Module { id, module } => self.module(id.as_deref(), module),
            Action::Definition { id, module } => self.definition(id.as_deref(), module),
            Action::Instance { id, module } => self.instance(id.as_deref(), module.as_deref()),
            Action::Register { name, instance } => self.register(name, instance.as_deref()),
            Action::Invoke(invoke) => self.invoke(invoke)?.map(drop).or_else(|e| fail(format!("failed: {e}"))),
            Action::AssertReturn { execute, results } => self.assert_return(execute, results),
            Action::AssertTrap { execute, message } => self.assert_trap(execute, message),
            Action::AssertExhaustion(invoke) => self.assert_exhaustion(invoke),
            Action::AssertInvalid { module, message } => self.assert_invalid(module, message),
            Action::AssertUnlinkable { module, message } => self.assert_unlinkable(module, message),
            Action::AssertException(execute) => self.assert_exception(execute),
            Action::AssertRefused(feature) => Err(Stop::Refused(feature.clone())),
            Action::Thread { name, shared, body } => self.thread(name, shared.as_deref(), *body as usize),
            Action::Wait(name) => self.wait(name),
        }
    }

    fn compile(&self, module: &Form) -> Result<Module, Stop> {
        let bytes = match module {
            Form::Binary(bytes) => bytes,
            Form::Malformed(why) | Form::Unusable(why) => return fail(format!("cannot be assembled: {why}")),
            Form::Refused(feature) => return Err(Stop::Refused(feature.clone())),
        };
        self.world.compile(bytes).map_err(|r| match r {
            Refusal::Feature(feature) => Stop::Refused(feature),
            other => Stop::Failed(other.to_string()),
        })
    }

    /// Instantiates a module; a refusal that a refused module is to blame for is one of its feature.
    fn try_instantiate(&self, module: &Module) -> Result<Result<Instance, Refusal>, Stop> {
        let result = self.world.instantiate(module);
        if let Err(Refusal::Unlinkable { missing, .. }) = &result
            && let Some(feature) = missing.iter().find_map(|m| self.refused_names.get(m))
        {
            return Err(Stop::Refused(feature.clone()));
        }
        Ok(result)
    }

    fn instantiate(&self, module: &Module) -> Result<Instance, Stop> {
        self.try_instantiate(module)?.or_else(|r| fail(r.to_string()))
    }

    /// Makes an instance, alive or not, the current one, under its name too.
    fn settle(&mut self, id: Option<&str>, made: Result<Instance, Stop>) -> Step {
        let (slot, step) = match made {
            Ok(instance) => (Slot::Alive(instance), Ok(())),
            Err(Stop::Refused(feature)) => (Slot::Refused(feature.clone()), Err(Stop::Refused(feature))),
            Err(failed) => (Slot::Failed, Err(failed)),
        };
        if let Some(id) = id {
            self.named.insert(id.into(), slot.clone());
        }
        self.current = slot;
        step
    }

    fn module(&mut self, id: Option<&str>, module: &Form) -> Step {
        let make = |module| self.compile(module).and_then(|m| self.instantiate(&m));
        let made = catch_unwind_with_arg(make, module).unwrap_or_else(|reason| fail(panic_reason(&reason)));
        self.settle(id, made)
    }

    fn definition(&mut self, id: Option<&str>, module: &Form) -> Step {
        let compiled = self.compile(module);
        let kept = match &compiled {
            Ok(m) => Ok(m.clone()),
            Err(Stop::Refused(feature)) => Err(feature.clone()),
            Err(Stop::Failed(_)) => return compiled.map(drop),
        };
        if let Some(id) = id {
            self.definitions.insert(id.into(), kept.clone());
        }
        self.last_definition = Some(kept);
        compiled.map(drop)
    }

    fn instance(&mut self, id: Option<&str>, module: Option<&str>) -> Step {
        let definition = match module {
            Some(module) => self.definitions.get(module),
            None => self.last_definition.as_ref(),
        };
        let made = match definition {
            Some(Ok(module)) => self.instantiate(module),
            Some(Err(feature)) => Err(Stop::Refused(feature.clone())),
            None => fail("no module definition of this name"),
        };
        self.settle(id, made)
    }

    fn alive(&self, id: Option<&str>) -> Result<&Instance, Stop> {
        let slot = match id {
            Some(id) => self.named.get(id),
            None => Some(&self.current),
        };
        match slot {
            Some(Slot::Alive(instance)) => Ok(instance),
            Some(Slot::Refused(feature)) => Err(Stop::Refused(feature.clone())),
            Some(Slot::Failed) => fail("its module could not be loaded"),
            None => fail("no instance of this name"),
        }
    }

    fn register(&mut self, name: &str, instance: Option<&str>) -> Step {
        let instance = match self.alive(instance) {
            Ok(instance) => instance.clone(),
            Err(Stop::Refused(feature)) => {
                self.refused_names.insert(name.into(), feature.clone());
                return Err(Stop::Refused(feature));
            }
            Err(failed) => return Err(failed),
        };
        self.refused_names.remove(name);
        self.world.register(name, &instance).or_else(fail)
    }

    fn invoke(&self, invoke: &Invoke) -> Result<Result<Vec<Val>, Failed>, Stop> {
        let instance = self.alive(invoke.instance.as_deref())?;
        let args: Vec<Val> = invoke.args.iter().map(Argument::value).collect::<Result<_, _>>()?;
        Ok(instance.call(&invoke.name, &args))
    }

    fn execute(&self, execute: &Execute) -> Result<Result<Vec<Val>, Failed>, Stop> {
        match execute {
            Execute::Invoke(invoke) => self.invoke(invoke),
            Execute::Get { instance, name } => {
                Ok(self.alive(instance.as_deref())?.global(name).map(|value| Vec::from([value])))
            }
            Execute::Instantiate(module) => {
                let module = self.compile(module)?;
                Ok(match self.try_instantiate(&module)? {
                    Ok(_) => Ok(Vec::new()),
                    Err(Refusal::Trapped(failed)) => Err(failed),
                    Err(other) => return fail(other.to_string()),
                })
            }
        }
    }

    fn assert_return(&mut self, execute: &Execute, expected: &[Pattern]) -> Step {
        match self.execute(execute)? {
            Ok(results) => match_results(&results, expected)?.or_else(fail),
            Err(e) => fail(format!("expected to return, {e}")),
        }
    }

    fn assert_trap(&mut self, execute: &Execute, message: &str) -> Step {
        match self.execute(execute)? {
            Ok(results) => fail(format!("expected the trap `{message}`, but it returned {results:?}")),
            Err(Failed::Trap { code, .. }) if describes_trap(message, code) => Ok(()),
            Err(e) => fail(format!("expected the trap `{message}`, {e}")),
        }
    }

    fn assert_exhaustion(&mut self, invoke: &Invoke) -> Step {
        match self.invoke(invoke)? {
            Ok(_) => fail("expected the stack to be exhausted, but it returned"),
            Err(Failed::Trap { code: TrapCode::StackOverflow, .. }) => Ok(()),
            Err(e) => fail(format!("expected the stack to be exhausted, {e}")),
        }
    }

    fn assert_exception(&mut self, execute: &Execute) -> Step {
        match self.execute(execute)? {
            Ok(_) => fail("expected an exception, but it returned"),
            Err(Failed::Trap { code: TrapCode::UncaughtException, .. }) => Ok(()),
            Err(e) => fail(format!("expected an exception, {e}")),
        }
    }

    /// The module must be refused: by the assembler, the decoder or the validator. The words differ from the testsuite's.
    fn assert_invalid(&mut self, module: &Form, message: &str) -> Step {
        let bytes = match module {
            Form::Binary(bytes) => bytes,
            Form::Malformed(_) => return Ok(()),
            Form::Refused(feature) => return Err(Stop::Refused(feature.clone())),
            Form::Unusable(why) => return fail(why.clone()),
        };
        match self.world.compile(bytes) {
            Ok(_) => fail(format!("expected to be refused with `{message}`, but it compiles")),
            Err(Refusal::Invalid(_)) => Ok(()),
            // Refused is what it must be, but for the reason only if the script is not about that feature.
            Err(Refusal::Feature(feature)) if SUITE_FEATURES.contains(&&*feature) => Err(Stop::Refused(feature)),
            Err(Refusal::Feature(_)) => Ok(()),
            Err(other) => fail(format!("expected to be refused with `{message}`: {other}")),
        }
    }

    fn assert_unlinkable(&mut self, module: &Form, message: &str) -> Step {
        let module = self.compile(module)?;
        match self.try_instantiate(&module)? {
            Ok(_) => fail(format!("expected to be unlinkable (`{message}`), but it was linked")),
            Err(Refusal::Unlinkable { missing, text }) => match message {
                m if m.starts_with("unknown import") && missing.is_empty() => {
                    fail(format!("expected `{message}`, found: {text}"))
                }
                m if m.starts_with("incompatible") && !missing.is_empty() => {
                    fail(format!("expected `{message}`, found: {text}"))
                }
                _ => Ok(()),
            },
            Err(other) => fail(format!("expected to be unlinkable (`{message}`): {other}")),
        }
    }

    /// Runs directives on a thread of their own, in a namespace of their own that shares one instance.
    fn thread(&mut self, name: &str, shared: Option<&str>, body: usize) -> Step {
        let mut runner = Runner::new(self.script.clone(), World::new().or_else(fail)?);
        if let Some(id) = shared {
            runner.named.insert(id.into(), Slot::Alive(self.alive(shared)?.clone()));
        }
        let result = Arc::new(Mutex::new(None));
        let its = result.clone();
        let run = Box::new(move || *its.lock() = Some(runner.run_thread(body)));
        match platform().tasks().spawn(name, THREAD_STACK, run) {
            Ok(task) => {
                self.threads.insert(name.into(), Thread { task, report: result });
                Ok(())
            }
            Err(e) => fail(format!("cannot start a thread: {e}")),
        }
    }

    fn run_thread(mut self, body: usize) -> FileReport {
        let mut report = FileReport::new("thread");
        let script = self.script.clone();
        for directive in script.threads.get(body).into_iter().flatten() {
            let outcome = self.guarded(directive);
            report.record(directive.line as usize, outcome, directive.action.is_assertion());
        }
        for nested in self.finish() {
            report.absorb(nested);
        }
        report
    }

    fn wait(&mut self, name: &str) -> Step {
        let Some(thread) = self.threads.remove(name) else { return fail("no thread of this name") };
        let report = thread.join().or_else(fail)?;
        self.finished.push(report);
        Ok(())
    }

    /// Waits for the threads that are left; what each thread found.
    fn finish(mut self) -> Vec<FileReport> {
        for thread in core::mem::take(&mut self.threads).into_values() {
            self.finished.push(thread.join().unwrap_or_else(|why| {
                let mut report = FileReport::new("thread");
                report.record(1, Outcome::Failed(why), false);
                report
            }));
        }
        self.finished
    }
}
