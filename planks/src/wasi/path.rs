//! Paths: everything that names a file below an open directory. `cap_std` keeps every path inside it.

use super::descriptor::{Descriptor, OpenDir, OpenFile};
use super::memory::GuestMemory;
use super::stat::file_type;
use super::{Args, Errno, Outcome, Wasi};
use cap_fs_ext::{FollowSymlinks, MetadataExt, OpenOptionsFollowExt};
use cap_std::fs::OpenOptions;

const CREATE: u32 = 1;
const DIRECTORY: u32 = 2;
const EXCLUSIVE: u32 = 4;
const TRUNCATE: u32 = 8;
const RIGHT_READ: u64 = 1 << 1 | 1 << 14;
const RIGHT_WRITE: u64 = 1 << 6 | 1 << 8 | 1 << 22;

pub(super) fn path_open(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let path = memory.string(args.u32(2), args.u32(3))?;
    let (oflags, rights, flags) = (args.u32(4), args.u64(5), args.u32(7) as u16);
    let follow = if args.u32(1) & 1 != 0 { FollowSymlinks::Yes } else { FollowSymlinks::No };
    let dir = &wasi.descriptors.dir(args.u32(0))?.dir;

    let is_dir = match dir.metadata(&path) {
        Ok(m) => m.is_dir(),
        Err(_) => false,
    };
    let opened = if oflags & DIRECTORY != 0 || (is_dir && oflags & (CREATE | TRUNCATE) == 0) {
        if oflags & (CREATE | EXCLUSIVE | TRUNCATE) != 0 {
            return Err(Errno::Invalid.into());
        }
        let dir = match follow {
            FollowSymlinks::Yes => dir.open_dir(&path)?,
            FollowSymlinks::No => cap_fs_ext::DirExt::open_dir_nofollow(dir, &path)?,
        };
        Descriptor::Directory(OpenDir { dir, preopened_as: None })
    } else {
        let write = rights & RIGHT_WRITE != 0 || oflags & TRUNCATE != 0;
        let read = rights & RIGHT_READ != 0 || !write;
        let mut options = OpenOptions::new();
        options.read(read).write(write).follow(follow);
        // Creating needs write access on the host, not of the guest.
        options.write(write || oflags & CREATE != 0);
        options.create(oflags & CREATE != 0).truncate(oflags & TRUNCATE != 0);
        options.create_new(oflags & CREATE != 0 && oflags & EXCLUSIVE != 0);
        let file = dir.open_with(&path, &options)?;
        Descriptor::File(OpenFile { file, flags, read, write })
    };
    let fd = wasi.descriptors.insert(opened)?;
    Ok(memory.put_u32(args.u32(8), fd)?)
}

pub(super) fn path_create_directory(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let path = memory.string(args.u32(1), args.u32(2))?;
    Ok(wasi.descriptors.dir(args.u32(0))?.dir.create_dir(path)?)
}

pub(super) fn path_remove_directory(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let path = memory.string(args.u32(1), args.u32(2))?;
    Ok(wasi.descriptors.dir(args.u32(0))?.dir.remove_dir(path)?)
}

pub(super) fn path_unlink_file(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let path = memory.string(args.u32(1), args.u32(2))?;
    Ok(wasi.descriptors.dir(args.u32(0))?.dir.remove_file(path)?)
}

pub(super) fn path_symlink(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let target = memory.string(args.u32(0), args.u32(1))?;
    let path = memory.string(args.u32(3), args.u32(4))?;
    Ok(wasi.descriptors.dir(args.u32(2))?.dir.symlink(target, path)?)
}

pub(super) fn path_readlink(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let path = memory.string(args.u32(1), args.u32(2))?;
    let target = wasi.descriptors.dir(args.u32(0))?.dir.read_link(path)?;
    let target = target.to_str().ok_or(Errno::IllegalSequence)?.as_bytes();
    let part = &target[..target.len().min(args.u32(4) as usize)];
    memory.write(args.u32(3), part)?;
    Ok(memory.put_u32(args.u32(5), part.len() as u32)?)
}

pub(super) fn path_rename(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let from = memory.string(args.u32(1), args.u32(2))?;
    let to = memory.string(args.u32(4), args.u32(5))?;
    let target = wasi.descriptors.dir(args.u32(3))?.dir.try_clone()?;
    Ok(wasi.descriptors.dir(args.u32(0))?.dir.rename(from, &target, to)?)
}

pub(super) fn path_link(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    if args.u32(1) & 1 != 0 {
        return Err(Errno::Invalid.into());
    }
    let from = memory.string(args.u32(2), args.u32(3))?;
    let to = memory.string(args.u32(5), args.u32(6))?;
    let target = wasi.descriptors.dir(args.u32(4))?.dir.try_clone()?;
    Ok(wasi.descriptors.dir(args.u32(0))?.dir.hard_link(from, &target, to)?)
}

/// Entries from the cookie on, as many as fit, the last one cut off at the end of the buffer as the interface has it.
pub(super) fn fd_readdir(wasi: &mut Wasi, memory: &mut dyn GuestMemory, args: &Args) -> Outcome {
    let (address, length) = (args.u32(1), args.u32(2) as usize);
    let cookie = args.u64(3);
    let dir = &wasi.descriptors.dir(args.u32(0))?.dir;
    let itself = dir.dir_metadata()?;
    let mut entries: Vec<(String, u64, u8)> =
        [".", ".."].map(|name| (name.to_string(), itself.ino(), file_type(itself.file_type()))).into();
    for entry in dir.entries()? {
        let entry = entry?;
        // A name that is no UTF-8 cannot be said in this interface.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let metadata = entry.metadata()?;
        entries.push((name, metadata.ino(), file_type(metadata.file_type())));
    }
    entries[2..].sort();

    let mut out = Vec::new();
    for (i, (name, inode, ty)) in entries.iter().enumerate().skip(usize::try_from(cookie).unwrap_or(usize::MAX)) {
        if out.len() >= length {
            break;
        }
        out.extend_from_slice(&(i as u64 + 1).to_le_bytes());
        out.extend_from_slice(&inode.to_le_bytes());
        out.extend_from_slice(&(name.len() as u32).to_le_bytes());
        out.extend_from_slice(&[*ty, 0, 0, 0]);
        out.extend_from_slice(name.as_bytes());
    }
    out.truncate(length);
    memory.write(address, &out)?;
    Ok(memory.put_u32(args.u32(4), out.len() as u32)?)
}
