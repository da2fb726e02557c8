//! What a descriptor or path is: `fdstat`, `filestat`, `prestat`, and the calls that change them.

use super::descriptor::{Descriptor, OpenFile};
use super::memory::GuestMemory;
use super::{Args, Errno, Outcome, Wasi};
use cap_fs_ext::{DirExt, SystemTimeSpec};
use cap_std::fs::{FileType, FileTypeExt as _, Metadata, MetadataExt as _};
use cap_std::time::SystemTime;
use std::time::Duration;

/// Operations allowed on a descriptor (witx type `rights`): kept for programs that look at them.
mod rights {
    pub const FD_READ: u64 = 1 << 1;
    pub const FD_SEEK: u64 = 1 << 2;
    pub const FD_TELL: u64 = 1 << 5;
    pub const FD_WRITE: u64 = 1 << 6;
    pub const FILE: u64 = 0x08e0_01ff;
    pub const DIRECTORY: u64 = 0x0fff_fe98 | 1 << 4 | 1 << 21;
    pub const ALL: u64 = 0x3fff_ffff;
}

const CHARACTER_DEVICE: u8 = 2;
const DIRECTORY: u8 = 3;
const REGULAR_FILE: u8 = 4;
const UNKNOWN: u8 = 0;

/// The witx `filetype` of a host file type.
pub(super) fn file_type(ty: FileType) -> u8 {
    if ty.is_dir() {
        DIRECTORY
    } else if ty.is_file() {
        REGULAR_FILE
    } else if ty.is_symlink() {
        7
    } else if ty.is_block_device() {
        1
    } else if ty.is_char_device() {
        CHARACTER_DEVICE
    } else if ty.is_socket() {
        6
    } else {
        UNKNOWN
    }
}

fn stream_type(terminal: bool) -> u8 {
    if terminal { CHARACTER_DEVICE } else { UNKNOWN }
}

pub(super) fn fd_fdstat_get(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    use rights::*;
    let (ty, flags, base, inheriting) = match wasi.descriptors.get(args.u32(0))? {
        Descriptor::Input(input) => (stream_type(input.is_terminal()), 0, FILE & !(FD_SEEK | FD_TELL | FD_WRITE), 0),
        Descriptor::Output(output) => (stream_type(output.is_terminal()), 0, FILE & !(FD_SEEK | FD_TELL | FD_READ), 0),
        Descriptor::File(OpenFile { file, flags, read, write }) => {
            let mut base = FILE;
            if !*read {
                base &= !FD_READ;
            }
            if !*write {
                base &= !FD_WRITE;
            }
            (file_type(file.metadata()?.file_type()), *flags, base, 0)
        }
        Descriptor::Directory(_) => (self::DIRECTORY, 0, rights::DIRECTORY, ALL),
    };
    let mut stat = [0; 24];
    stat[0] = ty;
    stat[2..4].copy_from_slice(&flags.to_le_bytes());
    stat[8..16].copy_from_slice(&base.to_le_bytes());
    stat[16..24].copy_from_slice(&inheriting.to_le_bytes());
    Ok(memory.write(args.u32(1), &stat)?)
}

/// `append` is kept here and obeyed at each write. The other flags change nothing that preview1 lets a program see.
pub(super) fn fd_fdstat_set_flags(wasi: &mut Wasi, _: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let flags = u16::try_from(args.u32(1)).ok().filter(|f| *f < 32).ok_or(Errno::Invalid)?;
    match wasi.descriptors.get(args.u32(0))? {
        Descriptor::File(f) => f.flags = flags,
        Descriptor::Directory(_) => return Err(Errno::BadFd.into()),
        Descriptor::Input(_) | Descriptor::Output(_) => {}
    }
    Ok(())
}

/// Rights left the interface in practice; wasi-libc drops them when it opens files. Accepted for open descriptors.
pub(super) fn fd_fdstat_set_rights(wasi: &mut Wasi, _: &mut dyn GuestMemory, args: &Args) -> Outcome {
    wasi.descriptors.get(args.u32(0))?;
    Ok(())
}

fn nanoseconds(time: std::io::Result<SystemTime>) -> u64 {
    let Ok(time) = time else { return 0 };
    let since = time.duration_since(SystemTime::from_std(std::time::UNIX_EPOCH)).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn encode(m: &Metadata) -> [u8; 64] {
    let mut stat = [0; 64];
    let ctime = (m.ctime().max(0) as u64).saturating_mul(1_000_000_000).saturating_add(m.ctime_nsec().max(0) as u64);
    let words = [
        (0, cap_fs_ext::MetadataExt::dev(m)),
        (8, cap_fs_ext::MetadataExt::ino(m)),
        (24, cap_fs_ext::MetadataExt::nlink(m)),
        (32, m.len()),
        (40, nanoseconds(m.accessed())),
        (48, nanoseconds(m.modified())),
        (56, ctime),
    ];
    for (at, word) in words {
        stat[at..at + 8].copy_from_slice(&word.to_le_bytes());
    }
    stat[16] = file_type(m.file_type());
    stat
}

pub(super) fn fd_filestat_get(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let stat = match wasi.descriptors.get(args.u32(0))? {
        Descriptor::File(f) => encode(&f.file.metadata()?),
        Descriptor::Directory(d) => encode(&d.dir.dir_metadata()?),
        Descriptor::Input(i) => stream_stat(i.is_terminal()),
        Descriptor::Output(o) => stream_stat(o.is_terminal()),
    };
    Ok(memory.write(args.u32(1), &stat)?)
}

fn stream_stat(terminal: bool) -> [u8; 64] {
    let mut stat = [0; 64];
    stat[16] = stream_type(terminal);
    stat
}

pub(super) fn path_filestat_get(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let path = memory.string(args.u32(2), args.u32(3))?;
    let dir = &wasi.descriptors.dir(args.u32(0))?.dir;
    let metadata = if args.u32(1) & 1 != 0 { dir.metadata(&path)? } else { dir.symlink_metadata(&path)? };
    Ok(memory.write(args.u32(4), &encode(&metadata))?)
}

pub(super) fn fd_filestat_set_size(wasi: &mut Wasi, _: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let file = wasi.descriptors.file(args.u32(0))?;
    if !file.write {
        return Err(Errno::BadFd.into());
    }
    Ok(file.file.set_len(args.u64(1))?)
}

/// Makes the file at least as long as the range, as `posix_fallocate` does.
pub(super) fn fd_allocate(wasi: &mut Wasi, _: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let file = wasi.descriptors.file(args.u32(0))?;
    let end = args.u64(1).checked_add(args.u64(2)).ok_or(Errno::FileTooBig)?;
    if end > file.file.metadata()?.len() {
        file.file.set_len(end)?;
    }
    Ok(())
}

/// A hint; nothing observable follows from it.
pub(super) fn fd_advise(wasi: &mut Wasi, _: &mut dyn GuestMemory, args: &Args) -> Outcome {
    wasi.descriptors.file(args.u32(0))?;
    if args.u32(3) > 5 { Err(Errno::Invalid.into()) } else { Ok(()) }
}

/// The new value of one time stamp, from its flags (`set`, `set to now`).
fn time(flags: u32, set: u32, now: u32, value: u64) -> Result<Option<SystemTimeSpec>, Errno> {
    match (flags & set != 0, flags & now != 0) {
        (true, true) => Err(Errno::Invalid),
        (false, true) => Ok(Some(SystemTimeSpec::SymbolicNow)),
        (true, false) => {
            let at = std::time::UNIX_EPOCH.checked_add(Duration::from_nanos(value)).ok_or(Errno::Overflow)?;
            Ok(Some(SystemTimeSpec::Absolute(SystemTime::from_std(at))))
        }
        (false, false) => Ok(None),
    }
}

pub(super) fn fd_filestat_set_times(wasi: &mut Wasi, _: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let (accessed, modified) = (time(args.u32(3), 1, 2, args.u64(1))?, time(args.u32(3), 4, 8, args.u64(2))?);
    match wasi.descriptors.get(args.u32(0))? {
        Descriptor::File(f) => {
            let file = &f.file;
            let std_time = |spec: Option<SystemTimeSpec>| match spec {
                Some(SystemTimeSpec::Absolute(t)) => Some(t.into_std()),
                Some(SystemTimeSpec::SymbolicNow) => Some(std::time::SystemTime::now()),
                None => None,
            };
            let mut times = std::fs::FileTimes::new();
            if let Some(t) = std_time(accessed) {
                times = times.set_accessed(t);
            }
            if let Some(t) = std_time(modified) {
                times = times.set_modified(t);
            }
            Ok(file.try_clone()?.into_std().set_times(times)?)
        }
        Descriptor::Directory(d) => Ok(d.dir.set_times(".", accessed, modified)?),
        Descriptor::Input(_) | Descriptor::Output(_) => Err(Errno::Invalid.into()),
    }
}

pub(super) fn path_filestat_set_times(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let path = memory.string(args.u32(2), args.u32(3))?;
    let (accessed, modified) = (time(args.u32(6), 1, 2, args.u64(4))?, time(args.u32(6), 4, 8, args.u64(5))?);
    let dir = &wasi.descriptors.dir(args.u32(0))?.dir;
    if args.u32(1) & 1 != 0 {
        Ok(dir.set_times(&path, accessed, modified)?)
    } else {
        Ok(dir.set_symlink_times(&path, accessed, modified)?)
    }
}

pub(super) fn fd_prestat_get(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let length = preopened(wasi, args.u32(0))?.len() as u32;
    let mut prestat = [0; 8];
    prestat[4..8].copy_from_slice(&length.to_le_bytes());
    Ok(memory.write(args.u32(1), &prestat)?)
}

pub(super) fn fd_prestat_dir_name(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let name = preopened(wasi, args.u32(0))?;
    if name.len() > args.u32(2) as usize {
        return Err(Errno::NameTooLong.into());
    }
    Ok(memory.write(args.u32(1), name.as_bytes())?)
}

fn preopened(wasi: &mut Wasi, fd: u32) -> Result<&str, Errno> {
    match wasi.descriptors.get(fd)? {
        Descriptor::Directory(d) => d.preopened_as.as_deref().ok_or(Errno::BadFd),
        _ => Err(Errno::BadFd),
    }
}
