//! Any bytes to the compiler and the loader.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tests::fuzz::load_bytes(bytes));
