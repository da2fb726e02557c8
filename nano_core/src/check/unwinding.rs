//! Panics: caught, with message and drops, through code compiled elsewhere.

use super::{Check, Outcome, catch, expect, expect_eq};
use alloc::{format, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicUsize, Ordering};
use runtime_port::{platform, unwind::KillReason};

/// The checks of this file.
pub const CHECKS: &[Check] = &[
    ("a_panic_is_caught_with_its_message", a_panic_is_caught_with_its_message),
    ("unwinding_runs_destructors", unwinding_runs_destructors),
    ("a_panic_unwinds_through_the_standard_library", a_panic_unwinds_through_the_standard_library),
    ("resume_carries_any_payload", resume_carries_any_payload),
    ("catching_nests", catching_nests),
];

/// Counts its drops.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn a_panic_is_caught_with_its_message() -> Outcome {
    let number = core::hint::black_box(42);
    let caught = catch(|| descend_to(&format!("expected by this check: {number}"))).err();
    expect_eq("message", caught.as_ref().and_then(KillReason::message), Some("expected by this check: 42"))
}

#[inline(never)]
fn descend_to(message: &str) {
    if !message.is_empty() {
        panic!("{message}");
    }
}

#[inline(never)]
fn descend(depth: usize, drops: &AtomicUsize) -> usize {
    let _counted = Counted(drops);
    if depth == 0 {
        panic!("expected by this check");
    }
    descend(depth - 1, drops) + 1
}

fn unwinding_runs_destructors() -> Outcome {
    let drops = AtomicUsize::new(0);
    for round in 1..=10 {
        expect("the panic was caught", catch(|| descend(50, &drops)).is_err())?;
        expect_eq("drops", drops.load(Ordering::Relaxed), 51 * round)?;
    }
    Ok(())
}

fn a_panic_unwinds_through_the_standard_library() -> Outcome {
    let shared = Arc::new(());
    let mut items: Vec<(u32, Arc<()>)> = (0..100).map(|i| (i * 37 % 100, shared.clone())).collect();
    let sorted = catch(move || {
        items.sort_by(|a, b| match a.0 {
            50 => panic!("expected by this check"),
            _ => a.0.cmp(&b.0),
        });
    });
    expect("the comparison's panic was caught", sorted.is_err())?;
    expect_eq("references that were not dropped", Arc::strong_count(&shared), 1)
}

fn resume_carries_any_payload() -> Outcome {
    let caught = catch(|| platform().unwinder().resume(alloc::boxed::Box::new(7u64)));
    match caught {
        Err(KillReason::Panic(payload)) => expect_eq("payload", payload.downcast_ref(), Some(&7u64)),
        other => Err(format!("{other:?} instead of the payload")),
    }
}

fn catching_nests() -> Outcome {
    let outer = catch(|| {
        let inner = catch(|| descend_to("expected by this check: inner"));
        descend_to(&format!("expected by this check: outer after {}", inner.is_err()));
    });
    let message = outer.err();
    expect_eq(
        "message",
        message.as_ref().and_then(KillReason::message),
        Some("expected by this check: outer after true"),
    )
}
