//! WebAssembly bytes to cell object.
//!
//! `wasm_cell` validates a module, translates it to Cranelift IR, compiles it and describes the result: machine
//! code, unwind info, trap table and metadata, as one [`CellObject`]. It knows nothing of namespaces or platforms.
#![no_std]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod abi;
pub mod adapter;
pub mod builtin;
mod canonical;
mod codec;
pub mod compiler;
pub mod cpu;
mod eh_frame;
mod elf;
mod env;
pub mod error;
pub mod features;
mod func_names;
mod function;
mod generator;
pub mod header;
pub mod inheritance;
mod inline;
mod layout;
pub mod metadata;
mod module;
mod names;
pub mod object;
mod optimize;
pub mod parallel;
mod placement;
pub mod reuse;
mod rows;
#[cfg(test)]
mod sample;
pub mod seal;
mod symbols;
mod table_writes;
mod text;
mod translate;
pub mod trap;
mod type_ids;
pub mod types;
mod validate;
mod validators;

pub use adapter::Adapter;
pub use compiler::{CompileOptions, Compiler, CompilerSettings, OptLevel};
pub use cpu::CpuFeatures;
pub use error::CompileError;
pub use func_names::FuncNames;
pub use object::{CellObject, Loadable};
pub use rows::Rows;
