//! Running code one instruction at a time, with a request to kill at a chosen one.
//!
//! The trap flag makes the processor raise a debug exception behind every instruction, which arrives as `SIGTRAP`. Its handler
//! counts, and at the chosen instruction asks the task (its own) to stop; the interrupt of that request is delivered
//! when the handler returns, at the same program counter.

use namespace_bridge::{kill_task, text_index::TEXT};
use runtime_port::task;
use std::mem::zeroed;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, Once};

const TRAP_FLAG: i64 = 0x100;

/// Which instructions are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Those of wasm code.
    Wasm,
    /// All others: host functions, builtins, entries, thunks, the call path.
    Native,
}

/// What happened.
#[derive(Debug)]
pub struct Stepped<R> {
    pub result: R,
    /// Program counter at the request; `None` when the code ended before the chosen instruction.
    pub killed_at: Option<usize>,
    /// Callee-saved registers that the code did not preserve.
    pub lost_registers: u64,
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
static LEFT: AtomicUsize = AtomicUsize::new(0);
static WASM: AtomicBool = AtomicBool::new(true);
static KILLED_AT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_step(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes the interrupted context.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let pc = registers[libc::REG_RIP as usize] as usize;
    if TEXT.read().find(pc).is_some() != WASM.load(SeqCst) {
        return;
    }
    match LEFT.load(SeqCst) {
        0 => {
            KILLED_AT.store(pc, SeqCst);
            registers[libc::REG_EFL as usize] &= !TRAP_FLAG;
            let _ = kill_task(task::current().id.get());
        }
        n => LEFT.store(n - 1, SeqCst),
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the handler has the right signature; the other signals wait meanwhile.
        unsafe {
            let mut action: libc::sigaction = zeroed();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_step;
            action.sa_sigaction = handler as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigfillset(&mut action.sa_mask);
            assert_eq!(libc::sigaction(libc::SIGTRAP, &action, std::ptr::null_mut()), 0);
        }
    });
}

core::arch::global_asm!(
    r#"
    .pushsection .text.test_preserved,"ax",@progbits
    .globl planks_test_preserved
planks_test_preserved:
    push rbp
    push rbx
    push r12
    push r13
    push r14
    push r15
    sub rsp, 8
    mov rax, rdi
    mov rdi, rsi
    mov rbx, 0x1111
    mov rbp, 0x2222
    mov r12, 0x3333
    mov r13, 0x4444
    mov r14, 0x5555
    mov r15, 0x6666
    call rax
    xor rbx, 0x1111
    xor rbp, 0x2222
    xor r12, 0x3333
    xor r13, 0x4444
    xor r14, 0x5555
    xor r15, 0x6666
    mov rax, rbx
    or rax, rbp
    or rax, r12
    or rax, r13
    or rax, r14
    or rax, r15
    add rsp, 8
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
    .popsection
    "#
);

unsafe extern "C" {
    /// Calls `f(data)` with known values in the callee-saved registers; 0 if they are back afterwards.
    fn planks_test_preserved(f: extern "C" fn(*mut u8), data: *mut u8) -> u64;
}

/// Runs `f` step by step and asks it to stop before instruction `k` of those that count.
pub fn kill_at<R>(count: Count, k: usize, f: impl FnOnce() -> R) -> Stepped<R> {
    struct Call<F, R> {
        f: Option<F>,
        result: Option<R>,
    }
    extern "C" fn run<F: FnOnce() -> R, R>(data: *mut u8) {
        // SAFETY: the `Call` below.
        let call = unsafe { &mut *data.cast::<Call<F, R>>() };
        let f = call.f.take().unwrap();
        // SAFETY: sets the trap flag.
        unsafe { core::arch::asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq") };
        let result = f();
        // SAFETY: clears the trap flag.
        unsafe { core::arch::asm!("pushfq", "and qword ptr [rsp], -257", "popfq") };
        call.result = Some(result);
    }
    fn runner<F: FnOnce() -> R, R>(_: &F) -> extern "C" fn(*mut u8) {
        run::<F, R>
    }
    let _one = ONE_AT_A_TIME.lock();
    install();
    LEFT.store(k, SeqCst);
    WASM.store(count == Count::Wasm, SeqCst);
    KILLED_AT.store(0, SeqCst);
    let routine = runner(&f);
    let mut call = Call { f: Some(f), result: None };
    // SAFETY: `run` is what fits the `Call`.
    let lost_registers = unsafe { planks_test_preserved(routine, (&raw mut call).cast()) };
    let killed_at = Some(KILLED_AT.load(SeqCst)).filter(|pc| *pc != 0);
    Stepped { result: call.result.unwrap(), killed_at, lost_registers }
}
