//! Tasks without cells: they take turns, sleep, wait, end, and leave nothing behind.

use super::{Check, Outcome, expect, expect_eq};
use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};
use runtime_port::{
    bare_metal::{
        memory::frame_use,
        task::{self, Priority, TaskOptions, TaskState},
    },
    heap, platform,
    task::{LOCAL_SLOTS, TaskError},
    time::{Instant, sleep},
    trap::{Exception, ExceptionAction, ExceptionContext},
};
use spin::Mutex;

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("spawned_tasks_run_and_end", spawned_tasks_run_and_end),
    ("a_panic_ends_only_its_task", a_panic_ends_only_its_task),
    ("busy_tasks_take_turns", busy_tasks_take_turns),
    ("registers_survive_preemption", registers_survive_preemption),
    ("sleeping_tasks_wake_in_order", sleeping_tasks_wake_in_order),
    ("the_more_urgent_task_runs_first", the_more_urgent_task_runs_first),
    ("an_urgent_task_that_spins_starves_nobody", an_urgent_task_that_spins_starves_nobody),
    ("a_wait_ends_by_a_wake_or_its_timeout", a_wait_ends_by_a_wake_or_its_timeout),
    ("a_wake_counts_and_keeps_the_order", a_wake_counts_and_keeps_the_order),
    ("no_wake_is_lost", no_wake_is_lost),
    ("locals_are_the_tasks_own", locals_are_the_tasks_own),
    ("an_interrupt_runs_the_handlers_in_its_task", an_interrupt_runs_the_handlers_in_its_task),
    ("other_tasks_can_be_inspected", other_tasks_can_be_inspected),
    ("operations_on_tasks_that_ended_are_errors", operations_on_tasks_that_ended_are_errors),
    ("a_thousand_tasks_come_and_go", a_thousand_tasks_come_and_go),
    ("tasks_without_memory_are_an_error", tasks_without_memory_are_an_error),
    ("tasks_beyond_all_memory_are_an_error_that_passes", tasks_beyond_all_memory_are_an_error_that_passes),
];

/// Stack of the tasks here, in bytes.
const STACK: usize = 256 << 10;

fn text<E: core::fmt::Display>(error: E) -> String {
    format!("{error}")
}

/// Starts a task of ordinary priority.
pub fn start(name: &str, f: impl FnOnce() + Send + 'static) -> Result<u64, String> {
    platform().tasks().spawn(name, STACK, Box::new(f)).map_err(text)
}

/// The same, of this priority.
pub fn start_at(priority: u8, name: &str, f: impl FnOnce() + Send + 'static) -> Result<u64, String> {
    let priority = Priority::new(priority).ok_or("no such priority")?;
    task::spawn(&TaskOptions { name, stack: STACK, priority }, Box::new(f)).map_err(text)
}

/// Waits for the end of all of them.
pub fn join(ids: impl IntoIterator<Item = u64>) -> Outcome {
    ids.into_iter().try_for_each(|id| platform().tasks().join(id).map_err(text))
}

/// Keeps the processor busy.
fn work(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {
        core::hint::spin_loop();
    }
}

fn spawned_tasks_run_and_end() -> Outcome {
    let sum = Arc::new(AtomicU64::new(0));
    let mut ids = Vec::new();
    for _ in 0..10 {
        let sum = sum.clone();
        ids.push(start("worker", move || {
            sum.fetch_add(platform().tasks().current().id.get(), Ordering::Relaxed);
        })?);
    }
    expect("the numbers ascend", ids.windows(2).all(|w| w[0] < w[1]))?;
    join(ids.iter().copied())?;
    expect_eq("sum of the numbers", sum.load(Ordering::Relaxed), ids.iter().sum())?;
    expect_eq("shares of the closures", Arc::strong_count(&sum), 1)
}

fn a_panic_ends_only_its_task() -> Outcome {
    let held = Arc::new(());
    let mut ids = Vec::new();
    for i in 0..8 {
        let held = held.clone();
        ids.push(start("panics", move || {
            let _held = held;
            work(Duration::from_millis(2));
            assert!(i % 2 == 0, "expected by this check: {i}");
        })?);
    }
    join(ids)?;
    expect_eq("shares of the closures", Arc::strong_count(&held), 1)?;
    join([start("afterwards", || ())?])
}

fn busy_tasks_take_turns() -> Outcome {
    const TASKS: usize = 5;
    let counts: Arc<[AtomicU64; TASKS]> = Arc::new([const { AtomicU64::new(0) }; TASKS]);
    let stop = Arc::new(AtomicBool::new(false));
    let mut ids = Vec::new();
    for i in 0..TASKS {
        let (counts, stop) = (counts.clone(), stop.clone());
        ids.push(start("busy", move || {
            while !stop.load(Ordering::Relaxed) {
                counts[i].fetch_add(1, Ordering::Relaxed);
            }
        })?);
    }
    // This task gets its turns too, or it would not go on behind the sleeps.
    while counts.iter().any(|c| c.load(Ordering::Relaxed) == 0) {
        sleep(Duration::from_millis(1));
    }
    stop.store(true, Ordering::Relaxed);
    join(ids)
}

fn registers_survive_preemption() -> Outcome {
    let wrong = Arc::new(AtomicUsize::new(0));
    let mut ids = Vec::new();
    for seed in 1..=6u64 {
        let wrong = wrong.clone();
        ids.push(start("registers", move || {
            for round in 0..40 {
                if !registers::survive(seed << 32 | round) {
                    wrong.fetch_add(1, Ordering::Relaxed);
                }
            }
        })?);
    }
    join(ids)?;
    expect_eq("rounds with a changed register", wrong.load(Ordering::Relaxed), 0)
}

/// Fills registers, keeps them over a time, and looks at them.
mod registers {
    use core::arch::asm;

    /// Enough steps for a few ticks over all rounds.
    const STEPS: u64 = 100_000;

    /// Whether integer, x87, SSE and, if the processor has them, AVX registers and MXCSR are what they were.
    pub fn survive(seed: u64) -> bool {
        let (mut a, mut b, mut c, mut d) = (seed, seed ^ 1, seed ^ 2, seed ^ 3);
        let (mut e, mut f) = (seed as f64, -(seed as f64));
        let (mut float, mxcsr, mut after) = (seed, 0x1f80 | (seed as u32 & 3) << 13, 0u32);
        // SAFETY: loads and stores local variables; x87's stack and MXCSR are as before at the end.
        unsafe {
            asm!(
                "ldmxcsr [{mxcsr}]",
                "fild qword ptr [{float}]",
                "mov qword ptr [{float}], 0",
                "2: dec {steps}",
                "jnz 2b",
                "fistp qword ptr [{float}]",
                "stmxcsr [{after}]",
                "ldmxcsr [{standard}]",
                mxcsr = in(reg) &raw const mxcsr,
                after = in(reg) &raw mut after,
                standard = in(reg) &raw const STANDARD_MXCSR,
                float = in(reg) &raw mut float,
                steps = inout(reg) STEPS => _,
                inout("r12") a, inout("r13") b, inout("r14") c, inout("r15") d,
                inout("xmm3") e, inout("xmm15") f,
                out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
            );
        }
        let integers = [a, b, c, d] == [seed, seed ^ 1, seed ^ 2, seed ^ 3];
        let floats = e == seed as f64 && f == -(seed as f64) && float == seed && after == mxcsr;
        integers && floats && upper_halves_survive(seed)
    }

    static STANDARD_MXCSR: u32 = 0x1f80;

    fn upper_halves_survive(seed: u64) -> bool {
        if !runtime_port::cpu::CpuFeatures::detect().avx {
            return true;
        }
        let pattern = [seed, !seed, seed.rotate_left(7), seed ^ 0x5555];
        let mut after = [0u64; 4];
        // SAFETY: the processor has AVX and the system saves its registers; the arrays are as large as a register.
        unsafe {
            asm!(
                "vmovdqu ymm11, [{pattern}]",
                "2: dec {steps}",
                "jnz 2b",
                "vmovdqu [{after}], ymm11",
                "vzeroupper",
                pattern = in(reg) &raw const pattern,
                after = in(reg) &raw mut after,
                steps = inout(reg) STEPS => _,
                out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _,
                out("xmm6") _, out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _,
                out("xmm12") _, out("xmm13") _, out("xmm14") _, out("xmm15") _,
            );
        }
        after == pattern
    }
}

/// Tries again a few times what a host that stalls the emulator can disturb: an order of events in time.
fn in_a_few_tries(attempt: impl Fn() -> Outcome) -> Outcome {
    match (1..5).any(|_| attempt().is_ok()) {
        true => Ok(()),
        false => attempt(),
    }
}

fn sleeping_tasks_wake_in_order() -> Outcome {
    in_a_few_tries(|| {
        let order = Arc::new(Mutex::new(Vec::new()));
        let delays = [90, 30, 120, 60, 150];
        let ids = delays.map(|delay| {
            let order = order.clone();
            start("sleeper", move || {
                let begin = Instant::now();
                sleep(Duration::from_millis(delay));
                order.lock().push((delay, begin.elapsed() >= Duration::from_millis(delay)));
            })
        });
        join(ids.into_iter().collect::<Result<Vec<_>, _>>()?)?;
        let order = order.lock().clone();
        expect("a sleep was too short", order.iter().all(|o| o.1))?;
        expect_eq("order", order.iter().map(|o| o.0).collect::<Vec<_>>(), alloc::vec![30, 60, 90, 120, 150])
    })
}

fn the_more_urgent_task_runs_first() -> Outcome {
    in_a_few_tries(|| {
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let order = order.clone();
            move || order.lock().push(what)
        };
        let normal = Priority::NORMAL.number();
        let low = start_at(normal - 1, "low", note("low"))?;
        let high = start_at(normal + 1, "high", note("high"))?;
        order.lock().push("boot");
        join([low, high])?;
        expect_eq("order", order.lock().clone(), alloc::vec!["high", "boot", "low"])?;
        // Woken, and raised.
        order.lock().clear();
        let word = Arc::new(AtomicU32::new(0));
        let (awaited, noted) = (word.clone(), note("woken"));
        let waits = start_at(normal + 2, "waits", move || {
            platform().tasks().wait(&awaited, 0, None);
            noted();
        })?;
        let raised = start_at(normal - 1, "raised", note("raised"))?;
        platform().tasks().wake(&word, 1);
        order.lock().push("boot");
        task::set_priority(raised, Priority::HIGHEST).map_err(text)?;
        order.lock().push("boot");
        join([waits, raised])?;
        expect_eq("order", order.lock().clone(), alloc::vec!["woken", "boot", "raised", "boot"])
    })
}

fn an_urgent_task_that_spins_starves_nobody() -> Outcome {
    let lock = Arc::new(Mutex::new(0));
    let theirs = lock.clone();
    let holds = Arc::new(AtomicBool::new(false));
    let held = holds.clone();
    let low = start_at(0, "holder", move || {
        let mut value = theirs.lock();
        held.store(true, Ordering::Release);
        work(Duration::from_millis(20));
        *value += 1;
    })?;
    while !holds.load(Ordering::Acquire) {
        sleep(Duration::from_millis(1));
    }
    let seen = Arc::new(AtomicUsize::new(0));
    let result = seen.clone();
    let high = start_at(Priority::HIGHEST.number(), "spinner", move || result.store(*lock.lock(), Ordering::Relaxed))?;
    join([high, low])?;
    expect_eq("value behind the lock", seen.load(Ordering::Relaxed), 1)
}

fn a_wait_ends_by_a_wake_or_its_timeout() -> Outcome {
    let tasks = platform().tasks();
    let word = Arc::new(AtomicU32::new(0));
    let begin = Instant::now();
    expect("a wait without a wake timed out", !tasks.wait(&word, 0, Some(20_000_000)))?;
    expect("it took its time", begin.elapsed() >= Duration::from_millis(20))?;
    let shared = word.clone();
    let waker = start("waker", move || {
        sleep(Duration::from_millis(5));
        shared.store(1, Ordering::Release);
        platform().tasks().wake(&shared, 1);
    })?;
    let mut in_time = true;
    while word.load(Ordering::Acquire) == 0 {
        in_time = tasks.wait(&word, 0, Some(60_000_000_000));
    }
    join([waker])?;
    expect("a wake looks like a timeout", in_time)?;
    expect("another value ends the wait at once", tasks.wait(&word, 0, None))
}

fn a_wake_counts_and_keeps_the_order() -> Outcome {
    let tasks = platform().tasks();
    let (word, other) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut ids = Vec::new();
    for i in 0..4 {
        let (word, order) = (word.clone(), order.clone());
        ids.push(start_at(Priority::NORMAL.number() + 1, "waiter", move || {
            platform().tasks().wait(&word, 0, None);
            order.lock().push(i);
        })?);
    }
    expect_eq("woken on another word", tasks.wake(&other, 9), 0)?;
    // Each is more urgent than this task, so it has run when the wake returns.
    expect_eq("woken", tasks.wake(&word, 1), 1)?;
    expect_eq("order", order.lock().clone(), alloc::vec![0])?;
    expect_eq("woken", tasks.wake(&word, 1), 1)?;
    expect_eq("order", order.lock().clone(), alloc::vec![0, 1])?;
    expect_eq("the rest", tasks.wake(&word, u32::MAX), 2)?;
    join(ids)?;
    expect_eq("tasks that went on", order.lock().len(), 4)?;
    expect_eq("nobody is left", tasks.wake(&word, u32::MAX), 0)
}

fn no_wake_is_lost() -> Outcome {
    const TURNS: u32 = 5_000;
    let word = Arc::new(AtomicU32::new(0));
    // Two tasks hand a number back and forth.
    let play = |own: u32, word: Arc<AtomicU32>| {
        move || {
            let tasks = platform().tasks();
            loop {
                match word.load(Ordering::Acquire) {
                    TURNS.. => return,
                    n if n % 2 == own => {
                        word.store(n + 1, Ordering::Release);
                        tasks.wake(&word, 1);
                    }
                    n => {
                        tasks.wait(&word, n, None);
                    }
                }
            }
        }
    };
    join([start("even", play(0, word.clone()))?, start("odd", play(1, word.clone()))?])?;
    expect_eq("turns", word.load(Ordering::Relaxed), TURNS)
}

fn locals_are_the_tasks_own() -> Outcome {
    let (wrong, go_on) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU32::new(0)));
    let mut ids = Vec::new();
    for _ in 0..4 {
        let (wrong, go_on) = (wrong.clone(), go_on.clone());
        ids.push(start_at(Priority::NORMAL.number() + 1, "locals", move || {
            let Ok(locals) = platform().tasks().attach() else {
                wrong.fetch_add(1, Ordering::Relaxed);
                return;
            };
            let id = locals.id.get() as usize;
            let fresh = locals.slots.iter().all(|s| s.get() == 0);
            locals.slots[LOCAL_SLOTS - 1].set(id);
            while go_on.load(Ordering::Acquire) == 0 {
                platform().tasks().wait(&go_on, 0, None);
            }
            let again = platform().tasks().current();
            let own = core::ptr::eq(again, locals) && again.slots[LOCAL_SLOTS - 1].get() == id;
            let here = runtime_port::task::stack_pointer();
            let on_stack = (locals.stack_limit.get()..locals.stack_top.get()).contains(&here);
            wrong.fetch_add(usize::from(!(fresh && own && on_stack)), Ordering::Relaxed);
        })?);
    }
    let mut listed = 0;
    let all = platform().tasks().for_each(&mut |task| listed += usize::from(ids.contains(&task.id.get())));
    go_on.store(1, Ordering::Release);
    platform().tasks().wake(&go_on, u32::MAX);
    join(ids)?;
    expect("the port does not list its tasks", all)?;
    expect_eq("attached tasks", listed, 4)?;
    expect_eq("tasks with foreign locals", wrong.load(Ordering::Relaxed), 0)
}

fn an_interrupt_runs_the_handlers_in_its_task() -> Outcome {
    static INTERRUPTED: AtomicU64 = AtomicU64::new(0);
    fn handler(context: &mut ExceptionContext) -> ExceptionAction {
        if context.exception == Exception::Interrupt {
            INTERRUPTED.store(platform().tasks().current().id.get(), Ordering::Relaxed);
        }
        ExceptionAction::NotMine
    }
    platform().traps().install_handler(handler).map_err(text)?;
    let tasks = platform().tasks();
    let spin = start("spinner", || while INTERRUPTED.load(Ordering::Relaxed) == 0 {})?;
    tasks.interrupt(spin).map_err(text)?;
    join([spin])?;
    expect_eq("interrupted task", INTERRUPTED.swap(0, Ordering::Relaxed), spin)?;
    // One that sleeps is woken for it.
    let sleeper = start_at(Priority::NORMAL.number() + 1, "sleeper", || {
        platform().tasks().wait(&AtomicU32::new(0), 0, None);
    })?;
    tasks.interrupt(sleeper).map_err(text)?;
    join([sleeper])?;
    expect_eq("interrupted task", INTERRUPTED.swap(0, Ordering::Relaxed), sleeper)
}

fn other_tasks_can_be_inspected() -> Outcome {
    let word = Arc::new(AtomicU32::new(0));
    let (place, awaited) = (Arc::new(AtomicUsize::new(0)), word.clone());
    let local = place.clone();
    let waits = start_at(Priority::NORMAL.number() + 1, "a rather long name of a task, cut", move || {
        let witness = core::hint::black_box([0x5eed_0001_u64, 0x5eed_0002]);
        local.store(&raw const witness as usize, Ordering::Release);
        platform().tasks().wait(&awaited, 0, None);
        core::hint::black_box(&witness);
    })?;
    let mut seen = None;
    let mut own = None;
    task::inspect(&mut |view| {
        if let Some((registers, _)) = view.saved.filter(|_| view.id == waits) {
            let place = place.load(Ordering::Acquire);
            let in_use = registers.rsp..view.stack.end;
            // SAFETY: the task sleeps in the function that owns the array, on a stack that is mapped.
            let words = in_use.contains(&place).then(|| unsafe { *(place as *const [u64; 2]) });
            let name = view.name == "a rather long name of a task, c";
            seen = Some((view.state, words, name, in_use.len() < STACK));
        }
        if view.state == TaskState::Running {
            own = Some((view.id, view.saved.is_none()));
        }
    });
    platform().tasks().wake(&word, 1);
    join([waits])?;
    expect_eq("what was seen", seen, Some((TaskState::Blocked, Some([0x5eed_0001, 0x5eed_0002]), true, true)))?;
    expect_eq("the running task", own, Some((platform().tasks().current().id.get(), true)))
}

fn operations_on_tasks_that_ended_are_errors() -> Outcome {
    let tasks = platform().tasks();
    let id = start("short", || ())?;
    join([id])?;
    expect_eq("joining again", tasks.join(id), Ok(()))?;
    expect_eq("interrupting", tasks.interrupt(id), Err(TaskError::Ended(id)))?;
    expect_eq("killing", tasks.request_kill(id), Err(TaskError::Ended(id)))?;
    expect_eq("raising", task::set_priority(id, Priority::HIGHEST), Err(TaskError::Ended(id)))?;
    expect_eq("joining a task that never was", tasks.join(u64::MAX), Err(TaskError::Ended(u64::MAX)))?;
    expect_eq("joining no task", tasks.join(0), Err(TaskError::Ended(0)))?;
    expect("the task waited for its own end", tasks.join(tasks.current().id.get()).is_err())
}

fn a_thousand_tasks_come_and_go() -> Outcome {
    const AT_ONCE: usize = 20;
    let ended = Arc::new(AtomicUsize::new(0));
    let mut ids = Vec::with_capacity(AT_ONCE);
    let mut round = |count: usize| -> Result<_, String> {
        for _ in 0..count / AT_ONCE {
            for i in 0..AT_ONCE {
                let ended = ended.clone();
                // Less urgent than this one, so that all are there before the first runs.
                ids.push(start_at(Priority::NORMAL.number() - 1, "one of many", move || {
                    let attached = platform().tasks().attach().is_ok();
                    match i % 3 {
                        0 => platform().tasks().yield_now(),
                        1 => sleep(Duration::from_micros(100)),
                        _ => {}
                    }
                    ended.fetch_add(usize::from(attached), Ordering::Relaxed);
                })?);
            }
            join(ids.drain(..))?;
        }
        Ok((frame_use(), platform().memory().statistics(), heap::statistics().map(|s| s.used)))
    };
    let before = round(5 * AT_ONCE)?; // lets lists and the heap reach their size
    expect_eq("frames, reservations, bytes of heap", round(1000)?, before)?;
    expect_eq("tasks that ran", ended.load(Ordering::Relaxed), 1000 + 5 * AT_ONCE)
}

fn tasks_without_memory_are_an_error() -> Outcome {
    let tasks = platform().tasks();
    let before = frame_use();
    for size in [usize::MAX, usize::MAX / 2, 1 << 46, frame_use().total * 4096] {
        let refused = tasks.spawn("huge", size, Box::new(|| ()));
        expect("a stack larger than memory was given", matches!(refused, Err(TaskError::Spawn(_))))?;
    }
    expect_eq("frames", frame_use(), before)
}

fn tasks_beyond_all_memory_are_an_error_that_passes() -> Outcome {
    let round = || -> Result<_, String> {
        let (go_on, ran) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut ids = Vec::new();
        let why = loop {
            let (go_on, ran) = (go_on.clone(), ran.clone());
            let waits = move || {
                while go_on.load(Ordering::Acquire) == 0 {
                    platform().tasks().wait(&go_on, 0, None);
                }
                ran.fetch_add(1, Ordering::Relaxed);
            };
            ids.try_reserve(1).map_err(text)?;
            match start("one too many", waits) {
                Ok(id) => ids.push(id),
                Err(why) => break why,
            }
        };
        expect(&format!("only {} tasks, then `{why}`", ids.len()), ids.len() > 100)?;
        expect("a task without memory for it", start("another", || ()).is_err())?;
        go_on.store(1, Ordering::Release);
        platform().tasks().wake(&go_on, u32::MAX);
        let count = ids.len();
        join(ids)?;
        expect_eq("tasks that ran", ran.load(Ordering::Relaxed), count)?;
        join([start("afterwards", || ())?])?;
        Ok((frame_use(), platform().memory().statistics()))
    };
    let before = round()?; // lets lists and the heap reach their size
    expect_eq("frames and reservations", round()?, before)
}
