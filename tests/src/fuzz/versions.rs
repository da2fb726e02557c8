//! Two modules as one version after the other.

use super::bytes::{compile, compiler};
use super::differential::generate;
use arbitrary::Unstructured;
use wasm_cell::reuse::{OldVersion, ReuseReport, ReuseTable};
use wasm_cell::{CellObject, CompileOptions};

/// Compiles `new` as the version after `old`, taking over what did not change, and once more without. `None`: one of them
/// does not compile.
///
/// # Panics
/// The two objects differ in a single byte, or one way accepts what the other refuses.
pub fn versions(old: &[u8], new: &[u8]) -> Option<ReuseReport> {
    let old = compile(old).ok()?;
    let report = next_version(&old, new)?;
    assert!(report.reused == 0 || report.reused_bytes > 0);
    Some(report)
}

fn next_version(old: &CellObject, new: &[u8]) -> Option<ReuseReport> {
    let options = CompileOptions::default();
    let with = OldVersion::of(old);
    let empty = ReuseTable::default();
    let without = OldVersion { reuse: &empty, ..with };
    let compile = |old| compiler().compile_reusing(new, &options, Some(old));
    match (compile(with), compile(without)) {
        (Ok((object, report)), Ok((full, _))) => {
            assert!(object == full, "the code that was taken over is not what would be compiled");
            object.validate().unwrap_or_else(|e| panic!("{e}"));
            Some(report)
        }
        (Err(a), Err(b)) => {
            assert_eq!(a, b);
            None
        }
        (a, b) => panic!("one way {:?}, the other {:?}", a.map(|_| ()), b.map(|_| ())),
    }
}

/// Two generated modules as versions: that of `entropy`, and that of `entropy` with the bytes from `at` on replaced.
pub fn generated_versions(entropy: &[u8], at: usize, replacement: &[u8]) -> Option<ReuseReport> {
    let mut other = entropy.get(..at)?.to_vec();
    other.extend_from_slice(replacement);
    let module = |entropy| generate::case(&mut Unstructured::new(entropy)).ok()?.map(|case| case.module);
    versions(&module(entropy)?, &module(&other)?)
}
