//! Handles of functions: the address to call and what keeps it valid.

use crate::cell::LoadedCrate;
use crate::error::FuncError;
use crate::function::Function;
use crate::section::{SectionItem, StrongSectionRef};
use crate::typed::{EntryOwner, Func};
use alloc::sync::Arc;

/// A handle of the function that a section is.
pub(crate) fn of(section: &StrongSectionRef, function: &Function) -> Result<Func, FuncError> {
    let (entry, owner): (usize, EntryOwner) = match function {
        Function::Wasm(f) => (f.entry, f.block.clone()),
        Function::Native(f) => (f.address(), f.clone()),
        Function::Host(host) => {
            let thunk = host.thunk().map_err(|source| FuncError::Memory { symbol: section.name.clone(), source })?;
            (thunk.address(), thunk)
        }
    };
    // SAFETY: the address is the function's, of this type, and valid while its entries, its definition or its thunk live;
    // when the cell is unloaded its entries trap.
    Ok(unsafe { Func::new(entry, Arc::new(function.ty().clone()), owner) })
}

impl LoadedCrate {
    /// The stable entry of an exported function as a function pointer type `F`, for signatures whose arguments travel in
    /// registers and that have at most one result. It follows later versions of the cell and traps once the cell is gone.
    ///
    /// # Safety
    /// `F` must be an `extern "C-unwind" fn` of the function's signature. A call through it that is not inside
    /// [`crate::catch_trap`] must not run while the cell is unloaded: only tasks inside a catch are waited for.
    pub unsafe fn entry<F: Copy>(self: &Arc<Self>, name: &str) -> Result<F, FuncError> {
        let function = self.func(name)?;
        match self.export(name).map(|s| s.item.clone()) {
            Some(SectionItem::Func(Function::Wasm(f))) => f.block.mark_escaped(),
            Some(SectionItem::Func(Function::Host(f))) => {
                let thunk = f.thunk();
                thunk.map_err(|source| FuncError::Memory { symbol: name.into(), source })?.mark_escaped();
            }
            _ => {}
        }
        // SAFETY: the caller's promise; marked as escaped, the entry stays when the cell goes.
        let entry = unsafe { function.entry::<F>() };
        entry.map_err(|source| FuncError::Type { cell: self.crate_name.clone(), name: name.into(), source })
    }
}
