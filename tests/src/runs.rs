//! Bounded fuzz runs: numbered cases, each with its own seed, repeatable one by one.
//!
//! `PLANKS_FUZZ_SEED` sets the seed of the first case, `PLANKS_FUZZ_CASES` how many there are. What a failure prints
//! is the setting that repeats it alone. A case that kills the process leaves its seed in a file beside the temporary
//! files, named when the run starts.

use crate::random::Random;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

/// Runs `case` for each seed. `cases`: how many, unless the environment says otherwise.
///
/// # Panics
/// `case` panicked; its seed is printed.
pub fn run(name: &str, cases: u64, mut case: impl FnMut(&mut Random)) {
    let first = setting("PLANKS_FUZZ_SEED").unwrap_or(0x70_6c61_6e6b_7301);
    let cases = setting("PLANKS_FUZZ_CASES").unwrap_or(cases);
    let trace = std::env::temp_dir().join(format!("planks-{name}-{}.seed", std::process::id()));
    let file = std::fs::File::create(&trace).ok();
    println!("{name}: {cases} cases from PLANKS_FUZZ_SEED={first}; the current one is in {}", trace.display());
    let start = Instant::now();
    for i in 0..cases {
        let seed = first.wrapping_add(i);
        if let Some(file) = &file {
            // Only a hint for whoever looks at a crash.
            let _ = file.write_all_at(format!("{seed:20}\n").as_bytes(), 0);
        }
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| case(&mut Random::new(seed)))) {
            eprintln!("{name}: case {i} failed; repeat it with PLANKS_FUZZ_SEED={seed} PLANKS_FUZZ_CASES=1");
            resume_unwind(panic);
        }
    }
    println!("{name}: {cases} cases in {:.1} s", start.elapsed().as_secs_f64());
    let _ = std::fs::remove_file(&trace);
}

fn setting(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.trim().parse().unwrap_or_else(|e| panic!("{name}={value}: {e}")))
}
