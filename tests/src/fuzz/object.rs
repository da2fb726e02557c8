//! Any bytes to the object reader.

use super::bytes::compile;
use wasm_cell::{CellObject, seal};

/// Key under which fuzzing seals objects.
const KEY: [u8; 32] = *b"key of the object fuzzing tests.";

/// Gives any bytes to the object reader. What it accepts is never executed: object files are trusted code.
///
/// # Panics
/// What was read contradicts itself or reads differently once written; the bytes bear a valid seal, which they
/// cannot; an error says nothing.
pub fn load_object(bytes: &[u8]) {
    assert!(seal::verify(bytes, &KEY).is_err(), "bytes that nobody sealed bear a seal");
    match CellObject::from_elf(bytes) {
        Ok(object) => {
            object.validate().expect("the reader validates");
            check_round_trip(&object);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// A compiled and sealed object file of a module.
///
/// # Panics
/// The module does not compile.
pub fn sealed_object(wasm: &[u8]) -> Vec<u8> {
    let object = compile(wasm).unwrap_or_else(|e| panic!("{e}"));
    let mut elf = object.to_elf().unwrap_or_else(|e| panic!("{e}"));
    seal::seal(&mut elf, &KEY).unwrap_or_else(|e| panic!("{e}"));
    seal::verify(&elf, &KEY).unwrap_or_else(|e| panic!("{e}"));
    elf
}

/// Writes the object and reads it again.
///
/// # Panics
/// It did not come back as it was.
pub fn check_round_trip(object: &CellObject) {
    let elf = object.to_elf().unwrap_or_else(|e| panic!("cannot be written: {e}"));
    let read = CellObject::from_elf(&elf).unwrap_or_else(|e| panic!("cannot be read again: {e}"));
    assert!(read == *object, "another object was read than written");
}
