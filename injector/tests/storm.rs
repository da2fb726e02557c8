//! Callers and swaps at the same time, with failures: nothing lost, doubled, torn; nothing left.

use injector::storm::{Plan, run};

#[test]
fn two_thousand_swaps_with_failures_under_two_callers_lose_double_and_tear_nothing() {
    let report = run(&Plan::new(0x5707, 2000), |_| {}).unwrap();
    assert!(report.is_clean(), "{report:#?}");
    assert!(report.swaps + report.failed == 2000 && report.failed > 300 && report.rollbacks > 50, "{report:#?}");
    assert!(report.counted > 0 && report.pairs > 0 && report.calls > 2000, "{report:#?}");
}
