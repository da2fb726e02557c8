//! Writing: [`CellObject`] to ELF bytes.

use super::{METADATA_MAGIC, METADATA_PREFIX, TERMINATOR, frames, name, section};
use crate::object::{CellObject, Symbol};
use crate::{CompileError, codec, seal};
use alloc::{borrow::Cow, format, vec::Vec};
use kernel_config::cell::{DATA_ALIGN, FUNCTION_ALIGN, OBJECT_FORMAT_VERSION};
use object::Endianness;
use object::elf::{self, SectionFlags, SectionType, SymbolType};
use object::write::StringId;
use object::write::elf::{FileHeader, Rel, SectionHeader, SectionIndex, SinglePhaseWriter, Sym, SymbolIndex};

/// Section numbers, in the order of [`Layout::write_headers`].
const TEXT: SectionIndex = SectionIndex(1);
const RODATA: SectionIndex = SectionIndex(2);
const EH_FRAME: SectionIndex = SectionIndex(3);
const BSS: SectionIndex = SectionIndex(4);

/// Symbol numbers: the section symbols come first.
const TEXT_SYMBOL: SymbolIndex = SymbolIndex(1);
const BSS_SYMBOL: SymbolIndex = SymbolIndex(3);

/// Name of the data block for debuggers; of another section than the functions, so it may equal a function's name.
const DATA_BLOCK: &[u8] = b"data_block";

/// Bytes of one section header (ELF-64, figure 8).
const SECTION_HEADER_BYTES: u64 = 64;
/// Bytes of the file header (ELF-64, figure 2).
const FILE_HEADER_BYTES: usize = 64;

impl CellObject {
    /// The object as an ELF64 relocatable file. Its trailer is unsealed; see [`crate::seal`].
    ///
    /// # Errors
    /// The object is inconsistent (its `.eh_frame` lies outside rodata or is malformed), or too large for the format.
    pub fn to_elf(&self) -> Result<Vec<u8>, CompileError> {
        let parts = Parts::new(self)?;
        // Names must outlive the writer, which borrows them.
        let names: Vec<Cow<'_, str>> = self.symbols.iter().map(|s| name::escape(&s.name)).collect();
        let file_name = self.metadata.module_name.as_deref().map(name::escape);
        let capacity = self.text.len()
            + self.rodata.len()
            + parts.metadata.len()
            + parts.reuse.len()
            + 64 * self.symbols.len()
            + 2048;
        let mut file = Vec::with_capacity(capacity);
        let mut header = Vec::with_capacity(FILE_HEADER_BYTES);

        let mut writer = SinglePhaseWriter::new_single_phase(Endianness::Little, true, &mut file);
        writer
            .write_file_header(&FileHeader {
                os_abi: elf::ELFOSABI_SYSV,
                e_type: elf::ET_REL,
                e_machine: elf::EM_X86_64,
                ..FileHeader::default()
            })
            .map_err(too_large)?;
        let mut sections = Sections::write_contents(&mut writer, self, &parts);
        sections.write_symbols(&mut writer, self, &names, file_name.as_deref())?;
        sections.write_relocations(&mut writer, self, &parts);
        sections.write_headers(&mut writer, self)?;
        writer.write(&seal::UNSEALED);
        writer.write_file_header_to(&mut header).map_err(too_large)?;
        drop(writer);
        file[..FILE_HEADER_BYTES].copy_from_slice(&header);
        Ok(file)
    }
}

fn too_large(e: object::write::Error) -> CompileError {
    CompileError::Object(format!("cannot be written as ELF: {e}"))
}

/// What the sections hold that the model has in another form.
struct Parts<'a> {
    rodata: &'a [u8],
    eh_frame: &'a [u8],
    fdes: Vec<frames::Fde>,
    metadata: Vec<u8>,
    reuse: Vec<u8>,
}

impl<'a> Parts<'a> {
    fn new(object: &'a CellObject) -> Result<Self, CompileError> {
        let image = &object.metadata.image;
        let (rodata, eh_frame) = image
            .eh_frame_offset
            .checked_sub(image.rodata_offset)
            .and_then(|at| object.rodata.split_at_checked(at as usize))
            .ok_or_else(|| CompileError::Object("its .eh_frame lies outside rodata".into()))?;
        let eh_frame = eh_frame
            .strip_suffix(&TERMINATOR)
            .ok_or_else(|| CompileError::Object("its .eh_frame has no terminator".into()))?;
        let fdes = frames::fdes(eh_frame).map_err(CompileError::Object)?;

        let mut metadata = Vec::from(METADATA_MAGIC);
        metadata.extend(OBJECT_FORMAT_VERSION.to_le_bytes());
        debug_assert_eq!(metadata.len(), METADATA_PREFIX);
        metadata.extend(codec::encode(&object.header)?);
        metadata.extend(codec::encode(&object.metadata)?);
        let reuse = codec::encode(&object.reuse)?;
        Ok(Parts { rodata, eh_frame, fdes, metadata, reuse })
    }
}

/// A section whose contents are written and whose header is still to come.
#[derive(Clone, Copy)]
struct Written {
    name: StringId,
    offset: u64,
    size: u64,
}

/// Where everything was written.
struct Sections {
    text: Written,
    rodata: Written,
    eh_frame: Written,
    bss: Written,
    metadata: Written,
    reuse: Written,
    stack: Written,
    rela_text: (StringId, u64),
    rela_eh_frame: (StringId, u64),
    seal: StringId,
    fde_count: usize,
    local_symbols: u32,
}

impl Sections {
    fn write_contents(writer: &mut SinglePhaseWriter<'_>, object: &CellObject, parts: &Parts<'_>) -> Self {
        let mut write = |name: &'static [u8], align: u64, data: &[u8]| {
            let name = writer.add_section_name(name);
            let offset = writer.write_align(align);
            writer.write(data);
            Written { name, offset, size: data.len() as u64 }
        };
        Sections {
            text: write(section::TEXT, FUNCTION_ALIGN as u64, &object.text),
            rodata: write(section::RODATA, 16, parts.rodata),
            eh_frame: write(section::EH_FRAME, 8, parts.eh_frame),
            bss: Written { size: object.metadata.image.data_size.into(), ..write(section::BSS, 1, &[]) },
            metadata: write(section::METADATA, 8, &parts.metadata),
            reuse: write(section::REUSE, 8, &parts.reuse),
            stack: write(section::GNU_STACK, 1, &[]),
            rela_text: (writer.add_section_name(section::RELA_TEXT), 0),
            rela_eh_frame: (writer.add_section_name(section::RELA_EH_FRAME), 0),
            seal: writer.add_section_name(section::SEAL),
            fde_count: parts.fdes.len(),
            local_symbols: 0,
        }
    }

    /// The symbol table: sections, the module's name as file, the data block, local functions, then global ones (locals
    /// must come first).
    fn write_symbols<'a>(
        &mut self,
        writer: &mut SinglePhaseWriter<'a>,
        object: &CellObject,
        names: &'a [Cow<'a, str>],
        file_name: Option<&'a str>,
    ) -> Result<(), CompileError> {
        let mut count = 1;
        writer.write_null_symbol();
        for section in [TEXT, RODATA, BSS] {
            writer.write_symbol(&symbol(elf::STT_SECTION, Some(section)));
            count += 1;
        }
        if let Some(file_name) = file_name {
            let name = writer.add_string(file_name.as_bytes());
            let st_name = writer.string_offset(Some(name));
            writer.write_symbol(&Sym { st_name, st_shndx: elf::SHN_ABS, ..symbol(elf::STT_FILE, None) });
            count += 1;
        }
        let data_block = writer.add_string(DATA_BLOCK);
        writer.write_symbol(&Sym {
            st_name: writer.string_offset(Some(data_block)),
            st_size: object.metadata.image.data_size.into(),
            ..symbol(elf::STT_OBJECT, Some(BSS))
        });
        count += 1;
        let mut functions = |global: bool| {
            let mut count = 0;
            for (Symbol { offset, size, .. }, name) in
                object.symbols.iter().zip(names).filter(|(s, _)| s.global == global)
            {
                let name = writer.add_string(name.as_bytes());
                let bind = if global { elf::STB_GLOBAL } else { elf::STB_LOCAL };
                writer.write_symbol(&Sym {
                    st_name: writer.string_offset(Some(name)),
                    st_info: elf::SymbolInfo::new(bind, elf::STT_FUNC),
                    st_value: (*offset).into(),
                    st_size: (*size).into(),
                    ..symbol(elf::STT_FUNC, Some(TEXT))
                });
                count += 1;
            }
            count
        };
        self.local_symbols = count + functions(false);
        functions(true);
        writer.write_strtab().map_err(too_large)?;
        Ok(())
    }

    fn write_relocations(&mut self, writer: &mut SinglePhaseWriter<'_>, object: &CellObject, parts: &Parts<'_>) {
        let pc32 = |offset: u32, symbol: SymbolIndex, addend: i64| Rel {
            r_offset: offset.into(),
            r_sym: symbol.0,
            r_type: elf::R_X86_64_PC32,
            r_addend: addend,
        };
        self.rela_text.1 = writer.write_align_relocation();
        for r in &object.data_references {
            writer.write_relocation(true, &pc32(r.text_offset, BSS_SYMBOL, r.addend.into()));
        }
        self.rela_eh_frame.1 = writer.write_align_relocation();
        let section = i64::from(object.metadata.image.eh_frame_offset);
        for fde in &parts.fdes {
            // The text section is at 0 of the image, so the address that the field yields is the offset in it.
            let target = section + i64::from(fde.pc_begin_field) + i64::from(fde.pc_begin);
            writer.write_relocation(true, &pc32(fde.pc_begin_field, TEXT_SYMBOL, target));
        }
    }

    fn write_headers(&self, writer: &mut SinglePhaseWriter<'_>, object: &CellObject) -> Result<(), CompileError> {
        writer.write_shstrtab().map_err(too_large)?;
        let start = writer.write_null_section_header();
        let mut header = |s: &Written, sh_type: SectionType, sh_flags: SectionFlags, sh_addralign: usize| {
            writer.write_section_header(&SectionHeader {
                sh_name: writer.section_name_offset(Some(s.name)),
                sh_type,
                sh_flags,
                sh_offset: s.offset,
                sh_size: s.size,
                sh_addralign: sh_addralign as u64,
                ..SectionHeader::default()
            })
        };
        const NONE: SectionFlags = SectionFlags(0);
        let text = header(&self.text, elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_EXECINSTR, FUNCTION_ALIGN);
        let rodata = header(&self.rodata, elf::SHT_PROGBITS, elf::SHF_ALLOC, 16);
        let eh_frame = header(&self.eh_frame, elf::SHT_PROGBITS, elf::SHF_ALLOC, 8);
        let bss = header(&self.bss, elf::SHT_NOBITS, elf::SHF_ALLOC | elf::SHF_WRITE, DATA_ALIGN);
        debug_assert_eq!([text, rodata, eh_frame, bss], [TEXT, RODATA, EH_FRAME, BSS]);
        header(&self.metadata, elf::SHT_PROGBITS, NONE, 8);
        header(&self.reuse, elf::SHT_PROGBITS, NONE, 8);
        header(&self.stack, elf::SHT_PROGBITS, NONE, 1);

        let strtab = BSS.0 + 4;
        let symtab = SectionIndex(strtab + 1);
        writer.write_strtab_section_header();
        writer.write_symtab_section_header(self.local_symbols);
        let (name, offset) = self.rela_text;
        writer.write_relocation_section_header(name, TEXT, symtab, offset, object.data_references.len(), true);
        let (name, offset) = self.rela_eh_frame;
        writer.write_relocation_section_header(name, EH_FRAME, symtab, offset, self.fde_count, true);
        writer.write_shstrtab_section_header();
        // This header is the last; the seal follows it and ends the file.
        let end = start + SECTION_HEADER_BYTES * u64::from(symtab.0 + 5);
        writer.write_section_header(&SectionHeader {
            sh_name: writer.section_name_offset(Some(self.seal)),
            sh_type: elf::SHT_PROGBITS,
            sh_offset: end,
            sh_size: seal::TRAILER_BYTES as u64,
            sh_addralign: 1,
            ..SectionHeader::default()
        });
        debug_assert_eq!(writer.offset(), end);
        Ok(())
    }
}

/// A local symbol without a name, at the start of `section`.
fn symbol(kind: SymbolType, section: Option<SectionIndex>) -> Sym {
    Sym {
        section: section.map(|s| s.0),
        st_name: 0,
        st_info: elf::SymbolInfo::new(elf::STB_LOCAL, kind),
        st_other: elf::SymbolOther::default(),
        st_shndx: elf::SHN_UNDEF,
        st_value: 0,
        st_size: 0,
    }
}
