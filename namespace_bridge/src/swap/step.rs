//! The steps of a swap that can fail, in order.
#![deny(unsafe_code)]

use super::SwapError;
use core::fmt;

/// A step of a swap. Each can be made to fail ([`SwapRequest::fail_at`](super::SwapRequest::fail_at)); the old version is then in service, untouched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum SwapStep {
    /// Reading and compiling the new versions.
    Compile,
    /// Finding what they import.
    Link,
    /// Making their instances, entries and version tables.
    Allocate,
    /// Looking for reasons against the swap.
    Validate,
    /// Waiting for the tasks inside.
    Quiesce,
    /// Before the transfer of state.
    Transfer,
    /// After the transfer of state.
    Transferred,
    /// The last moment: everything is ready.
    Commit,
}

impl SwapStep {
    /// All of them, in order.
    pub const ALL: [SwapStep; 8] = [
        SwapStep::Compile,
        SwapStep::Link,
        SwapStep::Allocate,
        SwapStep::Validate,
        SwapStep::Quiesce,
        SwapStep::Transfer,
        SwapStep::Transferred,
        SwapStep::Commit,
    ];

    /// Fails if it is this step's turn to fail.
    pub(super) fn check(self, fail_at: Option<SwapStep>) -> Result<(), SwapError> {
        if fail_at == Some(self) { Err(SwapError::Injected { step: self }) } else { Ok(()) }
    }
}

impl fmt::Display for SwapStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SwapStep::Compile => "compile",
            SwapStep::Link => "link",
            SwapStep::Allocate => "allocate",
            SwapStep::Validate => "validate",
            SwapStep::Quiesce => "quiesce",
            SwapStep::Transfer => "transfer",
            SwapStep::Transferred => "after transfer",
            SwapStep::Commit => "commit",
        })
    }
}
