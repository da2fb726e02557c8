//! A native object as text: its sections, functions and machine code, with the symbols that relocations name.

use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};
use object::{Object, ObjectSection, ObjectSymbol, RelocationFlags, RelocationTarget, SectionKind, SymbolKind};
use rustc_demangle::demangle;

/// A function of an object.
pub struct Function {
    /// Its symbol, demangled.
    pub name: String,
    /// Name of its section.
    pub section: String,
    /// Offset in the section.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// Whether other objects can use it.
    pub global: bool,
    section_index: object::SectionIndex,
}

/// One instruction.
pub struct Line {
    /// Offset in the section.
    pub offset: u64,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// In Intel's notation.
    pub text: String,
    /// The relocation in it: type, symbol, addend.
    pub note: Option<String>,
}

/// A native object.
pub struct NativeListing<'a> {
    file: object::File<'a>,
}

impl<'a> NativeListing<'a> {
    /// Reads an object.
    pub fn new(bytes: &'a [u8]) -> Result<NativeListing<'a>, String> {
        Ok(NativeListing { file: object::File::parse(bytes).map_err(|e| e.to_string())? })
    }

    /// The defined functions, in the order of sections and offsets.
    pub fn functions(&self) -> Vec<Function> {
        let defined = self.file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.is_definition());
        let mut functions: Vec<Function> = defined
            .filter_map(|s| {
                let section_index = s.section_index()?;
                let section = self.file.section_by_index(section_index).ok()?;
                Some(Function {
                    name: demangle(s.name().ok()?).to_string(),
                    section: section.name().ok()?.into(),
                    offset: s.address(),
                    size: s.size(),
                    global: s.is_global(),
                    section_index,
                })
            })
            .collect();
        functions.sort_by_key(|f| (f.section_index.0, f.offset));
        functions
    }

    /// Bytes of code.
    pub fn code_size(&self) -> u64 {
        self.file.sections().filter(|s| s.kind() == SectionKind::Text).map(|s| s.size()).sum()
    }

    /// The instructions of a function.
    pub fn lines(&self, function: &Function) -> Vec<Line> {
        let Ok(section) = self.file.section_by_index(function.section_index) else { return Vec::new() };
        let data = section.data().unwrap_or_default();
        let end = (function.offset.saturating_add(function.size)).min(data.len() as u64);
        let Some(code) = data.get(function.offset as usize..end as usize) else { return Vec::new() };
        let relocations: Vec<(u64, String)> = section
            .relocations()
            .filter(|(at, _)| (function.offset..end).contains(at))
            .map(|(at, r)| (at, self.describe(&r)))
            .collect();
        let mut decoder = Decoder::with_ip(64, code, function.offset, DecoderOptions::NONE);
        let mut formatter = NasmFormatter::new();
        formatter.options_mut().set_hex_prefix("0x");
        formatter.options_mut().set_hex_suffix("");
        formatter.options_mut().set_branch_leading_zeros(false);
        formatter.options_mut().set_space_after_operand_separator(true);
        let mut lines = Vec::new();
        while decoder.can_decode() {
            let instruction = decoder.decode();
            let mut text = String::new();
            formatter.format(&instruction, &mut text);
            let at = (instruction.ip() - function.offset) as usize;
            let range = instruction.ip()..instruction.next_ip();
            let note = relocations.iter().find(|(place, _)| range.contains(place)).map(|(_, note)| note.clone());
            let bytes = code.get(at..at + instruction.len()).unwrap_or_default().to_vec();
            lines.push(Line { offset: instruction.ip(), bytes, text, note });
        }
        lines
    }

    fn describe(&self, relocation: &object::Relocation) -> String {
        let symbol = match relocation.target() {
            RelocationTarget::Symbol(i) => self.file.symbol_by_index(i).ok(),
            _ => None,
        };
        let name = symbol.map(|s| match s.section_index().filter(|_| s.kind() == SymbolKind::Section) {
            Some(section) => {
                self.file.section_by_index(section).ok().and_then(|s| s.name().ok()).unwrap_or("?").to_string()
            }
            None => demangle(s.name().unwrap_or("?")).to_string(),
        });
        let kind = match relocation.flags() {
            RelocationFlags::Elf { r_type } => namespace_bridge::native::relocation_name(r_type.0),
            other => format!("{other:?}"),
        };
        let addend = match relocation.addend() {
            0 => String::new(),
            n => format!("{n:+#x}"),
        };
        format!("{kind} {}{addend}", name.unwrap_or_default())
    }
}
