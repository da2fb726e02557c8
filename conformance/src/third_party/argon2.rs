//! A password hash. C, emscripten: a function of 17 arguments, memory grown by the host's leave.

use super::{Guest, compile, expect, hex};
use alloc::string::{String, ToString};
use namespace_bridge::caller::GuestMemoryError;
use namespace_bridge::{Caller, CrateNamespace};

/// Two passes over 64 MiB, Argon2id 1.3: a test vector of the reference implementation (`src/test.c`).
pub fn the_known_key_is_derived(wasm: &[u8]) -> Result<(), String> {
    let namespace = CrateNamespace::new("third party", None);
    let copy = |caller: &Caller, to: u32, from: u32, n: u32| -> Result<u32, GuestMemoryError> {
        caller.write(u64::from(to), &caller.read_vec(u64::from(from), u64::from(n))?)?;
        Ok(to)
    };
    let grow = |caller: &Caller, size: u32| -> i32 {
        let Some(memory) = caller.memory(0) else { return 0 };
        let missing = u64::from(size).saturating_sub(memory.bytes());
        i32::from(memory.grow(missing.div_ceil(1 << 16)).is_some())
    };
    namespace.define("a", "a", copy).map_err(|e| e.to_string())?;
    namespace.define("a", "b", grow).map_err(|e| e.to_string())?;
    let guest = Guest::load(&namespace, "argon2", &compile("argon2", wasm)?, "c")?;
    guest.call("d", &[])?;
    let put = |bytes: &[u8]| {
        let at = guest.call("f", &[bytes.len().max(1) as i32])?;
        guest.write(at, bytes).map(|()| at)
    };
    let (password, salt, hash, encoded) = (put(b"password\0")?, put(b"somesalt\0")?, put(&[0; 32])?, put(&[0; 512])?);
    let args = [2, 65536, 1, password, 8, salt, 8, hash, 32, encoded, 512, 2, 0, 0, 0, 0, 0x13];
    expect("status", guest.call("l", &args)?, 0)?;
    let key = "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7";
    expect("key", &*hex(&guest.read(hash, 32)?), key)
}
