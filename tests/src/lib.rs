//! What the integration tests share: fuzz logic, the oracle, corpus fetching, measurements of this process.
//!
//! The tests themselves are in `tests/tests`. The fuzz targets (`fuzz/fuzz_targets`) and the bounded runs of the same
//! logic (`tests/tests/fuzz_*.rs`) both call [`fuzz`].

pub mod fuzz;
pub mod packages;
pub mod process;
pub mod random;
pub mod runs;
