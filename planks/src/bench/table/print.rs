//! The table for people: this system's figures, and their multiples of everybody else's.

use super::check::goal;
use super::{Figures, Line, Side, Table, Unit, Verdict};
use crate::bench::measure::Sample;
use std::fmt::Write;

/// The whole table, with what its columns are.
pub fn text(table: &Table) -> String {
    let native = table.compiler.map_or("native (no C compiler)".into(), |c| format!("native ({c} -O2)"));
    let heading = ["", "planks", "× wasmtime", "× wasmi", &format!("× {native}"), "goal"].map(String::from);
    let rows: Vec<[String; 6]> = std::iter::once(heading).chain(table.lines.iter().map(row)).collect();
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut out = format!(
        "Medians (least–most) of {} rounds, in each of which every side ran once, on {} processors. The columns with × are multiples:\n\
         below 1, planks takes less.\n\n",
        table.rounds, table.processors
    );
    for row in rows {
        let mut text = String::new();
        for (width, cell) in widths.iter().zip(&row) {
            let pad = width - cell.chars().count() + 2;
            let _ = write!(text, "{cell}{:pad$}", "");
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

fn row(line: &Line) -> [String; 6] {
    let ours = match (&line.figures[0], line.sample(Side::Planks)) {
        (_, Some(s)) => span(s, |x| value(line.unit, x)),
        (Figures::Absent(why), _) => why.clone(),
        _ => String::new(),
    };
    let times = |side| line.ratio(side).map_or("–".into(), |s| span(s, |x| format!("{x:.2}")));
    let verdict = match line.verdict() {
        None => "",
        Some(Verdict::Met(_)) => " met",
        Some(Verdict::Missed(_)) => " MISSED",
        Some(Verdict::Unknown(_)) => " not compared",
    };
    let goal = goal(line) + verdict;
    [line.what.clone(), ours, times(Side::Wasmtime), times(Side::Wasmi), times(Side::Native), goal]
}

/// `median (min–max)`.
fn span(sample: Sample, show: impl Fn(f64) -> String) -> String {
    format!("{} ({}–{})", show(sample.median), show(sample.min), show(sample.max))
}

/// A figure with its unit.
pub(super) fn value(unit: Unit, x: f64) -> String {
    match unit {
        Unit::Nanoseconds if x < 1e3 => format!("{x:.2} ns"),
        Unit::Nanoseconds if x < 1e6 => format!("{:.1} µs", x / 1e3),
        Unit::Nanoseconds if x < 1e9 => format!("{:.1} ms", x / 1e6),
        Unit::Nanoseconds => format!("{:.2} s", x / 1e9),
        Unit::Bytes if x < 1e4 => format!("{x:.0} B"),
        Unit::Bytes => format!("{:.1} kB", x / 1e3),
        Unit::TimesWasmtime => format!("{x:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Goal;
    use super::super::line::tests::line;
    use super::*;

    #[test]
    fn columns_are_aligned_and_show_medians_and_ranges() {
        let lines = vec![line(Goal::of_wasmtime(0.5)), line(None)];
        let text = text(&Table { compiler: Some("clang"), processors: 2, rounds: 3, lines });
        let lines: Vec<&str> = text.lines().skip(3).collect();
        let columns =
            |l: &str| l.split("  ").map(str::trim).filter(|c| !c.is_empty()).map(String::from).collect::<Vec<_>>();
        assert_eq!(columns(lines[0]), ["planks", "× wasmtime", "× wasmi", "× native (clang -O2)", "goal"]);
        let first = ["some line", "3.00 ns (2.00 ns–4.00 ns)", "0.75 (0.50–1.00)", "–", "2.00 (2.00–3.00)"];
        assert_eq!(columns(lines[1])[..5], first);
        assert_eq!(columns(lines[1])[5], "≤ 0.50 × wasmtime MISSED");
        assert_eq!(columns(lines[2]), first);
        let at = |l: &str, what: &str| l.find(what).map(|i| l[..i].chars().count());
        assert_eq!(at(lines[0], "× wasmi "), at(lines[1], "–  "));
    }

    #[test]
    fn figures_have_the_unit_that_suits_them() {
        let shown = [1.5, 1500.0, 2.5e6, 3.25e9].map(|x| value(Unit::Nanoseconds, x));
        assert_eq!(shown, ["1.50 ns", "1.5 µs", "2.5 ms", "3.25 s"]);
        assert_eq!([3999.6, 12_345.0].map(|x| value(Unit::Bytes, x)), ["4000 B", "12.3 kB"]);
    }

    #[test]
    fn a_table_without_a_compiler_says_so() {
        let table = Table { compiler: None, processors: 1, rounds: 3, lines: vec![] };
        assert!(text(&table).contains("native (no C compiler)"));
    }
}
