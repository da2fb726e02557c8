//! Machine code of a cell object as text, with the names of what it refers to.

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, Mnemonic, NasmFormatter, OpKind, Register};
use std::collections::BTreeMap;
use wasm_cell::CellObject;
use wasm_cell::abi::{HEADER_INSTANCE, HEADER_RAISE};
use wasm_cell::metadata::{CodePlace, DefinedFunc, Metadata};

/// One instruction.
pub struct Line<'a> {
    /// Offset in the text section.
    pub offset: u32,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// In Intel's notation.
    pub text: String,
    /// The wasm instruction it belongs to, where the address map says so.
    pub wasm_offset: Option<u32>,
    /// What it refers to: a function, a trap, a word of the data block.
    pub note: Option<String>,
}

/// The code of an object.
pub struct Listing<'a> {
    object: &'a CellObject,
    /// Words of the data block by offset: what each is.
    words: BTreeMap<u32, (u32, String)>,
    /// Where the trap stubs begin.
    stubs: u32,
}

/// Bytes in hexadecimal, with spaces.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")
}

impl<'a> Listing<'a> {
    /// Prepares the listing of an object.
    pub fn new(object: &'a CellObject) -> Listing<'a> {
        let m = &object.metadata;
        let stubs = m.funcs.last().map_or(0, |f| f.offset + f.size);
        Listing { object, words: words(m), stubs }
    }

    fn metadata(&self) -> &'a Metadata {
        &self.object.metadata
    }

    /// Indices and names of the defined functions.
    pub fn functions(&self) -> impl Iterator<Item = (u32, String)> {
        let imported = self.metadata().imported_funcs.len() as u32;
        (0..self.metadata().funcs.len() as u32).map(move |i| (imported + i, self.name(imported + i)))
    }

    fn name(&self, function: u32) -> String {
        let m = self.metadata();
        let defined = (function as usize).checked_sub(m.imported_funcs.len());
        let symbol = defined.and_then(|i| m.funcs.get(i)).and_then(|f| {
            let at = self.object.symbols.binary_search_by_key(&f.offset, |s| s.offset).ok()?;
            Some(self.object.symbols[at].name.clone())
        });
        symbol.or_else(|| m.func_name(function).map(str::to_string)).unwrap_or_else(|| format!("wasm[{function}]"))
    }

    /// Where a defined function lies, and its type.
    pub fn describe(&self, function: u32) -> (DefinedFunc, String) {
        let m = self.metadata();
        let i = function as usize - m.imported_funcs.len();
        (m.funcs[i], m.func_type(function).map(|t| t.to_string()).unwrap_or_default())
    }

    /// The instructions of a defined function.
    pub fn lines(&self, function: u32) -> impl Iterator<Item = Line<'a>> {
        let (place, _) = self.describe(function);
        let object = self.object;
        let start = place.offset as usize;
        let code = object.text.get(start..start + place.size as usize).unwrap_or_default();
        let mut decoder = Decoder::with_ip(64, code, u64::from(place.offset), DecoderOptions::NONE);
        let mut formatter = NasmFormatter::new();
        formatter.options_mut().set_rip_relative_addresses(false);
        formatter.options_mut().set_hex_prefix("0x");
        formatter.options_mut().set_hex_suffix("");
        formatter.options_mut().set_branch_leading_zeros(false);
        formatter.options_mut().set_space_after_operand_separator(true);
        std::iter::from_fn(move || decoder.can_decode().then(|| decoder.decode()))
            .map(|instruction| {
                let offset = instruction.ip() as u32;
                let at = (offset - place.offset) as usize;
                let mut text = String::new();
                formatter.format(&instruction, &mut text);
                (
                    instruction,
                    Line { offset, bytes: &code[at..at + instruction.len()], text, wasm_offset: None, note: None },
                )
            })
            .collect::<Vec<_>>()
            .into_iter()
            .map(|(instruction, line)| self.annotate(&instruction, line))
            .collect::<Vec<_>>()
            .into_iter()
    }

    fn annotate(&self, i: &Instruction, mut line: Line<'a>) -> Line<'a> {
        let m = self.metadata();
        let next = line.offset + line.bytes.len() as u32;
        // The row of a call is its return address; other rows are the instruction's own.
        let is_call = i.mnemonic() == Mnemonic::Call;
        let own = m.addresses.binary_search_by_key(&line.offset, |a| a.code_offset).ok();
        let after = is_call.then(|| m.addresses.binary_search_by_key(&next, |a| a.code_offset).ok()).flatten();
        let site = m.traps.lookup(line.offset).or_else(|| is_call.then(|| m.traps.lookup(next)).flatten());
        line.wasm_offset = after.or(own).map(|r| m.addresses[r].wasm_offset).or(site.map(|s| s.wasm_offset));
        let traps = site.map(|s| format!("trap: {}", s.code));
        let note = traps.or_else(|| self.target(i)).or_else(|| self.word(i));
        let place = match after {
            Some(_) => m.place(next, false),
            None => own.map(|_| line.offset).or(site.map(|s| s.code_offset)).and_then(|offset| m.place(offset, true)),
        };
        line.note = match (note, place.and_then(|place| self.inlined(place))) {
            (Some(note), Some(callee)) => Some(format!("{note} (inlined {callee})")),
            (None, Some(callee)) => Some(format!("inlined {callee}")),
            (note, None) => note,
        };
        line
    }

    /// The function whose code stands here in place of a call.
    fn inlined(&self, place: CodePlace) -> Option<String> {
        place.call?;
        Some(self.name(self.metadata().func_of(place.wasm_offset)?))
    }

    /// The function that a direct call or jump leaves for.
    fn target(&self, i: &Instruction) -> Option<String> {
        if !matches!(i.op_kind(0), OpKind::NearBranch64) {
            return None;
        }
        let to = i.near_branch_target() as u32;
        let m = self.metadata();
        if to >= self.stubs {
            return Some("trap stub".into());
        }
        let function = m.func_at(to)?;
        (self.describe(function).0.offset == to).then(|| self.name(function))
    }

    /// The word of the data block that a RIP-relative operand means.
    fn word(&self, i: &Instruction) -> Option<String> {
        if i.memory_base() != Register::RIP {
            return None;
        }
        let image = &self.metadata().image;
        let at = (i.memory_displacement64() as u32).checked_sub(image.data_offset)?;
        let (start, (size, what)) = self.words.range(..=at).next_back()?;
        (at < start + size).then(|| what.clone())
    }
}

fn words(m: &Metadata) -> BTreeMap<u32, (u32, String)> {
    let mut words = BTreeMap::new();
    let mut put = |at: u32, size: u32, what: String| {
        words.insert(at, (size, what));
    };
    let imports: Vec<_> = m.imports.iter().filter(|i| matches!(i.ty, wasm_cell::types::ExternType::Func(_))).collect();
    for (slot, import) in m.layout.func_import_slots.iter().zip(&imports) {
        put(*slot, 8, format!("import {}::{}", import.module, import.name));
    }
    for (slot, f) in m.layout.escaped_slots.iter().zip(&m.escaped_funcs) {
        put(*slot, 8, format!("reference to function {f}"));
    }
    for (i, builtin) in m.builtins.iter().enumerate() {
        put(m.layout.builtin_slots + 8 * i as u32, 8, format!("builtin {builtin:?}"));
    }
    for (kind, places, size) in
        [("memory", &m.layout.memories, 16), ("table", &m.layout.tables, 16), ("global", &m.layout.globals, 16)]
    {
        for (i, at) in places.iter().enumerate() {
            put(*at, size, format!("{kind} {i}"));
        }
    }
    put(HEADER_RAISE as u32, 8, "raise routine".into());
    put(HEADER_INSTANCE as u32, 8, "data block".into());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_cell::{CompileOptions, Compiler, CompilerSettings};

    #[test]
    fn instructions_are_joined_with_names_traps_and_wasm_offsets() {
        let wasm = wat::parse_str(
            r#"(module (import "env" "log" (func $log (param i32)))
                (func $callee (param i32) (result i32) (i32.div_u (i32.const 8) (local.get 0)))
                (func (export "f") (param i32) (result i32)
                    (call $log (local.get 0)) (call $callee (local.get 0))))"#,
        )
        .unwrap();
        let compiler = Compiler::new(CompilerSettings::default()).unwrap();
        let options = CompileOptions { full_address_map: true, ..CompileOptions::default() };
        let object = compiler.compile(&wasm, &options).unwrap();
        let listing = Listing::new(&object);
        let names: Vec<_> = listing.functions().collect();
        assert_eq!(names, [(1, "callee".to_string()), (2, "f".to_string())]);
        let notes = |f| listing.lines(f).filter_map(|l| l.note).collect::<Vec<_>>().join("|");
        assert!(notes(1).contains("integer divide by zero"), "{}", notes(1));
        assert!(notes(2).contains("callee"), "{}", notes(2));
        assert!(listing.lines(2).any(|l| l.wasm_offset.is_some()));
        let bytes: usize = listing.lines(2).map(|l| l.bytes.len()).sum();
        assert_eq!(bytes, listing.describe(2).0.size as usize);
    }
}
