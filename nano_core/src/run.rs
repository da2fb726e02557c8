//! Runs a wasm module from the boot archive.

use alloc::{
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use namespace_bridge::{CrateNamespace, LoadOptions, Val};
use nano_core::{archive::Archive, command_line::CommandLine};
use runtime_port::println;
use wasm_cell::types::ValType;

/// Loads `run=` as a cell, calls `invoke=` with `args=`, and prints the results, one a line. The error says what to do.
pub fn run(file: &str, line: &CommandLine<'_>, archive: Option<Archive<'_>>) -> Result<(), String> {
    let archive = archive.ok_or("no boot archive: give one with `-initrd` (cpio, `newc` format)")?;
    let bytes = archive.file(file).ok_or_else(|| not_found(file, &archive))?;
    let namespace = host_namespace()?;
    let name = file.rsplit('/').next().unwrap_or(file);
    let name = name.strip_suffix(".wasm").unwrap_or(name);
    let cell = namespace.load_wasm(name, bytes, LoadOptions::default()).map_err(|e| e.to_string())?;
    let Some(function) = line.invoke else { return Ok(()) };
    let function = cell.func(function).map_err(|e| e.to_string())?;
    let ty = function.ty();
    let given: Vec<&str> = line.arguments().collect();
    if given.len() != ty.params.len() {
        return Err(format!(
            "`{name}` takes {} arguments {ty}, {} are given (args=A,B,…)",
            ty.params.len(),
            given.len()
        ));
    }
    let args = given.iter().zip(&ty.params).map(|(text, ty)| value(text, ty)).collect::<Result<Vec<_>, _>>()?;
    let mut results: Vec<Val> = ty.results.iter().map(Val::default_for).collect();
    function.call(&args, &mut results).map_err(|e| e.to_string())?;
    for result in results {
        println!("{result}");
    }
    Ok(())
}

/// A namespace with what the kernel offers cells.
pub fn host_namespace() -> Result<Arc<CrateNamespace>, String> {
    let namespace = CrateNamespace::new("host", None);
    namespace.define("console", "print_i32", |n: i32| println!("{n}")).map_err(|e| e.to_string())?;
    Ok(namespace)
}

fn not_found(file: &str, archive: &Archive<'_>) -> String {
    let names: Vec<&str> = archive.entries().filter(|e| e.is_file()).map(|e| e.name).collect();
    format!("`{file}` is not in the boot archive, which has: {}", names.join(", "))
}

/// Reads a number: integers decimal or, with `0x`, hexadecimal, signed or unsigned; floats as in Rust.
fn value(text: &str, ty: &ValType) -> Result<Val, String> {
    let value = match ty {
        ValType::I32 => integer(text).and_then(|n| narrow(n, 32)).map(|n| Val::I32(n as i32)),
        ValType::I64 => integer(text).and_then(|n| narrow(n, 64)).map(|n| Val::I64(n as i64)),
        ValType::F32 => text.parse::<f32>().ok().map(|f| Val::F32(f.to_bits())),
        ValType::F64 => text.parse::<f64>().ok().map(|f| Val::F64(f.to_bits())),
        _ => None,
    };
    value.ok_or_else(|| format!("`{text}` is not a value of type {ty} that can be given on the command line"))
}

fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text),
    };
    let magnitude = match digits.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    magnitude.ok().filter(|n| *n >= 0).map(|n| sign * n)
}

/// The number if it fits the width as a signed or as an unsigned one.
fn narrow(n: i128, bits: u32) -> Option<i128> {
    (-(1 << (bits - 1))..1 << bits).contains(&n).then_some(n)
}
