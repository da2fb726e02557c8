//! Third-party modules, fetched when a test runs: never part of this repository.

use std::fmt;
use xtask::packages::are_required;

pub use xtask::packages::{Unavailable, fetch};

/// What a test does without something that it needs from outside: it says so and passes, unless `CI` is set, where it
/// fails, because there everything should be at hand.
///
/// # Panics
/// Environment variable `CI` is set.
pub fn skip(why: impl fmt::Display) {
    assert!(!are_required(), "needed here, as CI is set: {why}");
    eprintln!("SKIPPED: {why}");
}
