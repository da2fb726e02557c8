//! `call`.

use super::{Reply, Shell, misused};
use crate::failure::{Failure, Kind};
use crate::value;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use namespace_bridge::StrongCrateRef;
use namespace_bridge::val::Val;
use serde_json::{Value, json};

pub(super) fn call(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let Some((symbol, args)) = words.split_first() else { return Err(misused("call")) };
    let Some((cell, function)) = symbol.split_once("::") else {
        return Err(Failure::usage(format!("`{symbol}` is no symbol: write CELL::FUNCTION")));
    };
    let cell = super::info::find(shell, cell)?;
    let results = call_export(&cell, function, args)?;
    let json: Vec<Value> = results.iter().map(value::to_json).collect();
    Ok(Reply::new(value::show_all(&results), json!({ "results": json })))
}

/// Calls an export with arguments as text.
fn call_export(cell: &StrongCrateRef, function: &str, args: &[String]) -> Result<Vec<Val>, Failure> {
    let func = cell.func(function).map_err(|e| Failure::new(Kind::Link, format!("{e}")))?;
    let ty = func.ty();
    let args = value::parse_arguments(ty, args).map_err(|e| Failure::usage(format!("{function}: {e}")))?;
    let mut results: Vec<Val> = ty.results.iter().map(Val::default_for).collect();
    func.call(&args, &mut results).map_err(|e| match e.into_trap() {
        Ok(trap) => Failure::trap(&trap),
        Err(other) => Failure::usage(format!("{function}: {other}")),
    })?;
    Ok(results)
}
