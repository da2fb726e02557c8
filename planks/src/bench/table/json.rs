//! The table for scripts. docs/BENCHMARKS.md describes the fields; [`SCHEMA`] changes when one of them changes its meaning.

use super::{Figures, Line, Side, Table, Unit, Verdict};
use crate::bench::measure::Sample;
use serde_json::{Map, Value, json};

/// Name and number of the format.
pub const SCHEMA: &str = "planks-bench/1";

/// The whole table.
pub fn table(table: &Table) -> Value {
    json!({
        "schema": SCHEMA,
        "planks": env!("CARGO_PKG_VERSION"),
        "compiler": table.compiler,
        "processors": table.processors,
        "rounds": table.rounds,
        "rows": table.lines.iter().map(row).collect::<Vec<_>>(),
    })
}

fn row(line: &Line) -> Value {
    let unit = match line.unit {
        Unit::Nanoseconds => "ns",
        Unit::Bytes => "bytes",
        Unit::TimesWasmtime => "times_wasmtime",
    };
    let sides: Map<String, Value> = Side::ALL.into_iter().map(|s| (s.name().into(), side(line, s))).collect();
    let mut row = json!({ "key": line.key, "what": line.what, "unit": unit, "sides": sides });
    if let (Some(goal), Some(verdict)) = (line.goal, line.verdict()) {
        let (value, met, why) = match verdict {
            Verdict::Met(value) => (Some(value), true, None),
            Verdict::Missed(value) => (Some(value), false, None),
            Verdict::Unknown(why) => (None, false, Some(why)),
        };
        row["goal"] = json!({ "most": goal.most, "of": goal.of.map(Side::name), "value": value, "met": met });
        if let Some(why) = why {
            row["goal"]["not_compared"] = why.into();
        }
    }
    row
}

fn side(line: &Line, side: Side) -> Value {
    let Some(absolute) = line.sample(side) else {
        let Figures::Absent(why) = &line.figures[side as usize] else { return Value::Null };
        return json!({ "absent": why });
    };
    let mut all = sample(absolute);
    if side != Side::Planks
        && let Some(ratio) = line.ratio(side)
    {
        all["ratio"] = sample(ratio);
    }
    all
}

fn sample(s: Sample) -> Value {
    json!({ "median": s.median, "min": s.min, "max": s.max })
}

#[cfg(test)]
mod tests {
    use super::super::Goal;
    use super::super::line::tests::line;
    use super::*;

    #[test]
    fn every_field_of_the_schema_is_there() {
        let lines = vec![line(Goal::of_wasmtime(0.5)), line(None)];
        let value = table(&Table { compiler: Some("clang"), processors: 2, rounds: 3, lines });
        let sides = json!({
            "planks": { "median": 3.0, "min": 2.0, "max": 4.0 },
            "wasmtime": { "median": 4.0, "min": 4.0, "max": 4.0, "ratio": { "median": 0.75, "min": 0.5, "max": 1.0 } },
            "wasmi": { "absent": "nothing there to compare" },
            "native": { "median": 1.0, "min": 1.0, "max": 2.0, "ratio": { "median": 2.0, "min": 2.0, "max": 3.0 } },
        });
        let plain = json!({ "key": "some.line", "what": "some line", "unit": "ns", "sides": sides });
        let mut with_goal = plain.clone();
        with_goal["goal"] = json!({ "most": 0.5, "of": "wasmtime", "value": 0.75, "met": false });
        let all = json!({
            "schema": "planks-bench/1", "planks": env!("CARGO_PKG_VERSION"), "compiler": "clang", "processors": 2, "rounds": 3,
            "rows": [with_goal, plain],
        });
        assert_eq!(value, all);
    }

    #[test]
    fn a_goal_that_was_not_compared_says_why_and_is_not_met() {
        let line = line(Goal::of_native(2.0)).without(Side::Native, "no compiler");
        let goal = row(&line)["goal"].clone();
        assert_eq!(
            goal,
            json!({ "most": 2.0, "of": "native", "value": null, "met": false, "not_compared": "no compiler" })
        );
    }
}
