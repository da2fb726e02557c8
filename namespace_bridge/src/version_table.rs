//! Version tables: what the stable entries of a name lead to in one version.
//!
//! A table holds one target per entry of one block, behind a header. It is built completely before it is made visible by one
//! 8-byte store of the block's version word, and is never written afterwards. A name whose later versions added functions has several blocks, and
//! a swap may be of several cells: then every block first gets its *waiting* table, at which callers wait with all their
//! arguments, and then the new ones. So nobody sees one new function and one old.
//!
//! Who has read the address of a table may be preempted before the jump: tables go when no task can be inside (`retire`).

use crate::entries::{EntryBlock, gone_entry_routine};
use crate::kill;
use crate::retire::Retirement;
use alloc::{sync::Arc, vec::Vec};
use core::arch::global_asm;
use core::ops::Range;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use runtime_port::{platform, task};
use wasm_cell::trap::TrapCode;

/// Words before the targets: [`Header`].
pub(crate) const HEADER: usize = 3;

/// Offset, from the first target, of the address that stubs of entries without a function jump to.
pub(crate) const ABSENT: i8 = -8;

/// What stands before the targets.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct Header {
    /// For `absent`: address of the [`EntryBlock`], or of the [`Latch`] to wait at.
    pub about: usize,
    /// Address of the version word.
    pub word: usize,
    /// Where the stub of an entry jumps to, with `r11` = the table and `r10` = the number of the entry.
    pub absent: usize,
}

const _: () = assert!(size_of::<Header>() == HEADER * 8);
const _: () = assert!(core::mem::offset_of!(Header, absent) as isize - size_of::<Header>() as isize == ABSENT as isize);
const _: () = assert!(core::mem::offset_of!(Header, word) as isize - size_of::<Header>() as isize == -16);

/// Writes a table.
///
/// # Safety
/// `at` must be aligned room for header and targets that nobody reads yet.
pub(crate) unsafe fn write(at: usize, header: Header, targets: impl Iterator<Item = usize>) {
    // SAFETY: the caller's promise.
    unsafe {
        (at as *mut Header).write(header);
        for (k, target) in targets.enumerate() {
            ((at + HEADER * 8) as *mut usize).add(k).write(target);
        }
    }
}

/// The header of a table.
///
/// # Safety
/// `table` must be the address of the first target of a living table.
pub(crate) unsafe fn header(table: usize) -> Header {
    // SAFETY: the caller's promise; `about` may be set to 0 meanwhile.
    unsafe {
        let header = (table - HEADER * 8) as *const Header;
        let about = (*(&raw const (*header).about).cast::<AtomicUsize>()).load(Ordering::Acquire);
        Header { about, word: (*header).word, absent: (*header).absent }
    }
}

/// The targets of one block in one version.
#[derive(Debug)]
pub(crate) struct VersionTable {
    block: Arc<EntryBlock>,
    words: Vec<usize>,
}

impl VersionTable {
    /// A table with these targets; `None` for a function that the version does not have.
    pub(crate) fn new(block: &Arc<EntryBlock>, target: impl Fn(usize) -> Option<usize>) -> VersionTable {
        let about = Arc::as_ptr(block) as usize;
        let header = Header { about, word: block.version_word(), absent: gone_entry_routine() };
        let target = |k| target(k).unwrap_or_else(|| block.absent(k));
        VersionTable::with(block, header, target)
    }

    /// A table at which callers wait until the latch opens.
    fn waiting(block: &Arc<EntryBlock>, latch: &Arc<Latch>) -> VersionTable {
        let absent = planks_wait as *const () as usize;
        let header = Header { about: Arc::as_ptr(latch) as usize, word: block.version_word(), absent };
        VersionTable::with(block, header, |k| block.absent(k))
    }

    fn with(block: &Arc<EntryBlock>, header: Header, target: impl Fn(usize) -> usize) -> VersionTable {
        let mut words = Vec::with_capacity(HEADER + block.count());
        words.extend([header.about, header.word, header.absent]);
        words.extend((0..block.count()).map(target));
        VersionTable { block: block.clone(), words }
    }

    /// What a version word holds to make it visible.
    fn address(&self) -> usize {
        self.words.as_ptr() as usize + HEADER * 8
    }

    /// Addresses of the table.
    fn range(&self) -> Range<usize> {
        let words = self.words.as_ptr_range();
        words.start as usize..words.end as usize
    }

    /// Puts the table behind its block.
    pub(crate) fn show(&self) {
        self.block.redirect(self.address());
    }
}

/// The tables of one version of a name: one per block of entries.
#[derive(Debug, Default)]
pub(crate) struct VersionTables {
    tables: Vec<VersionTable>,
}

impl VersionTables {
    /// A version from its tables.
    pub(crate) fn new(tables: Vec<VersionTable>) -> VersionTables {
        VersionTables { tables }
    }

    /// Addresses of its tables: what a task has that is on its way through one of them.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.tables.iter().map(VersionTable::range)
    }

    /// The table of a block.
    pub(crate) fn of(&self, block: &Arc<EntryBlock>) -> Option<&VersionTable> {
        self.tables.iter().find(|t| Arc::ptr_eq(&t.block, block))
    }
}

/// A step that puts versions behind entries, of one name or of several. Everything it needs is made before; the blocks are those that
/// can be called.
#[derive(Debug)]
pub(crate) struct Commit<'a> {
    changes: Vec<Change<'a>>,
    waiting: Option<Waiting>,
}

/// What one block leads to afterwards.
#[derive(Debug)]
enum Change<'a> {
    Table(&'a VersionTable),
    Gone(&'a Arc<EntryBlock>),
}

impl Change<'_> {
    fn block(&self) -> &Arc<EntryBlock> {
        match self {
            Change::Table(table) => &table.block,
            Change::Gone(block) => block,
        }
    }

    fn show(&self) {
        match self {
            Change::Table(table) => table.show(),
            Change::Gone(block) => block.retire(),
        }
    }
}

/// The tables at which callers wait. They must stay until no task can be inside.
#[derive(Debug)]
pub(crate) struct Waiting {
    latch: Arc<Latch>,
    tables: Vec<VersionTable>,
}

/// What callers wait at.
#[derive(Debug)]
struct Latch {
    closed: AtomicU32,
}

impl Waiting {
    /// To be freed when nobody waits any more: `planks_wait` keeps the address of the table in its frame.
    pub(crate) fn retirement(self) -> Retirement {
        let name = self.tables.first().map_or_else(|| "".into(), |t| t.block.cell().clone());
        let ranges: Vec<_> = self.tables.iter().map(VersionTable::range).collect();
        let bytes = ranges.iter().map(|r| r.len()).sum();
        Retirement { name, version: 0, bytes, ranges, shows_in_frames: true, what: Arc::new(self) }
    }
}

impl<'a> Commit<'a> {
    /// Prepares to show, in one step, what these versions have for these blocks. A block that the version knows nothing of leads nowhere
    /// afterwards, and so do all blocks of a name without a version.
    pub(crate) fn new(
        names: impl IntoIterator<Item = (&'a [Arc<EntryBlock>], Option<&'a VersionTables>)>,
    ) -> Commit<'a> {
        let mut changes = Vec::new();
        for (blocks, version) in names {
            for block in blocks.iter().filter(|b| b.count() > 0) {
                let table = version.and_then(|v| v.of(block));
                changes.push(table.map_or(Change::Gone(block), Change::Table));
            }
        }
        let waiting = (changes.len() > 1).then(|| {
            let latch = Arc::new(Latch { closed: AtomicU32::new(1) });
            let tables = changes.iter().map(|c| VersionTable::waiting(c.block(), &latch)).collect();
            Waiting { latch, tables }
        });
        Commit { changes, waiting }
    }

    /// Number of version words that [`show`](Commit::show) sets for good.
    pub(crate) fn stores(&self) -> usize {
        self.changes.len()
    }

    /// Shows the versions: one store, or with several blocks a store each to close and a store each to open. What it returns is to
    /// be retired.
    pub(crate) fn show(self) -> Option<Waiting> {
        for change in &self.changes {
            if let Change::Table(table) = change {
                table.block.revive();
            }
        }
        if let Some(waiting) = &self.waiting {
            waiting.tables.iter().for_each(VersionTable::show);
        }
        self.changes.iter().for_each(Change::show);
        if let Some(waiting) = &self.waiting {
            waiting.latch.open();
        }
        self.waiting
    }
}

impl Latch {
    fn open(&self) {
        self.closed.store(0, Ordering::SeqCst);
        platform().tasks().wake(&self.closed, u32::MAX);
    }
}

unsafe extern "C-unwind" {
    /// What entries lead to while a commit of several blocks is under way: `r11` = the waiting table, `r10` = number of the entry.
    fn planks_wait();
    /// First byte behind it.
    static planks_wait_end: u8;
}

/// Whether an address lies in the routine.
pub(crate) fn is_wait_routine(pc: usize) -> bool {
    (planks_wait as *const () as usize..&raw const planks_wait_end as usize).contains(&pc)
}

/// Waits until the commit is done. Returns 0, or the code to raise in the caller.
///
/// # Safety
/// `table` must be a waiting table.
unsafe extern "C-unwind" fn wait_until_open(table: usize) -> u32 {
    // SAFETY: the caller's promise; tables and latch stay until no task can be inside.
    let latch = unsafe { &*(header(table).about as *const Latch) };
    let task = task::current();
    while latch.closed.load(Ordering::SeqCst) != 0 {
        if kill::requested(task) {
            return TrapCode::Killed as u32;
        }
        platform().tasks().wait(&latch.closed, 1, None);
    }
    0
}

// Arguments travel in rdi rsi rdx rcx r8 r9, xmm0-7 and on the caller's stack (docs/CELL_ABI.md); rax is the argument count of C's
// variadic calls. All of it is as it was when the function is called in the end.
global_asm!(
    r#"
    .pushsection .text.planks_wait,"ax",@progbits
    .p2align 4
    .globl planks_wait
    .hidden planks_wait
    .type planks_wait,@function
planks_wait:
    .cfi_startproc
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    sub rsp, 208
    movups [rsp], xmm0
    movups [rsp + 16], xmm1
    movups [rsp + 32], xmm2
    movups [rsp + 48], xmm3
    movups [rsp + 64], xmm4
    movups [rsp + 80], xmm5
    movups [rsp + 96], xmm6
    movups [rsp + 112], xmm7
    mov [rsp + 128], rdi
    mov [rsp + 136], rsi
    mov [rsp + 144], rdx
    mov [rsp + 152], rcx
    mov [rsp + 160], r8
    mov [rsp + 168], r9
    mov [rsp + 176], rax
    mov [rsp + 184], r10
    mov [rsp + 192], r11
    cld
    mov rdi, r11
    call {wait}
    test eax, eax
    jnz 2f
    movups xmm0, [rsp]
    movups xmm1, [rsp + 16]
    movups xmm2, [rsp + 32]
    movups xmm3, [rsp + 48]
    movups xmm4, [rsp + 64]
    movups xmm5, [rsp + 80]
    movups xmm6, [rsp + 96]
    movups xmm7, [rsp + 112]
    mov rdi, [rsp + 128]
    mov rsi, [rsp + 136]
    mov rdx, [rsp + 144]
    mov rcx, [rsp + 152]
    mov r8, [rsp + 160]
    mov r9, [rsp + 168]
    mov rax, [rsp + 176]
    mov r10, [rsp + 184]
    mov r11, [rsp + 192]
    leave
    .cfi_remember_state
    .cfi_def_cfa rsp, 8
    mov r11, [r11 - 16]
    mov r11, [r11]
    jmp [r11 + 8*r10]
2:
    .cfi_restore_state
    leave
    .cfi_def_cfa rsp, 8
    jmp {raise}
    .cfi_endproc
    .size planks_wait, . - planks_wait
    .globl planks_wait_end
    .hidden planks_wait_end
planks_wait_end:
    .popsection
    "#,
    wait = sym wait_until_open,
    raise = sym crate::call::planks_raise,
);
