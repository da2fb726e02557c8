//! `planks bench --check`: the measured values against the goals.

use super::print::value;
use super::{Line, Side, Table, Unit, Verdict};

/// What a table has of its goals.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Goals that are met.
    pub met: usize,
    /// A sentence for each that is not.
    pub missed: Vec<String>,
}

impl Checked {
    /// Whether there were goals and all are met.
    pub fn holds(&self) -> bool {
        self.missed.is_empty() && self.met > 0
    }
}

/// Compares every line with its goal. A goal that nothing was measured for is not met.
pub fn check(table: &Table) -> Checked {
    let mut checked = Checked::default();
    for line in &table.lines {
        match line.verdict() {
            None => {}
            Some(Verdict::Met(_)) => checked.met += 1,
            Some(Verdict::Missed(found)) => {
                checked.missed.push(format!(
                    "missed: {}: {}, goal {}",
                    line.what,
                    in_goals_unit(line, found),
                    goal(line)
                ));
            }
            Some(Verdict::Unknown(why)) => {
                checked.missed.push(format!("not compared: {}: {why}; goal {}", line.what, goal(line)));
            }
        }
    }
    checked
}

/// The goal, for people; empty when there is none.
pub(super) fn goal(line: &Line) -> String {
    line.goal.map(|g| format!("≤ {}", in_goals_unit(line, g.most))).unwrap_or_default()
}

fn in_goals_unit(line: &Line, what: f64) -> String {
    match (line.goal.and_then(|g| g.of), line.unit) {
        (Some(side), _) => format!("{what:.2} × {}", side.name()),
        (None, Unit::TimesWasmtime) => format!("{what:.2} × {}", Side::Wasmtime.name()),
        (None, unit) => value(unit, what),
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::tests::line;
    use super::super::{Goal, NO_COMPILER};
    use super::*;

    fn table(lines: Vec<Line>) -> Table {
        Table { compiler: None, processors: 2, rounds: 3, lines }
    }

    #[test]
    fn each_miss_is_a_line_with_the_value_and_the_goal() {
        let lines = vec![
            line(Goal::at_most(2.5)),
            line(Goal::of_wasmtime(0.9)),
            line(Goal::of_native(1.1)).without(Side::Native, NO_COMPILER),
            line(None),
            line(Goal::of_native(1.5)),
        ];
        let checked = check(&table(lines));
        let missed = [
            "missed: some line: 3.00 ns, goal ≤ 2.50 ns",
            "not compared: some line: no C compiler (clang, gcc or cc) was found; goal ≤ 1.10 × native",
            "missed: some line: 2.00 × native, goal ≤ 1.50 × native",
        ];
        assert_eq!((checked.met, checked.missed.as_slice()), (1, missed.map(String::from).as_slice()));
        assert!(!checked.holds());
    }

    #[test]
    fn only_goals_that_were_compared_and_met_hold() {
        assert!(check(&table(vec![line(Goal::at_most(3.0)), line(None)])).holds());
        assert!(!check(&table(vec![line(None)])).holds());
    }
}
