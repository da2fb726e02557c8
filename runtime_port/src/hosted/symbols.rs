//! Names of the process's native code, from its ELF symbols and DWARF.
//!
//! Files are read when an address in them is first asked for. A stripped file gives its dynamic symbols, or nothing.

use super::elf_file::ElfFile;
use super::memory::lock;
use crate::backtrace::{Definition, Location, Symbol, SymbolSource};
use alloc::{boxed::Box, string::String, string::ToString, vec::Vec};
use core::ffi::{CStr, c_int, c_void};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

/// The hosted symbol source.
#[derive(Debug)]
pub struct HostedSymbols;

/// Files by path; `None` for one that cannot be read.
static FILES: Mutex<Option<HashMap<PathBuf, Option<Box<ElfFile>>>>> = Mutex::new(None);

impl SymbolSource for HostedSymbols {
    fn find(&self, symbol: &str) -> Option<Definition> {
        super::definitions::find(symbol)
    }

    fn resolve(&self, pc: usize) -> Option<Symbol> {
        let mut symbols = self.resolve_inlined(pc);
        let innermost = symbols.first_mut()?.location.take();
        // The function that has the code of its own, at the place where the innermost inlined one is.
        symbols.pop().map(|outermost| Symbol { location: innermost.or(outermost.location), ..outermost })
    }

    fn resolve_inlined(&self, pc: usize) -> Vec<Symbol> {
        let Some((path, base)) = containing_file(pc) else { return Vec::new() };
        let module = path.file_name().map(|n| n.to_string_lossy().into_owned());
        let mut files = lock(&FILES);
        let file = files.get_or_insert_with(HashMap::new).entry(path);
        let file = file.or_insert_with_key(|path| ElfFile::open(path).map(Box::new));
        file.as_ref().map(|f| symbols_at(f, pc.wrapping_sub(base) as u64, module)).unwrap_or_default()
    }
}

/// Everything a file says about an address in it.
fn symbols_at(file: &ElfFile, address: u64, module: Option<String>) -> Vec<Symbol> {
    let own = file.symbol(address);
    let offset = own.map(|(start, _)| (address - start) as usize);
    let mut symbols = Vec::new();
    if let Some(mut frames) = file.frames(address) {
        while let Ok(Some(frame)) = frames.next() {
            let name = frame.function.as_ref().and_then(|f| f.raw_name().ok()).map(|n| demangle(&n));
            let location = frame.location.and_then(|l| {
                Some(Location { file: l.file?.to_string(), line: l.line?, column: l.column.unwrap_or(0) })
            });
            // Line tables without function descriptions give a place without a name: the symbol is the name.
            let name = name.or_else(|| own.map(|(_, name)| demangle(name)));
            symbols.extend(name.map(|name| Symbol { name, offset: None, module: module.clone(), location }));
        }
    }
    match symbols.last_mut() {
        Some(outermost) => outermost.offset = offset,
        None => symbols.extend(own.map(|(_, name)| Symbol { name: demangle(name), offset, module, location: None })),
    }
    symbols
}

fn demangle(name: &str) -> String {
    // The alternate form leaves the hash out.
    alloc::format!("{:#}", rustc_demangle::demangle(name))
}

/// The file whose mapping contains an address, and the address its offsets count from.
fn containing_file(pc: usize) -> Option<(PathBuf, usize)> {
    struct Search {
        pc: usize,
        found: Option<(PathBuf, usize)>,
    }

    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid description of one file, whose headers and name are mapped while this
        // runs; `data` is the search below.
        let (info, search) = unsafe { (&*info, &mut *data.cast::<Search>()) };
        // SAFETY: as above.
        let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let base = info.dlpi_addr as usize;
        let contains = headers.iter().filter(|h| h.p_type == libc::PT_LOAD).any(|h| {
            let start = base.wrapping_add(h.p_vaddr as usize);
            search.pc.wrapping_sub(start) < h.p_memsz as usize
        });
        if !contains {
            return 0;
        }
        // SAFETY: as above; the name is terminated.
        let name = unsafe { CStr::from_ptr(info.dlpi_name) };
        let path = match name.to_bytes() {
            b"" => PathBuf::from("/proc/self/exe").canonicalize().ok(),
            bytes => Some(PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))),
        };
        search.found = path.map(|p| (p, base));
        1
    }

    let mut search = Search { pc, found: None };
    // SAFETY: the callback matches its data.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}
