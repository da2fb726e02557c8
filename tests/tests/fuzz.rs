//! A short bounded run of each fuzz target. `tests::runs` says how to repeat a case or run longer.

use tests::fuzz::{self, mutate, samples};
use tests::runs::run;

#[test]
fn noise_is_refused_as_a_module() {
    run("noise", 200_000, |random| {
        let len = random.below(200);
        let mut bytes = random.bytes(len);
        if !random.one_in(4) {
            bytes.splice(0..0, *b"\0asm\x01\0\0\0");
        }
        fuzz::load_bytes(&bytes);
    });
}

#[test]
fn damaged_modules_are_refused_or_compile() {
    let samples = samples();
    run("modules", 250_000, |random| {
        let mut bytes = random.pick(&samples).clone();
        let other = random.below(samples.len());
        mutate(random, &mut bytes, &samples[other]);
        fuzz::load_bytes(&bytes);
    });
}

#[test]
fn noise_is_refused_as_an_object() {
    run("object-noise", 200_000, |random| {
        let len = random.below(500);
        let mut bytes = random.bytes(len);
        if !random.one_in(4) {
            bytes.splice(0..0, *b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\x3e\0\x01\0\0\0");
        }
        fuzz::load_object(&bytes);
    });
}

#[test]
fn damaged_objects_are_refused_or_consistent_and_never_bear_their_seal() {
    let objects: Vec<_> = samples().iter().map(|wasm| fuzz::sealed_object(wasm)).collect();
    run("objects", 500_000, |random| {
        let original = random.pick(&objects);
        let mut bytes = original.clone();
        let other = random.below(objects.len());
        mutate(random, &mut bytes, &objects[other]);
        if bytes != *original {
            fuzz::load_object(&bytes);
        }
    });
}

#[test]
fn generated_modules_behave_as_in_wasmtime() {
    let mut compared = 0;
    run("differential", 6_000, |random| {
        let len = 1 << (7 + random.below(7));
        compared += usize::from(fuzz::differential(&random.bytes(len)));
    });
    println!("compared: {compared}");
}
