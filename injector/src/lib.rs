//! Fault injection: campaigns of faults, each followed by checks that nothing else happened.
//!
//! A [`campaign`] injects faults of chosen [`kind`]s, one after the other, all derived from one seed: fault number `n` of a seed
//! is the same fault in every run. After each one it checks that the caller got the error the fault stands for (or the right
//! result, if the fault met nothing), that the next call of the same cell is right, that other cells and the namespace
//! are untouched, and that memory, mappings and registrations are back where they were. The [`report`] counts, per
//! kind and fault: injected, manifested, recovered, lost.
//!
//! This is a crate of its own above `namespace_bridge`, and not a part of the tests, because it runs in two
//! places: in `planks inject` and, `no_std`, in the kernel. Nothing below depends on it, so no kernel carries it that does not
//! want it. What corrupts memory on purpose lives here and not behind a feature of the crates below: it needs
//! nothing of them but their addresses and the port's own `protect`.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(feature = "std")]
extern crate std;

pub mod baseline;
pub mod campaign;
pub mod corrupt;
pub mod fault;
pub mod guest;
pub mod heap;
pub mod isolated;
pub mod kill;
pub mod kind;
mod life;
pub mod point;
pub mod random;
pub mod refuse;
pub mod report;
pub mod storm;

pub mod verdict;
mod watchdog;
pub mod workload;
pub mod world;

pub use campaign::{Plan, run};
pub use kind::Kind;
pub use report::{Report, Row};
pub use verdict::{Outcome, Verdict};
