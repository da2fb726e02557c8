//! Reading what a command is given: a module in binary or text, or a cell object, told apart by content.

use crate::failure::{Failure, Kind};
use std::io::Read;

/// What a file contains.
#[derive(Debug)]
pub enum Input {
    /// A module in the binary format.
    Wasm(Vec<u8>),
    /// A cell object (ELF).
    Object(Vec<u8>),
}

/// Reads a file, `-` for standard input.
pub fn read(path: &str) -> Result<Vec<u8>, Failure> {
    match path {
        "-" => read_from(std::io::stdin().lock(), path),
        _ => read_from(std::fs::File::open(path).map_err(|e| Failure::file(path, e))?, path),
    }
}

/// Reads what is open, which errors call by its path.
pub fn read_from(file: impl Read, path: &str) -> Result<Vec<u8>, Failure> {
    let limit = kernel_config::limits::MODULE_BYTES as u64;
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| Failure::file(path, e))?;
    if bytes.len() as u64 > limit {
        return Err(Failure::file(
            path,
            format!("longer than {limit} bytes, the limit of a module (kernel_config::limits)"),
        ));
    }
    Ok(bytes)
}

/// Reads a module or cell object; a module in text is assembled.
pub fn module(path: &str) -> Result<Input, Failure> {
    let bytes = read(path)?;
    if bytes.starts_with(b"\x7fELF") {
        Ok(Input::Object(bytes))
    } else if bytes.starts_with(b"\0asm") {
        Ok(Input::Wasm(bytes))
    } else {
        assemble(path, &bytes).map(Input::Wasm)
    }
}

/// A module in the text format as binary.
pub fn assemble(path: &str, text: &[u8]) -> Result<Vec<u8>, Failure> {
    let invalid = |why: String| Failure::new(Kind::Invalid, format!("{path}: {why}"));
    let Ok(text) = std::str::from_utf8(text) else {
        let what = "not a module: neither binary wasm, nor a cell object, nor text";
        return Err(invalid(format!("{what} ({} bytes)", text.len())));
    };
    if text.trim().is_empty() {
        return Err(invalid("the file is empty: expected a wasm module, binary or text".into()));
    }
    wat::Parser::new().parse_str(Some(path.as_ref()), text).map_err(|e| invalid(e.to_string()))
}

/// The name for a cell that a path suggests.
pub fn stem(path: &str) -> String {
    let stem = std::path::Path::new(path).file_stem().map(|s| s.to_string_lossy().into_owned());
    stem.filter(|s| !s.is_empty() && s != "-").unwrap_or_else(|| "main".into())
}
