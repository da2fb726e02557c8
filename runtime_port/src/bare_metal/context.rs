//! A task's processor state: what the exception entries save and a switch exchanges.
//!
//! Every entry, also that of a voluntary switch, saves everything: integer registers on the exception stack, vector
//! registers in the [`VectorState`] of the task. So a task that does not run looks the same however it came to that.

use crate::unwind::INTEGER_REGISTERS;
use core::sync::atomic::AtomicU32;

/// Integer registers of interrupted code, as the exception entries lay them out on their stack: pushed by the entry from `rax`
/// down to `r15`, below what the processor pushes (Intel SDM vol. 3, figure 6-9) and the entry's number.
#[derive(Debug, Clone, Copy, Default)]
#[expect(missing_docs, reason = "the fields are the names of the registers")]
#[repr(C)]
pub struct Registers {
    pub r15: usize,
    pub r14: usize,
    pub r13: usize,
    pub r12: usize,
    pub r11: usize,
    pub r10: usize,
    pub r9: usize,
    pub r8: usize,
    pub rbp: usize,
    pub rdi: usize,
    pub rsi: usize,
    pub rdx: usize,
    pub rcx: usize,
    pub rbx: usize,
    pub rax: usize,
    /// Number of the exception or interrupt.
    pub vector: usize,
    /// Its error code, 0 if it has none.
    pub error: usize,
    pub rip: usize,
    pub cs: usize,
    pub rflags: usize,
    pub rsp: usize,
    pub ss: usize,
}

impl Registers {
    /// The registers that can hold addresses of code and data: all but segments, flags and numbers.
    pub fn words(&self) -> [usize; 17] {
        let r = self;
        [
            r.r15, r.r14, r.r13, r.r12, r.r11, r.r10, r.r9, r.r8, r.rbp, r.rdi, r.rsi, r.rdx, r.rcx, r.rbx, r.rax,
            r.rip, r.rsp,
        ]
    }

    /// The integer registers in the order of their DWARF numbers (psABI, figure 3.36).
    pub fn in_dwarf_order(&self) -> [usize; INTEGER_REGISTERS] {
        let r = self;
        [r.rax, r.rdx, r.rcx, r.rbx, r.rsi, r.rdi, r.rbp, r.rsp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14, r.r15]
    }
}

/// Bytes of a [`VectorState`]: the legacy area, the header and the AVX halves in the standard format (SDM vol. 1, 13.4) take
/// 832; [`super::cpu::enable_vectors`] switches nothing on that needs more.
pub(super) const VECTOR_BYTES: usize = 896;

/// Memory image of x87, SSE and AVX registers: of `xsave` if the processor has it, else of `fxsave`.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub struct VectorState([u8; VECTOR_BYTES]);

impl VectorState {
    /// The state in which a function may start: no exception unmasked, round to nearest, registers of `xsave` zero.
    pub const fn new() -> Self {
        /// x87 control word after `fninit` (SDM vol. 1, 8.1.5).
        const FCW: [u8; 2] = 0x037f_u16.to_le_bytes();
        /// MXCSR after reset (SDM vol. 1, 10.2.3).
        const MXCSR: [u8; 4] = 0x1f80_u32.to_le_bytes();
        let mut bytes = [0; VECTOR_BYTES];
        (bytes[0], bytes[1]) = (FCW[0], FCW[1]);
        (bytes[24], bytes[25], bytes[26], bytes[27]) = (MXCSR[0], MXCSR[1], MXCSR[2], MXCSR[3]);
        Self(bytes)
    }

    /// What can hold addresses, as far as compilers keep any there: from the first 128-bit register to the end of the upper halves.
    pub(super) fn vector_registers(&self) -> &[u8] {
        self.0.get(160..832).unwrap_or(&[])
    }

    /// The bytes, for a conservative scan: 128-bit registers start at 160, the upper halves of AVX at 576.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Default for VectorState {
    fn default() -> Self {
        Self::new()
    }
}

/// The components that `xsave` and `xrstor` are to handle (XCR0); 0 on a processor without them, where `fxsave` does.
pub static XSAVE_COMPONENTS: AtomicU32 = AtomicU32::new(0);
