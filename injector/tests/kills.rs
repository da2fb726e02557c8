//! A sample of kills at random times, in several tasks at once.

use injector::{Kind, Plan, run};

#[test]
fn killed_tasks_end_and_their_neighbours_do_not_notice() {
    let report = run(&Plan::new(Kind::Kill, 1, 300), |_, _| {}).unwrap();
    let total = report.total();
    assert_eq!((total.injected, total.lost), (300, 0), "{report}");
    assert!(total.manifested >= 30, "{report}");
}
