//! CPU exceptions.
//!
//! A port catches the exceptions that running code can cause (page fault, divide error, invalid opcode, general
//! protection, alignment) on a stack of its own and asks the installed handler what to do. The handler may rewrite the
//! saved context; execution then goes on there, on the interrupted task's own stack.

/// Kind of a CPU exception (Intel SDM vol. 3, 6.15; hosted: the signal it arrives as).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exception {
    /// #PF, SIGSEGV, SIGBUS.
    PageFault,
    /// #DE, SIGFPE.
    DivideError,
    /// #UD, SIGILL.
    InvalidOpcode,
    /// #GP and non-canonical addresses (SIGSEGV without a fault address).
    GeneralProtection,
    /// #BP, or #DB by `int1`: SIGTRAP. The instruction pointer is behind the instruction.
    Breakpoint,
    /// A kill request or timer reached the task (no fault).
    Interrupt,
}

/// The interrupted context. The handler may change every field but `exception` and `fault_address`.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct ExceptionContext {
    /// What happened.
    pub exception: Exception,
    /// Address whose access faulted (page faults only).
    pub fault_address: Option<usize>,
    /// Instruction pointer: of the faulting instruction.
    pub rip: usize,
    /// Stack pointer.
    pub rsp: usize,
    /// Frame pointer.
    pub rbp: usize,
    /// First argument register.
    pub rdi: usize,
    /// Second argument register.
    pub rsi: usize,
    /// Third argument register.
    pub rdx: usize,
    /// Result register.
    pub rax: usize,
    /// Flags register.
    pub rflags: usize,
}

/// Decision of a handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExceptionAction {
    /// Not the handler's: the port reports it as fatal (or hands it to who was there before).
    NotMine,
    /// Go on with the (rewritten) context.
    Resume,
}

/// A handler. Runs in exception context: it must not allocate, lock what interrupted code may hold, or unwind.
pub type ExceptionHandler = fn(&mut ExceptionContext) -> ExceptionAction;

/// What a port does with CPU exceptions.
pub trait TrapPort: Sync {
    /// Installs the handler for all tasks, present and future. Handlers already installed are asked first.
    /// Fails when the fixed table of handlers is full.
    fn install_handler(&self, handler: ExceptionHandler) -> Result<(), TrapError>;
}

/// Why a handler could not be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrapError {
    /// All places are taken.
    #[error("all {0} places for exception handlers are taken")]
    Full(usize),
    /// The operating system refused.
    #[error("the operating system refused to install exception handling (errno {0})")]
    Refused(i32),
}
