//! A small seeded generator, so that every fault can be repeated from two numbers.

/// SplitMix64 (Steele, Lea, Flood 2014): any seed is a good seed, and streams of neighbouring seeds are unrelated.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of fault `number` of a campaign's seed.
    pub fn of(seed: u64, number: u64) -> Random {
        let mut random = Random(seed);
        random.0 = random.bits() ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93);
        random
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` (0 if `n` is 0).
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// One of the items.
    ///
    /// # Panics
    /// `items` is empty.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}
