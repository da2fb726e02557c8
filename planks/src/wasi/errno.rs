//! Error numbers of WASI preview1.

use std::io;

/// An error number. The values are the ABI's (`wasi_snapshot_preview1.witx`, type `errno`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "named after POSIX")]
pub enum Errno {
    TooBig = 1,
    Access = 2,
    Again = 6,
    BadFd = 8,
    Busy = 10,
    Exist = 20,
    Fault = 21,
    FileTooBig = 22,
    IllegalSequence = 25,
    Interrupted = 27,
    Invalid = 28,
    Io = 29,
    IsDirectory = 31,
    Loop = 32,
    TooManyFiles = 33,
    NameTooLong = 37,
    NoEntry = 44,
    NoSpace = 51,
    NoSystem = 52,
    NotDirectory = 54,
    NotEmpty = 55,
    NotSocket = 57,
    NotSupported = 58,
    Overflow = 61,
    NotPermitted = 63,
    Pipe = 64,
    Range = 68,
    ReadOnly = 69,
    SeekPipe = 70,
    CrossDevice = 75,
    NotCapable = 76,
}

impl From<io::Error> for Errno {
    fn from(e: io::Error) -> Errno {
        use io::ErrorKind as K;
        match e.kind() {
            K::NotFound => Errno::NoEntry,
            // cap-std reports a path that leaves its directory this way, without an OS error.
            K::PermissionDenied if e.raw_os_error().is_none() => Errno::NotPermitted,
            K::PermissionDenied => Errno::Access,
            K::AlreadyExists => Errno::Exist,
            K::WouldBlock => Errno::Again,
            K::NotADirectory => Errno::NotDirectory,
            K::IsADirectory => Errno::IsDirectory,
            K::DirectoryNotEmpty => Errno::NotEmpty,
            K::ReadOnlyFilesystem => Errno::ReadOnly,
            K::StorageFull | K::QuotaExceeded => Errno::NoSpace,
            K::NotSeekable => Errno::SeekPipe,
            K::FileTooLarge => Errno::FileTooBig,
            K::ResourceBusy | K::ExecutableFileBusy => Errno::Busy,
            K::CrossesDevices => Errno::CrossDevice,
            K::InvalidFilename => Errno::NameTooLong,
            K::InvalidInput | K::InvalidData => Errno::Invalid,
            K::BrokenPipe => Errno::Pipe,
            K::Unsupported => Errno::NotSupported,
            K::Interrupted => Errno::Interrupted,
            _ => match e.raw_os_error() {
                Some(raw) if raw == rustix::io::Errno::LOOP.raw_os_error() => Errno::Loop,
                Some(raw) if raw == rustix::io::Errno::MFILE.raw_os_error() => Errno::TooManyFiles,
                Some(raw) if raw == rustix::io::Errno::PERM.raw_os_error() => Errno::NotPermitted,
                _ => Errno::Io,
            },
        }
    }
}
