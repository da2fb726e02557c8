//! What this processor can do, for the compiler and for objects compiled elsewhere.
#![deny(unsafe_code)]

use alloc::format;
use spin::Once;
use wasm_cell::{CompileError, CpuFeatures, header::ObjectHeader};

static FEATURES: Once<CpuFeatures> = Once::new();

/// Features of this processor that generated code may use.
pub(crate) fn features() -> CpuFeatures {
    *FEATURES.call_once(|| {
        let has = runtime_port::cpu::CpuFeatures::detect();
        CpuFeatures {
            sse3: has.sse3,
            ssse3: has.ssse3,
            sse41: has.sse41,
            sse42: has.sse42,
            popcnt: has.popcnt,
            avx: has.avx,
            avx2: has.avx2,
            fma: has.fma,
            bmi1: has.bmi1,
            bmi2: has.bmi2,
            lzcnt: has.lzcnt,
            cmpxchg16b: has.cmpxchg16b,
            avx512f: has.avx512f,
            avx512vl: has.avx512vl,
            avx512dq: has.avx512dq,
            avx512bitalg: has.avx512bitalg,
            avx512vbmi: has.avx512vbmi,
        }
    })
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
