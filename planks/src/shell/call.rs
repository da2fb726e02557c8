//! `call`.

use super::{Reply, Shell, misused};
use crate::failure::{Failure, Kind};
use crate::value;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use namespace_bridge::val::Val;
use serde_json::{Value, json};

pub(super) fn call(shell: &mut Shell<'_>, words: &[String]) -> Result<Reply, Failure> {
    let Some((symbol, words)) = words.split_first() else { return Err(misused("call")) };
    let Some((cell, function)) = symbol.split_once("::") else {
        return Err(Failure::usage(format!("`{symbol}` is no symbol: write CELL::FUNCTION")));
    };
    let cell = super::info::find(shell, cell)?;
    let func = cell.func(function).map_err(|e| Failure::new(Kind::Link, format!("{e}")))?;
    let ty = func.ty();
    let args = value::parse_arguments(ty, words).map_err(|e| Failure::usage(format!("{function}: {e}")))?;
    let mut results: Vec<Val> = ty.results.iter().map(Val::default_for).collect();
    if let Err(e) = func.call(&args, &mut results) {
        let trap = e.into_trap().map_err(|other| Failure::usage(format!("{function}: {other}")))?;
        let status = shell.host.exit_status(&trap).ok_or_else(|| Failure::trap(&trap))?;
        return Ok(Reply::new(format!("ended with status {status}\n"), json!({ "exit_status": status })));
    }
    let json: Vec<Value> = results.iter().map(value::to_json).collect();
    Ok(Reply::new(value::show_all(&results), json!({ "results": json })))
}
