//! The machine code of some small functions, kept in the tree, so that a change that makes it worse, or better, is seen.
//!
//! `UPDATE_GOLDEN=1 cargo test -p wasm_cell --test golden` writes the files anew; then look at the difference.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use iced_x86::{
    Decoder, DecoderOptions, Formatter, Instruction, Mnemonic, NasmFormatter, OpKind, SymbolResolver, SymbolResult,
};
use std::fmt::Write;
use std::path::Path;
use std::{env, fs};
use wasm_cell::CellObject;
use wasm_cell::metadata::ExportItem;

/// Names for what instructions refer to.
struct Names {
    /// Where each function begins, with its name.
    functions: Vec<(u64, String)>,
    /// Beginning and end of the function at hand.
    own: (u64, u64),
    data: u64,
}

impl SymbolResolver for Names {
    fn symbol(
        &mut self,
        instruction: &Instruction,
        _operand: u32,
        _instruction_operand: Option<u32>,
        address: u64,
        _size: u32,
    ) -> Option<SymbolResult<'_>> {
        let is_branch = instruction.op_count() > 0 && instruction.op0_kind() == OpKind::NearBranch64;
        let is_reference = is_branch || instruction.is_ip_rel_memory_operand();
        if !is_reference {
            return None;
        }
        let name = if (self.own.0..self.own.1).contains(&address) {
            format!("+{:#x}", address - self.own.0)
        } else if let Some((_, name)) = self.functions.iter().find(|f| f.0 == address) {
            name.clone()
        } else if address >= self.data {
            format!("data+{:#x}", address - self.data)
        } else {
            "a trap's stub".into()
        };
        Some(SymbolResult::with_string(address, name))
    }
}

/// The functions of a cell: name, size, instructions.
fn listing(object: &CellObject) -> String {
    let meta = &object.metadata;
    let name = |i: usize| {
        let exported =
            |item: &ExportItem| matches!(item, ExportItem::Func(f) if *f as usize == meta.imported_funcs.len() + i);
        let export = meta.exports.iter().find(|e| exported(&e.item));
        export.map_or_else(|| format!("function {i}"), |e| e.name.to_string())
    };
    let functions = meta.funcs.iter().enumerate().map(|(i, f)| (u64::from(f.offset), name(i))).collect();
    let mut names = Names { functions, own: (0, 0), data: u64::from(meta.image.data_offset) };
    let mut text = String::new();
    for (i, func) in meta.funcs.iter().enumerate() {
        let (start, end) = (func.offset as usize, (func.offset + func.size) as usize);
        writeln!(text, "{}: {} bytes", name(i), func.size).unwrap();
        names.own = (start as u64, end as u64);
        let resolver = Names { functions: names.functions.clone(), ..names };
        let mut formatter = NasmFormatter::with_options(Some(Box::new(resolver)), None);
        formatter.options_mut().set_show_branch_size(false);
        formatter.options_mut().set_rip_relative_addresses(false);
        let mut decoder = Decoder::with_ip(64, &object.text[start..end], start as u64, DecoderOptions::NONE);
        // Behind the last `ret`, `jmp` or `ud2` come constants.
        let mut lines = Vec::new();
        let mut last = 0;
        while decoder.can_decode() {
            let instruction = decoder.decode();
            let mut line = String::new();
            formatter.format(&instruction, &mut line);
            lines.push(line);
            if matches!(instruction.mnemonic(), Mnemonic::Ret | Mnemonic::Jmp | Mnemonic::Ud2 | Mnemonic::Call) {
                last = lines.len();
            }
        }
        lines[..last].iter().for_each(|line| writeln!(text, "    {line}").unwrap());
        text.push('\n');
    }
    text
}

#[test]
fn the_code_is_what_it_was() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = env::var_os("UPDATE_GOLDEN").is_some();
    let (mut functions, mut differ) = (0, Vec::new());
    let mut sources: Vec<_> = fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    sources.retain(|p| p.extension().is_some_and(|e| e == "wat"));
    sources.sort();
    for source in sources {
        let object = support::compile(&fs::read_to_string(&source).unwrap());
        functions += object.metadata.funcs.len();
        let (code, golden) = (listing(&object), source.with_extension("txt"));
        if update {
            fs::write(&golden, code).unwrap();
        } else {
            let expected = fs::read_to_string(&golden).unwrap_or_default();
            let line = code.lines().zip(expected.lines()).position(|(a, b)| a != b);
            if code != expected {
                let line = line.unwrap_or_else(|| code.lines().count().min(expected.lines().count()));
                let at = |text: &str| text.lines().nth(line).unwrap_or("the end").to_owned();
                differ.push(format!("{}:{}: `{}`, was `{}`", golden.display(), line + 1, at(&code), at(&expected)));
            }
        }
    }
    assert!(functions >= 40, "{functions}");
    assert!(differ.is_empty(), "UPDATE_GOLDEN=1 writes the files anew:\n{}", differ.join("\n"));
}
