//! Where the symbols of other cells come from.
//!
//! In this order: the cell itself; the namespace, then its parents; cells that their providers have, by the crate that the
//! symbol names; the base image. An undefined weak symbol asks no provider, and is zero if nobody has it.
#![deny(unsafe_code)]

use super::adapters::{AdapterRequest, Caller};
use super::relocate::Import;
use crate::cell::LoadedCrate;
use crate::function::Function;
use crate::section::{LoadedSection, NativeSymbol, SectionItem, StrongSectionRef};
use alloc::sync::Arc;

/// Who has a symbol.
#[derive(Debug, Clone)]
pub(super) enum From {
    /// A loaded cell.
    Section(StrongSectionRef),
    /// A cell of another kind that comes in the same step, as it was promised.
    Coming(StrongSectionRef),
    /// A cell that is being loaded with this one: its number, and the symbol there.
    Staged(usize, usize),
    /// The same, by the number of a typed export there.
    StagedExport(usize, usize),
    /// The base image, or the loader itself.
    Image,
    /// Nobody: a weak symbol.
    Nobody,
}

/// What a symbol was found to be.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub import: Import,
    pub from: From,
    /// The address is that of a wasm function whose convention differs from C's: calls need an adapter.
    pub adapter: Option<AdapterRequest>,
}

impl Found {
    /// Something with an address and no owner.
    pub fn image(address: usize, size: usize, is_function: bool) -> Found {
        let import = Import { address, is_function, size, near: false, stays: true };
        Found { import, from: From::Image, adapter: None }
    }

    /// Something in the importer's own image.
    pub fn near(address: usize) -> Found {
        Found {
            import: Import { address, is_function: false, size: 0, near: true, stays: true },
            from: From::Image,
            adapter: None,
        }
    }

    /// A weak symbol that nobody has.
    pub fn nobody() -> Found {
        let import = Import { address: 0, is_function: true, size: 0, near: false, stays: false };
        Found { import, from: From::Nobody, adapter: None }
    }

    /// An export of a cell that comes in the same step.
    pub fn coming(section: StrongSectionRef) -> Result<Found, NotUsable> {
        Ok(Found { from: From::Coming(section.clone()), ..Found::section(&section)? })
    }

    /// A section of a loaded cell. `Err`: it is nothing that native code can use.
    pub fn section(section: &StrongSectionRef) -> Result<Found, NotUsable> {
        let mut adapter = None;
        let (address, is_function) = match &section.item {
            SectionItem::Native(NativeSymbol::Func { entry, block, .. }) => {
                block.mark_escaped();
                (*entry, true)
            }
            SectionItem::Native(NativeSymbol::Data { address, .. }) => (*address, false),
            SectionItem::Func(function) => {
                let address = function_address(function).ok_or(NotUsable)?;
                if !function.ty().is_register_only() {
                    let ty = function.ty().clone();
                    adapter = Some(AdapterRequest { caller: Caller::Native, ty, function: address });
                }
                (address, true)
            }
            _ => return Err(NotUsable),
        };
        let import = Import { address, is_function, size: section.size, near: false, stays: false };
        Ok(Found { import, from: From::Section(section.clone()), adapter })
    }
}

/// A memory, table or global: nothing that native code can use by its address.
#[derive(Debug)]
pub(super) struct NotUsable;

/// The address by which native code reaches a function. It may be passed on.
fn function_address(function: &Function) -> Option<usize> {
    match function {
        Function::Wasm(f) => {
            f.block.mark_escaped();
            Some(f.entry)
        }
        Function::Native(f) => Some(f.address()),
        Function::Host(f) => {
            let thunk = f.thunk().ok()?;
            thunk.mark_escaped();
            Some(thunk.address())
        }
    }
}

/// Name of the cell that has a section.
pub(super) fn holder(section: &LoadedSection) -> Arc<str> {
    section.parent_crate.upgrade().map_or_else(|| "?".into(), |c: Arc<LoadedCrate>| c.crate_name.clone())
}
