//! Counting outcomes, by kind and fault.

use crate::kind::Kind;
use crate::verdict::{Outcome, Verdict};
use alloc::{collections::BTreeMap, string::String, vec::Vec};
use core::fmt;

/// Numbers of one row of a report. `injected = quiet + manifested`, `manifested = recovered + lost`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// Faults that were made.
    pub injected: u64,
    /// Those that the system noticed: an error for the caller, or a checksum that does not fit.
    pub detected: u64,
    /// Those that had an effect.
    pub manifested: u64,
    /// Those whose effect was contained, and after which everything worked.
    pub recovered: u64,
    /// The others.
    pub lost: u64,
}

impl Row {
    fn add(&mut self, other: Row) {
        self.injected += other.injected;
        self.detected += other.detected;
        self.manifested += other.manifested;
        self.recovered += other.recovered;
        self.lost += other.lost;
    }
}

/// A fault that was not recovered from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Its kind.
    pub kind: Kind,
    /// The fault, within its kind.
    pub fault: String,
    /// Its number: with the seed, all that is needed to make it again.
    pub number: u64,
    /// Where it was injected.
    pub place: String,
    /// What did not hold.
    pub what: String,
}

/// Most losses that are kept in words.
const LOSSES: usize = 100;

/// Outcomes of a campaign.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    rows: BTreeMap<(Kind, String), Row>,
    losses: Vec<Loss>,
}

impl Report {
    /// Counts one fault.
    pub fn count(&mut self, kind: Kind, number: u64, verdict: Verdict) {
        let lost = matches!(verdict.outcome, Outcome::Lost(_));
        let quiet = verdict.outcome == Outcome::Quiet;
        let recovered = !lost && !quiet;
        let detected = verdict.detected.into();
        let row =
            Row { injected: 1, detected, manifested: (!quiet).into(), recovered: recovered.into(), lost: lost.into() };
        self.row(kind, verdict.fault).add(row);
        if let Outcome::Lost(what) = verdict.outcome
            && self.losses.len() < LOSSES
        {
            let (fault, place) = (verdict.fault.into(), verdict.place);
            self.losses.push(Loss { kind, fault, number, place, what });
        }
    }

    fn row(&mut self, kind: Kind, fault: &str) -> &mut Row {
        // A look-up by reference would need a borrowed pair; rows are few and faults slow in comparison.
        self.rows.entry((kind, fault.into())).or_default()
    }

    /// Adds the numbers of a row that was counted elsewhere.
    pub fn add_row(&mut self, kind: Kind, fault: &str, row: Row) {
        self.row(kind, fault).add(row);
    }

    /// Adds a loss that was counted in a row elsewhere.
    pub fn add_loss(&mut self, loss: Loss) {
        if self.losses.len() < LOSSES {
            self.losses.push(loss);
        }
    }

    /// Adds the outcomes of another campaign.
    pub fn merge(&mut self, other: Report) {
        for ((kind, fault), row) in other.rows {
            self.add_row(kind, &fault, row);
        }
        other.losses.into_iter().for_each(|l| self.add_loss(l));
    }

    /// The rows, by kind and fault.
    pub fn rows(&self) -> impl Iterator<Item = (Kind, &str, Row)> {
        self.rows.iter().map(|((kind, fault), row)| (*kind, fault.as_str(), *row))
    }

    /// Sums by kind.
    pub fn kinds(&self) -> BTreeMap<Kind, Row> {
        let mut kinds: BTreeMap<Kind, Row> = BTreeMap::new();
        self.rows().for_each(|(kind, _, row)| kinds.entry(kind).or_default().add(row));
        kinds
    }

    /// The sum of all rows.
    pub fn total(&self) -> Row {
        let mut total = Row::default();
        self.rows.values().for_each(|r| total.add(*r));
        total
    }

    /// The first losses, in words.
    pub fn losses(&self) -> &[Loss] {
        &self.losses
    }
}

/// A table, and the losses below it.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, kind: &str, fault: &str, r: Row| {
            let percent = match r.manifested {
                0 => String::new(),
                n => alloc::format!("{:.2} %", r.recovered as f64 * 100.0 / n as f64),
            };
            let Row { injected, detected, manifested, recovered, lost } = r;
            writeln!(
                f,
                "{kind:<12}{fault:<26}{injected:>10}{detected:>10}{manifested:>12}{recovered:>11}{lost:>7}{percent:>11}"
            )
        };
        writeln!(
            f,
            "{:<12}{:<26}{:>10}{:>10}{:>12}{:>11}{:>7}",
            "kind", "fault", "injected", "detected", "manifested", "recovered", "lost"
        )?;
        for (kind, fault, row) in self.rows() {
            line(f, kind.name(), fault, row)?;
        }
        for (kind, row) in self.kinds() {
            line(f, kind.name(), "all", row)?;
        }
        for loss in &self.losses {
            let Loss { kind, fault, number, place, what } = loss;
            writeln!(f, "lost: {kind} {fault}, number {number}, {place}: {what}")?;
        }
        Ok(())
    }
}
