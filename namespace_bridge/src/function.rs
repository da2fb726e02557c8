//! Functions as the linker sees them: a type, an address, and what keeps the address valid.

use crate::code::CellModule;
use crate::entries::EntryBlock;
use crate::host::{HostFunc, Thunk, ThunkError};
use crate::native_entry::NativeFunction;
use crate::types_registry::TypeShares;
use alloc::sync::Arc;
use spin::Mutex;
use wasm_cell::types::{FuncType, TypeId};

/// A function that can be imported.
#[derive(Debug, Clone)]
pub enum Function {
    /// Of a cell, by its stable entry: a wasm cell's, or a typed export of a native cell.
    Wasm(WasmFunction),
    /// A native function at an address, register-only.
    Native(Arc<NativeFunction>),
    /// A closure of the embedder; each importer gets a thunk of its own.
    Host(Arc<HostFunction>),
}

/// A function of a cell.
#[derive(Debug, Clone)]
pub struct WasmFunction {
    /// The entries its address belongs to.
    pub(crate) block: Arc<EntryBlock>,
    /// Its address: a stable entry of `block`.
    pub(crate) entry: usize,
    /// Where its type stands.
    pub(crate) signature: Signature,
}

/// Where a function's type stands.
#[derive(Debug, Clone)]
pub(crate) enum Signature {
    /// In a module, by the function's index.
    Module(Arc<CellModule>, u32),
    /// In the description of a native cell's export.
    Described(Arc<FuncType>),
}

impl Signature {
    fn ty(&self) -> &FuncType {
        match self {
            Signature::Module(module, index) => {
                module.metadata().func_type(*index).expect("indices were checked when the module was made")
            }
            Signature::Described(ty) => ty,
        }
    }
}

/// A closure of the embedder as a definition.
#[derive(Debug)]
pub struct HostFunction {
    pub(crate) func: HostFunc,
    /// Its address for callers that are no cell, once somebody needed one.
    thunk: Mutex<Option<Arc<Thunk>>>,
    /// The id of its type, registered as long as the definition lives.
    pub(crate) type_id: TypeId,
    _types: TypeShares,
}

impl HostFunction {
    pub(crate) fn new(func: HostFunc, type_id: TypeId, types: TypeShares) -> HostFunction {
        HostFunction { func, thunk: Mutex::new(None), type_id, _types: types }
    }

    /// Its address for callers that are no cell. The same every time.
    pub(crate) fn thunk(&self) -> Result<Arc<Thunk>, ThunkError> {
        let mut thunk = self.thunk.lock();
        if let Some(made) = &*thunk {
            return Ok(made.clone());
        }
        // SAFETY: there is no importer, so none can go.
        let made = Arc::new(unsafe { Thunk::new(&self.func, self.type_id, core::ptr::null()) }?);
        *thunk = Some(made.clone());
        Ok(made)
    }
}

impl Function {
    /// The same function as import `index` of a module, which has a type equal to its own. An importer that took the exporter's word for the type would keep the
    /// module of a version that is long gone.
    pub(crate) fn imported_by(&self, module: &Arc<CellModule>, index: u32) -> Function {
        match self {
            Function::Wasm(f) => {
                let signature = Signature::Module(module.clone(), index);
                Function::Wasm(WasmFunction { block: f.block.clone(), entry: f.entry, signature })
            }
            other => other.clone(),
        }
    }

    /// Its type.
    pub fn ty(&self) -> &FuncType {
        match self {
            Function::Wasm(f) => f.signature.ty(),
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
