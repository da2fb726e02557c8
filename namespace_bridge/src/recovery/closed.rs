//! Closed entries: a call of a cell that is out of service traps and says which cell that is.
//!
//! While a cell is closed, its entries' version words point to a table whose every target is [`planks_closed`]. An entry loads the
//! table's address into `r11` on its way, which identifies the cell.

use crate::call::raise;
use alloc::{boxed::Box, sync::Arc, vec, vec::Vec};
use core::arch::global_asm;
use runtime_port::task::TaskLocals;
use spin::Mutex;
use wasm_cell::trap::TrapCode;

/// The error of a call of a cell that is out of service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cell `{cell}` failed with `{cause}` ({failures} in a row)")]
pub struct ClosedCell {
    /// Name of the cell.
    pub cell: Arc<str>,
    /// What it failed with last.
    pub cause: crate::fault_log::FaultType,
    /// Failures since it was last in good order.
    pub failures: u32,
}

/// A version table of a closed cell.
#[derive(Debug)]
pub(super) struct ClosedTable(&'static [usize]);

/// Tables that nobody uses. A task may have loaded the address of a table and not yet used it, so they are never freed; they all
/// say the same.
static FREE: Mutex<Vec<&'static [usize]>> = Mutex::new(Vec::new());

/// The tables in use, with what a call of each says.
static TABLES: Mutex<Vec<(usize, TrapCode, ClosedCell)>> = Mutex::new(Vec::new());

unsafe extern "C-unwind" {
    /// Target of every closed entry: `r11` = the version table.
    fn planks_closed();
    /// First byte behind it.
    static planks_closed_end: u8;
}

/// Whether an address lies in the routine.
pub(crate) fn is_closed_routine(pc: usize) -> bool {
    (planks_closed as *const () as usize..&raw const planks_closed_end as usize).contains(&pc)
}

impl ClosedTable {
    /// A table for blocks of up to `entries` entries.
    pub(super) fn new(entries: usize) -> ClosedTable {
        let mut free = FREE.lock();
        if let Some(i) = free.iter().position(|t| t.len() >= entries) {
            return ClosedTable(free.swap_remove(i));
        }
        drop(free);
        ClosedTable(Box::leak(vec![planks_closed as *const () as usize; entries.max(1)].into()))
    }

    /// Its address, for version words.
    pub(super) fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// Number of entries it is large enough for.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What calls say from now on.
    pub(super) fn says(&self, code: TrapCode, what: ClosedCell) {
        let mut tables = TABLES.lock();
        let old = tables.iter().position(|t| t.0 == self.address()).map(|i| tables.swap_remove(i));
        tables.push((self.address(), code, what));
        drop(tables);
        drop(old);
    }
}

impl Drop for ClosedTable {
    fn drop(&mut self) {
        let mut tables = TABLES.lock();
        let old = tables.iter().position(|t| t.0 == self.address()).map(|i| tables.swap_remove(i));
        drop(tables);
        drop(old);
        FREE.lock().push(self.0);
    }
}

/// Gives the code to raise and notes the error for the trap.
extern "C-unwind" fn closed(table: usize) -> u32 {
    let found = TABLES.lock().iter().find(|t| t.0 == table).map(|t| (t.1, t.2.clone()));
    // A call that read the version word before the cell was opened again may come late.
    let Some((code, what)) = found else { return TrapCode::Poisoned as u32 };
    raise::note_error(Box::new(what));
    code as u32
}

/// Whether the task is outside of wasm code and of every catch.
pub(super) fn is_outside(task: &TaskLocals) -> bool {
    crate::call::innermost(task).is_null()
}

global_asm!(
    r#"
    .pushsection .text.planks_closed,"ax",@progbits
    .p2align 4
    .globl planks_closed
    .hidden planks_closed
    .type planks_closed,@function
planks_closed:
    .cfi_startproc
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    cld
    mov rdi, r11
    call {closed}
    leave
    .cfi_def_cfa rsp, 8
    jmp {raise}
    .cfi_endproc
    .size planks_closed, . - planks_closed
    .globl planks_closed_end
    .hidden planks_closed_end
planks_closed_end:
    .popsection
    "#,
    closed = sym closed,
    raise = sym crate::call::planks_raise,
);
