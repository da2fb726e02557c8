//! Generated modules run here and in wasmtime; everything observable must agree.
//!
//! ```text
//! entropy ──► generate ──► Case { module, providers, calls }
//!                             ├──► subject::run ──► Transcript ┐
//!                             └──► oracle::run  ──► Transcript ┴──► equal
//! ```
//!
//! Imports are satisfied by *provider* modules ([`provider`]), the same on both sides. Their functions report every
//! argument to a host function and take their results from it, so the order of all calls is observed too.

pub mod case;
pub mod generate;
pub mod oracle;
pub mod provider;
pub mod subject;
pub mod transcript;

use arbitrary::Unstructured;
use case::Case;

/// Generates a module from `entropy`, runs it here and in wasmtime, and compares.
///
/// Returns whether there was something to compare: entropy may run out, and a generated module may import what no
/// provider can offer.
///
/// # Panics
/// The two disagree.
pub fn differential(entropy: &[u8]) -> bool {
    match generate::case(&mut Unstructured::new(entropy)) {
        Ok(Some(case)) => {
            compare(&case);
            true
        }
        _ => false,
    }
}

/// Runs one case on both sides and compares.
///
/// # Panics
/// The two disagree.
pub fn compare(case: &Case) {
    let expected = oracle::run(case);
    let found = subject::run(case);
    if let Some(difference) = expected.difference(&found) {
        panic!("wasmtime and this system disagree: {difference}\n{case}");
    }
}
