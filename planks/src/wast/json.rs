//! Reports as JSON.

use super::{FileReport, Totals};
use serde_json::{Value, json};

/// Counts as JSON.
pub fn totals(totals: &Totals) -> Value {
    json!({
        "files": totals.files, "passed": totals.passed, "failed": totals.failed, "commands": totals.commands,
        "excluded": totals.excluded, "refused": totals.refused,
    })
}

/// What one file did, as JSON.
pub fn file(report: &FileReport) -> Value {
    let mut value = totals(&report.totals);
    let failures: Vec<Value> = report.failures.iter().map(|f| json!({ "line": f.line, "reason": f.reason })).collect();
    value["file"] = json!(report.name);
    value["failures"] = json!(failures);
    value
}
