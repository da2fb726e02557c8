//! The processor: what has to be switched on, and what the port itself uses.
//!
//! What code generation may use is [`crate::cpu::CpuFeatures`].

use core::arch::x86_64::__cpuid;
use x86_64::registers::{
    control::{Cr4, Cr4Flags},
    xcontrol::{XCr0, XCr0Flags},
};

/// CPUID.1:ECX, "XSAVE".
const XSAVE: u32 = 1 << 26;
/// CPUID.1:ECX, "AVX".
const AVX: u32 = 1 << 28;
/// CPUID.1:ECX, "RDRAND".
const RDRAND: u32 = 1 << 30;

/// Lets code use AVX registers if the processor has them: without OSXSAVE and XCR0 no program may (SDM vol. 1, 14.3).
/// Exception entries save only what SSE code can change, which leaves the upper halves alone.
pub fn enable_vectors() {
    let features = __cpuid(1).ecx;
    if features & XSAVE == 0 {
        return;
    }
    let mut state = XCr0Flags::X87 | XCr0Flags::SSE;
    if features & AVX != 0 {
        state |= XCr0Flags::AVX;
    }
    // SAFETY: the processor has XSAVE, and AVX state if we ask for it.
    unsafe {
        Cr4::update(|cr4| cr4.insert(Cr4Flags::OSXSAVE));
        XCr0::write(state);
    }
}

/// Whether the processor has RDRAND.
pub fn has_rdrand() -> bool {
    __cpuid(1).ecx & RDRAND != 0
}
