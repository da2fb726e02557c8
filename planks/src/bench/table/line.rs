//! A line of the table: what was measured, each side's figures, the goal.

use crate::bench::measure::{Candidate, Clock, Effort, Sample, figures, quotients};

/// Who was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This system.
    Planks,
    /// Wasmtime with the same code generator.
    Wasmtime,
    /// An interpreter.
    Wasmi,
    /// The same without wasm: from a C compiler, or calls of native functions by pointer.
    Native,
}

impl Side {
    /// All of them, in the order of the columns.
    pub const ALL: [Side; 4] = [Side::Planks, Side::Wasmtime, Side::Wasmi, Side::Native];

    /// Its name in the table and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Side::Planks => "planks",
            Side::Wasmtime => "wasmtime",
            Side::Wasmi => "wasmi",
            Side::Native => "native",
        }
    }
}

/// What figures count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds of one operation.
    Nanoseconds,
    /// Bytes.
    Bytes,
    /// Multiples of wasmtime's time.
    TimesWasmtime,
}

/// One side's figures.
#[derive(Clone, Debug, PartialEq)]
pub enum Figures {
    /// One a round; those of one round were taken one after the other.
    Measured(Vec<f64>),
    /// There are none, and why.
    Absent(String),
}

/// What a line is meant to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goal {
    /// The side whose multiple it is; `None` for a figure in the line's unit.
    pub of: Option<Side>,
    /// The most that meets it.
    pub most: f64,
}

impl Goal {
    /// A figure in the line's unit.
    pub fn at_most(most: f64) -> Option<Goal> {
        Some(Goal { of: None, most })
    }

    /// A multiple of wasmtime's figure.
    pub fn of_wasmtime(most: f64) -> Option<Goal> {
        Some(Goal { of: Some(Side::Wasmtime), most })
    }

    /// A multiple of native code's figure.
    pub fn of_native(most: f64) -> Option<Goal> {
        Some(Goal { of: Some(Side::Native), most })
    }
}

/// Whether a line has reached its goal.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// With this value, of what the goal is about.
    Met(f64),
    /// With this value.
    Missed(f64),
    /// Nothing was measured that could tell, and why.
    Unknown(String),
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its stable name.
    pub key: String,
    /// Its name for people.
    pub what: String,
    /// What its figures count.
    pub unit: Unit,
    /// Each side's figures, in the order of [`Side::ALL`].
    pub figures: [Figures; 4],
    /// What it is meant to reach.
    pub goal: Option<Goal>,
}

impl Line {
    /// A line without figures: all sides lack them for this reason.
    pub fn absent(key: impl Into<String>, what: impl Into<String>, unit: Unit, goal: Option<Goal>, why: &str) -> Line {
        let figures = std::array::from_fn(|_| Figures::Absent(why.into()));
        Line { key: key.into(), what: what.into(), unit, figures, goal }
    }

    /// A line of candidates that are measured in turns, each working on this thread alone. The sides that have none lack them because there is nothing to compare.
    pub fn interleaved(
        key: impl Into<String>,
        what: impl Into<String>,
        goal: Option<Goal>,
        sides: Vec<(Side, Candidate<'_>)>,
        effort: Effort,
    ) -> Line {
        let (sides, mut candidates): (Vec<Side>, Vec<Candidate<'_>>) = sides.into_iter().unzip();
        let measured = figures(&mut candidates, effort, Clock::Thread);
        Line::absent(key, what, Unit::Nanoseconds, goal, NOTHING).with(sides.into_iter().zip(measured))
    }

    /// The line with these sides' figures.
    pub fn with(mut self, measured: impl IntoIterator<Item = (Side, Vec<f64>)>) -> Line {
        for (side, figures) in measured {
            self.figures[side as usize] = Figures::Measured(figures);
        }
        self
    }

    /// The line with the reason why one side has no figures.
    pub fn without(mut self, side: Side, why: &str) -> Line {
        self.figures[side as usize] = Figures::Absent(why.into());
        self
    }

    fn measured(&self, side: Side) -> Result<&[f64], &str> {
        match &self.figures[side as usize] {
            Figures::Measured(figures) => Ok(figures),
            Figures::Absent(why) => Err(why),
        }
    }

    /// A side's figures in the line's unit.
    pub fn sample(&self, side: Side) -> Option<Sample> {
        self.measured(side).ok().map(|figures| Sample::of(figures.to_vec()))
    }

    /// This system's figures in multiples of another side's, round by round. Below 1, this system is ahead.
    pub fn ratio(&self, side: Side) -> Option<Sample> {
        let (ours, theirs) = (self.measured(Side::Planks).ok()?, self.measured(side).ok()?);
        Some(Sample::of(quotients(ours, theirs)))
    }

    /// Whether the goal is met. `None` when there is none.
    pub fn verdict(&self) -> Option<Verdict> {
        let goal = self.goal?;
        let lacking = [Some(Side::Planks), goal.of].into_iter().flatten().find_map(|s| self.measured(s).err());
        if let Some(why) = lacking {
            return Some(Verdict::Unknown(why.into()));
        }
        let value = goal.of.map_or_else(|| self.sample(Side::Planks), |side| self.ratio(side))?.median;
        // Not a number is a miss.
        Some(if value <= goal.most { Verdict::Met(value) } else { Verdict::Missed(value) })
    }
}

/// Why most sides lack figures that they lack.
pub(super) const NOTHING: &str = "nothing there to compare";

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Planks 2, 4, 3; wasmtime 4, 4, 4; no wasmi; native 1, 2, 1.
    pub fn line(goal: Option<Goal>) -> Line {
        let sides = [
            (Side::Planks, vec![2.0, 4.0, 3.0]),
            (Side::Wasmtime, vec![4.0, 4.0, 4.0]),
            (Side::Native, vec![1.0, 2.0, 1.0]),
        ];
        Line::absent("some.line", "some line", Unit::Nanoseconds, goal, NOTHING).with(sides)
    }

    #[test]
    fn ratios_are_those_of_figures_of_one_round() {
        let line = line(None);
        assert_eq!(line.sample(Side::Planks), Some(Sample { median: 3.0, min: 2.0, max: 4.0 }));
        assert_eq!(line.ratio(Side::Wasmtime), Some(Sample { median: 0.75, min: 0.5, max: 1.0 }));
        assert_eq!(line.ratio(Side::Native), Some(Sample { median: 2.0, min: 2.0, max: 3.0 }));
        assert_eq!((line.ratio(Side::Wasmi), line.verdict()), (None, None));
    }

    #[test]
    fn goals_are_compared_with_the_median_in_their_own_unit() {
        let verdict = |goal| line(goal).verdict().unwrap();
        assert_eq!(verdict(Goal::at_most(3.0)), Verdict::Met(3.0));
        assert_eq!(verdict(Goal::at_most(2.9)), Verdict::Missed(3.0));
        assert_eq!(verdict(Goal::of_wasmtime(0.75)), Verdict::Met(0.75));
        assert_eq!(verdict(Goal::of_native(1.9)), Verdict::Missed(2.0));
        let unknown = line(Goal::of_native(1.9)).without(Side::Native, "no compiler");
        assert_eq!(unknown.verdict(), Some(Verdict::Unknown("no compiler".into())));
    }
}
