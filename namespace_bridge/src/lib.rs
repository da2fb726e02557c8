//! Crate namespaces of native and wasm cells: load, link, instantiate, call.
//!
//! A [`CrateNamespace`] holds cells ([`LoadedCrate`]) and their symbols. A wasm module becomes a cell in four steps:
//! a [`CellModule`] (compiled code in frames that every instance maps), an [`image`] (those frames beside a fresh data
//! block), an [`InstanceRecord`] (memories, tables, globals; what compiled code hands to the builtins), and the
//! [`LoadedCrate`] with its sections, symbols and dependency edges. Nothing of it is visible before all of it is.
#![no_std]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod call;
pub mod caller;
pub mod code;
pub mod fault;
pub mod host;
pub mod instance;
pub mod text_index;
pub mod trap;
pub mod typed;
pub mod val;

pub use call::{CallError, catch_trap};
pub use caller::Caller;
pub use code::{CellModule, LoadedCode};
pub use host::{HostFunc, IntoHostFunc};
pub use instance::InstanceRecord;
pub use trap::{HostError, Trap};
pub use typed::{Func, TypedFunc};
pub use val::{ExternRef, FuncRef, V128, Val};
