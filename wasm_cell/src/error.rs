//! Why a module was refused.

use alloc::string::String;
use thiserror::Error;

/// Error of compiling a module or reading a cell object. Offsets are in bytes from the start of the input.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The bytes are no valid module. Fix the producer.
    #[error("invalid module at offset {offset:#x}: {reason}")]
    Invalid {
        /// Where.
        offset: u64,
        /// What is wrong, in the validator's words.
        reason: String,
    },
    /// The module is valid but needs a feature that this compiler refuses.
    #[error("the module needs the `{feature}` feature, which is not supported (offset {offset:#x}): {reason}")]
    UnsupportedFeature {
        /// Name of the proposal.
        feature: &'static str,
        /// Where it is first needed.
        offset: u64,
        /// The validator's words.
        reason: String,
    },
    /// A limit of `kernel_config::limits` is exceeded.
    #[error("{what} exceed the limit: {value} > {limit} (kernel_config::limits)")]
    Limit {
        /// Which limit.
        what: &'static str,
        /// The module's figure.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// The code generator refused a function. A defect of the compiler, or a function beyond its limits.
    #[error("cannot generate code for function {function} (offset {offset:#x}): {reason}")]
    Codegen {
        /// Function index.
        function: u32,
        /// Offset of its body.
        offset: u64,
        /// The code generator's words.
        reason: String,
    },
    /// The host processor or the settings cannot be used.
    #[error("no code generator for this target: {0}")]
    Target(String),
    /// The bytes are no cell object of this version. Recompile the module.
    #[error("not a usable cell object: {0}")]
    Object(String),
}
