//! Ends calls that take too long: damaged code may run for ever.

use crate::world::{SetupError, setup};
use alloc::{boxed::Box, sync::Arc};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};
use namespace_bridge::kill_task;
use runtime_port::platform;

/// Time that a call may take, in nanoseconds: a million times what it needs.
const LIMIT: u64 = 2_000_000_000;

/// Time between two looks.
const PERIOD: u64 = 50_000_000;

#[derive(Debug, Default)]
struct Watched {
    /// When the current call began; 0: there is none.
    began: AtomicU64,
    stop: AtomicU32,
}

/// A task that watches this one.
#[derive(Debug)]
pub struct Watchdog {
    watched: Arc<Watched>,
    id: u64,
}

impl Watchdog {
    /// Starts watching the current task.
    pub fn start() -> Result<Watchdog, SetupError> {
        let tasks = platform().tasks();
        let locals = tasks.attach().map_err(|e| setup("task")(&e))?;
        let (watched, victim) = (Arc::<Watched>::default(), locals.id.get());
        let its = watched.clone();
        let body = move || {
            while its.stop.load(SeqCst) == 0 {
                tasks.wait(&its.stop, 0, Some(PERIOD));
                let began = its.began.load(SeqCst);
                if began != 0 && now().saturating_sub(began) > LIMIT {
                    // A task that has ended needs no end.
                    let _ = kill_task(victim);
                }
            }
        };
        let id = tasks.spawn("watchdog", 64 << 10, Box::new(body)).map_err(|e| setup("watchdog")(&e))?;
        Ok(Watchdog { watched, id })
    }

    /// A call begins.
    pub fn begin(&self) {
        self.watched.began.store(now(), SeqCst);
    }

    /// The call has ended.
    pub fn end(&self) {
        self.watched.began.store(0, SeqCst);
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.watched.stop.store(1, SeqCst);
        platform().tasks().wake(&self.watched.stop, 1);
        // It ends in any case.
        let _ = platform().tasks().join(self.id);
    }
}

fn now() -> u64 {
    platform().clock().monotonic_ns().max(1)
}
