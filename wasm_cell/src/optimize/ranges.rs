//! Between which bounds 32-bit values lie.
//!
//! [`Ranges`] follows constants, masks, shifts, narrow loads, sums and products from operand to result, and finds the bounds of loop
//! variables: parameters of a loop's header to which the only way back adds a constant, and on which, or on another one's count,
//! that way depends. What a branch compares is within what it compares it with where it leads. Bounds are those of the unsigned value, and
//! hold wherever the value is defined; [`Ranges::at`] also has those that hold in one block only.

use super::pattern::{binary, constant, instruction, plus_constant, unary};
use super::range::Range;
use super::{Edge, Edges, STEPS, afford, argument, arguments};
use alloc::vec::Vec;
use cranelift_codegen::dominator_tree::DominatorTree;
use cranelift_codegen::ir::condcodes::{CondCode, IntCC};
use cranelift_codegen::ir::{Block, Function, InstructionData, Opcode, Value, ValueDef, types};
use hashbrown::HashMap;

/// Longest chain of operands that is followed.
const DEPTH: u32 = 24;

/// Steps for each instruction of a function, and for the smallest.
const STEPS_OF_INSTRUCTION: usize = 4;
const LEAST_STEPS: usize = 4096;

/// Most blocks whose branches say something of what is used behind them.
const BRANCHES: usize = 8;

/// Steps back from a value to what it is computed from, where all of these are looked at in the block where it is used.
const OPERANDS: u32 = 3;

/// Finds bounds in one function.
pub(super) struct Ranges<'a> {
    func: &'a Function,
    edges: &'a Edges,
    domtree: &'a DominatorTree,
    /// Whether parameters of blocks are looked at.
    parameters: bool,
    known: HashMap<Value, Range>,
    /// The values in `known` that were found since somebody began to look at a loop variable.
    found: Vec<Value>,
    trips: HashMap<Block, Option<u32>>,
    /// Steps left.
    steps: usize,
}

impl<'a> Ranges<'a> {
    pub fn new(func: &'a Function, edges: &'a Edges, domtree: &'a DominatorTree) -> Self {
        Ranges {
            func,
            edges,
            domtree,
            parameters: true,
            known: HashMap::new(),
            found: Vec::new(),
            trips: HashMap::new(),
            // In proportion to the function: what a loop variable depends on may be looked at more than once.
            steps: func.dfg.num_insts().saturating_mul(STEPS_OF_INSTRUCTION).clamp(LEAST_STEPS, STEPS),
        }
    }

    /// Bounds that follow from the instructions that make a value alone: nothing is known of parameters of blocks.
    pub fn of_bits(func: &'a Function, edges: &'a Edges, domtree: &'a DominatorTree) -> Self {
        Ranges { parameters: false, ..Ranges::new(func, edges, domtree) }
    }

    /// The bounds of a value of type `i32`.
    pub fn of(&mut self, value: Value) -> Range {
        self.at_depth(value, DEPTH)
    }

    /// The bounds of a value of type `i32` that is used in a block.
    pub fn at(&mut self, value: Value, block: Block) -> Range {
        self.at_operands(value, block, OPERANDS)
    }

    /// The same, with what it is computed from looked at in the block too, so many steps back.
    fn at_operands(&mut self, value: Value, block: Block, steps: u32) -> Range {
        let range = self.of(value);
        let range = self.behind_branches(range, value, block);
        let Some(steps) = steps.checked_sub(1).filter(|_| range.high == u32::MAX) else { return range };
        let of_operands = match binary(self.func, value) {
            Some((Opcode::Ishl, [a, by])) => constant(self.func, by).map(|by| {
                let factor = 1 << (by & 31);
                self.at_operands(a, block, steps).mul(Range::new(factor, factor))
            }),
            Some((Opcode::Iadd, [a, b])) => {
                constant(self.func, b).map(|c| self.at_operands(a, block, steps).add(Range::new(c, c)))
            }
            _ => None,
        };
        of_operands.map_or(range, |of_operands| range.within(of_operands))
    }

    /// The bounds of a value in a block, if `range` are those it has elsewhere: only where branches lead so is the block reached.
    fn behind_branches(&mut self, mut range: Range, value: Value, mut block: Block) -> Range {
        for _ in 0..BRANCHES {
            let mut into = self.edges.into(block);
            block = match (into.next(), into.next()) {
                (Some(only), None) => {
                    range = self.narrowed(range, value, only, DEPTH);
                    only.from
                }
                _ => match self.domtree.idom(block) {
                    Some(above) => above,
                    None => break,
                },
            };
        }
        range
    }

    /// The bounds of a value where an edge leads, if `range` are those it has elsewhere.
    fn narrowed(&mut self, range: Range, value: Value, edge: Edge, depth: u32) -> Range {
        let Some(Condition { code, left, right: Some(right) }) = self.condition(edge) else { return range };
        let (code, limit) = match (left == value, right == value) {
            (true, false) => (code, right),
            (false, true) => (code.swap_args(), left),
            _ => return range,
        };
        let Some(depth) = depth.checked_sub(1) else { return range };
        let limit = self.at_depth(limit, depth);
        compared(code, limit).map_or(range, |bounds| range.within(bounds))
    }

    fn at_depth(&mut self, value: Value, depth: u32) -> Range {
        if let Some(range) = self.known.get(&value) {
            return *range;
        }
        let Some(depth) = depth.checked_sub(1).filter(|_| self.func.dfg.value_type(value) == types::I32) else {
            return Range::ALL;
        };
        let Some(steps) = self.steps.checked_sub(1) else { return Range::ALL };
        self.steps = steps;
        let range = match self.func.dfg.value_def(value) {
            ValueDef::Param(block, position) if self.parameters => {
                // Whoever asks for it meanwhile, on the way around a loop, learns nothing, and is asked again afterwards.
                self.known.insert(value, Range::ALL);
                let before = self.found.len();
                let range = self.parameter(value, block, position, depth);
                for meanwhile in self.found.drain(before..) {
                    self.known.remove(&meanwhile);
                }
                range
            }
            ValueDef::Result(..) => self.result(value, depth),
            _ => Range::ALL,
        };
        self.known.insert(value, range);
        self.found.push(value);
        range
    }

    fn result(&mut self, value: Value, depth: u32) -> Range {
        if let Some(c) = constant(self.func, value) {
            return Range::new(c, c);
        }
        if let Some((opcode, [a, b])) = binary(self.func, value) {
            return self.of_binary(opcode, a, b, depth);
        }
        if let Some((opcode, arg)) = unary(self.func, value) {
            return match (opcode, self.func.dfg.value_type(arg)) {
                (Opcode::Uextend, types::I8) => Range::new(0, u8::MAX.into()),
                (Opcode::Uextend, types::I16) => Range::new(0, u16::MAX.into()),
                (Opcode::Clz | Opcode::Ctz | Opcode::Popcnt, _) => Range::new(0, 32),
                _ => Range::ALL,
            };
        }
        let Some(inst) = instruction(self.func, value) else { return Range::ALL };
        match self.func.dfg.insts[inst] {
            InstructionData::Load { opcode: Opcode::Uload8, .. } => Range::new(0, u8::MAX.into()),
            InstructionData::Load { opcode: Opcode::Uload16, .. } => Range::new(0, u16::MAX.into()),
            InstructionData::Ternary { opcode: Opcode::Select, args: [_, a, b] } => {
                self.at_depth(a, depth).union(self.at_depth(b, depth))
            }
            _ => Range::ALL,
        }
    }

    fn of_binary(&mut self, opcode: Opcode, a: Value, b: Value, depth: u32) -> Range {
        // The amount of a shift may have another type; it counts modulo 32.
        let amount = constant(self.func, b).map(|n| n & 31);
        match (opcode, amount) {
            (Opcode::Ushr, Some(n)) => {
                let a = self.at_depth(a, depth);
                return Range::new(a.low >> n, a.high >> n);
            }
            (Opcode::Ishl, Some(n)) => return self.at_depth(a, depth).mul(Range::new(1 << n, 1 << n)),
            _ => {}
        }
        if matches!(opcode, Opcode::Ushr) {
            return Range::new(0, self.at_depth(a, depth).high);
        }
        if !matches!(
            opcode,
            Opcode::Iadd
                | Opcode::Isub
                | Opcode::Imul
                | Opcode::Band
                | Opcode::Bor
                | Opcode::Bxor
                | Opcode::Urem
                | Opcode::Umin
                | Opcode::Umax
                | Opcode::Smin
                | Opcode::Smax
        ) {
            return Range::ALL;
        }
        let (a, b) = (self.at_depth(a, depth), self.at_depth(b, depth));
        match opcode {
            Opcode::Iadd => a.add(b),
            Opcode::Isub => a.sub(b),
            Opcode::Imul => a.mul(b),
            Opcode::Band => Range::new(0, a.high.min(b.high)),
            Opcode::Umin => Range::new(a.low.min(b.low), a.high.min(b.high)),
            Opcode::Umax => Range::new(a.low.max(b.low), a.high.max(b.high)),
            Opcode::Smin | Opcode::Smax => a.union(b),
            Opcode::Urem => Range::new(0, a.high.min(b.high.saturating_sub(1))),
            _ => a.bits(b),
        }
    }

    fn parameter(&mut self, value: Value, block: Block, position: usize, depth: u32) -> Range {
        let entry = self.func.layout.entry_block() == Some(block);
        if entry || !afford(&mut self.steps, self.func, self.edges, block) {
            return Range::ALL;
        }
        let Some(way) = self.way_back(block) else {
            let into: Vec<_> = self.edges.into(block).collect();
            return self.union(&into, position, depth);
        };
        let start = self.union(&way.into, position, depth);
        let Some(next) = argument(self.func, way.back, position) else { return Range::ALL };
        if next == value {
            return start;
        }
        if let Some((of, step)) = plus_constant(self.func, next)
            && of == value
        {
            let variable = Variable { value, next, step: step as i32, start };
            let own = self.condition(way.back).and_then(|c| self.bounds(c, variable, depth));
            if let Some((range, _)) = own {
                return range;
            }
            // Another variable may say how often the loop is gone through.
            let trips = self.trips(block, &way, depth);
            if let Some(range) = trips.and_then(|trips| counted(start, variable.step, trips)) {
                return range;
            }
        }
        start.union(self.union(&[way.back], position, depth))
    }

    fn union(&mut self, into: &[Edge], position: usize, depth: u32) -> Range {
        let mut range: Option<Range> = None;
        for edge in into {
            let Some(value) = argument(self.func, *edge, position) else { return Range::ALL };
            let next = self.at_depth(value, depth);
            let next = self.narrowed(next, value, *edge, depth);
            range = Some(range.map_or(next, |r| r.union(next)));
        }
        range.unwrap_or(Range::ALL)
    }

    /// The edges into the header of a loop with one way back.
    fn way_back(&self, header: Block) -> Option<WayBack> {
        let (mut back, mut into) = (None, Vec::new());
        for edge in self.edges.into(header) {
            if !self.domtree.block_dominates(header, edge.from) {
                into.push(edge);
            } else if back.replace(edge).is_some() {
                return None;
            }
        }
        Some(WayBack { back: back?, into })
    }

    /// On what a way depends: the condition of its branch, or of the one before which leads nowhere else.
    fn condition(&self, back: Edge) -> Option<Condition> {
        let mut way = back;
        let mut steps = BRANCHES;
        let arg = loop {
            steps = steps.checked_sub(1)?;
            match self.func.dfg.insts[way.branch] {
                InstructionData::Brif { arg, .. } => break arg,
                InstructionData::Jump { .. } => {
                    let mut into = self.edges.into(way.from);
                    let (Some(only), None) = (into.next(), into.next()) else { return None };
                    way = only;
                }
                _ => return None,
            }
        };
        let holds = way.destination == 0;
        let compare = instruction(self.func, arg).map(|inst| self.func.dfg.insts[inst]);
        let (code, left, right) = match compare {
            Some(InstructionData::IntCompare { cond, args: [left, right], .. }) => (cond, left, Some(right)),
            _ => (IntCC::NotEqual, arg, None),
        };
        let code = if holds { code } else { code.complement() };
        (self.func.dfg.value_type(left) == types::I32).then_some(Condition { code, left, right })
    }

    /// Bounds of a variable that the way back depends on, and how often the loop is gone through if that is known.
    fn bounds(&mut self, condition: Condition, variable: Variable, depth: u32) -> Option<(Range, Option<u32>)> {
        let limit = match condition.right {
            Some(right) => self.at_depth(right, depth),
            None => Range::new(0, 0),
        };
        // What is compared is the variable as it is, or as it will be.
        let ahead = if condition.left == variable.value {
            0
        } else if condition.left == variable.next {
            variable.step
        } else {
            let (of, c) = plus_constant(self.func, condition.left)?;
            (of == variable.value && condition.code == IntCC::NotEqual).then_some(c as i32)?
        };
        match condition.code {
            IntCC::NotEqual => until(variable, limit.single()?.wrapping_sub(ahead as u32)),
            IntCC::UnsignedLessThan => below(variable, limit, ahead != 0, u32::MAX),
            IntCC::UnsignedLessThanOrEqual => below(variable, one_more(limit)?, ahead != 0, u32::MAX),
            // Nothing of it is negative then, so the comparison is the unsigned one.
            IntCC::SignedLessThan => below(variable, limit, ahead != 0, i32::MAX as u32),
            IntCC::SignedLessThanOrEqual => below(variable, one_more(limit)?, ahead != 0, i32::MAX as u32),
            _ => None,
        }
    }

    /// How often the loop is gone through, at most.
    fn trips(&mut self, header: Block, way: &WayBack, depth: u32) -> Option<u32> {
        if let Some(trips) = self.trips.get(&header) {
            return *trips;
        }
        self.trips.insert(header, None);
        let trips = self.condition(way.back).and_then(|condition| {
            let params = self.func.dfg.block_params(header);
            params.iter().zip(arguments(self.func, way.back)).enumerate().find_map(|(position, (value, next))| {
                let next = next.filter(|_| self.func.dfg.value_type(*value) == types::I32)?;
                let (of, step) = plus_constant(self.func, next).filter(|(of, _)| of == value)?;
                let start = self.union(&way.into, position, depth);
                let variable = Variable { value: of, next, step: step as i32, start };
                self.bounds(condition, variable, depth)?.1
            })
        });
        self.trips.insert(header, trips);
        trips
    }
}

/// The edges into a loop's header.
struct WayBack {
    back: Edge,
    into: Vec<Edge>,
}

/// What must hold for a loop to go on: a comparison, with zero if there is no `right`.
#[derive(Clone, Copy)]
struct Condition {
    code: IntCC,
    left: Value,
    right: Option<Value>,
}

/// A loop variable.
#[derive(Clone, Copy)]
struct Variable {
    value: Value,
    next: Value,
    step: i32,
    start: Range,
}

/// Bounds of what is compared with something in `limit`, where the comparison holds.
fn compared(code: IntCC, limit: Range) -> Option<Range> {
    let positive = i32::MAX as u32;
    match code {
        IntCC::Equal => Some(limit),
        IntCC::UnsignedLessThan => Some(Range::new(0, limit.high.checked_sub(1)?)),
        IntCC::UnsignedLessThanOrEqual => Some(Range::new(0, limit.high)),
        IntCC::UnsignedGreaterThan => Some(Range::new(limit.low.checked_add(1)?, u32::MAX)),
        IntCC::UnsignedGreaterThanOrEqual => Some(Range::new(limit.low, u32::MAX)),
        IntCC::SignedGreaterThan if limit.high < positive => Some(Range::new(limit.low + 1, positive)),
        IntCC::SignedGreaterThanOrEqual if limit.high <= positive => Some(Range::new(limit.low, positive)),
        _ => None,
    }
}

fn one_more(limit: Range) -> Option<Range> {
    Some(Range::new(limit.low.checked_add(1)?, limit.high.checked_add(1)?))
}

/// A variable whose loop goes on until it is `last`, which is the last value it has.
fn until(variable: Variable, last: u32) -> Option<(Range, Option<u32>)> {
    let start = variable.start.single()?;
    let step = variable.step.unsigned_abs();
    let distance = if variable.step > 0 { last.wrapping_sub(start) } else { start.wrapping_sub(last) };
    // It gets there without wrapping around, and not past it.
    if step == 0 || distance % step != 0 || (variable.step > 0) != (last >= start) && distance != 0 {
        return None;
    }
    let range = Range::new(start.min(last), start.max(last));
    Some((range, (distance / step).checked_add(1)))
}

/// A variable whose loop goes on while it, or what it will be next, is below `limit`. Nothing is said of one that could get beyond
/// `most`.
fn below(variable: Variable, limit: Range, next: bool, most: u32) -> Option<(Range, Option<u32>)> {
    let step = u32::try_from(variable.step).ok().filter(|s| *s > 0)?;
    let start = variable.start;
    let largest = limit.high.checked_sub(1)?;
    // What it can be when the loop goes on, then what it can be at all.
    let high = if next { largest } else { largest.checked_add(step)? };
    let high = start.high.max(high);
    // What it would be next must not wrap around, or a comparison of that would hold again.
    if high.checked_add(step)? > most || limit.high > most {
        return None;
    }
    let (Some(start), Some(limit)) = (start.single(), limit.single()) else {
        return Some((Range::new(start.low, high), None));
    };
    let first_beyond = |from: u32| limit.saturating_sub(from).div_ceil(step);
    let more = if next { first_beyond(start + step) } else { first_beyond(start) };
    let last = start.checked_add(more.checked_mul(step)?)?;
    Some((Range::new(start, last), more.checked_add(1)))
}

/// A variable whose loop is gone through `trips` times.
fn counted(start: Range, step: i32, trips: u32) -> Option<Range> {
    let way = step.unsigned_abs().checked_mul(trips.checked_sub(1)?)?;
    if step >= 0 {
        Some(Range::new(start.low, start.high.checked_add(way)?))
    } else {
        Some(Range::new(start.low.checked_sub(way)?, start.high))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGES: [u32; 14] = [
        0,
        1,
        2,
        7,
        8,
        100,
        0x7fff_fff0,
        0x7fff_ffff,
        0x8000_0000,
        0x8000_0004,
        0xffff_ff00,
        0xffff_fff8,
        0xffff_fffe,
        u32::MAX,
    ];

    /// The values that a loop variable has, as long as `goes_on` says so of it; some of them if there are many.
    fn values(start: u32, step: i32, goes_on: impl Fn(u32) -> bool) -> Vec<u32> {
        let mut all = alloc::vec![start];
        let mut value = start;
        while goes_on(value) && all.len() < 2_000 {
            value = value.wrapping_add(step as u32);
            all.push(value);
        }
        all
    }

    fn variable(start: u32, step: i32) -> Variable {
        let value = Value::from_u32(0);
        Variable { value, next: value, step, start: Range::new(start, start) }
    }

    fn check(found: Option<(Range, Option<u32>)>, start: u32, step: i32, goes_on: impl Fn(u32) -> bool) -> bool {
        let Some((range, trips)) = found else { return false };
        let all = values(start, step, goes_on);
        for value in &all {
            assert!(range.low <= *value && *value <= range.high, "{value:#x} from {start:#x} by {step}: {range:?}");
        }
        if all.len() < 2_000
            && let Some(trips) = trips
        {
            assert_eq!(trips as usize, all.len(), "from {start:#x} by {step}: {range:?}");
        }
        true
    }

    #[test]
    fn loop_variables_stay_in_their_bounds() {
        let mut found = [0; 4];
        for start in EDGES {
            for limit in EDGES {
                for step in [1, 2, 3, 8, 16, 0x4000_0000, -1, -2, -8, i32::MIN, 0] {
                    let last = Range::new(limit, limit);
                    let up = |v: u32| v.wrapping_add(step as u32);
                    let v = variable(start, step);
                    found[0] += usize::from(check(until(v, limit), start, step, |v| v != limit));
                    found[1] += usize::from(check(below(v, last, false, u32::MAX), start, step, |v| v < limit));
                    found[2] += usize::from(check(below(v, last, true, u32::MAX), start, step, |v| up(v) < limit));
                    let signed = |v: u32| (up(v) as i32) < limit as i32;
                    found[3] += usize::from(check(below(v, last, true, i32::MAX as u32), start, step, signed));
                }
            }
        }
        assert!(found.iter().all(|n| *n > 50), "{found:?}");
    }

    #[test]
    fn ranges_of_results_hold_the_results_of_values_in_range() {
        for (a, b) in EDGES.iter().flat_map(|a| EDGES.map(|b| (*a, b))) {
            for (c, d) in EDGES.iter().flat_map(|c| EDGES.map(|d| (*c, d))) {
                if a > b || c > d {
                    continue;
                }
                let (x, y) = (Range::new(a, b), Range::new(c, d));
                for (x1, y1) in [(a, c), (a, d), (b, c), (b, d)] {
                    let holds = |r: Range, v: u32| assert!(r.low <= v && v <= r.high, "{x:?} {y:?} {v:#x}: {r:?}");
                    holds(x.add(y), x1.wrapping_add(y1));
                    holds(x.sub(y), x1.wrapping_sub(y1));
                    holds(x.mul(y), x1.wrapping_mul(y1));
                    holds(x.bits(y), x1 | y1);
                    holds(x.bits(y), x1 ^ y1);
                    holds(x.union(y), x1);
                }
            }
        }
    }

    #[test]
    fn what_a_comparison_holds_for_is_in_its_bounds() {
        use IntCC::*;
        let holds = |code: IntCC, v: u32, l: u32| match code {
            Equal => v == l,
            NotEqual => v != l,
            UnsignedLessThan => v < l,
            UnsignedLessThanOrEqual => v <= l,
            UnsignedGreaterThan => v > l,
            UnsignedGreaterThanOrEqual => v >= l,
            SignedLessThan => (v as i32) < l as i32,
            SignedLessThanOrEqual => v as i32 <= l as i32,
            SignedGreaterThan => v as i32 > l as i32,
            SignedGreaterThanOrEqual => v as i32 >= l as i32,
        };
        for code in IntCC::all() {
            for (low, high) in EDGES.iter().flat_map(|a| EDGES.map(|b| (*a, b))).filter(|(a, b)| a <= b) {
                let Some(bounds) = compared(*code, Range::new(low, high)) else { continue };
                for v in EDGES {
                    for limit in [low, high].into_iter().chain(EDGES.into_iter().filter(|l| (low..=high).contains(l))) {
                        assert!(
                            !holds(*code, v, limit) || (bounds.low..=bounds.high).contains(&v),
                            "{code} {v} {limit}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn counted_variables_stay_in_their_bounds() {
        assert_eq!(counted(Range::new(4, 10), 8, 3), Some(Range::new(4, 26)));
        assert_eq!(counted(Range::new(40, 50), -8, 3), Some(Range::new(24, 50)));
        assert_eq!(counted(Range::new(8, 50), -8, 3), None);
        assert_eq!(counted(Range::new(4, u32::MAX - 15), 8, 3), None);
    }
}
