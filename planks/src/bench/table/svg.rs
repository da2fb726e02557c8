//! The table as a chart: a line for each row, wasmtime at 1 on a logarithmic axis, to the left of it what takes less.
//!
//! Colours work on light and on dark ground; where the viewer says which it is, they follow.

use super::{Line, Side, Table};
use crate::bench::measure::Sample;
use std::fmt::Write;

/// Space for names, for the axis, and to its right.
const NAMES: f64 = 330.0;
const AXIS: f64 = 560.0;
const MARGIN: f64 = 24.0;
/// Height of a row and of what is above the first.
const ROW: f64 = 22.0;
const HEAD: f64 = 84.0;
const FOOT: f64 = 34.0;

const STYLE: &str = "\
text { font: 13px system-ui, sans-serif; fill: #57606a }
.title { font-size: 15px; font-weight: 600 }
.grid { stroke: #8c959f; stroke-opacity: .25 }
.one { stroke: #8c959f; stroke-width: 1.5 }
.goal { stroke: #cf222e; stroke-width: 2 }
.planks { fill: #0969da; stroke: #0969da; stroke-width: 2 }
.native { fill: none; stroke: #1a7f37; stroke-width: 2 }
.wasmi { fill: none; stroke: #9a6700; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
text { fill: #adbac7 }
.goal { stroke: #f47067 }
.planks { fill: #539bf5; stroke: #539bf5 }
.native { stroke: #57ab5a }
.wasmi { stroke: #c69026 }
}";

/// The chart. Rows without figures of this system or of wasmtime are not in it.
pub fn chart(table: &Table) -> String {
    let rows: Vec<Row<'_>> = table.lines.iter().filter_map(Row::new).collect();
    let axis = Axis::of(&rows);
    let (width, height) = (NAMES + AXIS + MARGIN, HEAD + ROW * rows.len() as f64 + FOOT);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\n\
         <title>Planks beside wasmtime, wasmi and native code</title>\n<style>\n{STYLE}\n</style>\n"
    );
    legend(&mut out);
    let bottom = height - FOOT;
    for tick in axis.ticks() {
        let x = axis.at(tick);
        let class = if tick == 1.0 { "one" } else { "grid" };
        let _ = writeln!(
            out,
            "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>",
            HEAD - 8.0
        );
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick}</text>", HEAD - 14.0);
    }
    for (i, row) in rows.iter().enumerate() {
        row.draw(&mut out, &axis, HEAD + ROW * (i as f64 + 0.5));
    }
    let (x, y) = (NAMES + AXIS, bottom + 22.0);
    let _ = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\">in multiples of wasmtime’s; less is better</text>\n</svg>"
    );
    out
}

fn legend(out: &mut String) {
    let _ = writeln!(out, "<text class=\"title\" x=\"{MARGIN}\" y=\"26\">Time, heap and code, wasmtime = 1</text>");
    type Mark = fn(&mut String, f64, f64);
    let marks: [(Mark, &str); 4] =
        [(planks, "planks (least–most)"), (native, "native"), (wasmi, "wasmi"), (goal, "goal")];
    let mut x = NAMES;
    for (mark, name) in marks {
        mark(out, x, 22.0);
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"26\">{name}</text>", x + 12.0);
        x += 44.0 + 7.5 * name.chars().count() as f64;
    }
}

fn planks(out: &mut String, x: f64, y: f64) {
    let _ = writeln!(out, "<circle class=\"planks\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>");
}

fn native(out: &mut String, x: f64, y: f64) {
    let _ = writeln!(out, "<path class=\"native\" d=\"M{x:.1} {:.1}l5 5l-5 5l-5 -5z\"/>", y - 5.0);
}

fn wasmi(out: &mut String, x: f64, y: f64) {
    let _ = writeln!(out, "<rect class=\"wasmi\" x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\"/>", x - 4.0, y - 4.0);
}

fn goal(out: &mut String, x: f64, y: f64) {
    let _ =
        writeln!(out, "<line class=\"goal\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>", y - 9.0, y + 9.0);
}

/// A row in multiples of wasmtime's median.
struct Row<'a> {
    name: &'a str,
    planks: Sample,
    native: Option<f64>,
    wasmi: Option<f64>,
    goal: Option<f64>,
}

impl Row<'_> {
    fn new(line: &Line) -> Option<Row<'_>> {
        let planks = line.ratio(Side::Wasmtime)?;
        let theirs = line.sample(Side::Wasmtime)?.median;
        let of = |side| line.sample(side).map(|s| s.median / theirs);
        let goal = line.goal.and_then(|g| match g.of {
            None => Some(g.most / theirs),
            Some(side) => of(side).map(|times| g.most * times),
        });
        Some(Row { name: &line.what, planks, native: of(Side::Native), wasmi: of(Side::Wasmi), goal })
    }

    fn values(&self) -> impl Iterator<Item = f64> {
        let own = [self.planks.min, self.planks.max].into_iter();
        own.chain([self.native, self.wasmi, self.goal].into_iter().flatten()).filter(|v| v.is_finite() && *v > 0.0)
    }

    fn draw(&self, out: &mut String, axis: &Axis, y: f64) {
        let name = escaped(self.name);
        let _ = writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>", NAMES - 16.0, y + 4.0);
        if let Some(g) = self.goal {
            goal(out, axis.at(g), y);
        }
        if let Some(v) = self.wasmi {
            wasmi(out, axis.at(v), y);
        }
        if let Some(v) = self.native {
            native(out, axis.at(v), y);
        }
        let (from, to) = (axis.at(self.planks.min), axis.at(self.planks.max));
        let _ = writeln!(out, "<line class=\"planks\" x1=\"{from:.1}\" y1=\"{y:.1}\" x2=\"{to:.1}\" y2=\"{y:.1}\"/>");
        planks(out, axis.at(self.planks.median), y);
    }
}

/// A logarithmic axis that all values are on.
struct Axis {
    least: f64,
    most: f64,
}

/// Where the axis may end, and ticks may be.
const TICKS: [f64; 19] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0,
];

impl Axis {
    fn of(rows: &[Row<'_>]) -> Axis {
        let values = || rows.iter().flat_map(Row::values);
        let (least, most) = (values().fold(0.5, f64::min), values().fold(2.0, f64::max));
        let least = TICKS.into_iter().rev().find(|t| *t <= least).unwrap_or(TICKS[0]);
        Axis { least, most: TICKS.into_iter().find(|t| *t >= most).unwrap_or(TICKS[TICKS.len() - 1]) }
    }

    fn at(&self, value: f64) -> f64 {
        let value = value.clamp(self.least, self.most);
        NAMES + AXIS * (value / self.least).ln() / (self.most / self.least).ln()
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (least, most) = (self.least, self.most);
        TICKS.into_iter().filter(move |t| (least..=most).contains(t))
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::Goal;
    use super::super::line::tests::line;
    use super::*;

    fn of(lines: Vec<Line>) -> String {
        chart(&Table { compiler: Some("clang"), processors: 2, rounds: 3, lines })
    }

    #[test]
    fn a_row_has_its_marks_where_its_values_are() {
        let mut named = line(Goal::of_wasmtime(0.5));
        named.what = "a < b & c".into();
        let svg = of(vec![named]);
        // From 0.2, below native code's quarter, to 2.
        let axis = Axis { least: 0.2, most: 2.0 };
        let y = HEAD + ROW / 2.0;
        assert!(svg.contains(">a &lt; b &amp; c</text>"), "{svg}");
        assert!(svg.contains(&format!("cx=\"{:.1}\" cy=\"{y:.1}\"", axis.at(0.75))), "{svg}");
        assert!(svg.contains(&format!("M{:.1} {:.1}l", axis.at(0.25), y - 5.0)), "{svg}");
        assert!(svg.contains(&format!("class=\"goal\" x1=\"{:.1}\" y1=\"{:.1}\"", axis.at(0.5), y - 9.0)), "{svg}");
        assert_eq!(svg.matches("class=\"wasmi\"").count(), 1, "only in the legend: {svg}");
    }

    #[test]
    fn it_is_well_formed_for_any_figures() {
        let odd = [f64::NAN, f64::INFINITY, 0.0, -1.0, 1e300];
        let lines = odd.map(|x| line(None).with([(Side::Planks, vec![x; 3]), (Side::Wasmi, vec![x; 3])])).to_vec();
        for svg in [of(lines), of(vec![]), of(vec![line(None).without(Side::Wasmtime, "none")])] {
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
            assert_eq!(svg.matches('<').count(), svg.matches('>').count());
            assert!(!svg.contains("inf"), "{svg}");
        }
    }
}
