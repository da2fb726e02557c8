//! What the processor can do (CPUID, Intel SDM vol. 2, "CPUID"; AMD APM vol. 3, appendix E for `lzcnt`).

use core::arch::x86_64::{__cpuid, __cpuid_count, CpuidResult};

/// Instruction-set extensions beyond the x86-64 baseline that code generation can use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields are the names of the extensions")]
pub struct CpuFeatures {
    pub sse3: bool,
    pub ssse3: bool,
    pub sse41: bool,
    pub sse42: bool,
    pub popcnt: bool,
    pub avx: bool,
    pub avx2: bool,
    pub bmi1: bool,
    pub bmi2: bool,
    pub lzcnt: bool,
    pub fma: bool,
    pub cmpxchg16b: bool,
    pub avx512f: bool,
    pub avx512vl: bool,
    pub avx512dq: bool,
    pub avx512bitalg: bool,
    pub avx512vbmi: bool,
}

impl CpuFeatures {
    /// What this processor has and the system lets programs use: extensions with 256-bit registers count only if the
    /// system saves them (OSXSAVE set, XCR0 bits 1 and 2; SDM vol. 1, 14.3), those of AVX-512 only with opmask and 512-bit
    /// registers (bits 5 to 7 too; SDM vol. 1, 15.2).
    pub fn detect() -> CpuFeatures {
        let highest = __cpuid(0).eax;
        let basic = __cpuid(1);
        let leaf7 = if highest >= 7 { __cpuid_count(7, 0) } else { CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 } };
        let extended = if __cpuid(0x8000_0000).eax >= 0x8000_0001 { __cpuid(0x8000_0001).ecx } else { 0 };
        let bit = |register: u32, n: u32| register >> n & 1 == 1;
        let saved = if bit(basic.ecx, 27) { xcr0() } else { 0 };
        let avx = saved & 0x06 == 0x06 && bit(basic.ecx, 28);
        let avx512f = avx && saved & 0xe6 == 0xe6 && bit(leaf7.ebx, 16);
        CpuFeatures {
            sse3: bit(basic.ecx, 0),
            ssse3: bit(basic.ecx, 9),
            sse41: bit(basic.ecx, 19),
            sse42: bit(basic.ecx, 20),
            popcnt: bit(basic.ecx, 23),
            avx,
            avx2: avx && bit(leaf7.ebx, 5),
            bmi1: bit(leaf7.ebx, 3),
            bmi2: bit(leaf7.ebx, 8),
            lzcnt: bit(extended, 5),
            fma: avx && bit(basic.ecx, 12),
            cmpxchg16b: bit(basic.ecx, 13),
            avx512f,
            avx512vl: avx512f && bit(leaf7.ebx, 31),
            avx512dq: avx512f && bit(leaf7.ebx, 17),
            avx512bitalg: avx512f && bit(leaf7.ecx, 12),
            avx512vbmi: avx512f && bit(leaf7.ecx, 1),
        }
    }
}

/// Extended control register 0. To be called only when CPUID says OSXSAVE.
fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller checked OSXSAVE, so the instruction exists; it only reads.
    unsafe {
        core::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack, preserves_flags))
    };
    u64::from(high) << 32 | u64::from(low)
}
