//! Reading: ELF bytes to [`CellObject`], or to what a loader needs of it. The input may be anything at all.

use super::{METADATA_MAGIC, METADATA_PREFIX, TERMINATOR, name, section};
use crate::header::ObjectHeader;
use crate::metadata::Metadata;
use crate::object::{CellObject, DataReference, Loadable, Symbol};
use crate::reuse::ReuseTable;
use crate::{CompileError, codec};
use alloc::{format, string::String, vec::Vec};
use kernel_config::cell::OBJECT_FORMAT_VERSION;
use kernel_config::limits;
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, Rela, SectionHeader, Sym};
use object::{LittleEndian, SectionIndex, SymbolIndex};

type File<'a> = ElfFile64<'a, LittleEndian>;
type Section = elf::SectionHeader64<LittleEndian>;
const LE: LittleEndian = LittleEndian;

/// More than `to_elf` writes; few enough to search them by name.
const MAX_SECTIONS: usize = 64;

impl CellObject {
    /// The object that [`CellObject::to_elf`] wrote. Whatever the bytes are, the result is consistent
    /// ([`CellObject::validate`]) or an error, and no more memory is allocated than a fixed multiple of their number.
    ///
    /// Consistent does not mean trustworthy: the machine code is taken as it is. Check the seal first
    /// ([`crate::seal::verify`]) unless the bytes come straight from a compiler.
    ///
    /// # Errors
    /// [`CompileError::Object`] with what is wrong and where. Recompile the module.
    pub fn from_elf(bytes: &[u8]) -> Result<CellObject, CompileError> {
        let read = || -> Result<CellObject, String> {
            let file = parse(bytes)?;
            let sections = Sections { file: &file, bytes };
            let Loadable { header, text, rodata, metadata, reuse } = sections.loadable()?;
            let (bss_index, _) = sections.find(section::BSS)?;
            let (text_index, _) = sections.find(section::TEXT)?;
            Ok(CellObject {
                header,
                text: text.into_owned(),
                rodata: rodata.into_owned(),
                symbols: symbols(&file, text_index, bytes.len())?,
                data_references: sections.data_references(bss_index)?,
                metadata,
                reuse,
            })
        };
        let object = read().map_err(CompileError::Object)?;
        object.validate()?;
        Ok(object)
    }
}

impl<'a> Loadable<'a> {
    /// What [`CellObject::from_elf`] reads but for symbols and relocations, which only other tools use: they are not looked at.
    ///
    /// # Errors
    /// As for [`CellObject::from_elf`].
    pub fn from_elf(bytes: &'a [u8]) -> Result<Loadable<'a>, CompileError> {
        let file = parse(bytes).map_err(CompileError::Object)?;
        let loadable = Sections { file: &file, bytes }.loadable().map_err(CompileError::Object)?;
        loadable.validate()?;
        Ok(loadable)
    }
}

fn parse(bytes: &[u8]) -> Result<File<'_>, String> {
    let file = File::parse(bytes).map_err(|e| format!("no ELF64 file: {e}"))?;
    let header = file.elf_header();
    if header.e_type(LE) != elf::ET_REL || header.e_machine(LE) != elf::EM_X86_64 {
        return Err("no relocatable x86-64 ELF file".into());
    }
    if file.elf_section_table().len() > MAX_SECTIONS {
        return Err(format!("more than {MAX_SECTIONS} sections"));
    }
    Ok(file)
}

/// The parts of the metadata section.
fn metadata(bytes: &[u8]) -> Result<(ObjectHeader, Metadata), String> {
    let prefix = bytes.get(..METADATA_PREFIX).ok_or("the metadata section is too short")?;
    let version = prefix.strip_prefix(&METADATA_MAGIC).ok_or("the metadata section has no magic number")?;
    if version != OBJECT_FORMAT_VERSION.to_le_bytes() {
        let found = version.iter().rev().fold(0u32, |n, b| n << 8 | u32::from(*b));
        return Err(format!("object format version {found}, this system reads {OBJECT_FORMAT_VERSION}"));
    }
    let words = |e: CompileError| format!("{e}");
    let rest = bytes.get(METADATA_PREFIX..).unwrap_or_default();
    let (header, used) = codec::decode::<ObjectHeader>(rest).map_err(words)?;
    let rest = rest.get(used..).unwrap_or_default();
    let (metadata, used) = codec::decode::<Metadata>(rest).map_err(words)?;
    if used != rest.len() {
        return Err("bytes after the metadata".into());
    }
    Ok((header, metadata))
}

struct Sections<'f, 'a> {
    file: &'f File<'a>,
    bytes: &'a [u8],
}

impl<'a> Sections<'_, 'a> {
    fn loadable(&self) -> Result<Loadable<'a>, String> {
        // The version stands before everything that could have changed with it.
        let (header, metadata) = metadata(self.contents(section::METADATA)?)?;
        let text = self.contents(section::TEXT)?;
        let rodata = self.contents(section::RODATA)?;
        let eh_frame = self.contents(section::EH_FRAME)?;
        if text.len() + rodata.len() + eh_frame.len() > limits::CELL_BYTES {
            return Err(format!("larger than {} bytes (kernel_config::limits::CELL_BYTES)", limits::CELL_BYTES));
        }
        let (_, bss) = self.find(section::BSS)?;
        if bss.sh_size(LE) != u64::from(metadata.image.data_size) {
            return Err("the size of .bss is not the data block's".into());
        }
        let split = metadata.image.eh_frame_offset.checked_sub(metadata.image.rodata_offset);
        if split.map(|at| at as usize) != Some(rodata.len()) {
            return Err("the size of .rodata does not match the image layout".into());
        }
        let rodata = [rodata, eh_frame, &TERMINATOR].concat();
        Ok(Loadable { header, text: text.into(), rodata: rodata.into(), metadata, reuse: self.reuse_table()? })
    }

    /// The only section of this name.
    fn find(&self, name: &[u8]) -> Result<(SectionIndex, &'a Section), String> {
        let table = self.file.elf_section_table();
        let mut found = table.enumerate().filter(|(_, s)| table.section_name(LE, s) == Ok(name));
        let shown = || String::from_utf8_lossy(name).into_owned();
        let first = found.next().ok_or_else(|| format!("no section {}", shown()))?;
        match found.next() {
            None => Ok(first),
            Some(_) => Err(format!("two sections {}", shown())),
        }
    }

    fn contents(&self, name: &[u8]) -> Result<&'a [u8], String> {
        let bad = |what: &str| format!("section {}: {what}", String::from_utf8_lossy(name));
        let (_, section) = self.find(name)?;
        if section.sh_type(LE) != elf::SHT_PROGBITS {
            return Err(bad("not a PROGBITS section"));
        }
        section.data(LE, self.bytes).map_err(|_| bad("outside the file"))
    }

    /// The section that a later version needs, if there is one.
    fn reuse_table(&self) -> Result<ReuseTable, String> {
        let table = self.file.elf_section_table();
        if !table.iter().any(|s| table.section_name(LE, s) == Ok(section::REUSE)) {
            return Ok(ReuseTable::default());
        }
        let bytes = self.contents(section::REUSE)?;
        let (reuse, used) = codec::decode::<ReuseTable>(bytes).map_err(|e| format!("{e}"))?;
        if used != bytes.len() {
            return Err(format!("bytes after the table in {}", String::from_utf8_lossy(section::REUSE)));
        }
        Ok(reuse)
    }

    /// `.rela.text`, whose relocations all refer to the data block.
    fn data_references(&self, bss: SectionIndex) -> Result<Vec<DataReference>, String> {
        let (_, section) = self.find(section::RELA_TEXT)?;
        let (relocations, _) = section
            .rela(LE, self.bytes)
            .map_err(|e| format!(".rela.text: {e}"))?
            .ok_or(".rela.text: not a RELA section")?;
        let to_bss = |symbol: SymbolIndex| {
            self.file.elf_symbol_table().symbol(symbol).is_ok_and(|s| {
                s.st_type() == elf::STT_SECTION && usize::from(s.st_shndx(LE).0) == bss.0 && s.st_value(LE) == 0
            })
        };
        let reference = |r: &elf::Rela64<LittleEndian>| {
            let symbol = r.symbol(LE, false)?;
            Some(DataReference {
                text_offset: u32::try_from(r.r_offset(LE)).ok()?,
                addend: i32::try_from(r.r_addend(LE)).ok()?,
            })
            .filter(|_| r.r_type(LE, false) == elf::R_X86_64_PC32 && to_bss(symbol))
        };
        relocations
            .iter()
            .map(|r| reference(r).ok_or_else(|| format!(".rela.text: unexpected relocation at {:#x}", r.r_offset(LE))))
            .collect()
    }
}

/// The function symbols of the text section, by offset. Their names together are at most `max_names` bytes long: without
/// this bound, many symbols that share one long string would take memory quadratic in the size of the file.
fn symbols(file: &File<'_>, text: SectionIndex, max_names: usize) -> Result<Vec<Symbol>, String> {
    let table = file.elf_symbol_table();
    let functions = table.iter().filter(|s| s.st_type() == elf::STT_FUNC && usize::from(s.st_shndx(LE).0) == text.0);
    let mut names_left = max_names;
    let mut read = |s: &elf::Sym64<LittleEndian>| {
        let name = s.name(LE, table.strings()).ok()?;
        names_left = names_left.checked_sub(name.len())?;
        let name = core::str::from_utf8(name).ok()?;
        Some(Symbol {
            name: name::unescape(name),
            offset: u32::try_from(s.st_value(LE)).ok()?,
            size: u32::try_from(s.st_size(LE)).ok()?,
            global: s.st_bind() == elf::STB_GLOBAL,
        })
    };
    let mut symbols = functions
        .map(|s| read(s).ok_or_else(|| format!("bad symbol at offset {:#x} of .text", s.st_value(LE))))
        .collect::<Result<Vec<_>, _>>()?;
    symbols.sort_by_key(|s| s.offset);
    Ok(symbols)
}
