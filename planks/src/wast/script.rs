//! Runs one script.

use super::message::describes_trap;
use super::value::{NeedsFeature, argument, match_results};
use super::world::{Failed, Instance, Module, Refusal, World};
use super::{FileReport, Outcome};
use namespace_bridge::val::Val;
use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Scope, ScopedJoinHandle};
use wasm_cell::trap::TrapCode;
use wast::lexer::Lexer;
use wast::parser::{ParseBuffer, parse};
use wast::token::{Id, Span};
use wast::{QuoteWat, Wast, WastDirective, WastExecute, WastInvoke, WastThread, Wat};

/// Stack of a script's own threads.
const THREAD_STACK: usize = 16 << 20;

/// Features that scripts of the testsuite use and the compiler refuses.
const SUITE_FEATURES: [&str; 4] = ["gc", "exception-handling", "legacy-exceptions", "custom-descriptors"];

/// Runs a script. `excluded` names the lines of assertions that may fail, with the reasons.
pub fn run_script(name: &str, text: &str, excluded: &BTreeMap<usize, String>) -> FileReport {
    let mut report = FileReport::new(name);
    let mut lexer = Lexer::new(text);
    lexer.allow_confusing_unicode(true);
    let parsed = ParseBuffer::new_with_lexer(lexer);
    let buffer = match &parsed {
        Ok(buffer) => buffer,
        Err(e) => return unreadable(report, text, e),
    };
    let script = match parse::<Wast<'_>>(buffer) {
        Ok(script) => script,
        Err(e) => return unreadable(report, text, &e),
    };
    let world = match World::new() {
        Ok(world) => world,
        Err(e) => {
            report.record(1, Outcome::Failed(format!("cannot set up the namespace: {e}")), false);
            return report;
        }
    };
    let mut unused = excluded.clone();
    std::thread::scope(|scope| {
        let mut runner = Runner::new(text, scope, world);
        for directive in script.directives {
            let line = runner.line(directive.span());
            let is_assertion = is_assertion(&directive);
            let outcome = runner.guarded(directive);
            match (unused.remove(&line), outcome) {
                (Some(_), Outcome::Failed(_)) => report.totals.excluded += 1,
                (Some(_), _) => {
                    let reason = "is on the list of exclusions but does not fail: remove the entry";
                    report.record(line, Outcome::Failed(reason.into()), is_assertion);
                }
                (None, outcome) => report.record(line, outcome, is_assertion),
            }
        }
        for thread in runner.finish() {
            report.absorb(thread);
        }
    });
    for line in unused.into_keys() {
        report.record(line, Outcome::Failed("the list of exclusions names this line: no directive here".into()), false);
    }
    report
}

fn unreadable(mut report: FileReport, text: &str, e: &wast::Error) -> FileReport {
    let line = e.span().linecol_in(text).0 + 1;
    report.record(line, Outcome::Failed(format!("not a readable script: {}", e.message())), false);
    report
}

fn is_assertion(directive: &WastDirective<'_>) -> bool {
    !matches!(
        directive,
        WastDirective::Module(_)
            | WastDirective::ModuleDefinition(_)
            | WastDirective::ModuleInstance { .. }
            | WastDirective::Register { .. }
            | WastDirective::Invoke(_)
            | WastDirective::Thread(_)
            | WastDirective::Wait { .. }
    )
}

/// What a panic said.
pub fn panic_reason(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panicked: {}", said.unwrap_or("(no message)"))
}

/// An instance as later directives find it: alive, or why it is not.
#[derive(Clone)]
enum Slot {
    Alive(Instance),
    Refused(String),
    Failed,
}

/// Where a script stands.
struct Runner<'text, 'scope, 'env> {
    text: &'text str,
    scope: &'scope Scope<'scope, 'env>,
    world: World,
    current: Slot,
    named: HashMap<String, Slot>,
    /// Registered names of modules that were refused, with the feature.
    refused_names: HashMap<String, String>,
    definitions: HashMap<String, Result<Module, String>>,
    last_definition: Option<Result<Module, String>>,
    threads: HashMap<String, ScopedJoinHandle<'scope, FileReport>>,
    finished: Vec<FileReport>,
}

/// Why a directive does not pass.
enum Stop {
    Failed(String),
    Refused(String),
}

impl From<NeedsFeature> for Stop {
    fn from(NeedsFeature(feature): NeedsFeature) -> Stop {
        Stop::Refused(feature.into())
    }
}

fn fail<T>(reason: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Failed(reason.into()))
}

type Step = Result<(), Stop>;

impl<'text: 'scope, 'scope, 'env> Runner<'text, 'scope, 'env> {
    fn new(text: &'text str, scope: &'scope Scope<'scope, 'env>, world: World) -> Self {
        Runner {
            text,
            scope,
            world,
            current: Slot::Failed,
            named: HashMap::new(),
            refused_names: HashMap::new(),
            definitions: HashMap::new(),
            last_definition: None,
            threads: HashMap::new(),
            finished: Vec::new(),
        }
    }

    fn line(&self, span: Span) -> usize {
        span.linecol_in(self.text).0 + 1
    }

    /// Runs a directive; a panic is a failure of it.
    fn guarded(&mut self, directive: WastDirective<'text>) -> Outcome {
        match catch_unwind(AssertUnwindSafe(|| self.directive(directive))) {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(Stop::Failed(reason))) => Outcome::Failed(reason),
            Ok(Err(Stop::Refused(feature))) => Outcome::Refused(feature),
            Err(panic) => Outcome::Failed(panic_reason(&*panic)),
        }
    }

    fn directive(&mut self, directive: WastDirective<'text>) -> Step {
        use WastDirective as D;
        match directive {
            D::Module(module) => self.module(module),
            D::ModuleDefinition(module) => self.definition(module),
            D::ModuleInstance { instance, module, .. } => self.instance(instance, module),
            D::Register { name, module, .. } => self.register(name, module),
            D::Invoke(invoke) => self.invoke(&invoke)?.map(drop).or_else(|e| fail(format!("failed: {e}"))),
            D::AssertReturn { exec, results, .. } => self.assert_return(exec, &results),
            D::AssertTrap { exec, message, .. } => self.assert_trap(exec, message),
            D::AssertExhaustion { call, .. } => self.assert_exhaustion(&call),
            D::AssertInvalid { module, message, .. } => self.assert_invalid(module, message),
            D::AssertMalformed { module, message, .. } => self.assert_invalid(module, message),
            D::AssertMalformedCustom { module, message, .. } => self.assert_invalid(module, message),
            D::AssertInvalidCustom { module, message, .. } => self.assert_invalid(module, message),
            D::AssertUnlinkable { module, message, .. } => self.assert_unlinkable(module, message),
            D::AssertException { exec, .. } => self.assert_exception(exec),
            D::AssertSuspension { .. } => Err(Stop::Refused("stack-switching".into())),
            D::Thread(thread) => self.thread(thread),
            D::Wait { thread, .. } => self.wait(thread),
        }
    }

    fn encode(&self, module: &mut QuoteWat<'_>) -> Result<Vec<u8>, Stop> {
        if matches!(module, QuoteWat::QuoteComponent(..) | QuoteWat::Wat(Wat::Component(_))) {
            return Err(Stop::Refused("component-model".into()));
        }
        module.encode().or_else(|e| fail(format!("cannot be assembled: {}", e.message())))
    }

    fn compile(&self, module: &mut QuoteWat<'_>) -> Result<Module, Stop> {
        let bytes = self.encode(module)?;
        self.world.compile(&bytes).map_err(|r| match r {
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
    fn settle(&mut self, id: Option<Id<'_>>, made: Result<Instance, Stop>) -> Step {
        let (slot, step) = match made {
            Ok(instance) => (Slot::Alive(instance), Ok(())),
            Err(Stop::Refused(feature)) => (Slot::Refused(feature.clone()), Err(Stop::Refused(feature))),
            Err(failed) => (Slot::Failed, Err(failed)),
        };
        if let Some(id) = id {
            self.named.insert(id.name().into(), slot.clone());
        }
        self.current = slot;
        step
    }

    fn module(&mut self, mut module: QuoteWat<'text>) -> Step {
        let id = module.name();
        let compiled = catch_unwind(AssertUnwindSafe(|| self.compile(&mut module).and_then(|m| self.instantiate(&m))));
        let made = compiled.unwrap_or_else(|panic| fail(panic_reason(&*panic)));
        self.settle(id, made)
    }

    fn definition(&mut self, mut module: QuoteWat<'text>) -> Step {
        let id = module.name();
        let compiled = self.compile(&mut module);
        let kept = match &compiled {
            Ok(m) => Ok(m.clone()),
            Err(Stop::Refused(feature)) => Err(feature.clone()),
            Err(Stop::Failed(_)) => return compiled.map(drop),
        };
        if let Some(id) = id {
            self.definitions.insert(id.name().into(), kept.clone());
        }
        self.last_definition = Some(kept);
        compiled.map(drop)
    }

    fn instance(&mut self, instance: Option<Id<'text>>, module: Option<Id<'text>>) -> Step {
        let definition = match module {
            Some(id) => self.definitions.get(id.name()),
            None => self.last_definition.as_ref(),
        };
        let made = match definition {
            Some(Ok(module)) => self.instantiate(module),
            Some(Err(feature)) => Err(Stop::Refused(feature.clone())),
            None => fail("no module definition of this name"),
        };
        self.settle(instance, made)
    }

    fn alive(&self, id: Option<Id<'_>>) -> Result<&Instance, Stop> {
        let slot = match id {
            Some(id) => self.named.get(id.name()),
            None => Some(&self.current),
        };
        match slot {
            Some(Slot::Alive(instance)) => Ok(instance),
            Some(Slot::Refused(feature)) => Err(Stop::Refused(feature.clone())),
            Some(Slot::Failed) => fail("its module could not be loaded"),
            None => fail("no instance of this name"),
        }
    }

    fn register(&mut self, name: &str, module: Option<Id<'_>>) -> Step {
        let instance = match self.alive(module) {
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

    fn invoke(&self, invoke: &WastInvoke<'_>) -> Result<Result<Vec<Val>, Failed>, Stop> {
        let instance = self.alive(invoke.module)?;
        let args: Vec<Val> = invoke.args.iter().map(argument).collect::<Result<_, _>>()?;
        Ok(instance.call(invoke.name, &args))
    }

    fn execute(&self, exec: WastExecute<'_>) -> Result<Result<Vec<Val>, Failed>, Stop> {
        match exec {
            WastExecute::Invoke(invoke) => self.invoke(&invoke),
            WastExecute::Get { module, global, .. } => Ok(self.alive(module)?.global(global).map(|v| vec![v])),
            WastExecute::Wat(module) => {
                let module = self.compile(&mut QuoteWat::Wat(module))?;
                Ok(match self.try_instantiate(&module)? {
                    Ok(_) => Ok(Vec::new()),
                    Err(Refusal::Trapped(failed)) => Err(failed),
                    Err(other) => return fail(other.to_string()),
                })
            }
        }
    }

    fn assert_return(&mut self, exec: WastExecute<'_>, expected: &[wast::WastRet<'_>]) -> Step {
        match self.execute(exec)? {
            Ok(results) => match_results(&results, expected)?.or_else(fail),
            Err(e) => fail(format!("expected to return, {e}")),
        }
    }

    fn assert_trap(&mut self, exec: WastExecute<'_>, message: &str) -> Step {
        match self.execute(exec)? {
            Ok(results) => fail(format!("expected the trap `{message}`, but it returned {results:?}")),
            Err(Failed::Trap { code, .. }) if describes_trap(message, code) => Ok(()),
            Err(e) => fail(format!("expected the trap `{message}`, {e}")),
        }
    }

    fn assert_exhaustion(&mut self, call: &WastInvoke<'_>) -> Step {
        match self.invoke(call)? {
            Ok(_) => fail("expected the stack to be exhausted, but it returned"),
            Err(Failed::Trap { code: TrapCode::StackOverflow, .. }) => Ok(()),
            Err(e) => fail(format!("expected the stack to be exhausted, {e}")),
        }
    }

    fn assert_exception(&mut self, exec: WastExecute<'_>) -> Step {
        match self.execute(exec)? {
            Ok(_) => fail("expected an exception, but it returned"),
            Err(Failed::Trap { code: TrapCode::UncaughtException, .. }) => Ok(()),
            Err(e) => fail(format!("expected an exception, {e}")),
        }
    }

    /// The module must be refused: by the assembler, the decoder or the validator. The words differ from the testsuite's.
    fn assert_invalid(&mut self, mut module: QuoteWat<'_>, message: &str) -> Step {
        let bytes = match self.encode(&mut module) {
            Ok(bytes) => bytes,
            Err(Stop::Failed(_)) => return Ok(()),
            Err(refused) => return Err(refused),
        };
        match self.world.compile(&bytes) {
            Ok(_) => fail(format!("expected to be refused with `{message}`, but it compiles")),
            Err(Refusal::Invalid(_)) => Ok(()),
            // Refused is what it must be, but for the reason only if the script is not about that feature.
            Err(Refusal::Feature(feature)) if SUITE_FEATURES.contains(&&*feature) => Err(Stop::Refused(feature)),
            Err(Refusal::Feature(_)) => Ok(()),
            Err(other) => fail(format!("expected to be refused with `{message}`: {other}")),
        }
    }

    fn assert_unlinkable(&mut self, module: Wat<'_>, message: &str) -> Step {
        let module = self.compile(&mut QuoteWat::Wat(module))?;
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
    fn thread(&mut self, thread: WastThread<'text>) -> Step {
        let mut shared = None;
        if let Some(id) = thread.shared_module {
            shared = Some((id.name().to_string(), self.alive(Some(id))?.clone()));
        }
        let world = World::new().or_else(fail)?;
        let (text, scope) = (self.text, self.scope);
        let directives = thread.directives;
        let run = move || {
            let mut runner = Runner::new(text, scope, world);
            let mut report = FileReport::new("thread");
            if let Some((name, instance)) = shared {
                runner.named.insert(name, Slot::Alive(instance));
            }
            for directive in directives {
                let (line, is_assertion) = (runner.line(directive.span()), is_assertion(&directive));
                let outcome = runner.guarded(directive);
                report.record(line, outcome, is_assertion);
            }
            for nested in runner.finish() {
                report.absorb(nested);
            }
            report
        };
        let name = thread.name.name().to_string();
        let builder = std::thread::Builder::new().name(name.clone()).stack_size(THREAD_STACK);
        match builder.spawn_scoped(scope, run) {
            Ok(handle) => {
                self.threads.insert(name, handle);
                Ok(())
            }
            Err(e) => fail(format!("cannot start a thread: {e}")),
        }
    }

    fn wait(&mut self, thread: Id<'_>) -> Step {
        let Some(handle) = self.threads.remove(thread.name()) else { return fail("no thread of this name") };
        match handle.join() {
            Ok(report) => {
                self.finished.push(report);
                Ok(())
            }
            Err(panic) => fail(panic_reason(&*panic)),
        }
    }

    /// Waits for the threads that are left; what each thread found.
    fn finish(mut self) -> Vec<FileReport> {
        for (_, handle) in self.threads.drain() {
            self.finished.push(handle.join().unwrap_or_else(|panic| {
                let mut report = FileReport::new("thread");
                report.record(1, Outcome::Failed(panic_reason(&*panic)), false);
                report
            }));
        }
        self.finished
    }
}
