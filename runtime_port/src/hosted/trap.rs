//! CPU exceptions as signals.
//!
//! The signal handler runs on the task's alternate stack, asks the installed handlers, and either writes the changed
//! context back (the kernel's `sigreturn` then resumes there) or hands the signal to whoever was there before, so that
//! std's report of a native stack overflow survives.

use super::memory::{errno, lock};
use super::task;
use crate::trap::{Exception, ExceptionAction, ExceptionContext, ExceptionHandler, TrapError, TrapPort};
use core::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};
use libc::{c_int, c_void, siginfo_t, ucontext_t};
use std::boxed::Box;
use std::sync::Mutex;

/// Places for handlers.
const HANDLERS: usize = 8;

/// Signals that stand for CPU exceptions.
const FAULTS: [c_int; 5] = [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP];

/// Installed handlers, filled from the front; 0 is free.
static TABLE: [AtomicUsize; HANDLERS] = [const { AtomicUsize::new(0) }; HANDLERS];

/// What was installed for each of [`FAULTS`] before; leaked, so that a late signal finds it.
static PREVIOUS: [AtomicPtr<libc::sigaction>; FAULTS.len()] =
    [const { AtomicPtr::new(core::ptr::null_mut()) }; FAULTS.len()];

/// Number of the signal that interrupts tasks; 0 until installed.
static INTERRUPT: AtomicI32 = AtomicI32::new(0);

/// Number of the signal by which tasks are looked at; 0 until installed, negative if none was free.
static INSPECT: AtomicI32 = AtomicI32::new(0);

/// Serialises installation.
static INSTALL: Mutex<()> = Mutex::new(());

/// The hosted trap port.
#[derive(Debug)]
pub struct HostedTraps;

impl TrapPort for HostedTraps {
    fn install_handler(&self, handler: ExceptionHandler) -> Result<(), TrapError> {
        ensure_signals()?;
        let wanted = handler as usize;
        let _guard = lock(&INSTALL);
        for place in &TABLE {
            match place.load(Ordering::Acquire) {
                0 => {
                    place.store(wanted, Ordering::Release);
                    return Ok(());
                }
                installed if installed == wanted => return Ok(()),
                _ => {}
            }
        }
        Err(TrapError::Full(HANDLERS))
    }
}

/// The signal for [`Exception::Interrupt`], with all signal handlers in place.
pub(super) fn interrupt_signal() -> Result<c_int, TrapError> {
    ensure_signals()?;
    Ok(INTERRUPT.load(Ordering::Acquire))
}

/// The signal by which tasks are looked at, with its handler in place; `None` if there is none.
pub(super) fn inspect_signal() -> Option<c_int> {
    ensure_signals().ok()?;
    Some(INSPECT.load(Ordering::Acquire)).filter(|s| *s > 0)
}

/// Installs the signal handlers once.
fn ensure_signals() -> Result<(), TrapError> {
    if INTERRUPT.load(Ordering::Acquire) != 0 {
        return Ok(());
    }
    let _guard = lock(&INSTALL);
    if INTERRUPT.load(Ordering::Acquire) != 0 {
        return Ok(());
    }
    let interrupt = free_realtime_signal(None)?;
    // Without a second one everything works, but nothing that a task might use is ever freed.
    let inspect = free_realtime_signal(Some(interrupt)).ok();
    let handlers = Handlers { interrupt, inspect };
    for (signal, previous) in FAULTS.into_iter().zip(&PREVIOUS) {
        if previous.load(Ordering::Acquire).is_null() {
            previous.store(Box::into_raw(Box::new(current_action(signal)?)), Ordering::Release);
        }
        handlers.install(signal, on_signal, 0)?;
    }
    handlers.install(interrupt, on_signal, 0)?;
    // Blocking system calls of tasks that are only looked at go on.
    let inspected = inspect.map(|s| handlers.install(s, super::inspect::on_inspect, libc::SA_RESTART).map(|()| s));
    INSPECT.store(inspected.and_then(Result::ok).unwrap_or(-1), Ordering::Release);
    INTERRUPT.store(interrupt, Ordering::Release);
    Ok(())
}

/// The highest real-time signal nobody handles, other than `taken`.
fn free_realtime_signal(taken: Option<c_int>) -> Result<c_int, TrapError> {
    for signal in (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().filter(|s| Some(*s) != taken) {
        if current_action(signal)?.sa_sigaction == libc::SIG_DFL {
            return Ok(signal);
        }
    }
    Err(TrapError::Refused(libc::EBUSY))
}

fn current_action(signal: c_int) -> Result<libc::sigaction, TrapError> {
    // SAFETY: `sigaction` is plain data; the call only reads the disposition.
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        match libc::sigaction(signal, core::ptr::null(), &mut action) {
            0 => Ok(action),
            _ => Err(TrapError::Refused(errno())),
        }
    }
}

type SignalHandler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

/// The signals that wait while one of ours is handled: a handler never interrupts another.
struct Handlers {
    interrupt: c_int,
    inspect: Option<c_int>,
}

impl Handlers {
    fn install(&self, signal: c_int, handler: SignalHandler, flags: c_int) -> Result<(), TrapError> {
        // SAFETY: the handlers have the signature `SA_SIGINFO` asks for and are async-signal-safe.
        unsafe {
            let mut action: libc::sigaction = core::mem::zeroed();
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | flags;
            libc::sigemptyset(&mut action.sa_mask);
            libc::sigaddset(&mut action.sa_mask, self.interrupt);
            if let Some(inspect) = self.inspect {
                libc::sigaddset(&mut action.sa_mask, inspect);
            }
            match libc::sigaction(signal, &action, core::ptr::null_mut()) {
                0 => Ok(()),
                _ => Err(TrapError::Refused(errno())),
            }
        }
    }
}

/// Entry of every signal. Nothing here allocates or locks.
extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes valid pointers to the signal's information and the interrupted context, both ours
    // until we return; `errno` belongs to the interrupted code and is put back.
    unsafe {
        let saved_errno = *libc::__errno_location();
        if !handle(signal, &*info, &mut *context.cast::<ucontext_t>()) {
            chain(signal, info, context);
        }
        *libc::__errno_location() = saved_errno;
    }
}

/// Lets the handlers decide. Returns whether the interrupted code can go on.
fn handle(signal: c_int, info: &siginfo_t, context: &mut ucontext_t) -> bool {
    let Some((exception, fault_address)) = classify(signal, info) else { return false };
    let mut saved = read_context(context, exception, fault_address);
    for place in &TABLE {
        let address = place.load(Ordering::Acquire);
        if address == 0 {
            break;
        }
        // SAFETY: only `install_handler` writes the table, and only handlers.
        let handler: ExceptionHandler = unsafe { core::mem::transmute::<usize, ExceptionHandler>(address) };
        if handler(&mut saved) == ExceptionAction::Resume {
            write_context(context, &saved);
            return true;
        }
    }
    exception == Exception::Interrupt || fault_address.is_some_and(task::open_yellow_zone)
}

/// Which exception a signal stands for; `None` for one that a process sent.
fn classify(signal: c_int, info: &siginfo_t) -> Option<(Exception, Option<usize>)> {
    /// `si_code` of faults without an address, such as non-canonical ones (`asm-generic/siginfo.h`).
    const SI_KERNEL: c_int = 0x80;
    const TRAP_BRKPT: c_int = 1;
    if signal == INTERRUPT.load(Ordering::Acquire) {
        return Some((Exception::Interrupt, None));
    }
    if info.si_code <= 0 {
        return None;
    }
    // SAFETY: fault signals carry an address.
    let address = unsafe { info.si_addr() } as usize;
    match signal {
        libc::SIGSEGV if info.si_code == SI_KERNEL => Some((Exception::GeneralProtection, None)),
        libc::SIGSEGV | libc::SIGBUS => Some((Exception::PageFault, Some(address))),
        libc::SIGFPE => Some((Exception::DivideError, None)),
        libc::SIGILL => Some((Exception::InvalidOpcode, None)),
        // `int3` and `int1`; single steps are a debugger's.
        libc::SIGTRAP if matches!(info.si_code, SI_KERNEL | TRAP_BRKPT) => Some((Exception::Breakpoint, None)),
        _ => None,
    }
}

/// Which saved register each field of the context is.
macro_rules! for_registers {
    ($do:ident) => {
        $do!(rip REG_RIP, rsp REG_RSP, rbp REG_RBP, rdi REG_RDI, rsi REG_RSI, rdx REG_RDX, rax REG_RAX, rflags REG_EFL)
    };
}

fn read_context(context: &ucontext_t, exception: Exception, fault_address: Option<usize>) -> ExceptionContext {
    let registers = &context.uc_mcontext.gregs;
    macro_rules! read {
        ($($field:ident $register:ident),*) => {
            ExceptionContext { exception, fault_address, $($field: registers[libc::$register as usize] as usize),* }
        };
    }
    for_registers!(read)
}

fn write_context(context: &mut ucontext_t, saved: &ExceptionContext) {
    let registers = &mut context.uc_mcontext.gregs;
    macro_rules! write {
        ($($field:ident $register:ident),*) => { { $( registers[libc::$register as usize] = saved.$field as i64; )* } };
    }
    for_registers!(write);
}

/// Hands a signal to the handler that was there before, or to the default action.
///
/// # Safety
/// To be called in a signal handler, with that handler's arguments.
unsafe fn chain(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let i = FAULTS.iter().position(|s| *s == signal);
    // SAFETY: set before the handler was installed, and never freed.
    let previous = i.and_then(|i| unsafe { PREVIOUS[i].load(Ordering::Acquire).as_ref() });
    match previous {
        Some(p) if p.sa_sigaction != libc::SIG_DFL && p.sa_sigaction != libc::SIG_IGN => {
            // SAFETY: the process installed this address as a handler of the kind its flags say.
            unsafe {
                if p.sa_flags & libc::SA_SIGINFO != 0 {
                    let f: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) = core::mem::transmute(p.sa_sigaction);
                    f(signal, info, context)
                } else {
                    let f: extern "C" fn(c_int) = core::mem::transmute(p.sa_sigaction);
                    f(signal)
                }
            }
        }
        _ => {
            // The default action takes effect when the instruction faults again, or at once for a sent signal.
            // SAFETY: plain calls, async-signal-safe.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                if (*info).si_code <= 0 {
                    libc::raise(signal);
                }
            }
        }
    }
}
