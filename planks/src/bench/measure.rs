//! Interleaved measurement: every candidate of a row runs once in each round, so that drift of a noisy machine
//! meets all of them alike; what is compared is the ratio of medians.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// What time is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// As it passes for everybody.
    Wall,
    /// What the measuring thread spends on a processor, in the kernel too: for what works on one thread alone. Others that take the
    /// processor away meanwhile do not count.
    Thread,
}

impl Clock {
    /// Nanoseconds that `work` takes.
    fn time(self, work: impl FnOnce()) -> f64 {
        match self {
            Clock::Wall => {
                let start = Instant::now();
                work();
                start.elapsed().as_nanos() as f64
            }
            Clock::Thread => {
                let start = clock_gettime(ClockId::ThreadCPUTime);
                work();
                let end = clock_gettime(ClockId::ThreadCPUTime);
                (end.tv_sec - start.tv_sec) as f64 * 1e9 + (end.tv_nsec - start.tv_nsec) as f64
            }
        }
    }
}

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
    figures(candidates, effort, Clock::Wall).into_iter().map(Sample::of).collect()
}

/// How much longer each candidate takes than the last one: samples of the differences in each round.
pub fn above_last(candidates: &mut [Candidate<'_>], effort: Effort) -> Vec<Sample> {
    let mut figures = figures(candidates, effort, Clock::Wall);
    let Some(last) = figures.pop() else { return Vec::new() };
    let above = |own: Vec<f64>| Sample::of(own.iter().zip(&last).map(|(own, last)| own - last).collect());
    figures.into_iter().map(above).collect()
}

/// How much longer the first of each pair takes than the second: samples of the differences in each round.
pub fn above_its_second(pairs: &mut [[Candidate<'_>; 2]], effort: Effort) -> Vec<Sample> {
    let figures = figures(pairs.as_flattened_mut(), effort, Clock::Wall);
    let (pairs, _) = figures.as_chunks::<2>();
    let above = |[long, short]: &[Vec<f64>; 2]| Sample::of(long.iter().zip(short).map(|(a, b)| a - b).collect());
    pairs.iter().map(above).collect()
}

/// Nanoseconds of one operation, per candidate and round: figures of one round can be compared.
pub fn figures(candidates: &mut [Candidate<'_>], effort: Effort, clock: Clock) -> Vec<Vec<f64>> {
    let counts: Vec<u64> = candidates.iter_mut().map(|c| calibrate(&mut *c.run, effort.slice)).collect();
    rounds(candidates, &counts, effort.rounds, clock)
}

/// The same, with as many operations of each candidate as take the first one's least time: for operations that share a beginning.
pub fn figures_alike(candidates: &mut [Candidate<'_>], effort: Effort, clock: Clock) -> Vec<Vec<f64>> {
    let first = candidates.first_mut().map_or(1, |c| calibrate(&mut *c.run, effort.slice));
    let counts = vec![first; candidates.len()];
    rounds(candidates, &counts, effort.rounds, clock)
}

/// The same, with one operation of each candidate a round: for what takes long.
pub fn figures_of_one(candidates: &mut [Candidate<'_>], times: usize, clock: Clock) -> Vec<Vec<f64>> {
    let counts = vec![1; candidates.len()];
    rounds(candidates, &counts, times, clock)
}

/// The quotients of two candidates' figures, round by round.
pub fn quotients(ours: &[f64], theirs: &[f64]) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect()
}

/// The geometric mean, in each round, of several things' quotients. Empty when one of them is.
pub fn geometric_means(all: &[Vec<f64>]) -> Vec<f64> {
    let rounds = all.iter().map(Vec::len).min().unwrap_or(0);
    let mean = |i: usize| (all.iter().map(|q| q[i].ln()).sum::<f64>() / all.len() as f64).exp();
    (0..rounds).map(mean).collect()
}

fn rounds(candidates: &mut [Candidate<'_>], counts: &[u64], rounds: usize, clock: Clock) -> Vec<Vec<f64>> {
    let mut figures: Vec<Vec<f64>> = vec![Vec::with_capacity(rounds); candidates.len()];
    for _ in 0..rounds.max(1) {
        for ((c, &n), figures) in candidates.iter_mut().zip(counts).zip(&mut figures) {
            figures.push(clock.time(|| (c.run)(n)) / n as f64);
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
    fn figures_are_compared_round_by_round() {
        assert_eq!(quotients(&[2.0, 9.0], &[4.0, 3.0]), [0.5, 3.0]);
        let means = geometric_means(&[vec![1.0, 2.0], vec![4.0, 8.0]]);
        assert!((means[0] - 2.0).abs() < 1e-9 && (means[1] - 4.0).abs() < 1e-9);
        assert!(geometric_means(&[vec![1.0], vec![]]).is_empty() && geometric_means(&[]).is_empty());
        assert_eq!(Sample::of(vec![3.0, 1.0, 2.0]), Sample { median: 2.0, min: 1.0, max: 3.0 });
    }

    #[test]
    fn a_threads_clock_counts_its_work_and_not_its_sleep() {
        let nap = Duration::from_millis(200);
        let [slept, waited] = [Clock::Thread, Clock::Wall].map(|c| c.time(|| std::thread::sleep(nap)));
        assert!(waited >= 2e8 && slept < waited, "{slept} {waited}");
        assert!(Clock::Thread.time(|| drop(std::hint::black_box((0..1 << 20).collect::<Vec<u32>>()))) > 0.0);
    }

    #[test]
    fn a_long_operation_runs_once_a_round() {
        let mut runs = 0;
        let figures = figures_of_one(&mut [Candidate::each("", || runs += 1)], 4, Clock::Wall);
        assert_eq!((figures[0].len(), runs), (4, 4));
    }

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
