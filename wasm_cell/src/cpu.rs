//! Processor features that generated code may use.

/// Features of an x86-64 processor beyond the baseline (Intel SDM vol. 2, CPUID). Code compiled with a feature must not
/// run on a processor without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
#[expect(missing_docs, reason = "named after the CPUID flags")]
#[expect(clippy::struct_excessive_bools, reason = "a set of independent CPUID flags")]
pub struct CpuFeatures {
    pub sse3: bool,
    pub ssse3: bool,
    pub sse41: bool,
    pub sse42: bool,
    pub popcnt: bool,
    pub avx: bool,
    pub avx2: bool,
    pub fma: bool,
    pub bmi1: bool,
    pub bmi2: bool,
    pub lzcnt: bool,
    pub cmpxchg16b: bool,
    pub avx512f: bool,
    pub avx512vl: bool,
    pub avx512dq: bool,
    pub avx512bitalg: bool,
    pub avx512vbmi: bool,
}

impl CpuFeatures {
    /// The baseline: SSE2 only.
    pub const NONE: CpuFeatures = CpuFeatures {
        sse3: false,
        ssse3: false,
        sse41: false,
        sse42: false,
        popcnt: false,
        avx: false,
        avx2: false,
        fma: false,
        bmi1: false,
        bmi2: false,
        lzcnt: false,
        cmpxchg16b: false,
        avx512f: false,
        avx512vl: false,
        avx512dq: false,
        avx512bitalg: false,
        avx512vbmi: false,
    };

    /// x86-64-v3: what processors since Haswell and Zen have.
    pub const V3: CpuFeatures = CpuFeatures {
        sse3: true,
        ssse3: true,
        sse41: true,
        sse42: true,
        popcnt: true,
        avx: true,
        avx2: true,
        fma: true,
        bmi1: true,
        bmi2: true,
        lzcnt: true,
        cmpxchg16b: true,
        ..CpuFeatures::NONE
    };

    /// Whether a processor with `other` has all of these.
    pub fn is_subset_of(&self, other: &CpuFeatures) -> bool {
        self.settings().iter().zip(other.settings()).all(|((_, need), (_, have))| !need || have)
    }

    /// Each feature with the name of Cranelift's setting for it.
    pub(crate) fn settings(&self) -> [(&'static str, bool); 17] {
        [
            ("has_sse3", self.sse3),
            ("has_ssse3", self.ssse3),
            ("has_sse41", self.sse41),
            ("has_sse42", self.sse42),
            ("has_popcnt", self.popcnt),
            ("has_avx", self.avx),
            ("has_avx2", self.avx2),
            ("has_fma", self.fma),
            ("has_bmi1", self.bmi1),
            ("has_bmi2", self.bmi2),
            ("has_lzcnt", self.lzcnt),
            ("has_cmpxchg16b", self.cmpxchg16b),
            ("has_avx512f", self.avx512f),
            ("has_avx512vl", self.avx512vl),
            ("has_avx512dq", self.avx512dq),
            ("has_avx512bitalg", self.avx512bitalg),
            ("has_avx512vbmi", self.avx512vbmi),
        ]
    }
}
