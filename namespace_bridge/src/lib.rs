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

mod builtins;
pub mod call;
pub mod caller;
pub mod cell;
pub mod code;
mod compile;
mod const_eval;
pub mod coredump;
pub mod domain;
pub mod entries;
pub mod entry_labels;
mod entry_plan;
pub mod error;
pub mod fault;
pub mod fault_log;
pub mod func_ref;
pub mod function;
pub mod gate;
pub mod global;
mod glue;
mod handle;
pub mod host;
pub mod image;
pub mod instance;
mod instantiate;
pub mod integrity;
pub mod kill;
pub mod linear_memory;
mod linker;
pub mod module_diff;
pub mod namespace;
pub mod native;
pub mod native_entry;
mod old_code;
pub mod options;
mod order;
mod processor;
pub mod recovery;
mod retire;
pub mod section;
pub mod source_line;
mod staged;
pub mod swap;
pub mod table;
pub mod text_index;
pub mod trap;
pub mod typed;
pub mod types_registry;
pub mod val;
mod version_table;
mod waiters;

pub use call::{CallError, catch_trap};
pub use caller::Caller;
pub use cell::{LoadedCrate, StrongCrateRef, WeakCrateRef};
pub use code::{CellModule, LoadedCode};
pub use compile::{check_header, compile_module, compile_module_reusing, compile_object_reusing, compiler};
pub use domain::{Concurrency, Domain, GateGuard};
pub use error::{DefineError, FuncError, ImportProblem, LinkError, LoadError, UnloadError};
pub use fault_log::{FaultEntry, FaultType, RecoveryAction};
pub use func_ref::FuncRef;
pub use gate::GateError;
pub use global::Global;
pub use host::{HostFunc, IntoHostFunc};
pub use instance::InstanceRecord;
pub use integrity::Damage;
pub use kill::kill_task;
pub use linear_memory::LinearMemory;
pub use module_diff::ModuleDiff;
pub use namespace::{CellInfo, CellSource, CrateDirectory, CrateNamespace, CrateProvider, DependencyInfo};
pub use options::{AddPolicy, LoadOptions};
pub use recovery::{Policy, PolicyError, RecoveryState};
pub use retire::{RetiredVersion, reclaim, retired};
pub use section::{LoadedSection, SectionItem, SectionType};
pub use table::Table;
pub use trap::{HostError, Trap};
pub use typed::{Func, TypedFunc};
pub use val::{ExternRef, V128, Val};
