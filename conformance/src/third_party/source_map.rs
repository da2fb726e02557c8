//! A source-map parser. Rust: a callback with ten arguments.

use super::{Guest, compile, expect};
use alloc::{
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use namespace_bridge::CrateNamespace;
use runtime_port::sync::Mutex;

/// The mappings of `AAAAA,IAAM;EACJA` (source map specification, "Mappings Structure": base-64 numbers, each a difference).
pub fn mappings_are_decoded(wasm: &[u8]) -> Result<(), String> {
    let namespace = CrateNamespace::new("third party", None);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let callback = move |line: i32,
                         column: i32,
                         _has_last: i32,
                         _last: i32,
                         has_original: i32,
                         source: i32,
                         original_line: i32,
                         original_column: i32,
                         has_name: i32,
                         name: i32| {
        let original = (has_original != 0).then_some((source, original_line, original_column));
        sink.lock().push((line, column, original, (has_name != 0).then_some(name)));
    };
    namespace.define("env", "mapping_callback", callback).map_err(|e| e.to_string())?;
    let guest = Guest::load(&namespace, "source-map", &compile("source-map", wasm)?, "memory")?;
    let text = b"AAAAA,IAAM;EACJA";
    let at = guest.call("allocate_mappings", &[text.len() as i32])?;
    guest.write(at, text)?;
    let mappings = guest.call("parse_mappings", &[at])?;
    if mappings == 0 {
        return Err("it refuses the mappings".into());
    }
    guest.call("by_generated_location", &[mappings])?;
    let known = [(0, 0, Some((0, 0, 0)), Some(0)), (0, 4, Some((0, 0, 6)), None), (1, 2, Some((0, 1, 2)), Some(0))];
    expect("mappings", &seen.lock()[..], &known[..])?;
    guest.call("free_mappings", &[mappings]).map(drop)
}
