//! The instance record: what the data block's first word points to.
//!
//! Pinned in an [`Arc`]; compiled code hands its address to every builtin, host thunks to every `Caller`.

use crate::code::LoadedCode;
use alloc::sync::Arc;

/// State of one instance of a module.
#[derive(Debug)]
pub struct InstanceRecord {
    code: Arc<LoadedCode>,
}

impl InstanceRecord {
    /// The code it runs, with the cell's name and version.
    pub fn code(&self) -> &Arc<LoadedCode> {
        &self.code
    }

    /// Name of the cell.
    pub fn cell(&self) -> &str {
        self.code.cell()
    }
}
