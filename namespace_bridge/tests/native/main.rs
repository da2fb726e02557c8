//! Native cells: objects of the compilers that are here, loaded into namespaces of this process.

#![expect(clippy::unwrap_used, reason = "tests")]

mod c;
mod compile;
mod demand;
mod escaped;
mod odd;
mod robust;
mod rust;
mod swap;
mod typed;

use namespace_bridge::{CallError, CrateNamespace, LoadOptions, StrongCrateRef, Val};

/// A namespace.
fn namespace() -> std::sync::Arc<CrateNamespace> {
    CrateNamespace::new("native", None)
}

fn load(ns: &CrateNamespace, name: &str, bytes: &[u8]) -> StrongCrateRef {
    ns.load_native(name, bytes, LoadOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// The stable entry of a symbol, as a function pointer.
///
/// # Safety
/// `F` must be the function's type.
unsafe fn entry<F: Copy>(cell: &StrongCrateRef, symbol: &str) -> F {
    let address = cell.native_address(symbol).unwrap_or_else(|| panic!("no function {symbol}"));
    assert_eq!(size_of::<F>(), size_of::<usize>());
    // SAFETY: the caller's promise.
    unsafe { std::mem::transmute_copy(&address) }
}

/// Calls an export with values.
fn invoke(cell: &StrongCrateRef, name: &str, args: &[Val]) -> Result<Vec<Val>, CallError> {
    let function = cell.func(name).unwrap_or_else(|e| panic!("{e}"));
    let mut results: Vec<Val> = function.ty().results.iter().map(Val::default_for).collect();
    function.call(args, &mut results)?;
    Ok(results)
}
