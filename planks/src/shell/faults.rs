//! `ls --faults`: what failed, and what was done about it.

use super::Reply;
use alloc::format;
use alloc::string::{String, ToString};
use namespace_bridge::{FaultEntry, fault_log};
use runtime_port::time::Instant;
use serde_json::{Value, json};

/// The fault log of the system, the oldest record first.
pub(super) fn list() -> Reply {
    let faults = fault_log::entries();
    let now = Instant::now().as_nanos();
    let width = faults.iter().map(|e| place(e).chars().count()).max().unwrap_or(0).max(8);
    let mut text = format!("{:width$}  version  count  {:>10}  {:15}  fault\n", "function", "last", "action");
    for e in &faults {
        let action = e.action_taken.to_string();
        let last = ago(now.saturating_sub(e.last));
        text += &format!(
            "{:width$}  {:>7}  {:>5}  {last:>10}  {action:15}  {}",
            place(e),
            e.version,
            e.count,
            e.fault_type
        );
        if let Some(offset) = e.wasm_offset {
            text += &format!(" at wasm offset {offset:#x}");
        }
        text.push('\n');
    }
    if faults.is_empty() {
        text = String::from("nothing has failed\n");
    }
    match fault_log::lost() {
        0 => {}
        lost => text += &format!("{lost} older records had to go\n"),
    }
    Reply::new(text, faults.iter().map(described).collect())
}

fn place(e: &FaultEntry) -> String {
    match (e.function_name.is_empty(), e.function) {
        (false, _) => format!("{}!{}", e.cell, e.function_name),
        (true, Some(index)) => format!("{}!wasm[{index}]", e.cell),
        (true, None) => e.cell.clone(),
    }
}

/// A time span that people read.
fn ago(nanos: u64) -> String {
    match nanos / 1_000_000 {
        ms @ 0..1000 => format!("{ms} ms ago"),
        ms @ 1000..120_000 => format!("{} s ago", ms / 1000),
        ms => format!("{} min ago", ms / 60_000),
    }
}

fn described(e: &FaultEntry) -> Value {
    json!({
        "cell": e.cell, "version": e.version, "function": e.function, "name": e.function_name,
        "fault": e.fault_type.to_string(), "wasm_offset": e.wasm_offset, "pc": e.instruction_pointer, "task": e.task,
        "first_ns": e.first, "last_ns": e.last, "count": e.count, "action": e.action_taken.to_string(),
    })
}
