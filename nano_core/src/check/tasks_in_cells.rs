//! Several tasks in wasm: they preempt each other, trap, overflow their stacks and are killed, each for itself.

use super::{
    Check, Outcome,
    cells::{TRAPS, load, namespace, text},
    expect, expect_eq,
    tasks::{join, start, start_at},
};
use alloc::{format, string::String, sync::Arc, vec::Vec};
use core::{
    sync::atomic::{AtomicU32, AtomicUsize, Ordering},
    time::Duration,
};
use kernel_config::bare_metal::PRIORITIES;
use namespace_bridge::{CrateNamespace, LoadedCrate, V128, kill, kill_task};
use runtime_port::{
    bare_metal::memory::frame_use,
    platform,
    time::{Instant, sleep},
};
use spin::Mutex;
use wasm_cell::trap::TrapCode;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("tasks_preempt_each_other_in_cells", tasks_preempt_each_other_in_cells),
    ("traps_in_several_tasks_at_once", traps_in_several_tasks_at_once),
    ("stacks_overflow_in_several_tasks_at_once", stacks_overflow_in_several_tasks_at_once),
    ("a_task_is_killed_in_an_endless_loop_of_a_cell", a_task_is_killed_in_an_endless_loop_of_a_cell),
    ("a_task_is_killed_in_a_host_call", a_task_is_killed_in_a_host_call),
    ("a_task_is_killed_while_a_host_call_sleeps", a_task_is_killed_while_a_host_call_sleeps),
    ("a_task_is_killed_while_it_waits_in_a_cell", a_task_is_killed_while_it_waits_in_a_cell),
    ("a_task_is_killed_inside_a_gate_and_the_next_one_enters", a_task_is_killed_inside_a_gate_and_the_next_one_enters),
    ("tasks_killed_at_random_leave_each_other_alone", tasks_killed_at_random_leave_each_other_alone),
    ("cells_overflow_and_are_killed_at_every_priority", cells_overflow_and_are_killed_at_every_priority),
    ("killed_tasks_leave_no_memory_behind", killed_tasks_leave_no_memory_behind),
];

const TASKS_MODULE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/tasks.wasm"));

const GATED_MODULE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gated.wasm"));

/// The cell whose functions tasks run here, with its host's functions.
fn tasks_cell() -> Result<Arc<LoadedCrate>, String> {
    cell_with_host("tasks", TASKS_MODULE)
}

fn cell_with_host(name: &str, module: &[u8]) -> Result<Arc<LoadedCrate>, String> {
    let namespace = CrateNamespace::new("checks", None);
    // Both try again whatever happens, as long as nobody asks them to stop.
    let busy = || {
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(300) {}
    };
    namespace.define("host", "work", busy).map_err(text)?;
    let sleeps = || {
        let never = AtomicU32::new(0);
        while !kill::is_pending() {
            platform().tasks().wait(&never, 0, None);
        }
    };
    namespace.define("host", "block", sleeps).map_err(text)?;
    load(&namespace, name, module)
}

/// What `floats` computes.
fn floats(mut x: f64, n: i32) -> f64 {
    for _ in 0..n {
        x = sqrt(x * x + 1.25);
    }
    x
}

fn sqrt(x: f64) -> f64 {
    let root: f64;
    // SAFETY: one instruction on registers.
    unsafe { core::arch::asm!("sqrtsd {}, {}", out(xmm_reg) root, in(xmm_reg) x, options(pure, nomem, nostack)) };
    root
}

/// What `vectors` computes.
fn vectors(lanes: [u32; 4], n: i32) -> [u32; 4] {
    lanes.map(|mut v| {
        let mut sum = 0u32;
        for _ in 0..n {
            sum = sum.wrapping_add(v);
            v = v.wrapping_mul(0x343fd) ^ sum;
        }
        v
    })
}

fn v128(lanes: [u32; 4]) -> V128 {
    V128(lanes.iter().rev().fold(0, |v, lane| v << 32 | u128::from(*lane)))
}

fn tasks_preempt_each_other_in_cells() -> Outcome {
    const TASKS: u32 = 6;
    const STEPS: i32 = 100_000;
    const ROUNDS: usize = 4;
    let cell = tasks_cell()?;
    let spans = Arc::new(Mutex::new(Vec::new()));
    let mut ids = Vec::new();
    for seed in 1..=TASKS {
        let (cell, spans) = (cell.clone(), spans.clone());
        ids.push(start("computes", move || {
            let begin = Instant::now().as_nanos();
            let run = || -> Result<bool, String> {
                let of_floats = cell.typed_func::<(f64, i32), f64>("floats").map_err(text)?;
                let of_vectors = cell.typed_func::<(V128, i32), V128>("vectors").map_err(text)?;
                let lanes = [seed, seed * 3, seed * 5, seed * 7];
                let mut right = true;
                for _ in 0..ROUNDS {
                    right &= of_floats.call((f64::from(seed), STEPS)).map_err(text)? == floats(f64::from(seed), STEPS);
                    right &= of_vectors.call((v128(lanes), STEPS)).map_err(text)? == v128(vectors(lanes, STEPS));
                }
                Ok(right)
            };
            let outcome = run();
            spans.lock().push((begin, Instant::now().as_nanos(), outcome));
        })?);
    }
    join(ids)?;
    let spans = spans.lock();
    expect_eq("tasks that ended", spans.len(), TASKS as usize)?;
    for (_, _, outcome) in spans.iter() {
        expect_eq("results", outcome.clone(), Ok(true))?;
    }
    let (last_begin, first_end) = (spans.iter().map(|s| s.0).max(), spans.iter().map(|s| s.1).min());
    expect("the tasks ran one after the other", last_begin < first_end)
}

fn traps_in_several_tasks_at_once() -> Outcome {
    const TASKS: usize = 4;
    const ROUNDS: usize = 60;
    let cases = [
        ("unreachable", TrapCode::Unreachable),
        ("load_out_of_bounds", TrapCode::MemoryOutOfBounds),
        ("division_by_zero", TrapCode::IntegerDivisionByZero),
        ("indirect_to_null", TrapCode::IndirectCallToNull),
        ("host_error", TrapCode::HostError),
        ("stack_overflow", TrapCode::StackOverflow),
    ];
    let cell = load(&*namespace()?, "traps", TRAPS)?;
    let right = Arc::new(AtomicUsize::new(0));
    let mut ids = Vec::new();
    for task in 0..TASKS {
        let (cell, right) = (cell.clone(), right.clone());
        ids.push(start("traps", move || {
            for round in 0..ROUNDS {
                let (export, code) = cases[(round + task) % cases.len()];
                let outcome = cell.typed_func::<(), ()>(export).map(|f| f.call(()));
                let trapped = matches!(outcome, Ok(Err(trap)) if trap.code() == code);
                right.fetch_add(usize::from(trapped), Ordering::Relaxed);
            }
        })?);
    }
    join(ids)?;
    expect_eq("right traps", right.load(Ordering::Relaxed), TASKS * ROUNDS)
}

fn stacks_overflow_in_several_tasks_at_once() -> Outcome {
    let cell = tasks_cell()?;
    let right = Arc::new(AtomicUsize::new(0));
    let mut ids = Vec::new();
    for _ in 0..4 {
        let (cell, right) = (cell.clone(), right.clone());
        ids.push(start("overflows", move || {
            for _ in 0..25 {
                let outcome = cell.typed_func::<(i64,), i64>("recurse").map(|f| f.call((0,)));
                let trapped = matches!(outcome, Ok(Err(trap)) if trap.code() == TrapCode::StackOverflow);
                right.fetch_add(usize::from(trapped), Ordering::Relaxed);
            }
        })?);
    }
    join(ids)?;
    expect_eq("stack overflows", right.load(Ordering::Relaxed), 100)
}

/// Has a task call an export that does not return, kills it after a delay, and checks what it gets.
fn kill_in(cell: &Arc<LoadedCrate>, export: &'static str, delay: Duration) -> Outcome {
    let seen = Arc::new(Mutex::new(None));
    let (cell, result) = (cell.clone(), seen.clone());
    let victim = start("victim", move || {
        let run = || -> Result<_, String> {
            let endless = cell.typed_func::<(), ()>(export).map_err(text)?;
            let fine = cell.typed_func::<(), i32>("fine").map_err(text)?;
            let trap = endless.call(()).err().map(|t| t.code());
            // The request has acted; the next call is as any other.
            Ok((trap, fine.call(()).map_err(text)?))
        };
        *result.lock() = Some(run());
    })?;
    sleep(delay);
    kill_task(victim).map_err(text)?;
    join([victim])?;
    expect_eq(export, seen.lock().take(), Some(Ok((Some(TrapCode::Killed), 42))))?;
    expect_eq("shares of what the task held", Arc::strong_count(&seen), 1)
}

fn kill_with_delays(export: &'static str) -> Outcome {
    let cell = tasks_cell()?;
    [0, 300, 3000, 10_000].into_iter().try_for_each(|us| kill_in(&cell, export, Duration::from_micros(us)))
}

fn a_task_is_killed_in_an_endless_loop_of_a_cell() -> Outcome {
    kill_with_delays("spin")
}

fn a_task_is_killed_in_a_host_call() -> Outcome {
    kill_with_delays("work")
}

fn a_task_is_killed_while_a_host_call_sleeps() -> Outcome {
    kill_with_delays("block")
}

fn a_task_is_killed_while_it_waits_in_a_cell() -> Outcome {
    kill_with_delays("wait")
}

fn a_task_is_killed_inside_a_gate_and_the_next_one_enters() -> Outcome {
    type Seen = Arc<Mutex<Option<Result<Result<i32, TrapCode>, String>>>>;
    let cell = cell_with_host("gated", GATED_MODULE)?;
    let call = |export: &'static str| -> Result<(u64, Seen), String> {
        let (cell, seen) = (cell.clone(), Seen::default());
        let result = seen.clone();
        let id = start(export, move || {
            let run = || match export {
                "count" => cell.typed_func::<(), i32>(export).map(|f| f.call(())),
                _ => cell.typed_func::<(), ()>(export).map(|f| f.call(()).map(|()| 0)),
            };
            *result.lock() = Some(run().map(|r| r.map_err(|trap| trap.code())).map_err(text));
        })?;
        Ok((id, seen))
    };
    let killed = Some(Ok(Err(TrapCode::Killed)));
    for (round, inside) in (1..).zip(["spin", "work", "block"]) {
        let (holder, of_holder) = call(inside)?;
        sleep(Duration::from_millis(5));
        let (waiter, of_waiter) = call("count")?;
        let (patient, of_patient) = call("count")?;
        sleep(Duration::from_millis(5));
        expect("somebody entered beside the one inside", of_waiter.lock().is_none() && of_patient.lock().is_none())?;
        kill_task(waiter).map_err(text)?;
        join([waiter])?;
        expect_eq("one that waited for the gate", of_waiter.lock().take(), killed.clone())?;
        expect("another one went in with it", of_patient.lock().is_none() && of_holder.lock().is_none())?;
        kill_task(holder).map_err(text)?;
        join([holder, patient])?;
        expect_eq("the one inside", of_holder.lock().take(), killed.clone())?;
        expect_eq("the one that waited on", of_patient.lock().take(), Some(Ok(Ok(round))))?;
    }
    Ok(())
}

fn tasks_killed_at_random_leave_each_other_alone() -> Outcome {
    const TASKS: usize = 4;
    const KILLS: usize = 100;
    let cell = tasks_cell()?;
    let (stop, kills, wrong) =
        (Arc::new(AtomicU32::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut ids = Vec::new();
    for seed in 1..=TASKS as u32 {
        let (cell, stop, kills, wrong) = (cell.clone(), stop.clone(), kills.clone(), wrong.clone());
        ids.push(start("computes", move || {
            let Ok(compute) = cell.typed_func::<(f64, i32), f64>("floats") else { return };
            let expected = floats(f64::from(seed), 2000);
            while stop.load(Ordering::Relaxed) == 0 {
                match compute.call((f64::from(seed), 2000)) {
                    Ok(x) if x == expected => {}
                    Err(trap) if trap.code() == TrapCode::Killed => {
                        kills.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => {
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        })?);
    }
    let mut random = 1u32;
    for _ in 0..KILLS {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        sleep(Duration::from_micros(u64::from(random >> 22)));
        kill_task(ids[random as usize / 7 % TASKS]).map_err(text)?;
    }
    stop.store(1, Ordering::Relaxed);
    join(ids)?;
    expect_eq("wrong results", wrong.load(Ordering::Relaxed), 0)?;
    let kills = kills.load(Ordering::Relaxed);
    // Two requests for one task may act as one, when it got no turn in between.
    expect(&format!("{kills} kills acted"), (1..=KILLS).contains(&kills))
}

fn cells_overflow_and_are_killed_at_every_priority() -> Outcome {
    let cell = tasks_cell()?;
    for priority in 0..PRIORITIES as u8 {
        let (seen, overflowed) = (Arc::new(Mutex::new(None)), Arc::new(AtomicU32::new(0)));
        let (cell, result, told) = (cell.clone(), seen.clone(), overflowed.clone());
        let victim = start_at(priority, "victim", move || {
            let run = || -> Result<_, String> {
                let recurse = cell.typed_func::<(i64,), i64>("recurse").map_err(text)?;
                let endless = cell.typed_func::<(), ()>("spin").map_err(text)?;
                let overflow = recurse.call((0,)).err().map(|t| t.code());
                told.store(1, Ordering::Release);
                Ok((overflow, endless.call(()).err().map(|t| t.code())))
            };
            let outcome = run();
            *result.lock() = Some(outcome);
        })?;
        // This task goes on beside one of any priority that never waits, and gets it stopped.
        while overflowed.load(Ordering::Acquire) == 0 {
            sleep(Duration::from_millis(1));
        }
        kill_task(victim).map_err(text)?;
        join([victim])?;
        let wanted = Some(Ok((Some(TrapCode::StackOverflow), Some(TrapCode::Killed))));
        expect_eq(&format!("priority {priority}"), seen.lock().take(), wanted)?;
    }
    Ok(())
}

fn killed_tasks_leave_no_memory_behind() -> Outcome {
    let cell = tasks_cell()?;
    let round = || -> Result<_, String> {
        for export in ["spin", "work", "block", "wait"] {
            for _ in 0..4 {
                kill_in(&cell, export, Duration::from_micros(500))?;
            }
        }
        namespace_bridge::reclaim();
        Ok((frame_use(), platform().memory().statistics()))
    };
    round()?; // lets lists and the heap reach their size
    let before = round()?;
    expect_eq("frames and reservations", round()?, before)
}
