//! Fuzzing: what must hold for any input whatever.
//!
//! | function | input | must hold |
//! | --- | --- | --- |
//! | [`load_bytes`] | bytes given to the compiler and loader as a module | a cell or an error with offset and reason; the namespace as before |
//! | [`load_object`] | bytes given to the object reader | an object that is consistent, or an error; a seal never survives a change |
//! | [`differential()`] | entropy for a generated module | the same results, traps, memories, tables and globals as wasmtime |
//! | [`loops()`] | a random generator, for a module with loops | the same |
//! | [`versions()`] | two modules | the second compiled as next version of the first is what compiling it in full gives, byte for byte |
//!
//! Each takes bytes, so that a fuzzer with coverage feedback can drive it, and panics when something does not hold.

mod bytes;
pub mod differential;
mod loops;
mod mutate;
mod object;
mod samples;
mod versions;

pub use bytes::load_bytes;
pub use differential::differential;
pub use loops::loops;
pub use mutate::mutate;
pub use object::{load_object, sealed_object};
pub use samples::samples;
pub use versions::{generated_versions, versions};
