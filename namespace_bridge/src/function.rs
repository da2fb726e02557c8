//! Functions as the linker sees them: a type, an address, and what keeps the address valid.
#![deny(unsafe_code)]

use crate::code::CellModule;
use crate::entries::EntryBlock;
use crate::host::HostFunc;
use crate::native_entry::NativeFunction;
use crate::types_registry::TypeShares;
use alloc::sync::Arc;
use wasm_cell::types::{FuncType, TypeId};

/// A function that can be imported.
#[derive(Debug, Clone)]
pub enum Function {
    /// Of a wasm cell.
    Wasm(WasmFunction),
    /// A native function at an address, register-only.
    Native(Arc<NativeFunction>),
    /// A closure of the embedder; each importer gets a thunk of its own.
    Host(Arc<HostFunction>),
}

/// A function of a wasm cell.
#[derive(Debug, Clone)]
pub struct WasmFunction {
    /// The entries its address belongs to.
    pub(crate) block: Arc<EntryBlock>,
    /// Its address: a stable entry of `block`.
    pub(crate) entry: usize,
    /// Where its type stands.
    pub(crate) module: Arc<CellModule>,
    /// Its index there.
    pub(crate) index: u32,
}

/// A closure of the embedder as a definition.
#[derive(Debug)]
pub struct HostFunction {
    pub(crate) func: HostFunc,
    /// The id of its type, registered as long as the definition lives.
    pub(crate) type_id: TypeId,
    pub(crate) _types: TypeShares,
}

impl Function {
    /// Its type.
    pub fn ty(&self) -> &FuncType {
        match self {
            Function::Wasm(f) => {
                f.module.metadata().func_type(f.index).expect("indices were checked when the module was made")
            }
            Function::Native(f) => f.ty(),
            Function::Host(f) => f.func.ty(),
        }
    }

    /// Its address for callers that use the wasm convention, if it has one that does not depend on the importer.
    pub fn entry(&self) -> Option<usize> {
        match self {
            Function::Wasm(f) => Some(f.entry),
            Function::Native(f) => Some(f.address()),
            Function::Host(_) => None,
        }
    }

    /// Whether the cell behind it has been unloaded.
    pub fn is_gone(&self) -> bool {
        matches!(self, Function::Wasm(f) if f.block.is_gone())
    }
}
