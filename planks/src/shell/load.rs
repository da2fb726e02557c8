//! `load` and `unload`.

use super::{Reply, Shell, misused, take_flag};
use crate::failure::Failure;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use namespace_bridge::native::{crate_name_from_path, is_wasm_cell_object};
use namespace_bridge::{AddPolicy, LoadOptions};
use serde_json::json;

pub(super) fn load(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let (words, replace) = take_flag(words, "--replace");
    let (path, name) = match words[..] {
        [path] => (path, cell_name(path)?),
        [path, "as", name] => (path, name.to_string()),
        _ => return Err(misused("load")),
    };
    let policy = if replace { AddPolicy::Replace } else { AddPolicy::Refuse };
    let options = LoadOptions::default().policy(policy);
    let bytes = shell.host.read(path)?;
    let cell = if bytes.starts_with(b"\x7fELF") {
        match is_wasm_cell_object(&bytes) {
            true => {
                shell.host.check_object(path, &bytes)?;
                shell.namespace.load_elf(&name, &bytes, options)?
            }
            // Nobody but the person who loads it vouches for its code.
            false => shell.namespace.load_native(&name, &bytes, options)?,
        }
    } else {
        let wasm = wasm(shell, path, bytes)?;
        let module = shell.host.module(&name, &wasm, &options)?;
        shell.namespace.load_module(&name, &module, options)?
    };
    let info = namespace_bridge::CellInfo::of(&cell);
    let symbols = if info.is_object { format!(" and {} symbols", info.symbols) } else { String::new() };
    let text = format!(
        "loaded {} (version {}): {} functions, {} exports{symbols}, {} dependencies\n",
        info.name,
        info.version,
        info.functions,
        info.exports.len(),
        info.dependencies.len(),
    );
    Ok(Reply::new(text, json!({ "cell": &*info.name, "version": info.version, "functions": info.functions })))
}

/// A module in the binary format, assembled if it is text.
pub(super) fn wasm(shell: &mut Shell<'_>, path: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if bytes.starts_with(b"\0asm") { Ok(bytes) } else { shell.host.assemble(path, &bytes) }
}

/// The cell name that a path suggests: its last part without the ending, and without the hash that a compiler puts there.
fn cell_name(path: &str) -> Result<String, Failure> {
    let none = || Failure::usage(format!("{path}: no cell name follows from it; say `load {path} as NAME`"));
    crate_name_from_path(path).filter(|name| *name != "-").map(str::to_string).ok_or_else(none)
}

pub(super) fn unload(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let (words, force) = take_flag(words, "--force");
    let [name] = words[..] else { return Err(misused("unload")) };
    if force {
        shell.namespace.unload_force(name)?;
    } else {
        shell.namespace.unload(name)?;
    }
    Ok(Reply::new(format!("unloaded {name}\n"), json!({ "unloaded": name })))
}
