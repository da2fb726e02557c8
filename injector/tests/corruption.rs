//! A sample of every kind of fault that can end a process, each campaign in processes of its own.

#![expect(clippy::unwrap_used, reason = "tests")]

use injector::{Kind, Plan, Report, isolated};
use std::env::{args, current_exe};
use std::process::{Command, ExitCode};

/// Faults of each kind.
const COUNT: u64 = 150;

fn main() -> ExitCode {
    let args: Vec<String> = args().skip(1).collect();
    if let [mark, kind, first, count] = args.as_slice()
        && mark == "child"
    {
        let plan = plan(kind.parse().unwrap(), first.parse().unwrap(), count.parse().unwrap());
        isolated::child(&plan).unwrap();
        return ExitCode::SUCCESS;
    }
    let mut report = Report::default();
    for kind in Kind::ALL.into_iter().filter(|k| k.may_end_process()) {
        let command = |part: &Plan| {
            let mut command = Command::new(current_exe().unwrap());
            command.args(["child", kind.name(), &part.first.to_string(), &part.count.to_string()]);
            command
        };
        report.merge(isolated::campaign(&plan(kind, 0, COUNT), command, |_, _| {}).unwrap());
    }
    print!("{report}");
    let kinds = report.kinds();
    let (mut manifested, mut recovered) = (0, 0);
    for (kind, row) in &kinds {
        assert_eq!(row.injected, COUNT, "{kind}");
        manifested += row.manifested;
        recovered += row.recovered;
    }
    // Damaged code can do anything, to what the system itself works with too, so some is lost.
    assert!(manifested >= COUNT && recovered * 100 >= manifested * 95, "{recovered} of {manifested} recovered");
    for kind in [Kind::Memory, Kind::Global, Kind::Metadata] {
        assert_eq!(kinds[&kind].lost, 0, "{kind}: nothing of the system relies on it");
    }
    // Every record has a sum and a second copy.
    let unwind = &kinds[&Kind::Unwind];
    assert_eq!((unwind.lost, unwind.detected), (0, unwind.injected), "panics cross frames with damaged unwind info");
    for kind in [Kind::Text, Kind::Linkage, Kind::Metadata] {
        let row = kinds[&kind];
        assert!(row.detected * 100 >= row.injected * 98, "{kind}: the checksums see it");
    }
    println!("test corruption ... ok");
    ExitCode::SUCCESS
}

fn plan(kind: Kind, first: u64, count: u64) -> Plan {
    Plan { first, ..Plan::new(kind, 1, count) }
}
