//! The routines in the base image that are part of calls of cells.

use crate::{call, entries, gate, host, recovery, version_table};

/// Whether an address lies in one of them. What their frames and registers hold is in use as what a cell's own frames hold is. Takes
/// no lock.
pub(crate) fn is_glue(pc: usize) -> bool {
    call::is_call_routine(pc)
        || gate::is_gate(pc)
        || host::is_host_trampoline(pc)
        || entries::is_gone_routine(pc)
        || version_table::is_wait_routine(pc)
        || recovery::is_closed_routine(pc)
}
