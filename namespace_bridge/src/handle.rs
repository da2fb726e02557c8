//! Handles of functions: the address to call and what keeps it valid.

use crate::error::FuncError;
use crate::function::Function;
use crate::host::Thunk;
use crate::section::StrongSectionRef;
use crate::typed::{EntryOwner, Func};
use alloc::sync::Arc;

/// A handle of the function that a section is.
pub(crate) fn of(section: &StrongSectionRef, function: &Function) -> Result<Func, FuncError> {
    let (entry, owner): (usize, EntryOwner) = match function {
        Function::Wasm(f) => (f.entry, f.block.clone()),
        Function::Native(f) => (f.address(), f.clone()),
        Function::Host(host) => {
            // SAFETY: there is no importer, so none can go.
            let thunk = unsafe { Thunk::new(host, core::ptr::null()) };
            let thunk = thunk.map_err(|source| FuncError::Memory { symbol: section.name.clone(), source })?;
            (thunk.address(), Arc::new(thunk))
        }
    };
    // SAFETY: the address is the function's, of this type, and valid while its entries, its definition or its thunk live;
    // when the cell is unloaded its entries trap.
    Ok(unsafe { Func::new(entry, Arc::new(function.ty().clone()), owner) })
}
