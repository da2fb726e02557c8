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

#[test]
fn generated_loops_behave_as_in_wasmtime() {
    let mut compared = 0;
    run("loops", 6_000, |random| compared += usize::from(fuzz::loops(random)));
    println!("compared: {compared}");
}

#[test]
fn a_damaged_module_as_next_version_is_compiled_as_if_it_were_the_first() {
    let samples = samples();
    let (mut reused, mut compiled) = (0, 0);
    run("versions", 40_000, |random| {
        let original = random.pick(&samples).clone();
        let mut bytes = original.clone();
        let other = random.below(samples.len());
        mutate(random, &mut bytes, &samples[other]);
        if let Some(report) = fuzz::versions(&original, &bytes) {
            reused += report.reused;
            compiled += report.compiled;
        }
    });
    println!("functions: {reused} taken over, {compiled} compiled");
}

#[test]
fn a_generated_module_as_next_version_is_compiled_as_if_it_were_the_first() {
    let (mut reused, mut compiled) = (0, 0);
    run("generated-versions", 1_500, |random| {
        let len = 1 << (7 + random.below(7));
        let entropy = random.bytes(len);
        let at = len / 2 + random.below(len / 2);
        let rest = random.bytes(len - at);
        if let Some(report) = fuzz::generated_versions(&entropy, at, &rest) {
            reused += report.reused;
            compiled += report.compiled;
        }
    });
    println!("functions: {reused} taken over, {compiled} compiled");
}
