//! Benchmarks, side by side with wasmtime in one run.
//!
//! [`measure`] takes the figures, [`report`] shows them; [`load`] says what is measured. [`rival`] is wasmtime in its
//! best settings for each row. [`trap`] is the same for traps, with libgcc beside it where it is about [`unwinding`]; [`swap`] for
//! live swap, with [`entry`] and [`scan`].

mod bare_signal;
mod entry;
pub mod gate;
pub mod kernels;
pub mod load;
pub mod measure;
mod native;
pub mod reload;
pub mod report;
mod rival;
mod scan;
mod subject;
pub mod swap;
pub mod trap;
mod unwinding;
