//! Every request to the platform, refused once. In a process of its own: the port must be there before anybody asks for one.

use injector::{Kind, Plan, refuse, run};
use runtime_port::hosted::HOSTED;

#[test]
fn every_refused_request_is_an_error_and_leaves_nothing() {
    assert!(refuse::install(&HOSTED));
    let report = run(&Plan::new(Kind::Refusal, 1, 400), |_, _| {}).unwrap();
    let total = report.total();
    assert_eq!(total.lost, 0, "{report}");
    assert!(total.manifested >= 200, "{report}");
}
