//! Bounds of 32-bit values, and those of what is computed from such.

/// Bounds of an unsigned 32-bit value, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub low: u32,
    pub high: u32,
}

impl Range {
    /// All that is known of an unknown value.
    pub const ALL: Range = Range { low: 0, high: u32::MAX };

    pub fn new(low: u32, high: u32) -> Range {
        Range { low, high }
    }

    pub fn union(self, other: Range) -> Range {
        Range::new(self.low.min(other.low), self.high.max(other.high))
    }

    /// The value, if there is only one.
    pub fn single(self) -> Option<u32> {
        (self.low == self.high).then_some(self.low)
    }

    pub fn add(self, other: Range) -> Range {
        let (low, high) = (u64::from(self.low) + u64::from(other.low), u64::from(self.high) + u64::from(other.high));
        // Both ends wrap or neither does.
        if low >> 32 == high >> 32 { Range::new(low as u32, high as u32) } else { Range::ALL }
    }

    /// What is in both; one of them if nothing is, because then it is never used.
    pub fn within(self, other: Range) -> Range {
        let both = Range::new(self.low.max(other.low), self.high.min(other.high));
        if both.low <= both.high { both } else { self }
    }

    pub fn sub(self, other: Range) -> Range {
        if self.low < other.high {
            return Range::ALL;
        }
        Range::new(self.low - other.high, self.high - other.low)
    }

    pub fn mul(self, other: Range) -> Range {
        match self.high.checked_mul(other.high) {
            Some(high) => Range::new(self.low * other.low, high),
            None => Range::ALL,
        }
    }

    /// Bounds of a combination of bits of two values that sets none that is set in neither.
    pub fn bits(self, other: Range) -> Range {
        let high = self.high | other.high;
        Range::new(0, u32::MAX.checked_shr(high.leading_zeros()).unwrap_or(0))
    }
}
