//! A script as bytes and back.
//!
//! The form, version 1:
//!
//! ```text
//! "planks script 1\n"       16 bytes that say what it is
//! the Script                as `bincode` writes it: fields in the order of their declaration in `directive` and `value`,
//!                           integers of variable length (below 251 one byte; 251, 252, 253 or 254 and 2, 4, 8 or 16 bytes,
//!                           little endian), a variant of an enumeration as its number from 0,
//!                           text and lists as their length and content, an option as 0, or 1 and the content
//! ```
//!
//! Modules are in the WebAssembly binary format. Nothing nests: what a thread does stands in a list beside the script, so
//! reading takes no stack. What reading may allocate is a fixed multiple of the bytes, so a forged length costs an error.

use super::directive::{Action, Script};
use alloc::{string::String, string::ToString, vec::Vec};
use bincode::config;

/// What the bytes of a script begin with.
pub const MAGIC: &[u8; 16] = b"planks script 1\n";

/// Why bytes are no script.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodingError {
    /// They do not begin with [`MAGIC`]. Convert the script again, with this version's `planks`.
    #[error("no script in binary form, or of another version (expected `planks script 1`)")]
    BadMagic,
    /// They break off or make no sense. Convert the script again.
    #[error("a damaged script: {0}")]
    Damaged(String),
    /// Bytes follow the script.
    #[error("{0} bytes follow the script")]
    Excess(usize),
    /// A thread does what is not there, or starts itself.
    #[error("line {line}: there is no thread {body} that may be started here")]
    BadThread {
        /// Line of the directive.
        line: u32,
        /// Its index.
        body: u32,
    },
}

/// The bytes of a script.
///
/// # Errors
/// There is no memory for them.
pub fn encode(script: &Script) -> Result<Vec<u8>, EncodingError> {
    let body = bincode::encode_to_vec(script, config::standard()).map_err(|e| EncodingError::Damaged(e.to_string()))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(body);
    Ok(bytes)
}

/// The script that bytes hold.
///
/// # Errors
/// The bytes hold none.
pub fn decode(bytes: &[u8]) -> Result<Script, EncodingError> {
    let body = bytes.strip_prefix(MAGIC).ok_or(EncodingError::BadMagic)?;
    let config = config::standard();
    // In memory a directive takes at most about 40 times its encoded size. The limit is a compile-time constant in bincode:
    // the next larger of a few is used.
    let result = match body.len().saturating_mul(64) {
        n if n <= 0x10_0000 => bincode::decode_from_slice(body, config.with_limit::<0x10_0000>()),
        n if n <= 0x400_0000 => bincode::decode_from_slice(body, config.with_limit::<0x400_0000>()),
        _ => bincode::decode_from_slice(body, config.with_limit::<0x1_0000_0000>()),
    };
    let (script, len): (Script, usize) = result.map_err(|e| EncodingError::Damaged(e.to_string()))?;
    match body.len() - len {
        0 => check_threads(&script).map(|()| script),
        excess => Err(EncodingError::Excess(excess)),
    }
}

/// Every thread is there, and none can start itself, directly or through others: each starts only later ones.
fn check_threads(script: &Script) -> Result<(), EncodingError> {
    let bodies = core::iter::once(&script.directives).chain(&script.threads);
    for (first, body) in bodies.enumerate() {
        for directive in body {
            let Action::Thread { body, .. } = directive.action else { continue };
            if (body as usize) < first || body as usize >= script.threads.len() {
                return Err(EncodingError::BadThread { line: directive.line, body });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::directive::{Directive, Execute, Invoke, Module};
    use super::super::value::{Argument, FloatPattern, Pattern, Single};
    use super::*;
    use alloc::vec;

    fn script() -> Script {
        let invoke = Invoke { instance: Some("m".into()), name: "f".into(), args: vec![Argument::V128(u128::MAX - 7)] };
        let results = vec![Pattern::One(Single::F32(FloatPattern::Canonical)), Pattern::OneOf(vec![Single::I32(-1)])];
        Script {
            name: "a/b.wast".into(),
            excluded: vec![7],
            directives: vec![
                Directive { line: 1, action: Action::Module { id: None, module: Module::Binary(vec![0; 300]) } },
                Directive { line: 2, action: Action::AssertReturn { execute: Execute::Invoke(invoke), results } },
                Directive { line: 3, action: Action::Thread { name: "t".into(), shared: None, body: 0 } },
            ],
            threads: vec![vec![Directive { line: 3, action: Action::Wait("x".into()) }]],
        }
    }

    #[test]
    fn decoding_returns_what_was_encoded() {
        assert_eq!(decode(&encode(&script()).unwrap()), Ok(script()));
    }

    #[test]
    fn every_shorter_and_longer_form_is_an_error() {
        let mut bytes = encode(&script()).unwrap();
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "the first {len} bytes");
        }
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(EncodingError::Excess(1)));
    }

    #[test]
    fn every_flipped_bit_is_an_error_or_another_script() {
        let good = encode(&script()).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(decode(&bytes), Ok(script()), "bit {bit}");
        }
    }

    #[test]
    fn a_thread_that_could_start_itself_is_refused() {
        let mut script = script();
        script.threads[0]
            .push(Directive { line: 9, action: Action::Thread { name: "t".into(), shared: None, body: 0 } });
        assert_eq!(decode(&encode(&script).unwrap()), Err(EncodingError::BadThread { line: 9, body: 0 }));
        script.threads.clear();
        assert!(decode(&encode(&script).unwrap()).is_err());
    }
}
