//! A campaign without a command line around it: `campaign KIND SEED COUNT [FIRST]`.

use injector::{Plan, isolated, refuse, run};
use runtime_port::hosted::HOSTED;
use std::env::{args, current_exe};
use std::error::Error;
use std::process::Command;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: campaign KIND SEED COUNT [FIRST]";
    let args: Vec<String> = args().skip(1).collect();
    let [kind, seed, count, rest @ ..] = args.as_slice() else { return Err(usage.into()) };
    let first = rest.first().map_or(Ok(0), |f| f.parse())?;
    let plan = Plan { first, ..Plan::new(kind.parse()?, seed.parse()?, count.parse()?) };
    if plan.kind.may_end_process() && rest.len() > 1 {
        return Ok(isolated::child(&plan)?);
    }
    refuse::install(&HOSTED);
    let start = Instant::now();
    let report = if plan.kind.may_end_process() {
        let exe = current_exe()?;
        let command = |part: &Plan| {
            let mut command = Command::new(&exe);
            command.args([kind, seed]).args([part.count, part.first].map(|n| n.to_string())).arg("child");
            command
        };
        isolated::campaign(&plan, command, |_, _| {})?
    } else {
        run(&plan, |_, _| {})?
    };
    println!("{report}{:.1} s", start.elapsed().as_secs_f64());
    Ok(())
}
