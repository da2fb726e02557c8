//! Standard streams and what is done with any descriptor that carries bytes: `fd_read`, `fd_write`, `fd_seek`, …

use super::descriptor::Descriptor;
use super::memory::{self, GuestMemory};
use super::{Args, Errno, Outcome, Wasi};
use cap_std::fs::{File, FileExt};
use std::io::{self, Cursor, IsTerminal, Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Where a guest's standard input comes from.
#[derive(Debug)]
pub enum Input {
    /// The process's.
    Stdin,
    /// These bytes.
    Bytes(Cursor<Vec<u8>>),
}

/// Where a guest's output goes.
#[derive(Clone, Debug)]
pub enum Output {
    /// The process's standard output.
    Stdout,
    /// The process's standard error.
    Stderr,
    /// Kept for whoever holds the other share.
    Kept(Arc<Mutex<Vec<u8>>>),
}

impl Input {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Input::Stdin => io::stdin().lock().read(into),
            Input::Bytes(bytes) => bytes.read(into),
        }
    }

    /// Whether a person types it.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Input::Stdin) && io::stdin().is_terminal()
    }
}

impl Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Output::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(bytes)?;
                out.flush()
            }
            Output::Stderr => io::stderr().lock().write_all(bytes),
            Output::Kept(kept) => {
                kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// Whether a person reads it.
    pub fn is_terminal(&self) -> bool {
        match self {
            Output::Stdout => io::stdout().is_terminal(),
            Output::Stderr => io::stderr().is_terminal(),
            Output::Kept(_) => false,
        }
    }
}

const APPEND: u16 = 1;

fn write_file(file: &mut File, flags: u16, bytes: &[u8]) -> io::Result<usize> {
    if flags & APPEND != 0 {
        file.seek(SeekFrom::End(0))?;
    }
    file.write(bytes)
}

pub(super) fn fd_read(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let buffers = memory.buffers(args.u32(1), args.u32(2))?;
    let mut bytes = vec![0; memory::total(&buffers)];
    let read = match wasi.descriptors.get(args.u32(0))? {
        Descriptor::Input(input) => input.read(&mut bytes)?,
        Descriptor::File(f) if f.read => f.file.read(&mut bytes)?,
        Descriptor::File(_) | Descriptor::Output(_) => return Err(Errno::BadFd.into()),
        Descriptor::Directory(_) => return Err(Errno::IsDirectory.into()),
    };
    memory.scatter(&buffers, &bytes[..read])?;
    Ok(memory.put_u32(args.u32(3), read as u32)?)
}

pub(super) fn fd_write(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let buffers = memory.buffers(args.u32(1), args.u32(2))?;
    let bytes = memory.gather(&buffers)?;
    let written = match wasi.descriptors.get(args.u32(0))? {
        Descriptor::Output(output) => {
            output.write(&bytes)?;
            bytes.len()
        }
        Descriptor::File(f) if f.write => write_file(&mut f.file, f.flags, &bytes)?,
        Descriptor::File(_) | Descriptor::Input(_) => return Err(Errno::BadFd.into()),
        Descriptor::Directory(_) => return Err(Errno::IsDirectory.into()),
    };
    Ok(memory.put_u32(args.u32(3), written as u32)?)
}

pub(super) fn fd_pread(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let buffers = memory.buffers(args.u32(1), args.u32(2))?;
    let mut bytes = vec![0; memory::total(&buffers)];
    let file = wasi.descriptors.file(args.u32(0))?;
    if !file.read {
        return Err(Errno::BadFd.into());
    }
    let read = file.file.read_at(&mut bytes, args.u64(3))?;
    memory.scatter(&buffers, &bytes[..read])?;
    Ok(memory.put_u32(args.u32(4), read as u32)?)
}

pub(super) fn fd_pwrite(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let buffers = memory.buffers(args.u32(1), args.u32(2))?;
    let bytes = memory.gather(&buffers)?;
    let file = wasi.descriptors.file(args.u32(0))?;
    if !file.write {
        return Err(Errno::BadFd.into());
    }
    let written = file.file.write_at(&bytes, args.u64(3))?;
    Ok(memory.put_u32(args.u32(4), written as u32)?)
}

pub(super) fn fd_seek(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let offset = args.u64(1) as i64;
    let to = match args.u32(2) {
        0 => SeekFrom::Start(u64::try_from(offset).map_err(|_| Errno::Invalid)?),
        1 => SeekFrom::Current(offset),
        2 => SeekFrom::End(offset),
        _ => return Err(Errno::Invalid.into()),
    };
    let position = wasi.descriptors.file(args.u32(0))?.file.seek(to)?;
    Ok(memory.put_u64(args.u32(3), position)?)
}

pub(super) fn fd_tell(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let position = wasi.descriptors.file(args.u32(0))?.file.stream_position()?;
    Ok(memory.put_u64(args.u32(1), position)?)
}

pub(super) fn fd_sync(wasi: &mut Wasi, _: &mut dyn GuestMemory, args: &Args) -> Outcome {
    match wasi.descriptors.get(args.u32(0))? {
        Descriptor::File(f) => Ok(f.file.sync_all()?),
        Descriptor::Directory(_) => Ok(()),
        Descriptor::Input(_) | Descriptor::Output(_) => Err(Errno::Invalid.into()),
    }
}

pub(super) fn fd_datasync(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    match wasi.descriptors.get(args.u32(0))? {
        Descriptor::File(f) => Ok(f.file.sync_data()?),
        _ => fd_sync(wasi, memory, args),
    }
}

pub(super) fn fd_close(wasi: &mut Wasi, _: &mut dyn GuestMemory, args: &Args) -> Outcome {
    Ok(wasi.descriptors.close(args.u32(0))?)
}

pub(super) fn fd_renumber(wasi: &mut Wasi, _: &mut dyn GuestMemory, args: &Args) -> Outcome {
    Ok(wasi.descriptors.renumber(args.u32(0), args.u32(1))?)
}
