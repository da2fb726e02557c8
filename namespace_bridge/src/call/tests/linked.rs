//! A compiled module linked by hand: no namespace, nothing but the call path.

use crate::call::raise_routine;
use crate::host::{HostFunc, IntoHostFunc, Thunk};
use crate::text_index::{self, TextRegistration};
use crate::typed::{Func, TypedFunc, WasmParams, WasmResults};
use crate::{CellModule, LoadedCode};
use alloc::{sync::Arc, vec::Vec};
use runtime_port::memory::{AllocatedPages, MappedPages, PteFlags};
use runtime_port::unwind::UnwindRegistration;
use wasm_cell::metadata::ExportItem;
use wasm_cell::{CompileOptions, Compiler, CompilerSettings};

/// A module at an address, with what it imports bound to code addresses. Dropped in order.
pub(super) struct Linked {
    _unwind: UnwindRegistration,
    _text: TextRegistration,
    code: Arc<LoadedCode>,
    _thunks: Vec<Thunk>,
    pages: Arc<(MappedPages, MappedPages)>,
    _memories: Vec<Arc<[u64; 2]>>,
}

/// What an import of a test module is bound to.
pub(super) enum Import {
    Host(HostFunc),
    Address(usize),
}

pub(super) fn host<P, R>(f: impl IntoHostFunc<P, R>) -> Import {
    Import::Host(f.into_host_func())
}

impl Linked {
    pub(super) fn new(wat: &str, imports: Vec<Import>) -> Linked {
        let wasm = wat::parse_str(wat).unwrap();
        let compiler = Compiler::new(CompilerSettings::default()).unwrap();
        let object = compiler.compile(&wasm, &CompileOptions::default()).unwrap();
        let image = object.metadata.image;
        let layout = object.metadata.layout.clone();
        let data_at = image.data_offset as usize;
        let reservation = AllocatedPages::reserve(image.total as usize).unwrap();
        let (code, data) = reservation.split(data_at).unwrap();
        let mut code = MappedPages::map(code, PteFlags::VALID | PteFlags::WRITABLE).unwrap();
        let mut data = MappedPages::map(data, PteFlags::VALID | PteFlags::WRITABLE).unwrap();
        code.as_slice_mut::<u8>(0, object.text.len()).unwrap().copy_from_slice(&object.text);
        code.as_slice_mut::<u8>(image.rodata_offset as usize, object.rodata.len())
            .unwrap()
            .copy_from_slice(&object.rodata);
        code.remap(PteFlags::VALID | PteFlags::EXECUTABLE).unwrap();
        let mut put = |at: u32, word: usize| *data.as_type_mut::<u64>(at as usize).unwrap() = word as u64;
        put(wasm_cell::abi::HEADER_RAISE as u32, raise_routine());
        let mut thunks = Vec::new();
        for (i, import) in imports.into_iter().enumerate() {
            let address = match import {
                Import::Address(a) => a,
                Import::Host(h) => {
                    assert_eq!(h.ty(), object.metadata.func_type(i as u32).unwrap());
                    // SAFETY: no importer.
                    let thunk = unsafe { Thunk::new(&h, h.ty().hash.id(0), core::ptr::null()) }.unwrap();
                    let address = thunk.address();
                    thunks.push(thunk);
                    address
                }
            };
            put(layout.func_import_slots[i], address);
        }
        let mut memories = Vec::new();
        for (i, at) in layout.memories.iter().enumerate() {
            let bytes = object.metadata.memories[i].ty.min << 16;
            let mut pages = AllocatedPages::reserve(kernel_config::memory::GUARDED_RESERVATION as usize).unwrap();
            let base = pages.start_address().value();
            if bytes > 0 {
                let (low, high) = pages.split(bytes as usize).unwrap();
                std::mem::forget(MappedPages::map(low, PteFlags::VALID | PteFlags::WRITABLE).unwrap());
                pages = high;
            }
            std::mem::forget(pages);
            let memory = Arc::new([base as u64, bytes]);
            put(*at, base);
            put(*at + 8, Arc::as_ptr(&memory) as usize);
            memories.push(memory);
        }
        let start = code.start_address().value();
        for (k, f) in object.metadata.escaped_funcs.iter().enumerate() {
            let defined = *f as usize - object.metadata.imported_funcs.len();
            put(layout.escaped_slots[k], start + object.metadata.funcs[defined].offset as usize);
        }
        let pages = Arc::new((code, data));
        let cell: Arc<str> = "test".into();
        let module = CellModule::new(&cell, object).unwrap();
        let code = LoadedCode::new(cell, 1, start..start + image.text_size as usize, module);
        let eh = start + image.eh_frame_offset as usize;
        // SAFETY: the pages stay mapped.
        let unwind = unsafe {
            UnwindRegistration::new(code.text(), eh..eh + image.eh_frame_size as usize, pages.clone()).unwrap()
        };
        Linked {
            _unwind: unwind,
            _text: text_index::register(code.clone()).unwrap(),
            code,
            _thunks: thunks,
            pages,
            _memories: memories,
        }
    }

    pub(super) fn func(&self, name: &str) -> Func {
        let m = self.code.metadata();
        let export = m.exports.iter().find(|e| e.name == name).unwrap();
        let ExportItem::Func(f) = export.item else { panic!("{name} is no function") };
        let defined = m.funcs[f as usize - m.imported_funcs.len()];
        let entry = self.code.text().start + defined.offset as usize;
        // SAFETY: the function's code, mapped as long as the pages.
        unsafe { Func::new(entry, Arc::new(m.func_type(f).unwrap().clone()), self.pages.clone()) }
    }

    pub(super) fn typed<P: WasmParams, R: WasmResults>(&self, name: &str) -> TypedFunc<P, R> {
        self.func(name).typed().unwrap()
    }
}
