//! What a cell object was compiled for: the first thing a reader compares before it trusts anything else.

use crate::cpu::CpuFeatures;
use alloc::string::String;
use bincode::{Decode, Encode};

/// Compiler settings and processor features behind a cell's code. The object's format version stands beside it in the
/// file (`kernel_config::cell::OBJECT_FORMAT_VERSION`) and is not part of the model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct ObjectHeader {
    /// Everything that changes the generated code, in one canonical line. Objects are interchangeable only when it is equal.
    pub settings: String,
    /// Processor features that the code may use. The loader refuses an object that needs one the processor lacks.
    pub cpu: CpuFeatures,
}
