//! `planks objdump`: what the compiler made of a module.

use super::compile::Target;
use super::{Ending, Output, Run};
use crate::disassembly::{self, Listing};
use crate::failure::Failure;
use crate::input::{self, Input};
use crate::shell::size;
use clap::Args;
use serde_json::{Value, json};
use wasm_cell::CellObject;

/// Disassemble a module (after compiling it) or a cell object, with function names and wasm offsets.
#[derive(Args, Debug)]
pub struct ObjdumpArgs {
    /// The module (binary or text) or cell object; `-` for standard input
    file: String,
    /// Only functions whose name contains this, or whose index it is
    #[arg(short, long, value_name = "NAME")]
    function: Option<String>,
    /// List the functions only
    #[arg(short, long)]
    list: bool,
    #[command(flatten)]
    target: Target,
}

impl Run for ObjdumpArgs {
    fn run(self, out: &mut Output) -> Result<Ending, Failure> {
        let object = match input::module(&self.file)? {
            Input::Wasm(wasm) => self.target.compile(&self.file, &wasm, true)?,
            Input::Object(elf) => CellObject::from_elf(&elf).map_err(|e| Failure::compile(&self.file, &e))?,
        };
        let listing = Listing::new(&object);
        let wanted = |index: u32, name: &str| match &self.function {
            None => true,
            Some(want) => want.parse() == Ok(index) || name.contains(want.as_str()),
        };
        let functions: Vec<(u32, String)> = listing.functions().filter(|(i, name)| wanted(*i, name)).collect();
        if functions.is_empty() && self.function.is_some() {
            return Err(Failure::usage(format!("{}: no function of that name or index; see --list", self.file)));
        }
        if out.json {
            for (index, name) in &functions {
                out.value(&self.as_json(&listing, *index, name))?;
            }
            return Ok(Ending::Success);
        }
        let (count, code) = (object.metadata.funcs.len(), size(object.text.len() as u64));
        out.line(format_args!("{}: {count} functions, {code} of code", self.file))?;
        for (index, name) in &functions {
            self.show(&listing, *index, name, out)?;
        }
        Ok(Ending::Success)
    }
}

impl ObjdumpArgs {
    fn show(&self, listing: &Listing<'_>, index: u32, name: &str, out: &mut Output) -> Result<(), Failure> {
        let (place, ty) = listing.describe(index);
        let gap = if self.list { "" } else { "\n" };
        out.line(format_args!(
            "{gap}{:08x} <{name}>: func {index}, wasm {:#x}, {} bytes, {ty}",
            place.offset, place.wasm_offset, place.size
        ))?;
        if self.list {
            return Ok(());
        }
        let mut at = None;
        for line in listing.lines(index) {
            if line.wasm_offset.is_some() && line.wasm_offset != at {
                at = line.wasm_offset;
                out.line(format_args!("          ; wasm {:#x}", at.unwrap_or(0)))?;
            }
            let bytes = disassembly::hex(line.bytes);
            let note = line.note.map(|n| format!("  ; {n}")).unwrap_or_default();
            out.line(format_args!("{:8x}:  {bytes:<30} {}{note}", line.offset, line.text))?;
        }
        Ok(())
    }

    fn as_json(&self, listing: &Listing<'_>, index: u32, name: &str) -> Value {
        let (place, ty) = listing.describe(index);
        let mut function = json!({
            "function": index, "name": name, "type": ty, "offset": place.offset, "size": place.size,
            "wasm_offset": place.wasm_offset,
        });
        if !self.list {
            let line = |l: disassembly::Line<'_>| {
                json!({
                    "offset": l.offset, "bytes": disassembly::hex(l.bytes), "text": l.text, "wasm_offset": l.wasm_offset,
                    "note": l.note,
                })
            };
            function["code"] = listing.lines(index).map(line).collect();
        }
        function
    }
}
