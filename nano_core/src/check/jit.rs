//! Code generated in ring 0.

use super::Check;

/// The checks of this file.
pub const CHECKS: &[Check] = &[];
