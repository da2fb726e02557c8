//! Running code: the kernels, their mean, the worst of them, and those of indirect calls beside native code.

use super::{Figures, Goal, Line, NO_COMPILER, Side, Unit, With};
use crate::bench::interpreter::Interpreter;
use crate::bench::kernels::{KERNELS, Kernel, Sides};
use crate::bench::load::BenchError;
use crate::bench::measure::{Sample, geometric_means, quotients};

/// Goals, in wasmtime's time.
const MEAN: f64 = 0.92;
const WORST: f64 = 1.03;

const MEAN_LINE: (&str, &str) = ("kernels.mean", "run time of the kernels, geometric mean");
const WORST_LINE: (&str, &str) = ("kernels.worst", "run time of the kernels, worst");

/// Kernels that have a goal of their own, beside native code.
const INDIRECT: [(&str, &str, &str, f64); 2] = [
    ("indirect", "indirect.predictable", "indirect calls, predictable targets", 1.1),
    ("indirect_random", "indirect.unpredictable", "indirect calls, unpredictable targets", 3.0),
];

/// Measures what is wanted of these lines. Mean and worst need all kernels.
pub(super) fn measure(
    with: &With<'_>,
    progress: &mut dyn FnMut(&str),
    add: &mut dyn FnMut(Line),
) -> Result<(), BenchError> {
    let wants = |(key, what): (&str, &str)| with.plan.wants(key, what);
    let (mean_wanted, worst_wanted) = (wants(MEAN_LINE), wants(WORST_LINE));
    let interpreter = Interpreter::new();
    let sides = Sides { rival: with.rival, interpreter: Some(&interpreter), toolchain: with.toolchain };
    let (mut lines, mut indirect) = (Vec::new(), Vec::new());
    for kernel in &KERNELS {
        let key = format!("kernels.{}", kernel.name);
        let alias = INDIRECT.iter().find(|i| i.0 == kernel.name).filter(|i| wants((i.1, i.2)));
        let own = wants((&key, kernel.name));
        if !(own || alias.is_some() || mean_wanted || worst_wanted) {
            continue;
        }
        progress(kernel.name);
        let line = line(with, &sides, kernel, key)?;
        if let Some((_, key, what, most)) = alias {
            indirect.push(Line {
                key: (*key).into(),
                what: (*what).into(),
                goal: Goal::of_native(*most),
                ..line.clone()
            });
        }
        lines.push((line, own));
    }
    indirect.into_iter().for_each(&mut *add);
    if lines.len() == KERNELS.len() {
        let all: Vec<&Line> = lines.iter().map(|(line, _)| line).collect();
        if mean_wanted {
            add(mean(&all));
        }
        if worst_wanted {
            all_worst(&all).into_iter().for_each(&mut *add);
        }
    }
    lines.into_iter().filter(|(_, own)| *own).for_each(|(line, _)| add(line));
    Ok(())
}

fn line(with: &With<'_>, sides: &Sides<'_>, kernel: &Kernel, key: String) -> Result<Line, BenchError> {
    let named = |(name, figures): (&str, _)| {
        let side = Side::ALL.into_iter().find(|s| s.name() == name).unwrap_or(Side::Native);
        (side, figures)
    };
    let figures = sides.figures(kernel, with.plan.effort)?.into_iter().map(named);
    Ok(Line::absent(key, kernel.name, Unit::Nanoseconds, None, NO_COMPILER).with(figures))
}

/// A side's figures in wasmtime's.
fn in_wasmtimes(line: &Line, side: Side) -> Option<Vec<f64>> {
    match (&line.figures[side as usize], &line.figures[Side::Wasmtime as usize]) {
        (Figures::Measured(own), Figures::Measured(theirs)) => Some(quotients(own, theirs)),
        _ => None,
    }
}

/// The geometric mean of all kernels' times, in each round, in wasmtime's.
fn mean(all: &[&Line]) -> Line {
    let of = |side| {
        let each: Option<Vec<Vec<f64>>> = all.iter().map(|line| in_wasmtimes(line, side)).collect();
        Some((side, geometric_means(&each?)))
    };
    let (key, what) = MEAN_LINE;
    Line::absent(key, what, Unit::TimesWasmtime, Goal::of_wasmtime(MEAN), NO_COMPILER)
        .with(Side::ALL.into_iter().filter_map(of))
}

/// The kernel whose time is the longest beside wasmtime's.
fn all_worst(all: &[&Line]) -> Option<Line> {
    let ratio = |line: &&&Line| line.ratio(Side::Wasmtime).map_or(f64::NAN, |s: Sample| s.median);
    let worst = all.iter().max_by(|a, b| ratio(a).total_cmp(&ratio(b)))?;
    let of = |side| Some((side, in_wasmtimes(worst, side)?));
    let (key, what) = WORST_LINE;
    let what = format!("{what}: {}", worst.what);
    let line = Line::absent(key, what, Unit::TimesWasmtime, Goal::of_wasmtime(WORST), NO_COMPILER);
    Some(line.with(Side::ALL.into_iter().filter_map(of)))
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn kernel(name: &str, ours: [f64; 2], wasmtime: [f64; 2]) -> Line {
        let sides = [(Side::Planks, ours.to_vec()), (Side::Wasmtime, wasmtime.to_vec())];
        Line::absent(format!("kernels.{name}"), name, Unit::Nanoseconds, None, NO_COMPILER).with(sides)
    }

    #[test]
    fn mean_and_worst_are_in_wasmtimes_time() {
        let (a, b) = (kernel("a", [1.0, 1.0], [2.0, 2.0]), kernel("b", [30.0, 80.0], [10.0, 40.0]));
        let mean = mean(&[&a, &b]);
        let figures = match &mean.figures[0] {
            Figures::Measured(figures) => figures.clone(),
            Figures::Absent(why) => panic!("{why}"),
        };
        assert!((figures[0] - 1.5_f64.sqrt()).abs() < 1e-9 && (figures[1] - 1.0).abs() < 1e-9, "{figures:?}");
        assert_eq!(mean.ratio(Side::Native), None);
        let worst = all_worst(&[&a, &b]).unwrap();
        assert_eq!(
            (worst.what.as_str(), worst.verdict()),
            ("run time of the kernels, worst: b", Some(Verdict::Missed(3.0)))
        );
    }
}
