//! An ELF file of the process: its symbols and its DWARF.
//!
//! The file is mapped and stays mapped: names refer to it, and a process has few.

use addr2line::gimli::{Dwarf, EndianSlice, LittleEndian};
use addr2line::{Context, FrameIter};
use alloc::vec::Vec;
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::os::fd::AsRawFd;
use std::path::Path;

type Slice = EndianSlice<'static, LittleEndian>;

/// What a file says about its code.
pub(super) struct ElfFile {
    /// Functions, sorted by address: address, size, name.
    symbols: Vec<(u64, u64, &'static str)>,
    /// File and line of addresses, unless the file is stripped or damaged.
    lines: Option<Context<Slice>>,
}

impl ElfFile {
    /// Reads a file; `None` if it is not there or no ELF file.
    pub fn open(path: &Path) -> Option<ElfFile> {
        let file = object::File::parse(map(path)?).ok()?;
        let mut symbols: Vec<_> = file.symbols().filter_map(function).collect();
        if symbols.is_empty() {
            symbols = file.dynamic_symbols().filter_map(function).collect();
        }
        symbols.sort_unstable();
        let section = |id: addr2line::gimli::SectionId| {
            let bytes = file.section_by_name(id.name()).and_then(|s| s.data().ok()).unwrap_or(&[]);
            Ok::<_, addr2line::gimli::Error>(EndianSlice::new(bytes, LittleEndian))
        };
        let lines = Dwarf::load(section).ok().and_then(|dwarf| Context::from_dwarf(dwarf).ok());
        Some(ElfFile { symbols, lines })
    }

    /// Start and name of the function at an address of the file.
    pub fn symbol(&self, address: u64) -> Option<(u64, &'static str)> {
        let i = self.symbols.partition_point(|s| s.0 <= address);
        let (start, size, name) = *self.symbols.get(i.checked_sub(1)?)?;
        // Assembly often has no size: then the symbol reaches to the next one.
        (size == 0 || address - start < size).then_some((start, name))
    }

    /// The function at an address and those it was inlined into.
    pub fn frames(&self, address: u64) -> Option<FrameIter<'_, Slice>> {
        self.lines.as_ref()?.find_frames(address).skip_all_loads().ok()
    }
}

fn function<'d>(symbol: impl ObjectSymbol<'d>) -> Option<(u64, u64, &'d str)> {
    let is_code = symbol.kind() == SymbolKind::Text && symbol.is_definition();
    is_code.then(|| symbol.name().ok().map(|name| (symbol.address(), symbol.size(), name))).flatten()
}

/// Maps a whole file, for good.
pub(super) fn map(path: &Path) -> Option<&'static [u8]> {
    let file = std::fs::File::open(path).ok()?;
    let size = usize::try_from(file.metadata().ok()?.len()).ok().filter(|s| *s > 0)?;
    // SAFETY: a new private mapping, never unmapped, so the slice is valid for good. The files of a running program
    // are replaced, not written, when it is updated.
    unsafe {
        let p = libc::mmap(core::ptr::null_mut(), size, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
        (p != libc::MAP_FAILED).then(|| core::slice::from_raw_parts(p.cast::<u8>(), size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripped_and_foreign_files_do_no_harm() {
        assert!(ElfFile::open(Path::new("/etc/passwd")).is_none());
        assert!(ElfFile::open(Path::new("/nowhere")).is_none());
        assert!(ElfFile::open(Path::new("/dev/null")).is_none());
        if let Some(stripped) = ElfFile::open(Path::new("/bin/sh")) {
            assert_eq!(stripped.symbol(0), None);
            assert!(
                stripped.frames(0x5000).is_none_or(|mut f| !matches!(f.next(), Ok(Some(f)) if f.location.is_some()))
            );
        }
    }

    #[test]
    fn damaged_files_do_no_harm() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let path = std::env::temp_dir().join(std::format!("runtime_port-elf-{}", std::process::id()));
        for cut in [64, 4096, own.len() / 2, own.len() - 100] {
            std::fs::write(&path, &own[..cut]).unwrap();
            if let Some(file) = ElfFile::open(&path) {
                let _ = (file.symbol(0x1000), file.frames(0x1000).map(|mut f| f.next().is_ok()));
            }
        }
        std::fs::remove_file(&path).unwrap();
    }
}
