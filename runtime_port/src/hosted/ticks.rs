//! Ticks for tasks that were asked to stop: the interrupt of a kill request may have found its task in native code, where
//! nothing can be done, so it comes again until the request is done.
//!
//! One thread, started by the first request, which sleeps while no request is pending.

use super::memory::lock;
use super::task::interrupt_requested;
use core::time::Duration;
use std::sync::{Condvar, Mutex};
use std::thread;

/// Time to the first tick after a request. It doubles up to [`SLOWEST`], because a task that stays in native code for long
/// gains nothing from being interrupted often.
const FIRST: Duration = Duration::from_micros(50);
const SLOWEST: Duration = Duration::from_millis(4);

#[derive(Debug)]
struct State {
    started: bool,
    /// Whether there was a request since the thread last looked.
    requested: bool,
}

static STATE: Mutex<State> = Mutex::new(State { started: false, requested: false });
static REQUEST: Condvar = Condvar::new();

/// Sees to it that requested tasks get ticks. Fails when there is no thread to be had.
pub(super) fn start() -> std::io::Result<()> {
    let mut state = lock(&STATE);
    if !state.started {
        thread::Builder::new().name("ticks".into()).stack_size(64 << 10).spawn(run)?;
        state.started = true;
    }
    state.requested = true;
    REQUEST.notify_one();
    Ok(())
}

fn run() {
    loop {
        let state = lock(&STATE);
        drop(REQUEST.wait_while(state, |s| !core::mem::take(&mut s.requested)));
        let mut pause = FIRST;
        loop {
            thread::sleep(pause);
            if !interrupt_requested() {
                break;
            }
            let again = core::mem::take(&mut lock(&STATE).requested);
            pause = if again { FIRST } else { (pause * 2).min(SLOWEST) };
        }
    }
}
