//! Looking at tasks where they are.
//!
//! Each task that is asked gets a signal of its own and looks at the context that the signal interrupted: its registers, vector
//! registers included, and its stack from there up. The signal restarts system calls. A task that blocks it answers when it
//! lets it in; it is never sent a second one meanwhile, so signals do not pile up.
//!
//! There is one inspection at a time, the latest. A handler counts itself in [`READERS`] before it takes the inspection, and one
//! that was replaced is freed only when the counter was seen at zero since.

use super::memory::{errno, lock};
use super::task::{locals, readable_from};
use crate::task::{Inspect, RED_ZONE, StoppedTask, is_on_own_stack};
use crate::unwind::{Context, INTEGER_REGISTERS};
use alloc::sync::Arc;
use core::ops::Range;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::SeqCst};
use libc::{c_int, c_void, siginfo_t, ucontext_t};
use std::boxed::Box;
use std::sync::Mutex;
use std::vec::Vec;

struct Inspection {
    number: u64,
    with: Arc<dyn Inspect>,
}

static CURRENT: AtomicPtr<Inspection> = AtomicPtr::new(null_mut());
/// Handlers that may be using an inspection.
static READERS: AtomicUsize = AtomicUsize::new(0);
/// The number of the latest, and what was replaced and may still be used.
#[expect(clippy::vec_box, reason = "handlers hold the addresses")]
static REPLACED: Mutex<(u64, Vec<Box<Inspection>>)> = Mutex::new((0, Vec::new()));

std::thread_local! {
    /// Number of the inspection this thread is to look for, 0 for none. Not 0 exactly while its signal is under way.
    static ASKED: AtomicU64 = const { AtomicU64::new(0) };
}

/// Where a thread is told which inspection to look for.
#[derive(Debug)]
pub(super) struct Asked(*const AtomicU64);

// SAFETY: followed only while the thread is listed, and so lives; the word is atomic.
unsafe impl Send for Asked {}

impl Asked {
    /// The current thread's.
    pub(super) fn current() -> Asked {
        ASKED.with(|a| Asked(a))
    }

    /// Asks the thread to look.
    ///
    /// # Safety
    /// The thread lives; `signal` leads to [`on_inspect`].
    pub(super) unsafe fn ask(&self, number: u64, thread: libc::pid_t, signal: c_int) {
        // SAFETY: the caller's promise.
        let asked = unsafe { &*self.0 };
        if asked.swap(number, SeqCst) != 0 {
            return;
        }
        // SAFETY: plain call.
        if unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) } != 0 {
            // No signal is under way (the queue is full): it is asked again next time.
            asked.store(0, SeqCst);
        }
    }
}

/// Makes this the inspection that tasks look for. Returns its number.
pub(super) fn publish(with: Arc<dyn Inspect>) -> u64 {
    let mut replaced = lock(&REPLACED);
    replaced.0 += 1;
    let number = replaced.0;
    let old = CURRENT.swap(Box::into_raw(Box::new(Inspection { number, with })), SeqCst);
    if !old.is_null() {
        // SAFETY: it came from a box, and nobody takes it any more.
        replaced.1.push(unsafe { Box::from_raw(old) });
    }
    let unused = if READERS.load(SeqCst) == 0 { core::mem::take(&mut replaced.1) } else { Vec::new() };
    drop(replaced);
    drop(unused);
    number
}

/// Entry of the signal. Nothing here allocates or locks.
pub(super) extern "C" fn on_inspect(_signal: c_int, _info: *mut siginfo_t, context: *mut c_void) {
    let asked = ASKED.with(|a| a.swap(0, SeqCst));
    if asked == 0 {
        return;
    }
    let saved_errno = errno();
    READERS.fetch_add(1, SeqCst);
    // SAFETY: this handler is counted, so what it finds is not freed; the kernel passes a valid context.
    unsafe {
        if let Some(current) = CURRENT.load(SeqCst).as_ref().filter(|i| i.number == asked) {
            look(&*current.with, &*context.cast::<ucontext_t>());
            current.with.inspected();
        }
        READERS.fetch_sub(1, SeqCst);
        *libc::__errno_location() = saved_errno;
    }
}

/// Looks at the interrupted context.
///
/// # Safety
/// Called in the signal handler that got the context.
unsafe fn look(with: &dyn Inspect, context: &ucontext_t) {
    let task = locals();
    let registers = &context.uc_mcontext.gregs;
    let (pc, sp) = (registers[libc::REG_RIP as usize] as usize, registers[libc::REG_RSP as usize] as usize);
    let (top, readable) = (task.stack_top.get(), readable_from());
    let alternate = context.uc_stack.ss_sp as usize;
    let alternate = alternate..alternate + context.uc_stack.ss_size;
    let sp = sp & !(size_of::<usize>() - 1);
    let on_own_stack = task.stack_limit.get() != 0 && is_on_own_stack(task, sp);
    let (complete, stack, other) = if task.stack_limit.get() == 0 {
        // Its destructors run: it has left all cells.
        (true, 0..0, 0..0)
    } else if on_own_stack {
        (true, (sp - RED_ZONE).max(readable)..top, 0..0)
    } else if alternate.contains(&sp) {
        // Inside another signal's handler. Where that one interrupted the stack is saved somewhere on this one.
        let other = (sp - RED_ZONE).max(alternate.start)..alternate.end;
        // SAFETY: the alternate stack of this thread, which runs nothing else.
        let words = other.clone().step_by(size_of::<usize>()).map(|at| unsafe { *(at as *const usize) });
        let interrupted = words.filter(|w| is_on_own_stack(task, *w)).min();
        (true, interrupted.map_or(readable, |sp| (sp - RED_ZONE).max(readable))..top, other)
    } else {
        (false, 0..0, 0..0)
    };
    let general = registers.as_ptr_range();
    let parts = [general.start as usize..general.end as usize, vector_registers(context), stack, other];
    // SAFETY: the context stays until the handler returns; the stacks are the thread's own, which runs nothing else.
    let mut stopped = unsafe { StoppedTask::new(task, Some(pc), complete, parts) };
    if on_own_stack {
        stopped = stopped.with_frame(Context::interrupted(pc, &integer_registers(registers), top));
    }
    with.inspect(&stopped);
}

/// The saved integer registers in the order of their DWARF numbers.
fn integer_registers(saved: &[libc::greg_t]) -> [usize; INTEGER_REGISTERS] {
    use libc::{
        REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15, REG_RAX, REG_RBP, REG_RBX, REG_RCX,
        REG_RDI, REG_RDX, REG_RSI, REG_RSP,
    };
    [
        REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI, REG_RBP, REG_RSP, REG_R8, REG_R9, REG_R10, REG_R11,
        REG_R12, REG_R13, REG_R14, REG_R15,
    ]
    .map(|i| saved.get(i as usize).map_or(0, |r| *r as usize))
}

/// The saved registers XMM0 to XMM15 with their upper halves. Those beyond are not looked at: compilers keep nothing in them
/// over a call, but copies leave in them for long what they copied.
fn vector_registers(context: &ucontext_t) -> Range<usize> {
    /// Offset of XMM0 in the legacy area, of the kernel's description in it (`struct _fpx_sw_bytes`, `asm/sigcontext.h`), and
    /// of the end of the upper halves behind it (Intel SDM, volume 1, 13.4).
    const XMM: usize = 160;
    const DESCRIPTION: usize = 464;
    const YMM_END: usize = 832;
    const XMM_END: usize = 416;
    const MAGIC: u32 = 0x4650_5853;
    /// Bit of the upper halves among the saved components.
    const AVX: u32 = 1 << 2;
    let start = context.uc_mcontext.fpregs as usize;
    if start == 0 {
        return 0..0;
    }
    // SAFETY: the kernel saved at least the legacy area there; with the magic word, the description is valid.
    let [magic, _, saved, _, size] = unsafe { ((start + DESCRIPTION) as *const [u32; 5]).read_unaligned() };
    let has_upper_halves = magic == MAGIC && saved & AVX != 0 && size as usize >= YMM_END;
    start + XMM..start + if has_upper_halves { YMM_END } else { XMM_END }
}
