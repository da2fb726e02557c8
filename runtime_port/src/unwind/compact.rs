//! Rows in one cache line, and the cache of them.
//!
//! Nearly every frame has a CFA of register plus offset and saves some of the callee-saved registers at multiples of 8 below it.
//! Such a row, with what the personality routine needs, fits into 56 bytes; others are decoded every time.
//!
//! The cache is a fixed table that any context may read and fill, exception handlers included: each place is guarded by a
//! sequence number that is odd while somebody writes. Who finds it odd or changed, decodes; who wants to write and finds
//! it odd, does not. Rows of code that can go away carry the generation they were decoded in, and every deregistration
//! starts a new one; rows of the base image are valid for ever.

use super::eh_frame::Record;
use super::program::{CfaRule, Row, Rule, column};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// The columns a compact row has rules for.
pub(super) const SAVED: [usize; 7] =
    [column::RBX, column::RBP, column::R12, column::R13, column::R14, column::R15, column::RETURN_ADDRESS];

/// The register is as the callee left it.
pub(super) const SAME: i16 = i16::MIN;
/// There is no caller.
pub(super) const UNDEFINED: i16 = i16::MIN + 1;
/// The register's value is lost. Every rule that names a place is greater.
pub(super) const LOST: i16 = i16::MIN + 2;

/// What is needed to leave a frame, and to ask its personality routine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CompactRow {
    /// Start of the function.
    pub function: usize,
    /// Address of its language-specific data, or 0.
    pub lsda: usize,
    /// Address of its personality routine, or 0.
    pub personality: usize,
    pub cfa_register: u8,
    pub is_signal_frame: bool,
    pub cfa_offset: i32,
    /// For each of [`SAVED`]: saved at CFA + 8·n, or [`SAME`], or [`UNDEFINED`].
    pub rules: [i16; SAVED.len()],
}

impl CompactRow {
    /// `None` if the row needs more than a compact one can say.
    pub fn new(record: &Record<'_>, row: &Row<'_>, personality: usize) -> Option<CompactRow> {
        let CfaRule::Register(register, offset) = row.cfa else { return None };
        let mut rules = [SAME; SAVED.len()];
        for (i, rule) in row.rules.iter().enumerate() {
            let place = SAVED.iter().position(|s| *s == i).and_then(|p| rules.get_mut(p));
            match (rule, place) {
                (Rule::Unspecified | Rule::Same, _) => {}
                (Rule::Offset(n), Some(place)) if n % 8 == 0 => {
                    *place = i16::try_from(n / 8).ok().filter(|n| *n > LOST)?;
                }
                (Rule::Undefined, Some(place)) if i == column::RETURN_ADDRESS => *place = UNDEFINED,
                (Rule::Undefined, None) if i != column::RSP => {}
                _ => return None,
            }
        }
        if row.args_size != 0 || *rules.last()? == SAME {
            return None;
        }
        Some(CompactRow {
            function: record.start,
            lsda: record.lsda,
            personality,
            cfa_register: u8::try_from(register).ok()?,
            is_signal_frame: record.cie.is_signal_frame,
            cfa_offset: i32::try_from(offset).ok()?,
            rules,
        })
    }

    /// The row behind the prologue of any function that keeps frame pointers, when its own row is not to be had: the caller's
    /// other callee-saved registers are lost.
    pub fn frame_pointers(function: usize) -> CompactRow {
        CompactRow {
            function,
            lsda: 0,
            personality: 0,
            cfa_register: column::RBP as u8,
            is_signal_frame: false,
            cfa_offset: 16,
            rules: SAVED.map(|i| match i {
                column::RBP => -2,
                column::RETURN_ADDRESS => -1,
                _ => LOST,
            }),
        }
    }

    fn to_words(self, pc: usize) -> [u64; 7] {
        let [a, b, c, d, e, f, g] = self.rules.map(|r| u64::from(r as u16));
        [
            pc as u64,
            self.function as u64,
            self.lsda as u64,
            self.personality as u64,
            self.cfa_offset as u32 as u64 | a << 32 | b << 48,
            c | d << 16 | e << 32 | f << 48,
            g | u64::from(self.cfa_register) << 16 | u64::from(self.is_signal_frame) << 24,
        ]
    }

    #[inline(always)]
    fn from_words(words: [u64; 7]) -> CompactRow {
        let [_, function, lsda, personality, x, y, z] = words;
        CompactRow {
            function: function as usize,
            lsda: lsda as usize,
            personality: personality as usize,
            cfa_register: (z >> 16) as u8,
            is_signal_frame: z >> 24 & 1 != 0,
            cfa_offset: x as i32,
            rules: [x >> 32, x >> 48, y, y >> 16, y >> 32, y >> 48, z].map(|r| r as i16),
        }
    }
}

/// How long a cached row is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Validity {
    /// Of code that never goes away.
    Forever,
    /// Until some registration goes away; the generation was read before the row was looked up.
    Generation(u32),
}

/// Of rows that never become invalid.
const FOREVER: u32 = 0;

/// The present generation.
static GENERATION: AtomicU32 = AtomicU32::new(1);

/// The generation for a row that is looked up after this.
pub(super) fn generation() -> u32 {
    GENERATION.load(Ordering::SeqCst)
}

/// Makes all rows of code that can go away invalid.
pub(super) fn start_generation() {
    // One number is taken.
    if GENERATION.fetch_add(1, Ordering::SeqCst).wrapping_add(1) == FOREVER {
        GENERATION.fetch_add(1, Ordering::SeqCst);
    }
}

/// A place: sequence number and, above it, generation; then the row.
#[repr(C, align(64))]
struct Place {
    state: AtomicU64,
    words: [AtomicU64; 7],
}

/// Places of the cache, a power of two: 64 KiB.
const PLACES: usize = 1024;

static CACHE: [Place; PLACES] =
    [const { Place { state: AtomicU64::new(0), words: [const { AtomicU64::new(0) }; 7] } }; PLACES];

/// The two places that a row may be in.
#[inline(always)]
fn places(pc: usize) -> [&'static Place; 2] {
    let hash = (pc as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54;
    let first = hash as usize % PLACES;
    [&CACHE[first], &CACHE[first ^ 1]]
}

/// The cached row for this address.
#[inline(always)]
pub(super) fn cached(pc: usize) -> Option<CompactRow> {
    places(pc).into_iter().find_map(|place| place.read(pc))
}

/// Keeps a row for this address, if nobody is writing there.
pub(super) fn keep(pc: usize, row: CompactRow, validity: Validity) {
    let generation = match validity {
        Validity::Forever => FOREVER,
        Validity::Generation(n) => n,
    };
    let [a, b] = places(pc);
    // An invalid row gives way first; between two valid ones the sequence numbers make it alternate.
    let (sa, sb) = (a.state.load(Ordering::Relaxed), b.state.load(Ordering::Relaxed));
    let place = if !is_valid(sa) || is_valid(sb) && (sa as u32) <= (sb as u32) { a } else { b };
    place.write(row.to_words(pc), generation);
}

#[inline(always)]
fn is_valid(state: u64) -> bool {
    let generation = (state >> 32) as u32;
    state as u32 != 0 && (generation == FOREVER || generation == GENERATION.load(Ordering::Relaxed))
}

impl Place {
    #[inline(always)]
    fn read(&self, pc: usize) -> Option<CompactRow> {
        let before = self.state.load(Ordering::Acquire);
        let [key, ..] = &self.words;
        if before & 1 != 0 || key.load(Ordering::Relaxed) != pc as u64 || !is_valid(before) {
            return None;
        }
        let mut words = [0; 7];
        for (to, from) in words.iter_mut().zip(&self.words) {
            *to = from.load(Ordering::Relaxed);
        }
        fence(Ordering::Acquire);
        let unchanged = self.state.load(Ordering::Relaxed) == before && words[0] == pc as u64;
        unchanged.then(|| CompactRow::from_words(words))
    }

    fn write(&self, words: [u64; 7], generation: u32) {
        let before = self.state.load(Ordering::Relaxed);
        let busy = before | 1;
        if before & 1 != 0 || self.state.compare_exchange(before, busy, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return;
        }
        fence(Ordering::Release);
        for (to, from) in self.words.iter().zip(words) {
            to.store(from, Ordering::Relaxed);
        }
        // Zero says that nothing was ever written.
        let sequence = (before as u32).wrapping_add(2).max(2);
        self.state.store(u64::from(generation) << 32 | u64::from(sequence), Ordering::Release);
    }
}
