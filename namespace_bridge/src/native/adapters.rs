//! Adapters between C's convention and that of wasm functions, for signatures that differ in the two (docs/CELL_ABI.md).

use super::error::NativeError;
use alloc::{string::ToString, sync::Arc, vec::Vec};
use core::ops::Range;
use runtime_port::memory::{MappedPages, MemoryError, PteFlags, create_mapping};
use runtime_port::unwind::UnwindRegistration;
use wasm_cell::Adapter;
use wasm_cell::adapter::ADAPTER_ALIGN;
use wasm_cell::types::FuncType;

/// Adapters in pages of their own.
#[derive(Debug, Default)]
pub(super) struct Adapters {
    _unwind: Vec<UnwindRegistration>,
    pages: Option<Arc<MappedPages>>,
    offsets: Vec<usize>,
}

/// Which side calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caller {
    Native,
    Wasm,
}

/// An adapter to be made: for calls by this side of the function at this address.
#[derive(Debug, Clone)]
pub(super) struct AdapterRequest {
    pub caller: Caller,
    pub ty: FuncType,
    pub function: usize,
}

impl Adapters {
    /// Makes adapters.
    pub fn new(requests: &[AdapterRequest]) -> Result<Adapters, NativeError> {
        if requests.is_empty() {
            return Ok(Adapters::default());
        }
        let mut compiled = Vec::with_capacity(requests.len());
        let mut size = 0usize;
        for request in requests {
            let adapter = compile(request)?;
            let place = size.next_multiple_of(ADAPTER_ALIGN);
            size = place + adapter.code.len() + adapter.eh_frame.len();
            compiled.push((place, adapter));
        }
        let no_memory = |source: MemoryError| NativeError::Memory { what: "adapters", source };
        let mut pages = create_mapping(size, PteFlags::VALID | PteFlags::WRITABLE).map_err(no_memory)?;
        for ((place, adapter), request) in compiled.iter().zip(requests) {
            let (code, frame) = (adapter.code.len(), adapter.eh_frame.len());
            pages.as_slice_mut::<u8>(*place, code).map_err(no_memory)?.copy_from_slice(&adapter.code);
            pages.as_slice_mut::<u8>(place + code, frame).map_err(no_memory)?.copy_from_slice(&adapter.eh_frame);
            let literal = place + adapter.literal_offset as usize;
            *pages.as_type_mut::<usize>(literal).map_err(no_memory)? = request.function;
        }
        pages.remap(PteFlags::VALID | PteFlags::EXECUTABLE).map_err(no_memory)?;
        let pages = Arc::new(pages);
        let start = pages.start_address().value();
        let mut unwind = Vec::with_capacity(compiled.len());
        for (place, adapter) in &compiled {
            let code = start + place..start + place + adapter.code.len();
            let frame = code.end..code.end + adapter.eh_frame.len();
            // SAFETY: both lie in the pages, which the registration keeps; the compiler wrote one for the other.
            let made = unsafe { UnwindRegistration::new(code, frame, pages.clone()) };
            unwind.push(made.map_err(|e| NativeError::Adapter { symbol: "?".into(), reason: e.to_string() })?);
        }
        let offsets = compiled.iter().map(|(place, _)| *place).collect();
        Ok(Adapters { _unwind: unwind, pages: Some(pages), offsets })
    }

    /// Addresses of all of them.
    pub fn range(&self) -> Option<Range<usize>> {
        Some(self.pages.as_ref()?.range())
    }

    /// Address of an adapter.
    pub fn address(&self, index: usize) -> Option<usize> {
        Some(self.pages.as_ref()?.start_address().value() + self.offsets.get(index)?)
    }
}

fn compile(request: &AdapterRequest) -> Result<Adapter, NativeError> {
    let compiler = crate::compile::compiler();
    let made = compiler.and_then(|compiler| match request.caller {
        Caller::Native => compiler.compile_native_to_wasm(&request.ty),
        Caller::Wasm => compiler.compile_wasm_to_native(&request.ty),
    });
    made.map_err(|e| NativeError::Adapter { symbol: request.ty.to_string(), reason: e.to_string() })
}
