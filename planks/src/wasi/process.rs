//! The guest as a process: arguments, environment, exit, random bytes, and what this host does not have.

use super::memory::{CHUNK, GuestMemory};
use super::{Args, Errno, Outcome, Stop, Wasi};

/// Stores strings one after the other, 0-terminated, and their addresses in an array.
fn put_strings(strings: &[String], memory: &mut dyn GuestMemory, array: u32, text: u32) -> Outcome {
    let mut at = text;
    for (i, s) in strings.iter().enumerate() {
        memory.put_u32(array.checked_add(4 * i as u32).ok_or(Errno::Fault)?, at)?;
        memory.write(at, s.as_bytes())?;
        let end = at.checked_add(s.len() as u32).ok_or(Errno::Fault)?;
        memory.write(end, &[0])?;
        at = end.checked_add(1).ok_or(Errno::Fault)?;
    }
    Ok(())
}

fn put_sizes(strings: &[String], memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let bytes: usize = strings.iter().map(|s| s.len() + 1).sum();
    memory.put_u32(args.u32(0), strings.len() as u32)?;
    Ok(memory.put_u32(args.u32(1), u32::try_from(bytes).map_err(|_| Errno::Overflow)?)?)
}

pub(super) fn args_get(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    put_strings(&wasi.args, memory, args.u32(0), args.u32(1))
}

pub(super) fn args_sizes_get(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    put_sizes(&wasi.args, memory, args)
}

pub(super) fn environ_get(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    put_strings(&wasi.environment, memory, args.u32(0), args.u32(1))
}

pub(super) fn environ_sizes_get(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    put_sizes(&wasi.environment, memory, args)
}

pub(super) fn proc_exit(wasi: &mut Wasi, _: &mut dyn GuestMemory, args: &Args) -> Outcome {
    wasi.exit = Some(args.u32(0));
    Err(Stop::Exit(args.u32(0)))
}

pub(super) fn random_get(_: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let (mut address, mut left) = (args.u32(0), args.u32(1) as usize);
    if u64::from(address) + left as u64 > memory.size() {
        return Err(Errno::Fault.into());
    }
    let mut chunk = vec![0; left.min(CHUNK)];
    while left > 0 {
        let part = left.min(chunk.len());
        getrandom::fill(&mut chunk[..part]).map_err(|_| Errno::Io)?;
        memory.write(address, &chunk[..part])?;
        left -= part;
        address = address.wrapping_add(part as u32);
    }
    Ok(())
}

/// `proc_raise` and calls like it: the host has no signals for guests.
pub(super) fn unsupported(_: &mut Wasi, _: &mut dyn GuestMemory, _: &Args) -> Outcome {
    Err(Errno::NoSystem.into())
}

/// `sock_*`: no descriptor of this host is a socket.
pub(super) fn no_socket(wasi: &mut Wasi, _: &mut dyn GuestMemory, args: &Args) -> Outcome {
    wasi.descriptors.get(args.u32(0))?;
    Err(Errno::NotSocket.into())
}
