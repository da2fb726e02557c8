//! Who called a host function.

use crate::instance::InstanceRecord;

/// The cell that called a host function: its name, its memories, what it exports. Valid during the call.
#[derive(Debug)]
pub struct Caller {
    importer: *const InstanceRecord,
}

impl Caller {
    /// The caller with this record; null for a caller that is no cell.
    pub(crate) fn new(importer: *const InstanceRecord) -> Caller {
        Caller { importer }
    }

    /// The calling instance; `None` when native code called the function by a thunk without an importer.
    pub fn instance(&self) -> Option<&InstanceRecord> {
        // SAFETY: the thunk's maker promised that the record is valid while the thunk may be called, and this value
        // only exists during such a call.
        unsafe { self.importer.as_ref() }
    }

    /// Name of the calling cell.
    pub fn cell(&self) -> Option<&str> {
        self.instance().map(|i| i.cell())
    }
}
