//! A task that calls without a pause, by every way there is, and judges each result.
#![expect(unsafe_code, reason = "plain function pointers are one of the ways")]

use super::Shared;
use super::cells::{Cells, VERSIONS};
use super::lane::Lane;
use crate::random::Random;
use crate::world::{SetupError, setup};
use alloc::{boxed::Box, format, string::String, vec::Vec};
use core::sync::atomic::Ordering;
use namespace_bridge::{CrateNamespace, FuncError, Trap, TypedFunc, catch_trap};

type F = TypedFunc<(i64,), i64>;
type Raw = extern "C-unwind" fn(i64) -> i64;

/// What a caller did.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) calls: u64,
    pub(super) counted: u64,
    pub(super) pairs: u64,
    pub(super) wrong: Vec<String>,
}

/// The ways to a function.
struct Ways {
    handle: F,
    slot: F,
    reference: F,
    raw: Raw,
    symbol: String,
}

impl Ways {
    fn to(cells: &Cells, name: &str) -> Result<Ways, SetupError> {
        let find = |cell: &str, function: &str| -> Result<F, SetupError> {
            let cell = cells.namespace.get_crate(cell).ok_or_else(|| SetupError(format!("no cell `{cell}`")))?;
            cell.typed_func(function).map_err(|e| setup("function")(&e))
        };
        let cell = cells.namespace.get_crate(name).ok_or_else(|| SetupError(format!("no cell `{name}`")))?;
        // SAFETY: the function's type; calls through it are inside of a catch.
        let raw: Raw = unsafe { cell.entry("f") }.map_err(|e| setup("function")(&e))?;
        Ok(Ways {
            handle: find(name, "f")?,
            slot: find("user", &format!("{name}_by_slot"))?,
            reference: find("user", &format!("{name}_by_reference"))?,
            raw,
            symbol: format!("{name}::f"),
        })
    }

    /// What the symbol stands for now.
    fn by_symbol(&self, namespace: &CrateNamespace) -> Result<F, Trap> {
        loop {
            let section = namespace.get_symbol(&self.symbol).upgrade();
            let found = section.and_then(|s| s.parent_crate.upgrade()).map(|cell| cell.typed_func("f"));
            match found {
                Some(Ok(function)) => return Ok(function),
                // Another version has come meanwhile, and this one went.
                Some(Err(FuncError::Unloaded { .. })) | None => runtime_port::platform().tasks().yield_now(),
                Some(Err(e)) => return Err(Trap::host(Box::new(e))),
            }
        }
    }

    /// Calls by one of the ways; by the last one three times in a row, with the address in a register.
    fn call(&self, way: usize, x: i64, namespace: &CrateNamespace) -> Result<Vec<i64>, Trap> {
        let one = |result: Result<i64, Trap>| result.map(|r| alloc::vec![r]);
        match way {
            0 => one(self.handle.call((x,))),
            1 => one(self.slot.call((x,))),
            2 => one(self.reference.call((x,))),
            3 => one(self.by_symbol(namespace)?.call((x,))),
            _ => {
                let raw = self.raw;
                catch_trap(|| (0..3).map(|_| raw(x)).collect())
            }
        }
    }
}

/// A task that calls.
pub(super) struct Caller {
    random: Random,
    plain: Ways,
    counter: Ways,
    first: F,
    second: F,
    tally: Tally,
}

impl Caller {
    pub(super) fn new(random: Random, cells: &Cells) -> Result<Caller, SetupError> {
        let find = |cell: &str| -> Result<F, SetupError> {
            let cell = cells.namespace.get_crate(cell).ok_or_else(|| SetupError(format!("no cell `{cell}`")))?;
            cell.typed_func("f").map_err(|e| setup("function")(&e))
        };
        Ok(Caller {
            random,
            plain: Ways::to(cells, "plain")?,
            counter: Ways::to(cells, "counter")?,
            first: find("first")?,
            second: find("second")?,
            tally: Tally::default(),
        })
    }

    pub(super) fn run(mut self, shared: &Shared) -> Tally {
        while !shared.stop.load(Ordering::Acquire) {
            match self.random.below(3) {
                0 => self.one(shared, false),
                1 => self.one(shared, true),
                _ => self.pair(shared),
            }
        }
        self.tally
    }

    fn blame(&mut self, what: String) {
        // The first few tell enough; all of them count.
        if self.tally.wrong.len() < 1 << 16 {
            self.tally.wrong.push(what);
        }
    }

    /// A call of the cell with or without state.
    fn one(&mut self, shared: &Shared, counts: bool) {
        let (ways, lane) = if counts { (&self.counter, &shared.counter) } else { (&self.plain, &shared.plain) };
        let (way, x) = (self.random.below(5), self.random.bits() as i64 >> 16);
        let since = lane.since();
        let results = ways.call(way, x, &shared.cells.namespace);
        let until = lane.until();
        match results {
            Err(trap) => self.blame(format!("a call was lost: {trap}")),
            Ok(results) => {
                self.tally.calls += results.len() as u64;
                self.tally.counted += if counts { results.len() as u64 } else { 0 };
                for result in results {
                    if let Some(what) = judge(lane, result, x, since, until) {
                        self.blame(what);
                    }
                }
            }
        }
    }

    /// Calls of the two cells that change together, in their order. Each calls the other after it has begun in its own version, so none of the four
    /// versions is older than the one before.
    fn pair(&mut self, shared: &Shared) {
        let lane = &shared.pair;
        let since = lane.since();
        let results = self.first.call((0,)).and_then(|a| Ok((a, self.second.call((0,))?)));
        let until = lane.until();
        match results {
            Err(trap) => self.blame(format!("a call was lost: {trap}")),
            Ok((a, b)) => {
                self.tally.calls += 2;
                // In a long time the same version can come again: the first of them then proves nothing.
                if until - since > 1 {
                    return;
                }
                self.tally.pairs += 1;
                let versions = [a & 0xff, a >> 8, b & 0xff, b >> 8];
                let numbers = versions.map(|version| lane.number_of(version as usize, since, until));
                if !(numbers.iter().all(Option::is_some) && numbers.is_sorted()) {
                    self.blame(format!("versions {versions:?} of a pair, numbers {numbers:?} of {since}..={until}"));
                }
            }
        }
    }
}

/// What is wrong with a result.
fn judge(lane: &Lane, result: i64, x: i64, since: u64, until: u64) -> Option<String> {
    let version = (result & 0xff) as usize;
    if result >> 8 != x || version >= VERSIONS {
        return Some(format!("result {result:#x} for argument {x:#x}"));
    }
    match lane.number_of(version, since, until) {
        Some(_) => None,
        None => Some(format!("version {version} ran, which did not serve between {since} and {until}")),
    }
}
