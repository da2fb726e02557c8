//! A benchmark's table: rows of named samples with ratios against a reference column, as text or JSON.

use super::measure::Sample;
use std::fmt::Write;

/// One row: an operation, and how long each candidate took for it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The operation.
    pub name: String,
    /// `(candidate, sample)`; the first one is this project, the second the reference of the ratio.
    pub samples: Vec<(&'static str, Sample)>,
    /// Most nanoseconds this project may take, if the row has a goal.
    pub goal_ns: Option<f64>,
}

impl Row {
    /// Whether the row meets its goal (rows without one always do).
    pub fn meets_goal(&self) -> bool {
        match (self.goal_ns, self.samples.first()) {
            (Some(goal), Some((_, s))) => s.median <= goal,
            _ => true,
        }
    }

    fn ratio(&self) -> Option<f64> {
        let (ours, reference) = (self.samples.first()?, self.samples.get(1)?);
        Some(ours.1.median / reference.1.median)
    }
}

/// The table for a person.
pub fn text(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let _ = writeln!(out, "{}", row.name);
        for (name, s) in &row.samples {
            let _ = writeln!(out, "    {name:<34} {:>12}   ({} – {})", time(s.median), time(s.min), time(s.max));
        }
        if let Some(ratio) = row.ratio() {
            let _ = write!(out, "    {:<34} {ratio:>11.2}x", "ratio of the first two");
            if let Some(goal) = row.goal_ns {
                let _ = write!(out, "   goal ≤ {}: {}", time(goal), if row.meets_goal() { "met" } else { "missed" });
            }
            out.push('\n');
        }
    }
    out
}

/// The geometric mean of this project's time over each other candidate's, for rows that have them all.
pub fn means(rows: &[Row]) -> Vec<(&'static str, f64)> {
    let Some(first) = rows.first() else { return Vec::new() };
    let mean = |i: usize| {
        let ratio = |row: &Row| Some((row.samples.first()?.1.median / row.samples.get(i)?.1.median).ln());
        let logarithms: Option<Vec<f64>> = rows.iter().map(ratio).collect();
        logarithms.map(|l| (l.iter().sum::<f64>() / l.len() as f64).exp())
    };
    (1..first.samples.len()).filter_map(|i| Some((first.samples.get(i)?.0, mean(i)?))).collect()
}

/// Rows of many like things, a line each: this project's time and its ratio to each other candidate's, and the means.
pub fn overview(rows: &[Row]) -> String {
    let mut out = String::new();
    for row in rows {
        let Some(((_, ours), others)) = row.samples.split_first() else { continue };
        let _ = write!(out, "{:<16} {:>10} ({} – {})", row.name, time(ours.median), time(ours.min), time(ours.max));
        for (name, s) in others {
            let _ = write!(out, "   {:.2} × {name}", ours.median / s.median);
        }
        out.push_str(if row.meets_goal() { "\n" } else { "   missed\n" });
    }
    let _ = write!(out, "{:<16}", "geometric mean");
    for (name, mean) in means(rows) {
        let _ = write!(out, "   {mean:.3} × {name}");
    }
    out.push('\n');
    out
}

/// The table for a script: an array of rows.
pub fn json(rows: &[Row]) -> String {
    let mut out = String::from("[");
    for (i, row) in rows.iter().enumerate() {
        let sep = if i > 0 { "," } else { "" };
        let _ = write!(out, "{sep}\n  {{\"name\": {:?}, \"samples\": [", row.name);
        for (k, (name, s)) in row.samples.iter().enumerate() {
            let sep = if k > 0 { ", " } else { "" };
            let _ = write!(
                out,
                "{sep}{{\"candidate\": {name:?}, \"median_ns\": {:.2}, \"min_ns\": {:.2}, \"max_ns\": {:.2}}}",
                s.median, s.min, s.max
            );
        }
        let _ = write!(out, "]");
        if let Some(r) = row.ratio() {
            let _ = write!(out, ", \"ratio\": {r:.4}");
        }
        if let Some(goal) = row.goal_ns {
            let _ = write!(out, ", \"goal_ns\": {goal}, \"met\": {}", row.meets_goal());
        }
        out.push('}');
    }
    out.push_str("\n]\n");
    out
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.2} ns"),
        ns if ns < 1e6 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}
