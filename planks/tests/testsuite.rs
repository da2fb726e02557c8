//! The WebAssembly testsuite, all of it, and the counts it must reach.

use conformance::script::encoding::{decode, encode};
use planks::wast::{Exclusions, FileReport, Options, Totals, builtin_suite, convert, run};
use std::collections::BTreeMap;

/// Assertions that hold, by directory; the rest of a directory's assertions needs refused features or is excluded.
const PASSED: &[(&str, usize)] = &[
    ("proposals/annotations", 559),
    ("proposals/bulk-memory", 7187),
    ("proposals/custom-descriptors", 162),
    ("proposals/custom-page-sizes", 164),
    ("proposals/exceptions", 4),
    ("proposals/extended-const", 212),
    ("proposals/function-references", 1641),
    ("proposals/gc", 36),
    ("proposals/memory64", 1426),
    ("proposals/multi-memory", 768),
    ("proposals/multi-value", 1146),
    ("proposals/mutable-global", 112),
    ("proposals/nontrapping-float-to-int-conversions", 614),
    ("proposals/reference-types", 8551),
    ("proposals/relaxed-simd", 69),
    ("proposals/sign-extension-ops", 870),
    ("proposals/simd", 25515),
    ("proposals/tail-call", 113),
    ("proposals/threads", 436),
    ("proposals/wide-arithmetic", 107),
    ("wasm-v3", 19922),
];

/// Directories that need what is refused: everything else needs none of it but for single modules.
const REFUSED: [&str; 3] = ["proposals/custom-descriptors", "proposals/exceptions", "proposals/gc"];

fn failures(reports: &[FileReport]) -> String {
    let lines =
        reports.iter().flat_map(|r| r.failures.iter().map(|f| format!("{}:{}: {}\n", r.name, f.line, f.reason)));
    lines.take(50).collect()
}

#[test]
fn every_assertion_holds_but_for_the_excluded_ones() {
    let exclusions = Exclusions::builtin().unwrap();
    let excluded = exclusions.len();
    let reports = run(&builtin_suite(), &Options { jobs: 2, exclusions }, |_| {});

    let mut directories: BTreeMap<String, Totals> = BTreeMap::new();
    let mut total = Totals::default();
    for r in &reports {
        *directories.entry(r.directory().to_string()).or_default() += &r.totals;
        total += &r.totals;
    }
    assert_eq!(total.failed, 0, "{}", failures(&reports));
    assert_eq!(total.excluded, excluded, "every entry of the list is met once");
    assert!(total.files >= 351, "{} files", total.files);
    for (directory, passed) in PASSED {
        let found = &directories[*directory];
        assert!(found.passed >= *passed, "{directory}: {}, expected {passed}", found.summary());
    }
    for (directory, found) in &directories {
        let few = REFUSED.contains(&directory.as_str()) || found.refused_count() * 100 <= found.passed;
        assert!(few, "{directory}: {}", found.summary());
    }
}

#[test]
fn every_script_survives_its_binary_form() {
    let exclusions = Exclusions::builtin().unwrap();
    for file in builtin_suite() {
        let script = convert(&file.name, &file.text, &exclusions.lines(&file.name)).unwrap();
        let bytes = encode(&script).unwrap();
        assert!(decode(&bytes).unwrap() == script, "{}", file.name);
    }
}
