//! Clocks, and waiting on them and on streams: `clock_*`, `poll_oneoff`, `sched_yield`.

use super::descriptor::Descriptor;
use super::memory::GuestMemory;
use super::stream::Input;
use super::{Args, Errno, Outcome, Wasi};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::time::ClockId;
use std::time::Duration;

/// Most subscriptions of one `poll_oneoff`.
const MAX_SUBSCRIPTIONS: u32 = 4096;

fn clock(id: u32) -> Result<ClockId, Errno> {
    match id {
        0 => Ok(ClockId::Realtime),
        1 => Ok(ClockId::Monotonic),
        2 => Ok(ClockId::ProcessCPUTime),
        3 => Ok(ClockId::ThreadCPUTime),
        _ => Err(Errno::Invalid),
    }
}

fn nanoseconds(t: Timespec) -> u64 {
    (t.tv_sec.max(0) as u64).saturating_mul(1_000_000_000).saturating_add(t.tv_nsec.max(0) as u64)
}

pub(super) fn clock_time_get(_: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let now = nanoseconds(rustix::time::clock_gettime(clock(args.u32(0))?));
    Ok(memory.put_u64(args.u32(2), now)?)
}

pub(super) fn clock_res_get(_: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let resolution = nanoseconds(rustix::time::clock_getres(clock(args.u32(0))?));
    Ok(memory.put_u64(args.u32(1), resolution)?)
}

pub(super) fn sched_yield(_: &mut Wasi, _: &mut dyn GuestMemory, _: &Args) -> Outcome {
    std::thread::yield_now();
    Ok(())
}

struct Event {
    user: [u8; 8],
    kind: u8,
    error: u16,
    bytes: u64,
}

/// What a call waits for: the earliest clock, and the streams that are not ready at once.
#[derive(Default)]
struct Wait {
    clocks: Vec<([u8; 8], Duration)>,
    stdin: Vec<[u8; 8]>,
    ready: Vec<Event>,
}

pub(super) fn poll_oneoff(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let (subscriptions, events, count) = (args.u32(0), args.u32(1), args.u32(2));
    if count == 0 || count > MAX_SUBSCRIPTIONS {
        return Err(Errno::Invalid.into());
    }
    let mut wait = Wait::default();
    for i in 0..count {
        let mut subscription = [0; 48];
        memory.read(subscriptions.checked_add(48 * i).ok_or(Errno::Fault)?, &mut subscription)?;
        subscribe(wasi, &subscription, &mut wait)?;
    }
    let happened = block(wait)?;
    for (i, event) in happened.iter().enumerate() {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&event.user);
        bytes[8..10].copy_from_slice(&event.error.to_le_bytes());
        bytes[10] = event.kind;
        bytes[16..24].copy_from_slice(&event.bytes.to_le_bytes());
        memory.write(events.checked_add(32 * i as u32).ok_or(Errno::Fault)?, &bytes)?;
    }
    Ok(memory.put_u32(args.u32(3), happened.len() as u32)?)
}

fn word(bytes: &[u8; 48], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn subscribe(wasi: &mut Wasi, subscription: &[u8; 48], wait: &mut Wait) -> Result<(), Errno> {
    let user = word(subscription, 0).to_le_bytes();
    let kind = subscription[8];
    let event = |error, bytes| Event { user, kind, error, bytes };
    match kind {
        0 => {
            let id = clock(word(subscription, 16) as u32)?;
            let mut timeout = word(subscription, 24);
            if word(subscription, 40) & 1 != 0 {
                timeout = timeout.saturating_sub(nanoseconds(rustix::time::clock_gettime(id)));
            }
            wait.clocks.push((user, Duration::from_nanos(timeout)));
        }
        1 | 2 => match wasi.descriptors.get(word(subscription, 16) as u32) {
            Ok(Descriptor::Input(Input::Stdin)) if kind == 1 => wait.stdin.push(user),
            Ok(Descriptor::Input(Input::Bytes(b))) if kind == 1 => {
                let left = (b.get_ref().len() as u64).saturating_sub(b.position());
                wait.ready.push(event(0, left));
            }
            Ok(Descriptor::File(_)) => wait.ready.push(event(0, 1)),
            Ok(Descriptor::Output(_)) if kind == 2 => wait.ready.push(event(0, 1)),
            Ok(_) | Err(_) => wait.ready.push(event(Errno::BadFd as u16, 0)),
        },
        _ => return Err(Errno::Invalid),
    }
    Ok(())
}

fn block(wait: Wait) -> Result<Vec<Event>, Errno> {
    let Wait { clocks, stdin, mut ready } = wait;
    let earliest = clocks.iter().map(|(_, d)| *d).min();
    let timeout = if ready.is_empty() { earliest } else { Some(Duration::ZERO) };
    if stdin.is_empty() {
        if let Some(d) = timeout {
            std::thread::sleep(d);
        }
    } else {
        let input = std::io::stdin();
        let mut poll = [PollFd::new(&input, PollFlags::IN)];
        let limit = timeout.map(|d| Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(d.subsec_nanos()),
        });
        let n = rustix::event::poll(&mut poll, limit.as_ref()).map_err(|_| Errno::Io)?;
        if n > 0 {
            ready.extend(stdin.into_iter().map(|user| Event { user, kind: 1, error: 0, bytes: 1 }));
        }
    }
    if ready.is_empty() {
        // Nothing else can have ended the wait: the earliest clocks have.
        let due = clocks.into_iter().filter(|(_, d)| Some(*d) == earliest);
        ready.extend(due.map(|(user, _)| Event { user, kind: 0, error: 0, bytes: 0 }));
    } else {
        let due = clocks.into_iter().filter(|(_, d)| d.is_zero());
        ready.extend(due.map(|(user, _)| Event { user, kind: 0, error: 0, bytes: 0 }));
    }
    Ok(ready)
}
