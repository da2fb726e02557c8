//! What this processor can do, for the compiler and for objects compiled elsewhere (Intel SDM vol. 2, CPUID).

use alloc::format;
use core::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
use spin::Once;
use wasm_cell::{CompileError, CpuFeatures, header::ObjectHeader};

static FEATURES: Once<CpuFeatures> = Once::new();

/// Features of this processor that generated code may use.
pub(crate) fn features() -> CpuFeatures {
    *FEATURES.call_once(detect)
}

fn detect() -> CpuFeatures {
    let leaf1 = __cpuid(1);
    let leaf7 = __cpuid_count(7, 0);
    let extended = __cpuid(0x8000_0001);
    let bit = |word: u32, n: u32| word >> n & 1 == 1;
    let (ecx, ebx7) = (leaf1.ecx, leaf7.ebx);
    // The vector registers beyond SSE are usable only when the system saves them (XCR0).
    let saved = if bit(ecx, 27) {
        // SAFETY: OSXSAVE (bit 27) says that XGETBV exists and is enabled.
        unsafe { xcr0() }
    } else {
        0
    };
    let avx = bit(ecx, 28) && saved & 0b110 == 0b110;
    let avx512 = avx && saved & 0b1110_0110 == 0b1110_0110;
    CpuFeatures {
        sse3: bit(ecx, 0),
        ssse3: bit(ecx, 9),
        sse41: bit(ecx, 19),
        sse42: bit(ecx, 20),
        popcnt: bit(ecx, 23),
        avx,
        avx2: avx && bit(ebx7, 5),
        fma: avx && bit(ecx, 12),
        bmi1: bit(ebx7, 3),
        bmi2: bit(ebx7, 8),
        lzcnt: bit(extended.ecx, 5),
        cmpxchg16b: bit(ecx, 13),
        avx512f: avx512 && bit(ebx7, 16),
        avx512vl: avx512 && bit(ebx7, 31),
        avx512dq: avx512 && bit(ebx7, 17),
        avx512bitalg: avx512 && bit(leaf7.ecx, 12),
        avx512vbmi: avx512 && bit(leaf7.ecx, 1),
    }
}

#[target_feature(enable = "xsave")]
fn xcr0() -> u64 {
    // SAFETY: register 0 always exists where XGETBV does.
    unsafe { _xgetbv(0) }
}

/// Refuses code for a processor with features that this one lacks.
pub(crate) fn check(header: &ObjectHeader) -> Result<(), CompileError> {
    let (need, have) = (header.cpu, features());
    if need.is_subset_of(&have) {
        return Ok(());
    }
    Err(CompileError::Object(format!(
        "it was compiled for a processor with features that this one lacks: it needs {need:?}. Recompile the module here"
    )))
}
