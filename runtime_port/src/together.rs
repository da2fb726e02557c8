//! One piece of work on several processors at once.

use crate::platform::platform;
use crate::task::TaskPort;
use crate::unwind::{KillReason, catch_unwind_with_arg, resume_unwind};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use spin::Mutex;

/// Tasks that help at most.
const HELPERS: usize = 15;
/// Bytes of stack that each has.
const STACK: usize = 4 << 20;

/// Calls `work` on this task and, at the same time, on one further task per further processor; returns when all of them have returned.
/// `work` takes what there is to do from a common place, so it does not matter how many come: when the system refuses
/// a task, fewer do.
///
/// # Panics
/// Unwinds, after all have returned, when any of the calls does.
pub fn together(work: &(dyn Fn() + Sync)) {
    let tasks = platform().tasks();
    let raised: Arc<Mutex<Option<KillReason>>> = Arc::default();
    let mut helpers = Helpers { tasks, ids: Vec::new() };
    // SAFETY: a reference that lives as long; the tasks that have it are joined before this function is left, in whatever way.
    let shared: &'static (dyn Fn() + Sync) = unsafe { core::mem::transmute(work) };
    for _ in 1..tasks.processors().min(HELPERS + 1) {
        if helpers.ids.try_reserve(1).is_err() {
            break;
        }
        let raised = raised.clone();
        let help = move || {
            if let Err(reason) = catch_unwind_with_arg(|()| shared(), ()) {
                raised.lock().get_or_insert(reason);
            }
        };
        let Ok(id) = tasks.spawn("helper", STACK, Box::new(help)) else { break };
        helpers.ids.push(id);
    }
    work();
    drop(helpers);
    let reason = raised.lock().take();
    if let Some(reason) = reason {
        resume_unwind(reason);
    }
}

/// Tasks that are joined when this is dropped.
struct Helpers {
    tasks: &'static dyn TaskPort,
    ids: Vec<u64>,
}

impl Drop for Helpers {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            // One that has ended already is no error.
            let _ = self.tasks.join(id);
        }
    }
}

#[cfg(all(test, feature = "hosted"))]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn everything_is_done_once() {
        let (next, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
        together(&|| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= 1000 {
                    break;
                }
                sum.fetch_add(i, Ordering::Relaxed);
            }
        });
        assert_eq!(sum.load(Ordering::Relaxed), 499_500);
    }

    #[test]
    fn what_unwinds_anywhere_goes_on_here_after_all_have_ended() {
        let (calls, ends) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let outcome = catch_unwind_with_arg(
            |()| {
                together(&|| {
                    if calls.fetch_add(1, Ordering::Relaxed) == 0 {
                        resume_unwind(KillReason::Panic(Box::new(7i32)));
                    }
                    ends.fetch_add(1, Ordering::Relaxed);
                });
            },
            (),
        );
        let Err(KillReason::Panic(payload)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(payload.downcast_ref::<i32>(), Some(&7));
        assert_eq!(calls.load(Ordering::Relaxed), ends.load(Ordering::Relaxed) + 1);
    }
}
