//! Benchmarks, side by side with wasmtime in one run.
//!
//! [`measure`] takes the figures. [`table`] is the one table of everything that has a goal, with wasmi and native code beside; the others
//! are closer looks, shown by [`report`]: [`load`] at loading and compiling, [`kernels`] at running code. [`rival`] is wasmtime in its
//! best settings for each row, [`interpreter`] is wasmi. [`trap`] is the same for traps, with libgcc beside it where it is about [`unwinding`]; [`swap`] for
//! live swap, with [`entry`] and [`scan`].

mod bare_signal;
mod call_sites;
mod entry;
pub mod gate;
mod interpreter;
pub mod kernels;
pub mod load;
pub mod measure;
mod native;
pub mod pass_timing;
pub mod reload;
pub mod report;
mod rival;
mod scan;
mod subject;
pub mod swap;
pub mod table;
pub mod trap;
mod unwinding;
