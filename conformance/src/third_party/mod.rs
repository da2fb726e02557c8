//! Modules of other people, of several toolchains, put to questions whose answers are known.
//!
//! The modules are fetched by whoever runs this and are never part of the source tree. Each gets the handful of imports that
//! it needs here, the same in a process and in the kernel.

mod argon2;
mod brotli;
mod guest;
mod source_map;
mod sql;

pub use guest::{Guest, compile, define_rest};

use alloc::string::String;

/// What is asked of a module.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// What the module is called here, also as a file of the boot archive (with `.wasm` behind it). Where it comes from says
    /// `xtask::third_party`.
    pub name: &'static str,
    /// Compiles it and asks. The error says what was wrong.
    pub check: fn(&[u8]) -> Result<(), String>,
}

/// All of them; the largest come first, so that what the heap has grown by behind each is what that one needed.
pub const SUBJECTS: [Subject; 5] = [
    Subject { name: "brotli", check: brotli::what_was_compressed_is_decompressed },
    Subject { name: "sql", check: sql::queries_have_the_known_answers },
    Subject { name: "source-map", check: source_map::mappings_are_decoded },
    Subject { name: "argon2", check: argon2::the_known_key_is_derived },
    Subject { name: "argon2-simd", check: argon2::the_known_key_is_derived },
];

/// An error unless what was found is what is known.
fn expect<T: PartialEq + core::fmt::Debug>(what: &str, found: T, known: T) -> Result<(), String> {
    if found == known { Ok(()) } else { Err(alloc::format!("{what}: {found:?} instead of {known:?}")) }
}

/// Bytes as hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| alloc::format!("{b:02x}")).collect()
}
