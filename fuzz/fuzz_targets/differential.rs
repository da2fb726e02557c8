//! Entropy to a module that runs here and in wasmtime.
#![no_main]

libfuzzer_sys::fuzz_target!(|entropy: &[u8]| {
    tests::fuzz::differential(entropy);
});
