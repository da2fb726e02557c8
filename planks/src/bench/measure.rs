//! Interleaved measurement: every candidate of a row runs once in each round, so that drift of a noisy machine
//! meets all of them alike; what is compared is the ratio of medians.

use std::time::{Duration, Instant};

/// One thing to measure: runs its operation `n` times.
pub struct Candidate<'a> {
    /// Column heading.
    pub name: &'static str,
    run: Box<dyn FnMut(u64) + 'a>,
}

impl<'a> Candidate<'a> {
    /// A candidate that does its operation once per call of `op`.
    pub fn each(name: &'static str, mut op: impl FnMut() + 'a) -> Self {
        Self::batch(name, move |n| (0..n).for_each(|_| op()))
    }

    /// A candidate that does `n` operations in one call, for what is too short to be called one by one.
    pub fn batch(name: &'static str, op: impl FnMut(u64) + 'a) -> Self {
        Candidate { name, run: Box::new(op) }
    }
}

/// Time of one operation in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Middle of all rounds.
    pub median: f64,
    /// Fastest round.
    pub min: f64,
    /// Slowest round.
    pub max: f64,
}

impl Sample {
    /// The time of one of so many equal parts.
    pub fn part(self, of: u32) -> Sample {
        let part = |ns: f64| ns / f64::from(of);
        Sample { median: part(self.median), min: part(self.min), max: part(self.max) }
    }

    /// The sample of some rounds' figures.
    pub fn of(mut figures: Vec<f64>) -> Sample {
        figures.sort_by(f64::total_cmp);
        let at = |i: usize| figures.get(i).copied().unwrap_or(f64::NAN);
        Sample { median: at(figures.len() / 2), min: at(0), max: at(figures.len().saturating_sub(1)) }
    }
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Rounds; each gives one figure per candidate.
    pub rounds: usize,
    /// Least time of one candidate in one round.
    pub slice: Duration,
}

impl Default for Effort {
    fn default() -> Self {
        Effort { rounds: 21, slice: Duration::from_millis(10) }
    }
}

/// Measures the candidates interleaved and returns a sample for each, in their order.
pub fn interleaved(candidates: &mut [Candidate<'_>], effort: Effort) -> Vec<Sample> {
    figures(candidates, effort).into_iter().map(Sample::of).collect()
}

/// The same, with as many operations of each candidate as take the first one's least time: for operations that share a beginning.
pub fn alike(candidates: &mut [Candidate<'_>], effort: Effort) -> Vec<Sample> {
    let first = candidates.first_mut().map_or(1, |c| calibrate(&mut *c.run, effort.slice));
    let counts = vec![first; candidates.len()];
    rounds(candidates, &counts, effort.rounds).into_iter().map(Sample::of).collect()
}

/// How much longer each candidate takes than the last one: samples of the differences in each round.
pub fn above_last(candidates: &mut [Candidate<'_>], effort: Effort) -> Vec<Sample> {
    let mut figures = figures(candidates, effort);
    let Some(last) = figures.pop() else { return Vec::new() };
    let above = |own: Vec<f64>| Sample::of(own.iter().zip(&last).map(|(own, last)| own - last).collect());
    figures.into_iter().map(above).collect()
}

/// How much longer the first of each pair takes than the second: samples of the differences in each round.
pub fn above_its_second(pairs: &mut [[Candidate<'_>; 2]], effort: Effort) -> Vec<Sample> {
    let figures = figures(pairs.as_flattened_mut(), effort);
    let (pairs, _) = figures.as_chunks::<2>();
    let above = |[long, short]: &[Vec<f64>; 2]| Sample::of(long.iter().zip(short).map(|(a, b)| a - b).collect());
    pairs.iter().map(above).collect()
}

/// Nanoseconds of one operation, per candidate and round.
fn figures(candidates: &mut [Candidate<'_>], effort: Effort) -> Vec<Vec<f64>> {
    let counts: Vec<u64> = candidates.iter_mut().map(|c| calibrate(&mut *c.run, effort.slice)).collect();
    rounds(candidates, &counts, effort.rounds)
}

fn rounds(candidates: &mut [Candidate<'_>], counts: &[u64], rounds: usize) -> Vec<Vec<f64>> {
    let mut figures: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); candidates.len()];
    for _ in 0..rounds.max(1) {
        for ((c, &n), figures) in candidates.iter_mut().zip(counts).zip(&mut figures) {
            let start = Instant::now();
            (c.run)(n);
            figures.push(start.elapsed().as_nanos() as f64 / n as f64);
        }
    }
    figures
}

/// Number of operations that take at least `slice`, found by doubling; warms up on the way.
fn calibrate(run: &mut dyn FnMut(u64), slice: Duration) -> u64 {
    let mut n = 1;
    loop {
        let start = Instant::now();
        run(n);
        if start.elapsed() >= slice || n >= 1 << 40 {
            return n;
        }
        n *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_come_in_the_order_of_the_candidates() {
        let effort = Effort { rounds: 3, slice: Duration::from_micros(200) };
        let mut candidates = [
            Candidate::each("short", || std::hint::black_box(())),
            Candidate::each("long", || std::thread::sleep(Duration::from_micros(300))),
        ];
        let samples = interleaved(&mut candidates, effort);
        assert!(samples[0].median < samples[1].median);
        assert!(samples[1].min >= 300_000.0 && samples[1].min <= samples[1].median);
    }
}
