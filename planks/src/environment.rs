//! What programs find around them: WASI, and the functions that compilers' own runtimes import under `env`
//! (AssemblyScript's `abort`, `trace` and `seed`, emscripten's notice of memory growth).

use crate::failure::{Failure, Kind};
use crate::wasi::{self, Wasi};
use namespace_bridge::{Caller, CrateNamespace, DefineError};
use std::io::Write;
use std::sync::{Arc, Mutex};

/// A namespace with all of it, for one guest. Namespaces of cells are made below it.
pub fn namespace(guest: &Arc<Mutex<Wasi>>) -> Result<Arc<CrateNamespace>, Failure> {
    let host = CrateNamespace::new("host", None);
    let defined = wasi::define(&host, guest).and_then(|()| define(&host));
    defined.map_err(|e| Failure::new(Kind::System, e.to_string()))?;
    Ok(host)
}

/// AssemblyScript's `abort` was called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("abort: {message} at {file}:{line}:{column}")]
struct Abort {
    message: String,
    file: String,
    line: u32,
    column: u32,
}

/// Longest string that is shown, in UTF-16 code units.
const SHOWN: u32 = 4096;

/// An AssemblyScript string: UTF-16, its length in bytes in the 4 bytes before it (AssemblyScript, "Runtime", memory layout).
fn string(caller: &Caller, address: u32) -> Option<String> {
    let memory = caller.instance()?.memory(0)?;
    let mut length = [0; 4];
    memory.read(u64::from(address.checked_sub(4)?), &mut length)?;
    let length = u32::from_le_bytes(length).min(2 * SHOWN) & !1;
    let mut bytes = vec![0; length as usize];
    memory.read(address.into(), &mut bytes)?;
    let units: Vec<u16> = bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect();
    Some(String::from_utf16_lossy(&units))
}

/// Defines the functions under `env`.
fn define(namespace: &CrateNamespace) -> Result<(), DefineError> {
    let abort = |caller: &Caller, message: u32, file: u32, line: u32, column: u32| -> Result<(), Abort> {
        let text = |a, otherwise: &str| string(caller, a).unwrap_or_else(|| otherwise.to_string());
        Err(Abort { message: text(message, "(no message)"), file: text(file, "?"), line, column })
    };
    namespace.define("env", "abort", abort)?;
    let trace = |caller: &Caller, message: u32, n: i32, a: f64, b: f64, c: f64, d: f64, e: f64| {
        let values: Vec<String> =
            [a, b, c, d, e].iter().take(n.clamp(0, 5) as usize).map(|v| format!(" {v}")).collect();
        // Nobody is left to tell when this fails.
        let _ =
            writeln!(std::io::stderr(), "trace: {}{}", string(caller, message).unwrap_or_default(), values.concat());
    };
    namespace.define("env", "trace", trace)?;
    namespace.define("env", "seed", || -> f64 {
        let mut bytes = [0; 8];
        // Without randomness every run has the same seed; programs notice nothing else.
        let _ = getrandom::fill(&mut bytes);
        (u64::from_le_bytes(bytes) >> 11) as f64
    })?;
    let log = |caller: &Caller, message: u32| println_quietly(&string(caller, message).unwrap_or_default());
    namespace.define("env", "console.log", log)?;
    namespace.define("env", "emscripten_notify_memory_growth", |_memory: i32| {})?;
    Ok(())
}

/// Prints a line; a closed pipe is no reason to fail here.
fn println_quietly(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
