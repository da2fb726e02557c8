//! The event filter: which bytes of the serial port reach readers.
//!
//! The port's interrupt puts what it received, with the port's verdict on the line, into a ring; a task asks the filter about
//! each and hands on what is to pass. Control-C for the foreground task acts in the interrupt: no filter can keep it back.

use super::Component;
use alloc::{boxed::Box, format};
use core::sync::atomic::{AtomicBool, Ordering};
use namespace_bridge::TypedFunc;
use runtime_port::{
    bare_metal::{
        console::{self, Received},
        task::{self, Priority, TaskOptions},
    },
    task::TaskError,
    time::Instant,
};

/// Filters what the serial port receives.
pub trait EventFilter {
    /// The byte that readers are to see, if any. `at` is the time in nanoseconds.
    fn filter(&self, event: Received, at: u64) -> Option<u8>;
}

/// The native default: everything passes.
#[derive(Debug)]
pub struct Everything;

impl EventFilter for Everything {
    fn filter(&self, event: Received, _at: u64) -> Option<u8> {
        Some(event.byte)
    }
}

/// The cell `event_filter`: `filter(byte, errors, time)` gives the byte that passes, or −1 for none. Errors are bits 1 to 4 of the
/// port's line status, the time is in nanoseconds.
pub struct ByCell;

type Filter = TypedFunc<(i32, i32, i64), i32>;

/// Parity error, framing error, break (16550, line status): the byte is not what was sent.
const DAMAGE: u8 = 0x1c;

/// The component.
pub static COMPONENT: Component<Filter> = Component::new("event_filter", |cell| cell.typed_func("filter"));

impl EventFilter for ByCell {
    fn filter(&self, event: Received, at: u64) -> Option<u8> {
        let question = |filter: &Filter| filter.call((i32::from(event.byte), i32::from(event.errors), at as i64));
        let sense = |answer| match (answer, u8::try_from(answer)) {
            // Or nobody could get rid of one that lets nothing pass.
            (other, _) if event.byte == 3 && event.errors & DAMAGE == 0 && other != 3 => {
                Err(format!("verdict {other}: Control-C passes"))
            }
            (-1, _) => Ok(None),
            (_, Ok(byte)) => Ok(Some(byte)),
            _ => Err(format!("verdict {answer}: neither a byte nor -1")),
        };
        COMPONENT.ask(question, sense).unwrap_or_else(|| Everything.filter(event, at))
    }
}

/// Starts the task that filters, once, and has the port's input pass it.
pub fn start() -> Result<(), TaskError> {
    static STARTED: AtomicBool = AtomicBool::new(false);
    if !STARTED.swap(true, Ordering::Relaxed) {
        let options = TaskOptions { name: "event_filter", stack: 128 << 10, priority: Priority::HIGHEST };
        task::spawn(&options, Box::new(|| while !pass_on(&ByCell, console::next_received()) {}))?;
    }
    console::set_filtered(true);
    Ok(())
}

/// Hands a byte on if the filter lets it pass. Never done.
fn pass_on(filter: &dyn EventFilter, event: Received) -> bool {
    if let Some(byte) = filter.filter(event, Instant::now().as_nanos()) {
        console::deliver(byte);
    }
    false
}
