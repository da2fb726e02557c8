//! A sample of the faults that guests cause.

use injector::{Kind, Plan, run};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Campaigns look at what the whole process has, so they run one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_fault_of_a_guest_is_an_error_and_nothing_else() {
    let _alone = alone();
    let report = run(&Plan::new(Kind::Guest, 1, 20_000), |_, _| {}).unwrap();
    let total = report.total();
    assert_eq!((total.injected, total.recovered), (20_000, 20_000), "{report}");
    let kinds = report.rows().filter(|(_, _, row)| row.recovered >= 100).count();
    assert_eq!(kinds, injector::fault::GUEST_FAULTS.len(), "{report}");
}

#[test]
fn a_fault_at_any_instruction_call_or_access_is_an_error_and_nothing_else() {
    let _alone = alone();
    for kind in [Kind::Instruction, Kind::Call, Kind::Access] {
        let report = run(&Plan::new(kind, 1, 5_000), |_, _| {}).unwrap();
        let total = report.total();
        assert_eq!((total.injected, total.recovered), (5_000, 5_000), "{report}");
        assert_eq!(report.rows().count(), injector::fault::GUEST_FAULTS.len(), "{report}");
    }
    let again = || run(&Plan::new(Kind::Instruction, 7, 100), |_, _| {}).unwrap();
    assert_eq!(again(), again(), "a seed repeats its faults");
}

#[test]
fn a_seed_repeats_its_faults_and_another_does_not() {
    let _alone = alone();
    let rows = |seed| run(&Plan::new(Kind::Guest, seed, 200), |_, _| {}).unwrap();
    assert_eq!(rows(7), rows(7));
    assert_ne!(rows(7), rows(8));
}

#[test]
fn tasks_inject_side_by_side() {
    let _alone = alone();
    let report = run(&Plan { tasks: 4, ..Plan::new(Kind::Guest, 2, 2_000) }, |_, _| {}).unwrap();
    assert_eq!(report.total().recovered, 2_000, "{report}");
}
