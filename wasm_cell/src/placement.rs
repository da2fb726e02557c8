//! Where in the text a function's code is best put.
//!
//! A processor fetches decoded instructions by 64-byte lines. An inner loop of a few instructions that crosses one more line than it has to
//! can take half as long again, so a function whose loops care is put where they cross fewest.

use alloc::vec::Vec;
use kernel_config::cell::FUNCTION_ALIGN;

/// Bytes of a line.
const LINE: u32 = 64;

/// Largest loop that is looked at, in bytes.
const LARGEST: u32 = 4 * LINE;

const STEP: u32 = FUNCTION_ALIGN as u32;

/// Alignment of functions of no more than a line: a processor keeps track of few branches in one line, and small functions, which are mostly called
/// through tables, have two each.
const SMALL: u32 = 32;

/// Offsets at which a function may lie: those that leave `skew` when divided by `align`, a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    align: u32,
    skew: u32,
}

impl Default for Placement {
    fn default() -> Self {
        Placement::aligned(STEP)
    }
}

impl Placement {
    /// Multiples of `align`, a power of two, and of [`FUNCTION_ALIGN`].
    pub fn aligned(align: u32) -> Placement {
        Placement { align: align.max(STEP), skew: 0 }
    }

    /// The best for code that needs `align`. `blocks`: offsets of its blocks, sorted; `edges`: branches between them, from block to
    /// block; `size`: its bytes.
    pub fn of(align: u32, blocks: &[u32], edges: &[(u32, u32)], size: u32) -> Placement {
        let any = Placement::aligned(align);
        if any.align >= LINE {
            return any;
        }
        let loops = inner_loops(blocks, edges, size);
        let cost = |skew: u32| -> u32 { loops.iter().map(|l| l.cost(skew)).sum() };
        let costs = (0..LINE).step_by(any.align as usize).map(|skew| (cost(skew), skew));
        match (costs.clone().min(), costs.max()) {
            (Some((least, skew)), Some((most, _))) if least < most => Placement { align: LINE, skew },
            _ if size <= LINE => Placement::aligned(align.max(SMALL)),
            _ => any,
        }
    }

    /// The first such offset that is not less than `offset`.
    pub fn first_from(self, offset: usize) -> usize {
        let (align, skew) = (self.align as usize, self.skew as usize);
        let before = offset & !(align - 1);
        if before + skew >= offset { before + skew } else { before + align + skew }
    }

    /// As a number: the lower four bits are the logarithm of `align`, the upper ones `skew` in units of [`FUNCTION_ALIGN`].
    pub fn to_byte(self) -> u8 {
        (self.align.trailing_zeros() | (self.skew / STEP) << 4) as u8
    }

    /// The reverse. `None` for what no placement gives.
    pub fn from_byte(byte: u8) -> Option<Placement> {
        let placement = Placement { align: 1 << (byte & 15), skew: u32::from(byte >> 4) * STEP };
        (placement.align >= STEP && placement.skew < placement.align).then_some(placement)
    }
}

/// A loop: offset of its first byte and number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Loop {
    start: u32,
    size: u32,
}

impl Loop {
    /// What it costs to lie at `start + skew`: lines beyond those it needs, more of a small loop.
    fn cost(self, skew: u32) -> u32 {
        let lines = ((self.start + skew) % LINE + self.size).div_ceil(LINE);
        (lines - self.size.div_ceil(LINE)) * LARGEST / self.size.next_power_of_two().max(STEP)
    }
}

/// The loops that contain no other.
fn inner_loops(blocks: &[u32], edges: &[(u32, u32)], size: u32) -> Vec<Loop> {
    let end = |block: u32| {
        let next = blocks.partition_point(|b| *b <= block);
        blocks.get(next).copied().unwrap_or(size)
    };
    let back = edges.iter().filter(|(from, to)| to <= from);
    let mut loops: Vec<Loop> = back.map(|(from, to)| Loop { start: *to, size: end(*from) - to }).collect();
    loops.sort_unstable();
    loops.dedup();
    let holds = |outer: &Loop, inner: &Loop| inner.start + inner.size <= outer.start + outer.size;
    let mut inner = Vec::new();
    for (i, l) in loops.iter().enumerate() {
        let starts_inside = |next: &&Loop| next.start < l.start + l.size;
        let contains_next =
            loops[i + 1..].iter().take_while(starts_inside).any(|next| next.start > l.start && holds(l, next));
        let contains_last = i > 0 && loops[i - 1].start == l.start;
        if !contains_next && !contains_last && l.size <= LARGEST && l.size > 0 {
            inner.push(*l);
        }
    }
    inner
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_loop_lies_in_one_line() {
        // Blocks at 0, 40 and 80; the one at 40 is a loop, of 40 bytes.
        let placement = Placement::of(16, &[0, 40, 80], &[(0, 40), (40, 40), (40, 80)], 90);
        assert_eq!(placement, Placement { align: 64, skew: 32 });
        assert_eq!(placement.first_from(0), 32);
        assert_eq!(placement.first_from(33), 96);
        let at = placement.first_from(1000) as u32 + 40;
        assert_eq!(at / 64, (at + 39) / 64);
    }

    #[test]
    fn code_whose_loops_do_not_care_may_lie_anywhere() {
        assert_eq!(Placement::of(1, &[0, 40], &[(0, 40)], 90), Placement::aligned(16));
        // A loop of one block of 4 bytes at 8 crosses no line wherever it is put.
        assert_eq!(Placement::of(16, &[0, 8, 12], &[(0, 8), (8, 8), (8, 12)], 20), Placement::aligned(32));
        assert_eq!(Placement::of(32, &[], &[], 0).first_from(33), 64);
    }

    #[test]
    fn inner_loops_count_and_outer_ones_do_not() {
        let blocks = [0, 16, 32, 48, 64];
        let edges = [(16, 32), (32, 32), (32, 48), (48, 16), (48, 64)];
        assert_eq!(inner_loops(&blocks, &edges, 70), [Loop { start: 32, size: 16 }]);
        // Two ways back to one header are one loop, counted to the first.
        assert_eq!(inner_loops(&blocks, &[(16, 16), (32, 16)], 70), [Loop { start: 16, size: 16 }]);
    }

    #[test]
    fn placements_come_back_from_their_number() {
        for placement in [Placement::aligned(16), Placement::aligned(64), Placement { align: 64, skew: 48 }] {
            assert_eq!(Placement::from_byte(placement.to_byte()), Some(placement));
        }
        assert_eq!(Placement::from_byte(0), None);
        assert_eq!(Placement::from_byte(0x15 | 0x40), None);
    }
}
