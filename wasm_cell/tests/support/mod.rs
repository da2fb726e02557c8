//! What the tests of the compiler share: compiling text, and running code without a runtime.
#![allow(dead_code, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::c_void;
use wasm_cell::{CellObject, CompileError, CompileOptions, Compiler, CompilerSettings, CpuFeatures};

/// A compiler that checks its own IR.
pub fn compiler() -> Compiler {
    Compiler::new(CompilerSettings { cpu: CpuFeatures::V3, verify_ir: true, ..Default::default() }).unwrap()
}

/// Compiles text.
pub fn compile(wat: &str) -> CellObject {
    try_compile(wat).unwrap()
}

/// Compiles text.
pub fn try_compile(wat: &str) -> Result<CellObject, CompileError> {
    let object = compiler().compile(&wat::parse_str(wat).unwrap(), &CompileOptions::default())?;
    object.validate().unwrap();
    Ok(object)
}

/// Offset and size of the code of an exported function.
pub fn code_of(object: &CellObject, export: &str) -> (u32, u32) {
    let meta = &object.metadata;
    let export = meta.exports.iter().find(|e| e.name == export).unwrap();
    let wasm_cell::metadata::ExportItem::Func(index) = export.item else { panic!("not a function") };
    let func = &meta.funcs[index as usize - meta.imported_funcs.len()];
    (func.offset, func.size)
}

/// Pages with code, executable for as long as this lives.
pub struct Code {
    base: *mut u8,
    size: usize,
}

impl Code {
    /// Maps `image`. The data block, if there is one, stays writable with the rest: tests only.
    pub fn map(image: &[u8]) -> Code {
        let size = image.len().next_multiple_of(4096);
        // SAFETY: a fresh anonymous mapping of `size` bytes, filled within its bounds.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            let base =
                libc::mmap(std::ptr::null_mut(), size, protection, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
            assert_ne!(base, libc::MAP_FAILED);
            std::ptr::copy_nonoverlapping(image.as_ptr(), base.cast(), image.len());
            Code { base: base.cast(), size }
        }
    }

    /// Maps text, rodata and data block of a cell at their distances.
    pub fn map_cell(object: &CellObject) -> Code {
        let image = &object.metadata.image;
        let mut bytes = vec![0; image.total as usize];
        bytes[..object.text.len()].copy_from_slice(&object.text);
        let rodata = image.rodata_offset as usize;
        bytes[rodata..rodata + object.rodata.len()].copy_from_slice(&object.rodata);
        Code::map(&bytes)
    }

    /// Address of an offset.
    pub fn at(&self, offset: u32) -> *mut u8 {
        assert!((offset as usize) < self.size);
        // SAFETY: inside the mapping.
        unsafe { self.base.add(offset as usize) }
    }

    /// Writes a word.
    pub fn put(&self, offset: u32, word: u64) {
        // SAFETY: inside the mapping, which is writable; `at` checks the offset.
        unsafe { self.at(offset).cast::<u64>().write_unaligned(word) }
    }

    /// Registers the `.eh_frame` at an offset with the process's unwinder, for good.
    pub fn register_unwind(&self, eh_frame: u32) {
        unsafe extern "C" {
            fn __register_frame(begin: *const c_void);
        }
        // SAFETY: a terminated `.eh_frame` section that stays mapped: the mapping is never removed.
        unsafe { __register_frame(self.at(eh_frame).cast()) }
    }
}
