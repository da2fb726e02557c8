//! Whether a cell object is consistent in itself: the gate between bytes from outside and everything that indexes.
//!
//! After [`CellObject::validate`], the loader and linker may use every offset, size and index in the object without
//! looking again: they lie inside what they refer to. The machine code itself is not examined; whoever needs to know
//! that it came from this compiler checks the seal ([`crate::seal`]).
//!
//! [`image`] checks bytes and distances, [`module`] the module's items and [`const_expr`] the types of initialisers.

mod const_expr;
mod image;
mod module;

#[cfg(test)]
mod tests;

use crate::{CellObject, CompileError, Loadable};
use alloc::string::String;

/// What is wrong, for [`CompileError::Object`].
type Check<T = ()> = Result<T, String>;

impl CellObject {
    /// Checks that the object is consistent: sections, image and data layout, functions, trap and address tables,
    /// symbols, indices, types and limits.
    ///
    /// # Errors
    /// [`CompileError::Object`] naming the first thing that is not.
    pub fn validate(&self) -> Result<(), CompileError> {
        let checked = module::counts(&self.metadata)
            .and_then(|()| module::type_ids(&self.metadata))
            .and_then(|()| image::check(&self.metadata, &self.text, &self.rodata))
            .and_then(|()| image::check_for_tools(self))
            .and_then(|()| module::check(&self.metadata));
        checked.map_err(CompileError::Object)
    }
}

impl Loadable<'_> {
    /// The same but for symbols and references, which it does not have.
    ///
    /// # Errors
    /// As for [`CellObject::validate`].
    pub fn validate(&self) -> Result<(), CompileError> {
        let checked = module::counts(&self.metadata)
            .and_then(|()| module::type_ids(&self.metadata))
            .and_then(|()| image::check(&self.metadata, &self.text, &self.rodata))
            .and_then(|()| module::check(&self.metadata));
        checked.map_err(CompileError::Object)
    }
}

/// `Ok` if `condition`, else the text.
fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Check {
    if condition { Ok(()) } else { Err(otherwise()) }
}

/// Whether `offset..offset + size` lies in `0..len`.
fn fits(offset: u32, size: u64, len: u64) -> bool {
    u64::from(offset).checked_add(size).is_some_and(|end| end <= len)
}
