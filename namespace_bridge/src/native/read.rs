//! Reading: bytes to [`NativeObject`]. The bytes may be anything at all; the result is consistent or an error.
//!
//! Source of the format: ELF-64 Object File Format 1.5, gABI chapter 4 (sections, groups, symbols), System V psABI x86-64
//! chapter 4. `goblin` takes the structures apart; what they say is checked here.
#![deny(unsafe_code)]

use super::error::NativeError;
use super::implied;
use super::object::{Kind, NativeObject, Part, Relocation, Scope, Section, Symbol, SymbolKind, SymbolPlace};
use super::relocation;
use alloc::{format, string::String, vec, vec::Vec};
use core::ops::Range;
use goblin::container::{Container, Ctx};
use goblin::elf::{
    Elf, RelocSection, SectionHeader, Symtab,
    header::{EM_X86_64, ET_REL},
    section_header::{
        SHF_ALLOC, SHF_EXECINSTR, SHF_TLS, SHF_WRITE, SHN_ABS, SHN_COMMON, SHN_UNDEF, SHN_XINDEX, SHT_FINI_ARRAY,
        SHT_GROUP, SHT_INIT_ARRAY, SHT_NOBITS, SHT_NOTE, SHT_NULL, SHT_PREINIT_ARRAY, SHT_PROGBITS, SHT_REL, SHT_RELA,
        SHT_SYMTAB, SHT_SYMTAB_SHNDX, SHT_X86_64_UNWIND,
    },
    sym::{
        STB_GLOBAL, STB_LOCAL, STB_WEAK, STT_COMMON, STT_FILE, STT_FUNC, STT_GNU_IFUNC, STT_NOTYPE, STT_OBJECT,
        STT_SECTION, STT_TLS, STV_HIDDEN, STV_INTERNAL,
    },
};
use hashbrown::HashSet;
use kernel_config::limits::CELL_BYTES;

/// `STB_GNU_UNIQUE`, of static variables in inline functions of C++: several cells may define one. Each uses its own, since a
/// cell is a link unit.
const STB_GNU_UNIQUE: u8 = 10;
/// `SHF_COMPRESSED` (gABI, figure 4-11).
const SHF_COMPRESSED: u64 = 1 << 11;
/// `GRP_COMDAT` (gABI, "Section Groups").
const GRP_COMDAT: u32 = 1;
/// `SHT_CREL`: relocations in the compact form that is being worked out for the gABI.
const SHT_CREL: u32 = 0x4000_0014;
/// What an object has that holds the compiler's intermediate code instead of functions (GCC; `-ffat-lto-objects` has both, and not this).
const SLIM_LTO: &[u8] = b"__gnu_lto_slim";
/// First index of a section that is none.
const SHN_LORESERVE: usize = 0xff00;
/// Largest alignment of a section: a large page.
const MAX_ALIGN: u64 = 2 << 20;
/// Size of a symbol, and of a relocation with addend.
const SYM_SIZE: u64 = 24;
const RELA_SIZE: u64 = 24;

/// Reads an object.
pub(super) fn read(bytes: Vec<u8>) -> Result<NativeObject, NativeError> {
    let file = File::open(&bytes)?;
    let symbols = file.symbols()?;
    file.refuse_kinds(&symbols)?;
    let discarded = file.discarded(&symbols)?;
    let mut sections = file.sections(&discarded)?;
    let symbols = file.check_symbols(symbols, &sections)?;
    file.relocations(&mut sections, symbols.len())?;
    let mut object = NativeObject { sections, symbols, bytes };
    implied::add(&mut object);
    Ok(object)
}

/// Whether bytes are a cell object that this system's own compiler wrote: it carries metadata.
pub fn is_wasm_cell_object(bytes: &[u8]) -> bool {
    let Ok(file) = File::open(bytes) else { return false };
    file.headers.iter().any(|h| file.name(h).is_ok_and(|n| bytes.get(n) == Some(b".planks.metadata")))
}

fn damaged<T>(text: impl Into<String>) -> Result<T, NativeError> {
    Err(NativeError::damaged(text))
}

/// The structures of a file, before they are believed.
struct File<'a> {
    bytes: &'a [u8],
    context: Ctx,
    headers: Vec<SectionHeader>,
    section_names: Range<usize>,
}

/// A symbol as the file has it, its section index resolved.
struct RawSymbol {
    name: Range<usize>,
    info: u8,
    other: u8,
    section: Option<usize>,
    special: usize,
    value: u64,
    size: u64,
}

impl RawSymbol {
    fn kind(&self) -> u8 {
        self.info & 0xf
    }
}

impl<'a> File<'a> {
    fn open(bytes: &'a [u8]) -> Result<File<'a>, NativeError> {
        let not = |why: &str| NativeError::NotRelocatable(why.into());
        let header = Elf::parse_header(bytes).map_err(|e| NativeError::NotRelocatable(format!("{e}")))?;
        if header.container().ok() != Some(Container::Big) || !header.endianness().is_ok_and(|e| e.is_little()) {
            return Err(not("not 64-bit little-endian"));
        }
        if header.e_machine != EM_X86_64 {
            return Err(not("for another processor"));
        }
        if header.e_type != ET_REL {
            return Err(not("an executable or shared library"));
        }
        let context = Ctx::new(Container::Big, goblin::container::Endian::Little);
        let offset = usize::try_from(header.e_shoff).unwrap_or(usize::MAX);
        if usize::from(header.e_shentsize) != SectionHeader::size(context) || offset == 0 || offset >= bytes.len() {
            return damaged("no section header table");
        }
        // A count of 0 means that the first header has it (gABI, "Extended Section Header").
        let headers = SectionHeader::parse(bytes, offset, header.e_shnum.into(), context)
            .map_err(|_| NativeError::damaged("the section header table leaves the file"))?;
        let names = match usize::from(header.e_shstrndx) {
            n if n == SHN_XINDEX as usize => headers.first().map_or(0, |h| h.sh_link as usize),
            n => n,
        };
        let mut file = File { bytes, context, headers, section_names: 0..0 };
        file.section_names = file.contents(names)?;
        Ok(file)
    }

    /// The bytes of a section in the file.
    fn contents(&self, index: usize) -> Result<Range<usize>, NativeError> {
        let header = self.header(index)?;
        if header.sh_type == SHT_NOBITS {
            return Ok(0..0);
        }
        let range = usize::try_from(header.sh_offset)
            .ok()
            .zip(usize::try_from(header.sh_size).ok())
            .and_then(|(start, size)| Some(start..start.checked_add(size)?))
            .filter(|r| r.end <= self.bytes.len());
        range.ok_or_else(|| NativeError::damaged(format!("section {index} leaves the file")))
    }

    fn header(&self, index: usize) -> Result<&SectionHeader, NativeError> {
        let header = self.headers.get(index).filter(|_| index != 0);
        header.ok_or_else(|| NativeError::damaged(format!("there is no section {index}")))
    }

    /// The string at an offset of a string table, without its end.
    fn string(&self, table: &Range<usize>, offset: u64) -> Result<Range<usize>, NativeError> {
        let start = usize::try_from(offset).ok().and_then(|o| table.start.checked_add(o)).filter(|s| *s < table.end);
        let found = start.and_then(|start| {
            let rest = self.bytes.get(start..table.end)?;
            let length = rest.iter().position(|b| *b == 0)?;
            core::str::from_utf8(rest.get(..length)?).ok()?;
            Some(start..start + length)
        });
        // An object without names may have an empty table.
        match found {
            None if offset == 0 => Ok(0..0),
            None => damaged(format!("there is no name at offset {offset:#x} of a string table")),
            Some(range) => Ok(range),
        }
    }

    fn name(&self, header: &SectionHeader) -> Result<Range<usize>, NativeError> {
        self.string(&self.section_names, header.sh_name as u64)
    }

    fn name_text(&self, index: usize) -> &str {
        let name = self.headers.get(index).and_then(|h| self.name(h).ok());
        name.and_then(|n| core::str::from_utf8(self.bytes.get(n)?).ok()).unwrap_or("?")
    }

    /// The symbol table's index; there is at most one.
    fn symbol_table(&self) -> Result<Option<usize>, NativeError> {
        let mut tables = self.headers.iter().enumerate().filter(|(_, h)| h.sh_type == SHT_SYMTAB).map(|(i, _)| i);
        match (tables.next(), tables.next()) {
            (_, Some(_)) => damaged("it has two symbol tables"),
            (table, None) => Ok(table),
        }
    }

    fn symbols(&self) -> Result<Vec<RawSymbol>, NativeError> {
        let Some(index) = self.symbol_table()? else { return Ok(Vec::new()) };
        let header = self.header(index)?;
        if header.sh_entsize != SYM_SIZE || !header.sh_size.is_multiple_of(SYM_SIZE) {
            return damaged("the symbol table has entries of a strange size");
        }
        let range = self.contents(index)?;
        let names = self.contents(header.sh_link as usize)?;
        let extended = self.headers.iter().position(|h| h.sh_type == SHT_SYMTAB_SHNDX && h.sh_link as usize == index);
        let extended = extended.map(|i| self.contents(i)).transpose()?;
        let table = Symtab::parse(self.bytes, range.start, range.len() / SYM_SIZE as usize, self.context)
            .map_err(|_| NativeError::damaged("the symbol table leaves the file"))?;
        let mut symbols = Vec::with_capacity(table.len());
        for (i, sym) in table.iter().enumerate() {
            let (section, special) = match sym.st_shndx {
                n if n == SHN_XINDEX as usize => {
                    let word =
                        extended.as_ref().and_then(|r| self.bytes.get(r.start + 4 * i..r.end)?.first_chunk::<4>());
                    let word = word.ok_or_else(|| NativeError::damaged("a symbol's section index is missing"))?;
                    (Some(u32::from_le_bytes(*word) as usize), 0)
                }
                n if n == SHN_UNDEF as usize || n >= SHN_LORESERVE => (None, n),
                n => (Some(n), 0),
            };
            if section.is_some_and(|s| s == 0 || s >= self.headers.len()) {
                return damaged(format!("symbol {i} lies in section {section:?}, which does not exist"));
            }
            symbols.push(RawSymbol {
                name: self.string(&names, sym.st_name as u64)?,
                info: sym.st_info,
                other: sym.st_other,
                section,
                special,
                value: sym.st_value,
                size: sym.st_size,
            });
        }
        Ok(symbols)
    }

    /// The members of groups that came second: of two with one signature, the first wins (gABI, "Section Groups"; a cell is
    /// one link unit).
    fn discarded(&self, symbols: &[RawSymbol]) -> Result<Vec<bool>, NativeError> {
        let mut discarded = vec![false; self.headers.len()];
        let mut grouped = vec![false; self.headers.len()];
        let mut signatures: HashSet<&[u8]> = HashSet::new();
        for (index, header) in self.headers.iter().enumerate().filter(|(_, h)| h.sh_type == SHT_GROUP) {
            let bad = || NativeError::damaged(format!("section group {index} is malformed"));
            let bytes = self.bytes.get(self.contents(index)?).ok_or_else(bad)?;
            let mut words = bytes.chunks_exact(4).filter_map(|w| w.first_chunk::<4>()).map(|w| u32::from_le_bytes(*w));
            let flags = words.next().ok_or_else(bad)?;
            let signature = symbols.get(header.sh_info as usize).ok_or_else(bad)?;
            let name = match signature.kind() == STT_SECTION {
                true => self.name(self.header(signature.section.ok_or_else(bad)?)?)?,
                false => signature.name.clone(),
            };
            let first = signatures.insert(self.bytes.get(name).ok_or_else(bad)?);
            for member in words {
                let member = member as usize;
                let seen = grouped.get_mut(member).filter(|_| member != 0 && member != index).ok_or_else(bad)?;
                if core::mem::replace(seen, true) {
                    return Err(bad());
                }
                if flags & GRP_COMDAT != 0 && !first {
                    discarded[member] = true;
                }
            }
        }
        Ok(discarded)
    }

    fn sections(&self, discarded: &[bool]) -> Result<Vec<Section>, NativeError> {
        let mut total = 0usize;
        let mut sections = Vec::with_capacity(self.headers.len());
        for (index, header) in self.headers.iter().enumerate() {
            let mut section =
                Section { name: 0..0, kind: Kind::Skipped, size: 0, align: 1, bytes: 0..0, relocations: Vec::new() };
            if index == 0 {
                sections.push(section);
                continue;
            }
            section.name = self.name(header)?;
            if !discarded.get(index).copied().unwrap_or(false) {
                section.kind = self.kind(index, header)?;
            }
            if section.kind != Kind::Skipped {
                section.bytes = self.contents(index)?;
                section.size = usize::try_from(header.sh_size).unwrap_or(usize::MAX);
                section.align = match header.sh_addralign {
                    0 => 1,
                    a if a.is_power_of_two() && a <= MAX_ALIGN => a as usize,
                    _ => return self.refuse(index, "its alignment is no power of two up to 2 MiB"),
                };
                total = total.saturating_add(section.size).saturating_add(section.align);
                if total > CELL_BYTES {
                    return Err(NativeError::TooLarge(total));
                }
            }
            sections.push(section);
        }
        Ok(sections)
    }

    fn refuse<T>(&self, index: usize, reason: &'static str) -> Result<T, NativeError> {
        Err(NativeError::Section { section: self.name_text(index).into(), reason })
    }

    fn kind(&self, index: usize, header: &SectionHeader) -> Result<Kind, NativeError> {
        let (name, flags) = (self.name_text(index), header.sh_flags);
        let has = |flag: u32| flags & u64::from(flag) != 0;
        if name == ".note.GNU-stack" && has(SHF_EXECINSTR) {
            return self.refuse(index, "it asks for an executable stack. Avoid pointers to nested functions");
        }
        if !has(SHF_ALLOC) || header.sh_type == SHT_NULL || header.sh_type == SHT_NOTE {
            return Ok(Kind::Skipped);
        }
        if flags & SHF_COMPRESSED != 0 {
            return self.refuse(index, "it is compressed. Compile without compressed sections");
        }
        if has(SHF_TLS) {
            return match header.sh_size {
                0 => Ok(Kind::Skipped),
                _ => Err(NativeError::ThreadLocal { symbol: name.into() }),
            };
        }
        if has(SHF_WRITE) && has(SHF_EXECINSTR) {
            return self.refuse(index, "it is writable and executable");
        }
        Ok(match header.sh_type {
            SHT_NOBITS => Kind::Zero,
            SHT_INIT_ARRAY => Kind::Init(priority(name, ".init_array")),
            SHT_FINI_ARRAY => Kind::Fini(priority(name, ".fini_array")),
            SHT_PREINIT_ARRAY => return self.refuse(index, "cells have no code that runs before initialisers"),
            SHT_X86_64_UNWIND => Kind::EhFrame,
            SHT_PROGBITS => match name {
                ".eh_frame" => Kind::EhFrame,
                ".planks.exports" => Kind::Exports,
                ".note.gnu.property" => Kind::Skipped,
                _ if name == ".ctors" || name.starts_with(".ctors.") => Kind::Init(old_priority(name, ".ctors")),
                _ if name == ".dtors" || name.starts_with(".dtors.") => Kind::Fini(old_priority(name, ".dtors")),
                _ if has(SHF_EXECINSTR) => Kind::Plain(Part::Text),
                _ if name.starts_with(".data.rel.ro") => Kind::Plain(Part::Relro),
                _ if has(SHF_WRITE) => Kind::Plain(Part::Data),
                _ => Kind::Plain(Part::Rodata),
            },
            _ => return self.refuse(index, "a section of this type cannot be loaded"),
        })
    }

    /// Refuses what no cell can have, by name.
    fn refuse_kinds(&self, symbols: &[RawSymbol]) -> Result<(), NativeError> {
        if let Some(compact) = self.headers.iter().position(|h| h.sh_type == SHT_CREL) {
            return self.refuse(compact, "compact relocations are not read. Compile without --crel");
        }
        if symbols.iter().any(|s| self.bytes.get(s.name.clone()) == Some(SLIM_LTO)) {
            let holds = |i: &usize| self.name_text(*i).starts_with(".gnu.lto_");
            let section = (0..self.headers.len()).find(holds).unwrap_or(0);
            return self.refuse(section, "it holds the compiler's intermediate code. Compile without -flto");
        }
        for symbol in symbols {
            let name =
                || self.bytes.get(symbol.name.clone()).map_or_else(String::new, |n| String::from_utf8_lossy(n).into());
            match symbol.kind() {
                STT_TLS => return Err(NativeError::ThreadLocal { symbol: name() }),
                STT_GNU_IFUNC => return Err(NativeError::IndirectFunction { symbol: name() }),
                _ => {}
            }
        }
        Ok(())
    }

    fn check_symbols(&self, raw: Vec<RawSymbol>, sections: &[Section]) -> Result<Vec<Symbol>, NativeError> {
        let mut symbols = Vec::with_capacity(raw.len());
        let mut common = 0usize;
        for (i, sym) in raw.into_iter().enumerate() {
            let name = || String::from(core::str::from_utf8(&self.bytes[sym.name.clone()]).unwrap_or("?"));
            let section = sym.section.and_then(|s| sections.get(s));
            let kind = match sym.kind() {
                STT_FUNC => SymbolKind::Function,
                STT_SECTION => SymbolKind::Section,
                // Assembly seldom says what its labels are.
                STT_NOTYPE
                    if section.is_some_and(|s| s.kind == Kind::Plain(Part::Text)) && sym.info >> 4 != STB_LOCAL =>
                {
                    SymbolKind::Function
                }
                STT_NOTYPE | STT_OBJECT | STT_COMMON | STT_FILE => SymbolKind::Data,
                _ => return damaged(format!("symbol {i} (`{}`) is of an unknown type", name())),
            };
            let scope = match sym.info >> 4 {
                STB_LOCAL => Scope::Local,
                STB_GLOBAL => Scope::Global,
                STB_WEAK | STB_GNU_UNIQUE => Scope::Weak,
                _ => return damaged(format!("symbol {i} (`{}`) has an unknown binding", name())),
            };
            let mut size = usize::try_from(sym.size).unwrap_or(usize::MAX);
            let place = match (sym.section, sym.special) {
                (Some(index), _) => {
                    let value = usize::try_from(sym.value).unwrap_or(usize::MAX);
                    let room = section.map_or(0, |s| s.size);
                    // Sections that are not loaded have no size here, and their symbols are not used.
                    if section.is_some_and(|s| s.kind != Kind::Skipped) {
                        if value > room {
                            return damaged(format!("symbol `{}` lies behind the end of its section", name()));
                        }
                        size = size.min(room - value);
                    }
                    SymbolPlace::Section(index, value)
                }
                (None, n) if n == SHN_UNDEF as usize => SymbolPlace::Undefined,
                (None, n) if n == SHN_ABS as usize => SymbolPlace::Absolute(sym.value),
                (None, n) if n == SHN_COMMON as usize => {
                    let align = usize::try_from(sym.value).unwrap_or(0).max(1);
                    common = common.saturating_add(size).saturating_add(align);
                    if !align.is_power_of_two() || align as u64 > MAX_ALIGN || common > CELL_BYTES {
                        return damaged(format!("common symbol `{}` has a strange size or alignment", name()));
                    }
                    SymbolPlace::Common(align)
                }
                (None, n) => {
                    return damaged(format!("symbol `{}` lies in section {n:#x}, which means nothing here", name()));
                }
            };
            let hidden = matches!(sym.other & 3, STV_HIDDEN | STV_INTERNAL);
            symbols.push(Symbol { name: sym.name, place, kind, scope, hidden, size });
        }
        Ok(symbols)
    }

    fn relocations(&self, sections: &mut [Section], symbols: usize) -> Result<(), NativeError> {
        for (index, header) in self.headers.iter().enumerate() {
            if header.sh_type != SHT_RELA && header.sh_type != SHT_REL {
                continue;
            }
            let target = header.sh_info as usize;
            let Some(section) = sections.get_mut(target).filter(|_| target != 0) else {
                return damaged(format!("relocations {index} are for section {target}, which does not exist"));
            };
            if section.kind == Kind::Skipped {
                continue;
            }
            if header.sh_type == SHT_REL {
                return self.refuse(index, "relocations without addends are not x86-64's");
            }
            if header.sh_entsize != RELA_SIZE || !header.sh_size.is_multiple_of(RELA_SIZE) {
                return damaged(format!("relocations {index} have entries of a strange size"));
            }
            if Some(header.sh_link as usize) != self.symbol_table()? {
                return damaged(format!("relocations {index} belong to no symbol table"));
            }
            let range = self.contents(index)?;
            let table = RelocSection::parse(self.bytes, range.start, range.len(), true, self.context)
                .map_err(|_| NativeError::damaged(format!("relocations {index} leave the file")))?;
            section.relocations.reserve_exact(table.len());
            for entry in table.iter() {
                let offset = usize::try_from(entry.r_offset).unwrap_or(usize::MAX);
                let width = relocation::width(entry.r_type);
                let fits =
                    offset.checked_add(width).is_some_and(|end| end <= section.size) && section.kind != Kind::Zero;
                if entry.r_type != goblin::elf::reloc::R_X86_64_NONE && (!fits || entry.r_sym >= symbols) {
                    return damaged(format!(
                        "a relocation at {offset:#x} of `{}` leads nowhere",
                        self.name_text(target)
                    ));
                }
                if entry.r_type != goblin::elf::reloc::R_X86_64_NONE {
                    let addend = entry.r_addend.unwrap_or(0);
                    section.relocations.push(Relocation { offset, typ: entry.r_type, symbol: entry.r_sym, addend });
                }
            }
            section.relocations.sort_by_key(|r| r.offset);
        }
        Ok(())
    }
}

/// The number behind a section's name, `.init_array.00101`; without one, the last.
fn priority(name: &str, prefix: &str) -> u32 {
    let number = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')).and_then(|n| n.parse::<u16>().ok());
    number.map_or(u32::from(u16::MAX) + 1, u32::from)
}

/// The same for `.ctors` and `.dtors`, whose numbers count down.
fn old_priority(name: &str, prefix: &str) -> u32 {
    match priority(name, prefix) {
        number if number <= u32::from(u16::MAX) => u32::from(u16::MAX) - number,
        last => last,
    }
}
