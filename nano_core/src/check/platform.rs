//! Clock, randomness, heap statistics, waiting.

use super::{Check, Outcome, expect, expect_eq};
use alloc::{string::ToString, vec};
use core::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use runtime_port::{
    heap, platform, random,
    time::{Instant, sleep},
    trap::{Exception, ExceptionAction, ExceptionContext},
};

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("the_clock_advances", the_clock_advances),
    ("random_numbers_differ", random_numbers_differ),
    ("the_heap_counts_what_is_in_use", the_heap_counts_what_is_in_use),
    ("an_interrupt_reaches_the_handlers", an_interrupt_reaches_the_handlers),
    ("waiting_ends_at_its_timeout", waiting_ends_at_its_timeout),
];

fn the_clock_advances() -> Outcome {
    let start = Instant::now();
    sleep(Duration::from_millis(5));
    let slept = start.elapsed();
    expect("5 ms took less than 5 ms", slept >= Duration::from_millis(5))?;
    expect("5 ms took more than 5 s", slept < Duration::from_secs(5))
}

fn random_numbers_differ() -> Outcome {
    let mut numbers = vec![0; 1000];
    for number in &mut numbers {
        *number = random::next_u64().map_err(|e| e.to_string())?;
    }
    numbers.sort_unstable();
    numbers.dedup();
    expect_eq("different numbers", numbers.len(), 1000)
}

fn the_heap_counts_what_is_in_use() -> Outcome {
    let used = || heap::statistics().map_or(0, |s| s.used);
    let before = used();
    let block = vec![0u8; 1 << 20];
    expect("1 MiB more is in use", used() >= before + block.len())?;
    drop(block);
    expect_eq("bytes in use afterwards", used(), before)
}

fn an_interrupt_reaches_the_handlers() -> Outcome {
    static SEEN: AtomicU32 = AtomicU32::new(0);
    fn handler(context: &mut ExceptionContext) -> ExceptionAction {
        if context.exception == Exception::Interrupt {
            SEEN.fetch_add(1, Ordering::Relaxed);
        }
        ExceptionAction::NotMine
    }
    platform().traps().install_handler(handler).map_err(|e| e.to_string())?;
    let tasks = platform().tasks();
    for time in 1..=3 {
        tasks.interrupt(tasks.current().id.get()).map_err(|e| e.to_string())?;
        expect_eq("interrupts", SEEN.load(Ordering::Relaxed), time)?;
    }
    Ok(())
}

fn waiting_ends_at_its_timeout() -> Outcome {
    let word = AtomicU32::new(1);
    let tasks = platform().tasks();
    expect("another value ends the wait at once", tasks.wait(&word, 0, None))?;
    expect("the timeout ends the wait", !tasks.wait(&word, 1, Some(1_000_000)))?;
    expect_eq("tasks woken", tasks.wake(&word, u32::MAX), 0)
}
