//! `planks objdump`: what the compiler made of a module.

use super::compile::Target;
use super::{Ending, Output, Run};
use crate::disassembly::{self, Listing};
use crate::failure::{Failure, Kind};
use crate::input::{self, Input};
use crate::native_listing::{Function, NativeListing};
use crate::shell::size;
use clap::Args;
use serde_json::{Value, json};
use wasm_cell::CellObject;

/// Disassemble a module (after compiling it), a cell object or a native object, with function names, and wasm offsets or
/// relocations.
#[derive(Args, Debug)]
pub struct ObjdumpArgs {
    /// The module (binary or text), cell object or native object; `-` for standard input
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
            Input::Object(elf) if !namespace_bridge::native::is_wasm_cell_object(&elf) => {
                return self.native(&elf, out);
            }
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
    /// A native object: what a compiler made, with the symbols it refers to.
    fn native(&self, elf: &[u8], out: &mut Output) -> Result<Ending, Failure> {
        let listing = NativeListing::new(elf)
            .map_err(|e| Failure::new(Kind::Invalid, format!("{}: no object: {e}", self.file)))?;
        let wanted = |f: &Function| self.function.as_ref().is_none_or(|want| f.name.contains(want.as_str()));
        let all = listing.functions();
        let functions: Vec<&Function> = all.iter().filter(|f| wanted(f)).collect();
        if functions.is_empty() && self.function.is_some() {
            return Err(Failure::usage(format!("{}: no function of that name; see --list", self.file)));
        }
        if !out.json {
            let code = size(listing.code_size());
            out.line(format_args!("{}: native, {} functions, {code} of code", self.file, all.len()))?;
        }
        for f in functions {
            let lines = if self.list { Vec::new() } else { listing.lines(f) };
            if out.json {
                let line = |l: &crate::native_listing::Line| {
                    let bytes = disassembly::hex(&l.bytes);
                    json!({ "offset": l.offset, "bytes": bytes, "text": l.text, "note": l.note })
                };
                let mut value = json!({
                    "name": f.name, "section": f.section, "offset": f.offset, "size": f.size, "global": f.global,
                });
                if !self.list {
                    value["code"] = lines.iter().map(line).collect();
                }
                out.value(&value)?;
                continue;
            }
            let gap = if self.list { "" } else { "\n" };
            let scope = if f.global { "global" } else { "local" };
            let (section, offset) = (&f.section, f.offset);
            out.line(format_args!("{gap}{offset:08x} <{}>: {section}, {} bytes, {scope}", f.name, f.size))?;
            for l in lines {
                let note = l.note.map(|n| format!("  ; {n}")).unwrap_or_default();
                out.line(format_args!("{:8x}:  {:<30} {}{note}", l.offset, disassembly::hex(&l.bytes), l.text))?;
            }
        }
        Ok(Ending::Success)
    }

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
