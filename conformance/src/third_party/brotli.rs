//! A compressor. Rust, wasm-bindgen.

use super::{Guest, compile, define_rest, expect};
use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use namespace_bridge::CrateNamespace;

/// What the reference implementation made of 50 times `plank ` and a `ship`.
const COMPRESSED: [u8; 28] = [
    0x1b, 0x30, 0x01, 0xf8, 0x8d, 0x54, 0xb5, 0xbf, 0x64, 0x73, 0x83, 0x6b, 0x05, 0x90, 0xb0, 0x35, 0x29, 0x88, 0x22,
    0xb3, 0xd5, 0x01, 0xbc, 0x0c, 0xbc, 0x5a, 0x7a, 0x00,
];

/// What others compressed, and what it compressed itself.
pub fn what_was_compressed_is_decompressed(wasm: &[u8]) -> Result<(), String> {
    let namespace = CrateNamespace::new("third party", None);
    // The options of a compression are JavaScript's `undefined`.
    namespace.define("wbg", "__wbindgen_is_undefined", |_value: i32| 1).map_err(|e| e.to_string())?;
    let module = compile("brotli", wasm)?;
    define_rest(&namespace, &module)?;
    let guest = Guest::load(&namespace, "brotli", &module, "memory")?;
    let text = "plank ".repeat(50) + "ship\n";
    expect("decompressed", call(&guest, "decompress", &COMPRESSED)?, text.as_bytes().to_vec())?;
    let long: Vec<u8> = (0..20_000u32).map(|i| (i * i / 7 % 251 % 16) as u8 + b'a').collect();
    let compressed = call(&guest, "compress", &long)?;
    if compressed.len() * 4 > long.len() * 3 {
        return Err(alloc::format!("{} bytes were compressed to {}", long.len(), compressed.len()));
    }
    expect("round trip", call(&guest, "decompress", &compressed)? == long, true)
}

/// Calls a function from bytes to bytes.
fn call(guest: &Guest, name: &str, bytes: &[u8]) -> Result<Vec<u8>, String> {
    // Some versions of the allocation want an alignment.
    let takes = |name: &str| Ok::<_, String>(guest.cell.func(name).map_err(|e| e.to_string())?.ty().params.len());
    let allocation = [bytes.len() as i32, 1];
    let input = guest.call("__wbindgen_malloc", &allocation[..takes("__wbindgen_malloc")?.min(2)])?;
    guest.write(input, bytes)?;
    let area = guest.call("__wbindgen_add_to_stack_pointer", &[-16])?;
    let args = [area, input, bytes.len() as i32, 0];
    guest.call(name, &args[..takes(name)?.min(4)])?;
    expect("error", guest.word(area + 12)?, 0)?;
    let output = guest.read(guest.word(area)?, guest.word(area + 4)? as usize)?;
    guest.call("__wbindgen_add_to_stack_pointer", &[16])?;
    Ok(output)
}
