//! Symbols of native cells that nothing describes, imported by wasm under the type that the importer gives them.

use crate::cell::symbol_name;
use crate::error::LoadError;
use crate::function::Function;
use crate::native_entry::NativeFunction;
use crate::section::{LoadedSection, NativeSymbol, SectionItem, StrongSectionRef};
use crate::types_registry::TypeShares;
use alloc::sync::Arc;
use wasm_cell::types::FuncType;

/// A section for the symbol as a function of this type, the same for every importer that says the same. `None` when the symbol is
/// data, or when the type's arguments do not travel in registers: then nothing but a description helps.
pub(crate) fn assume_type(
    importer: &Arc<str>,
    section: &StrongSectionRef,
    ty: &FuncType,
) -> Result<Option<StrongSectionRef>, LoadError> {
    let SectionItem::Native(NativeSymbol::Func { block, entry, .. }) = &section.item else { return Ok(None) };
    let Some(cell) = section.parent_crate.upgrade() else { return Ok(None) };
    let Some(body) = cell.object_body().filter(|_| ty.is_register_only()) else { return Ok(None) };
    let same = |s: &StrongSectionRef| {
        s.virt_addr == section.virt_addr && matches!(&s.item, SectionItem::Func(f) if f.ty().hash == ty.hash)
    };
    if let Some(known) = body.assumed().into_iter().find(same) {
        return Ok(Some(known));
    }
    let (type_id, types) = TypeShares::assign(importer, ty)?;
    // References to the function hold its address for ever.
    block.mark_escaped();
    // SAFETY: the caller of `LoadOptions::assume_native_types` vouches for the type; the entry stays, since it has escaped.
    let function = unsafe { NativeFunction::new(ty.clone(), *entry, type_id, types) };
    let start = section.virt_addr.value();
    let name = symbol_name(&cell.crate_name, section.export_name());
    let item = SectionItem::Func(Function::Native(Arc::new(function)));
    let assumed = LoadedSection::new(name, section.typ, start..start + section.size, Arc::downgrade(&cell), item);
    body.assume(assumed.clone());
    Ok(Some(assumed))
}
