//! The bodies of a large module on several tasks at once.
//!
//! Batches of functions are handed out in order, and what each makes is put together in order by whoever gets to it first, so the
//! result, and the error if there is one, is that of compiling one function after the other.

use crate::compiler::{CompileOptions, Compiler};
use crate::env::ModuleEnv;
use crate::function::{FunctionCode, FunctionError, Worker};
use crate::module::Body;
use crate::reuse::{ReuseReport, ReuseTable};
use crate::text::Text;
use crate::types::TypeId;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::{self, Vec};
use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use spin::Mutex;

/// Least bytes of bodies for which others are asked to help: starting a task costs about what compiling 100 bytes does.
pub(crate) const WORTH_HELP: u64 = 32 << 10;

/// Bytes of bodies of one batch, about.
const BATCH_BYTES: u64 = 4 << 10;

/// Who lends processors.
pub trait Helpers: fmt::Debug + Sync {
    /// Calls `work` on the current task and on as many others as are free, and returns when all calls have returned. If one
    /// unwinds, this unwinds too.
    fn together(&self, work: &(dyn Fn() + Sync));
}

/// What one batch came to: its functions, or the error of the first that has one.
type Made = Result<Batch, FunctionError>;

#[derive(Default)]
struct Batch {
    functions: Vec<(TypeId, FunctionCode)>,
    reuse: ReuseTable,
}

/// Bodies that nobody has taken yet, and the number of the next batch.
struct Queue<'a> {
    bodies: vec::IntoIter<Body<'a>>,
    next: usize,
}

impl<'a> Queue<'a> {
    fn take(&mut self, batch: &mut Vec<Body<'a>>) -> usize {
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(body) = self.bodies.next()
        {
            bytes += body.body.range().end - body.body.range().start;
            batch.push(body);
        }
        self.next += 1;
        self.next - 1
    }
}

/// What is put together.
pub(crate) struct Assembly<'r> {
    pub text: Text,
    pub reuse: ReuseTable,
    /// Offset and size of each function's code.
    pub places: Vec<(u32, u32)>,
    pub report: &'r mut ReuseReport,
    next: usize,
    error: Option<FunctionError>,
}

impl Assembly<'_> {
    fn append(&mut self, made: Made) {
        self.next += 1;
        if self.error.is_some() {
            return;
        }
        let appended = made.and_then(|batch| {
            for (id, code) in &batch.functions {
                self.report.count(false, code.code.len());
                self.places.push(self.text.append(*id, code).map_err(FunctionError::Other)?);
            }
            self.reuse.append(&batch.reuse);
            Ok(())
        });
        self.error = appended.err();
    }
}

impl Compiler {
    /// Compiles `bodies` with help, into what `text` and `report` are so far.
    pub(crate) fn compile_with_help<'r>(
        &self,
        helpers: &dyn Helpers,
        env: &ModuleEnv<'_>,
        bodies: Vec<Body<'_>>,
        options: &CompileOptions<'_>,
        base: [u8; 32],
        (text, report): (Text, &'r mut ReuseReport),
    ) -> Result<Assembly<'r>, FunctionError> {
        let places = Vec::with_capacity(bodies.len());
        let queue = Mutex::new(Queue { bodies: bodies.into_iter(), next: 0 });
        let made: Mutex<BTreeMap<usize, Made>> = Mutex::default();
        let assembly =
            Mutex::new(Assembly { text, reuse: ReuseTable::default(), places, report, next: 0, error: None });
        let stop = AtomicBool::new(false);
        let assemble = |assembly: &mut Assembly<'_>| {
            loop {
                let next = made.lock().remove(&assembly.next);
                let Some(next) = next else { break };
                assembly.append(next);
            }
            assembly.error.is_some()
        };
        let work = || {
            let mut worker = self.worker();
            worker.start_module(base);
            let mut bodies = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = queue.lock().take(&mut bodies);
                if bodies.is_empty() {
                    self.give_back(worker);
                    return;
                }
                let batch = self.batch(&mut worker, env, bodies.drain(..), options);
                let failed = batch.is_err();
                made.lock().insert(number, batch);
                // What others still put there while somebody assembles is found later, at the latest at the end.
                let failed = failed || assembly.try_lock().is_some_and(|mut a| assemble(&mut a));
                if failed {
                    // All batches before this one are taken, and whoever has one finishes it.
                    stop.store(true, Ordering::Relaxed);
                    return;
                }
            }
        };
        helpers.together(&work);
        let mut assembly = assembly.into_inner();
        assemble(&mut assembly);
        match assembly.error.take() {
            Some(e) => Err(e),
            None => Ok(assembly),
        }
    }

    /// Compiles some bodies. After an error the worker must be thrown away.
    fn batch<'a>(
        &self,
        worker: &mut Box<Worker>,
        env: &ModuleEnv<'_>,
        bodies: impl Iterator<Item = Body<'a>>,
        options: &CompileOptions<'_>,
    ) -> Made {
        let mut batch = Batch::default();
        for body in bodies {
            let id = env.type_id(env.type_of(body.validate.index));
            self.compile_body(worker, env, body, options, &mut batch.reuse)?;
            batch.functions.push((id, core::mem::take(&mut worker.code)));
        }
        Ok(batch)
    }
}
