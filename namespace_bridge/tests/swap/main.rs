//! Live swap, as a kernel sees it: what callers get, what stays, what fails and how.

#![expect(clippy::unwrap_used, reason = "tests")]

mod add_remove;
mod adopt;
mod attacks;
mod circular;
mod custom;
mod defects;
mod export;
mod failures;
mod inside;
mod references;
mod rollback;
mod schemes;
mod several;
mod stateless;

use namespace_bridge::swap::{SwapError, SwapProblem, SwapRequest};
use namespace_bridge::{CrateNamespace, LoadOptions, StrongCrateRef, Trap};
use std::sync::{Arc, Mutex, mpsc};
use wasm_cell::trap::TrapCode;

fn namespace() -> Arc<CrateNamespace> {
    CrateNamespace::new("test", None)
}

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|e| panic!("{e}"))
}

fn load(ns: &CrateNamespace, name: &str, text: &str) -> StrongCrateRef {
    ns.load_wasm(name, &wasm(text), LoadOptions::default()).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn replace(name: &str, text: &str) -> SwapRequest {
    SwapRequest::new(name).with_wasm(&wasm(text))
}

fn problems(e: SwapError) -> Vec<SwapProblem> {
    match e {
        SwapError::Refused(refusal) => refusal.problems,
        other => panic!("{other}"),
    }
}

fn code<R: std::fmt::Debug>(result: Result<R, Trap>) -> TrapCode {
    result.unwrap_err().code()
}

/// Defines a native function `env.host` that says when it is entered and returns when it is told to.
fn host_that_waits(ns: &Arc<CrateNamespace>) -> (mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (entered, was_entered) = mpsc::channel();
    let (leave, may_leave) = mpsc::channel::<()>();
    let may_leave = Mutex::new(may_leave);
    ns.define("env", "host", move || {
        entered.send(()).unwrap();
        may_leave.lock().unwrap().recv().unwrap();
    })
    .unwrap();
    (was_entered, leave)
}

/// A module whose function `f` gives a number.
fn constant(n: i32) -> String {
    format!(r#"(module (func (export "f") (result i32) (i32.const {n})))"#)
}

fn call(ns: &CrateNamespace, cell: &str, function: &str) -> i32 {
    ns.get_crate(cell).unwrap().typed_func::<(), i32>(function).unwrap().call(()).unwrap()
}
