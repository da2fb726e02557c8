//! The processor: what has to be switched on, and what the port itself uses.
//!
//! What code generation may use is [`crate::cpu::CpuFeatures`].

use super::context::{VECTOR_BYTES, XSAVE_COMPONENTS};
use core::{
    arch::x86_64::{__cpuid, __cpuid_count, CpuidResult},
    sync::atomic::Ordering,
};
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
/// CPUID.1:EDX, "APIC".
const APIC: u32 = 1 << 9;

/// Lets code use AVX registers if the processor has them: without OSXSAVE and XCR0 no program may (SDM vol. 1, 14.3).
/// From here on the exception entries save them too.
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
    // CPUID.0DH.0:EBX is the size of what is switched on now.
    if leaf(0xd, 0).ebx as usize > VECTOR_BYTES {
        state = XCr0Flags::X87 | XCr0Flags::SSE;
        // SAFETY: as above.
        unsafe { XCr0::write(state) };
    }
    XSAVE_COMPONENTS.store(state.bits() as u32, Ordering::Release);
}

/// Switches on what keeps ring 0 from running or touching pages of user mode, and user mode from reading descriptor tables, as
/// far as the processor has it (SMEP, SMAP, UMIP; SDM vol. 3, 2.5). There is no user mode here; a page that looks like one of
/// its own is a damaged entry.
pub fn enable_protection() {
    let leaf = leaf(7, 0);
    let wanted = [
        (leaf.ebx >> 7 & 1, Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION),
        (leaf.ebx >> 20 & 1, Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION),
        (leaf.ecx >> 2 & 1, Cr4Flags::USER_MODE_INSTRUCTION_PREVENTION),
    ];
    let present = wanted.into_iter().filter(|(bit, _)| *bit == 1).map(|(_, flag)| flag).collect::<Cr4Flags>();
    // SAFETY: the processor has them, and no page is a user page.
    unsafe { Cr4::update(|cr4| cr4.insert(present)) };
}

/// A leaf of CPUID; zeroes if the processor does not have it.
pub fn leaf(number: u32, sub: u32) -> CpuidResult {
    match __cpuid(number & 0x8000_0000).eax {
        highest if highest >= number => __cpuid_count(number, sub),
        _ => CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 },
    }
}

/// Whether the processor has RDRAND.
pub fn has_rdrand() -> bool {
    __cpuid(1).ecx & RDRAND != 0
}

/// Whether the processor has a local interrupt controller.
pub(super) fn has_apic() -> bool {
    __cpuid(1).edx & APIC != 0
}
