//! Any bytes to the object reader.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::load_object(bytes));
