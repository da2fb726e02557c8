//! A campaign without a command line around it: `campaign KIND SEED COUNT [TASKS]`.

use injector::{Plan, run};
use std::env::args;
use std::error::Error;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: campaign KIND SEED COUNT [TASKS]";
    let args: Vec<String> = args().skip(1).collect();
    let [kind, seed, count, rest @ ..] = args.as_slice() else { return Err(usage.into()) };
    let tasks = rest.first().map_or(Ok(1), |t| t.parse())?;
    if kind == "refusal" {
        injector::refuse::install(&runtime_port::hosted::HOSTED);
    }
    let plan = Plan { tasks, ..Plan::new(kind.parse()?, seed.parse()?, count.parse()?) };
    let start = Instant::now();
    let report = run(&plan, |_| {})?;
    println!("{report}{:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
