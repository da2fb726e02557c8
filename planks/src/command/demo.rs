//! `planks demo`: a wasm module as a system component, in twenty lines of output.

use super::{Ending, Output, Run};
use crate::failure::{Failure, Kind};
use crate::shell::{Host, Shell};
use clap::Args;
use namespace_bridge::{CrateNamespace, Trap};
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Load two wasm modules as cells, link them to each other and to a native function, trap, recover, and swap one under a
/// running caller.
#[derive(Args, Debug)]
pub struct DemoArgs {}

/// Keeps a total, and tells a native function about each change.
const COUNTER: &str = r#"(module $counter
  (import "kernel" "note" (func $note (param i32)))
  (memory (export "memory") 1)
  (func $add (export "add") (param $n i32) (result i32)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (local.get $n)))
    (call $note (i32.load (i32.const 0)))
    (i32.load (i32.const 0))))"#;

/// The next version of the counter: it has another function. Its state is where that of the first version is.
const COUNTER_2: &str = r#"(module $counter
  (import "kernel" "note" (func $note (param i32)))
  (memory (export "memory") 1)
  (func $add (export "add") (param $n i32) (result i32)
    (i32.store (i32.const 0) (i32.add (i32.load (i32.const 0)) (local.get $n)))
    (call $note (i32.load (i32.const 0)))
    (i32.load (i32.const 0)))
  (func $total (export "total") (result i32) (i32.load (i32.const 0))))"#;

/// Uses the counter, and divides without looking.
const MEAN: &str = r#"(module $mean
  (import "counter" "add" (func $add (param i32) (result i32)))
  (func $divide (param $sum i32) (param $n i32) (result i32)
    (i32.div_s (local.get $sum) (local.get $n)))
  (func (export "mean") (param $value i32) (param $n i32) (result i32)
    (call $divide (call $add (local.get $value)) (local.get $n))))"#;

/// The two modules, by file name.
struct Modules;

impl Host for Modules {
    fn read(&mut self, path: &str) -> Result<Vec<u8>, Failure> {
        match path {
            "counter.wat" => Ok(COUNTER.into()),
            "counter2.wat" => Ok(COUNTER_2.into()),
            "mean.wat" => Ok(MEAN.into()),
            _ => Err(Failure::file(path, "the demo has counter.wat, counter2.wat and mean.wat")),
        }
    }

    fn assemble(&mut self, path: &str, text: &[u8]) -> Result<Vec<u8>, Failure> {
        crate::input::assemble(path, text)
    }
}

impl Run for DemoArgs {
    fn run(self, out: &mut Output) -> Result<Ending, Failure> {
        let namespace = CrateNamespace::new("demo", None);
        let noted = Arc::new(AtomicI32::new(0));
        let native = noted.clone();
        let note = move |total: i32| native.store(total, Ordering::Relaxed);
        namespace.define("kernel", "note", note).map_err(|e| Failure::new(Kind::System, e.to_string()))?;
        let mut modules = Modules;
        let mut demo = Demo { shell: Shell::new(namespace, &mut modules), out, begun: false };

        demo.say(
            "Two wasm modules, compiled here and now to cells of a namespace. `counter` imports a native function:",
        )?;
        demo.command("load counter.wat")?;
        demo.command("load mean.wat")?;
        demo.say("Each import is linked to an export by name and type, and both sides know of it:")?;
        demo.command("deps")?;
        demo.command("sym")?;
        demo.say("A call goes from `mean` into `counter` and on into the native function:")?;
        demo.command("call mean::mean 84 2")?;
        demo.note(format_args!("(the native function was told {})", noted.load(Ordering::Relaxed)))?;
        demo.say("A division by zero in the innermost frame comes back as a value, with the way it came:")?;
        demo.trap("call mean::mean 16 0")?;
        demo.say("Nothing else happened: the cells go on, with the state that wasm says they have (84 + 16 + 20):")?;
        demo.command("call mean::mean 20 1")?;
        demo.say(
            "A new version takes the counter's place, with its memory, while another thread calls it without a pause:",
        )?;
        let before = noted.load(Ordering::Relaxed);
        let calls = demo.swap_under_a_caller("swap counter counter2.wat --state adopt")?;
        let counted = noted.load(Ordering::Relaxed).wrapping_sub(before);
        if counted != calls {
            return Err(Failure::new(Kind::System, format!("{calls} calls were made and {counted} counted")));
        }
        demo.note(format_args!("(the thread made {calls} calls that each add 1, and the counter counted {counted})"))?;
        demo.command("call counter::total")?;
        demo.command("ls")?;
        demo.command("rollback counter")?;
        demo.say("A cell in use is not unloaded:")?;
        demo.trap("unload counter")?;
        demo.command("unload mean")?;
        demo.command("unload counter")?;
        Ok(Ending::Success)
    }
}

struct Demo<'a, 'o> {
    shell: Shell<'a>,
    out: &'o mut Output,
    /// Whether anything was said yet.
    begun: bool,
}

impl Demo<'_, '_> {
    fn say(&mut self, text: impl Display) -> Result<(), Failure> {
        if self.out.json {
            return Ok(());
        }
        let gap = if std::mem::replace(&mut self.begun, true) { "\n" } else { "" };
        self.out.line(format_args!("{gap}{text}"))
    }

    fn note(&mut self, text: impl Display) -> Result<(), Failure> {
        if self.out.json { Ok(()) } else { self.out.line(text) }
    }

    fn command(&mut self, line: &str) -> Result<(), Failure> {
        self.prompt(line)?;
        let Some(reply) = self.shell.run_line(line) else { return Ok(()) };
        let reply = reply?;
        if self.out.json { self.out.value(reply.json()) } else { self.out.print(reply) }
    }

    /// Runs a command while another thread calls the counter. Returns how many calls that thread made.
    fn swap_under_a_caller(&mut self, line: &str) -> Result<i32, Failure> {
        let defect = |what: String| Failure::new(Kind::System, what);
        let counter =
            self.shell.namespace().get_crate("counter").ok_or_else(|| defect("the counter is gone".into()))?;
        let add = counter.typed_func::<(i32,), i32>("add").map_err(|e| defect(e.to_string()))?;
        let (begun, stop) = (AtomicI32::new(0), AtomicBool::new(false));
        let (swapped, called) = std::thread::scope(|scope| {
            let caller = scope.spawn(|| {
                while !stop.load(Ordering::Acquire) {
                    add.call((1,))?;
                    begun.fetch_add(1, Ordering::Release);
                }
                Ok::<(), Trap>(())
            });
            while begun.load(Ordering::Acquire) == 0 && !caller.is_finished() {
                std::thread::yield_now();
            }
            let swapped = self.command(line);
            stop.store(true, Ordering::Release);
            (swapped, caller.join())
        });
        swapped?;
        match called {
            Ok(Ok(())) => Ok(begun.into_inner()),
            Ok(Err(trap)) => Err(Failure::trap(&trap)),
            Err(_) => Err(defect("the calling thread panicked".into())),
        }
    }

    /// Runs a command that fails, as it should.
    fn trap(&mut self, line: &str) -> Result<(), Failure> {
        self.prompt(line)?;
        match self.shell.run_line(line) {
            Some(Err(failure)) if self.out.json => self.out.value(&failure.to_json()),
            Some(Err(failure)) => self.out.line(failure),
            _ => Err(Failure::new(Kind::System, format!("`{line}` should have failed and did not"))),
        }
    }

    fn prompt(&mut self, line: &str) -> Result<(), Failure> {
        if self.out.json { Ok(()) } else { self.out.line(format_args!("planks> {line}")) }
    }
}
