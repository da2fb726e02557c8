//! The interface in one page: a native function, a wasm cell that imports it, typed calls, a trap, unloading.
//!
//! `cargo run --release -p namespace_bridge --example counter`

use namespace_bridge::{Caller, CrateNamespace, LoadOptions};

/// Counts, tells `log::write` about it, and divides by what it is given.
const COUNTER: &str = r#"
(module
  (import "log" "write" (func $write (param i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "counted")
  (global $count (mut i32) (i32.const 0))
  (func (export "inc") (param i32) (result i32)
    (call $write (i32.const 0) (i32.const 7))
    (global.set $count (i32.add (global.get $count) (local.get 0)))
    (global.get $count))
  (func (export "mean") (param i32) (result i32)
    (i32.div_s (global.get $count) (local.get 0))))
"#;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ns = CrateNamespace::new("kernel", None);

    // A native function. Its wasm type, (i32, i32) -> (), is inferred; `Caller` gives it the importing cell's memory.
    ns.define("log", "write", |caller: &Caller, address: u32, length: u32| {
        let text = caller.read_vec(u64::from(address), u64::from(length))?;
        println!("{}: {}", caller.cell().unwrap_or("somebody"), String::from_utf8_lossy(&text));
        Ok::<_, namespace_bridge::caller::GuestMemoryError>(())
    })?;

    let cell = ns.load_wasm("counter", &wat::parse_str(COUNTER)?, LoadOptions::default())?;
    let inc = cell.typed_func::<(i32,), i32>("inc")?;
    println!("inc(2) = {}", inc.call((2,))?);
    println!("inc(3) = {}", inc.call((3,))?);

    // A trap is a value; the cell goes on.
    let mean = cell.typed_func::<(i32,), i32>("mean")?;
    match mean.call((0,)) {
        Ok(n) => println!("mean(0) = {n}"),
        Err(trap) => println!("mean(0): {trap}"),
    }
    println!("mean(5) = {}", mean.call((5,))?);

    // Handles outlive their cell; calling them is an error then.
    drop(cell);
    ns.unload("counter")?;
    println!("inc(1): {}", inc.call((1,)).expect_err("the cell is gone"));
    Ok(())
}
