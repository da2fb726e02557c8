//! What the process's own symbols mean: those of the executable, then those of the libraries it was started with.
//!
//! The executable's symbol table has every function that the linker kept, also those that no library could see. It is read
//! when a symbol is first asked for. A stripped executable has only what the dynamic linker knows.

use super::elf_file::map;
use crate::backtrace::Definition;
use core::ffi::{CStr, c_int, c_void};
use object::{Object, ObjectSymbol, SymbolKind};
use std::collections::HashMap;
use std::ffi::CString;
use std::path::Path;
use std::sync::OnceLock;

/// Symbols of the executable. Of two with one name a global one counts; of several local ones none does.
static EXECUTABLE: OnceLock<HashMap<&'static str, Known>> = OnceLock::new();

#[derive(Clone, Copy)]
struct Known {
    definition: Definition,
    rank: Rank,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Ambiguous,
    Local,
    Global,
}

/// What has this symbol.
pub(super) fn find(symbol: &str) -> Option<Definition> {
    let own = EXECUTABLE.get_or_init(|| read().unwrap_or_default()).get(symbol);
    own.filter(|k| k.rank != Rank::Ambiguous).map(|k| k.definition).or_else(|| in_libraries(symbol))
}

fn read() -> Option<HashMap<&'static str, Known>> {
    let file = object::File::parse(map(Path::new("/proc/self/exe"))?).ok()?;
    let base = executable_base();
    let mut known: HashMap<&'static str, Known> = HashMap::new();
    for symbol in file.symbols().filter(|s| s.is_definition()) {
        let is_function = match symbol.kind() {
            SymbolKind::Text => true,
            SymbolKind::Data => false,
            _ => continue,
        };
        let Ok(name) = symbol.name() else { continue };
        let address = base.wrapping_add(symbol.address() as usize);
        let definition = Definition { address, size: symbol.size() as usize, is_function };
        let rank = if symbol.is_local() { Rank::Local } else { Rank::Global };
        let entry = known.entry(name).or_insert(Known { definition, rank });
        if entry.definition == definition {
            continue;
        }
        match (entry.rank, rank) {
            (Rank::Global, _) => {}
            (_, Rank::Global) => *entry = Known { definition, rank },
            _ => entry.rank = Rank::Ambiguous,
        }
    }
    Some(known)
}

/// What the addresses of the executable's symbols count from.
fn executable_base() -> usize {
    unsafe extern "C" fn first(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid description; `data` is the word below. The executable comes first.
        unsafe { *data.cast::<usize>() = (*info).dlpi_addr as usize };
        1
    }
    let mut base = 0usize;
    // SAFETY: the callback matches its data.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut base).cast()) };
    base
}

fn in_libraries(symbol: &str) -> Option<Definition> {
    let name = CString::new(symbol).ok()?;
    // SAFETY: the name is terminated.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, CStr::as_ptr(&name)) } as usize;
    (address != 0).then(|| Definition { address, size: 0, is_function: is_executable(address) })
}

/// Whether an address lies in code of a loaded file.
fn is_executable(address: usize) -> bool {
    struct Search {
        address: usize,
        found: bool,
    }
    unsafe extern "C" fn visit(info: *mut libc::dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
        // SAFETY: the loader passes a valid description of one file, whose headers are mapped while this runs; `data` is
        // the search below.
        let (info, search) = unsafe { (&*info, &mut *data.cast::<Search>()) };
        // SAFETY: as above.
        let headers = unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        search.found = headers.iter().any(|h| {
            let start = (info.dlpi_addr as usize).wrapping_add(h.p_vaddr as usize);
            h.p_type == libc::PT_LOAD
                && h.p_flags & libc::PF_X != 0
                && search.address.wrapping_sub(start) < h.p_memsz as usize
        });
        c_int::from(search.found)
    }
    let mut search = Search { address, found: false };
    // SAFETY: the callback matches its data.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_executable_and_of_its_libraries_are_found_by_symbol() {
        let personality = find("rust_eh_personality").expect("std has it");
        assert!(personality.is_function && personality.size > 0);
        let getpid = find("getpid").expect("libc has it");
        assert!(getpid.is_function);
        // SAFETY: this is what `getpid` is.
        let call: extern "C" fn() -> i32 = unsafe { core::mem::transmute(getpid.address) };
        assert_eq!(call() as u32, std::process::id());
        assert!(!find("environ").expect("libc has it").is_function);
        assert_eq!(find("no_such_symbol_anywhere"), None);
        assert_eq!(find("a\0b"), None);
    }
}
